"""A smaller model as the draft: it runs gamma passes of its own, one token each."""

from collections.abc import Sequence

import torch

from draftsmith.core.gamma import check_branches
from draftsmith.drafters.contract import DraftContext, DraftState, SequenceView, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.trees import tree_pass
from draftsmith.errors import CacheFullError, InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["ModelDrafter", "ModelState"]


class ModelDrafter(StatefulDrafter):
    """Drafts with a language model (Leviathan et al., section 3.6; Chen et al., section 5).

    Args:
        model: Decoder-only for decoder-only targets, encoder-decoder for encoder-decoder ones.
        tokenizer: Its own, to be compared with the target's; None compares sizes of vocabularies.
        branches: Guesses for each position at most: 1 drafts chains, more a tree of gamma tokens.

    Raises:
        InvalidRequestError: If the model is none, or `branches` is more than 1 and no number up to
            8, or the model runs no trees.

    Example:
        >>> from draftsmith.models.load import load_model
        >>> ModelDrafter(load_model("qwen2.5-coder-0.5b-instruct")).name
        'qwen2.5-coder-0.5b-instruct'
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer | None = None, branches: int = 1
    ) -> None:
        if not isinstance(model, LanguageModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequestError(
                f"model must be a loaded model, got {model!r:.80}: use load_engine(target, draft)"
            )
        self.model = model
        self.branches = check_branches(branches)
        if self.branches > 1 and not model.takes_trees:
            raise InvalidRequestError(
                f"branches={branches} needs a draft that a native decoder runs on a CPU, and "
                f"{model.traits.name} is none: leave it out"
            )
        self.tokenizer = tokenizer
        self.name = model.traits.name
        self.uses_torch_threads = model.uses_torch_threads

    def open(self) -> "ModelState":
        """A cache of the model, without rows."""
        return ModelState(self.model, self.branches)

    def with_branches(self, branches: int) -> "ModelDrafter":
        """The same over the same model, with another number of guesses for each position.

        Args:
            branches: From 1, which drafts chains, to 8.

        Returns:
            A drafter of its own.

        Raises:
            InvalidRequestError: If `branches` is no number from 1 to 8.
        """
        return ModelDrafter(self.model, self.tokenizer, branches)


class ModelState(DraftState):
    """The model's cache rows of one engine's sequences."""

    def __init__(self, model: LanguageModel, branches: int = 1) -> None:
        self._branches = branches
        self.follower = Follower(model)
        self.followers = (self.follower,)

    def propose(self, context: DraftContext) -> Draft:
        """Run the model token by token; each token is drawn from its law.

        Nothing is proposed for a sequence that the model has no room for.
        """
        wanted = [i for i, view in enumerate(context.sequences) if self._is_wanted(view)]
        if self._branches > 1 and context.takes_trees:
            return self._grow(context, wanted)
        feeds = {i: self.follower.catch_up(context.sequences[i]) for i in wanted}
        live = wanted
        while live := context.wanting(live):
            logits = self.follower.forward(
                [context.sequences[i] for i in live], [feeds[i] for i in live]
            )
            rows = torch.arange(len(live), device=logits.device)
            last = torch.tensor([len(feeds[i]) - 1 for i in live], device=logits.device)
            drawn = context.draw(live, logits[rows, last])
            known = context.follow(live)
            feeds = {i: [token, *more] for i, token, more in zip(live, drawn, known, strict=True)}
        return context.drawn()

    def _grow(self, context: DraftContext, wanted: Sequence[int]) -> Draft:
        """Run the model over the nodes to be read, step by step."""
        growth = context.grow(wanted, self._branches)
        while tips := growth.tips():
            rows = dict.fromkeys(tip.row for tip in tips)
            feeds = {row: self.follower.catch_up(context.sequences[row]) for row in rows}
            fed = tree_pass(growth, tips, feeds)
            views = [context.sequences[row] for row in rows]
            logits = self.follower.forward(views, fed.tokens, fed.parents)
            lines, columns = torch.tensor(fed.places, device=logits.device).T
            growth.branch(logits[lines, columns])
        return context.drawn()

    def release(self, sequence: int) -> None:
        """Close the row of a sequence."""
        self.follower.release(sequence)

    def _is_wanted(self, view: SequenceView) -> bool:
        length, end = self.follower.model.traits.context_length, len(view.tokens) + view.gamma
        return view.gamma > 0 and (length is None or end <= length) and self._has_memory(view, end)

    def _has_memory(self, view: SequenceView, num_tokens: int) -> bool:
        try:
            self.follower.make_room(view, num_tokens)
        except CacheFullError:
            return False
        return True
