"""A smaller model as the draft: it runs gamma passes of its own, one token each."""

import torch

from draftsmith.drafters.contract import (
    Draft,
    DraftContext,
    DraftState,
    SequenceView,
    StatefulDrafter,
)
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

    Example:
        >>> from draftsmith.models.load import load_model
        >>> ModelDrafter(load_model("qwen2.5-coder-0.5b-instruct")).name
        'qwen2.5-coder-0.5b-instruct'
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
        if not isinstance(model, LanguageModel):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequestError(
                f"model must be a loaded model, got {model!r:.80}: use load_engine(target, draft)"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.name = model.traits.name
        self.uses_torch_threads = model.uses_torch_threads

    def open(self) -> "ModelState":
        """A cache of the model, without rows."""
        return ModelState(self.model)


class ModelState(DraftState):
    """The model's cache rows of one engine's sequences."""

    def __init__(self, model: LanguageModel) -> None:
        self.follower = Follower(model)
        self.followers = (self.follower,)

    def propose(self, context: DraftContext) -> Draft:
        """Run the model token by token; each token is drawn from its law.

        Nothing is proposed for a sequence that the model has no room for.
        """
        wanted = [i for i, view in enumerate(context.sequences) if self._is_wanted(view)]
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
