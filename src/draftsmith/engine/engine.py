"""The engine: a target, a drafter, and prompts to generate for."""

import secrets
from collections.abc import Iterator, Sequence
from typing import cast

from draftsmith.core.params import Gamma, SamplingParams, check_gamma
from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.model import ModelDrafter
from draftsmith.engine.auto_gamma import AutoGamma
from draftsmith.engine.control import Controller, FixedGamma
from draftsmith.engine.generation import Generation, Job
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.engine.request import Prompt, is_single, make_request
from draftsmith.engine.result import GenerationResult, StreamEvent
from draftsmith.errors import DraftsmithError, InvalidRequestError, NotRollbackableError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.tokenizer import Tokenizer, check_same_vocabulary

__all__ = ["Engine"]


class Engine:
    """Generates with a target model, and faster with a drafter; the text's law is the same.

    Each round, every live sequence of the batch gets a draft; one pass of the target checks them
    all, and each sequence keeps its own accepted length. `gamma=0` is plain decoding through the
    same code.

    Args:
        target: The model whose law is sampled.
        tokenizer: Turns text into ids and back; None serves token ids only.
        draft: What guesses; None decodes plainly.
        gamma: Drafted tokens per round, 0 to 32; "auto" drafts what pays, and nothing where
            nothing does: see `AutoGamma`.
        max_batch_size: Sequences that run at once; the rest wait for their turn.
        draft_tokenizer: The draft model's, to be checked against the target's.

    Raises:
        InvalidRequestError: If gamma or the batch size is out of range, or only one of the two
            models is an encoder-decoder.
        NotRollbackableError: If drafts are wanted of a target (or a draft) that cannot roll back.
        VocabularyMismatchError: If the draft's tokenizer is not the target's.
    """

    def __init__(
        self,
        target: LanguageModel,
        tokenizer: Tokenizer | None = None,
        draft: Drafter | None = None,
        *,
        gamma: Gamma = 4,
        max_batch_size: int = 16,
        draft_tokenizer: Tokenizer | None = None,
    ) -> None:
        if max_batch_size < 1:
            raise InvalidRequestError(f"max_batch_size must be 1 or more, got {max_batch_size}")
        self.target = target
        self.tokenizer = tokenizer
        self.gamma: Gamma = check_gamma(gamma) if draft is not None else 0
        self.draft = draft if self.gamma else None
        self.controller: Controller = (
            AutoGamma() if self.gamma == "auto" else FixedGamma(self.gamma)
        )
        self.max_batch_size = max_batch_size
        if self.draft is not None:
            _check_pair(target, self.draft)
            if tokenizer and draft_tokenizer:
                names = (target.traits.name, self.draft.name)
                check_same_vocabulary(tokenizer, draft_tokenizer, *names)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[GenerationResult]:
        """Generate for one prompt or many.

        A request of a batch that cannot be served ends with `finish_reason` "error" and the
        others finish; a single prompt that cannot be served raises.

        Args:
            prompts: Text, token ids, or a conversation; or a list of such.
            params: For all of them, or one for each; None is greedy.

        Returns:
            One result a prompt, in order.

        Raises:
            InvalidRequestError: If the only prompt, or the number of params, is not valid.
        """
        run = self.start(prompts, params)
        for _ in run:
            pass
        return run.results()

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> Iterator[StreamEvent]:
        """Generate as `generate` does, and yield text as the rounds make it certain.

        Characters are never split, and text that may become part of a stop string is held back.
        """
        yield from self.start(prompts, params)

    def start(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> Generation:
        """Set a run up: iterate over it for its events; it can be aborted."""
        many = cast(Sequence[Prompt], [prompts] if is_single(prompts) else prompts)
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(many)
        if len(params) != len(many):
            raise InvalidRequestError(f"params must be one, or {len(many)}, got {len(params)}")
        if not many:
            raise InvalidRequestError("prompts is empty: give at least one")
        may_raise = len(many) == 1
        jobs = [self._job(*pair, may_raise=may_raise) for pair in zip(many, params, strict=True)]
        return Generation(self.target, self.draft, self.controller, self.max_batch_size, jobs)

    def _job(self, prompt: Prompt, params: SamplingParams, *, may_raise: bool) -> Job:
        try:
            request = make_request(prompt, params, self.target.traits, self.tokenizer)
        except DraftsmithError as error:
            if may_raise:
                raise
            return Job.refused(error)
        seed = secrets.randbits(64) if params.seed is None else params.seed
        device, tokenizer = self.target.device, self.tokenizer
        samples = [request.sequence(i, seed, device, tokenizer) for i in range(params.n)]
        return Job(tuple(request.source or request.prompt), samples)


def _check_pair(target: LanguageModel, draft: Drafter) -> None:
    """Refuse speculation where it cannot be done."""
    models = [target, *_models_of(draft)]
    for model in models:
        if not model.traits.can_rollback:
            raise NotRollbackableError(
                f"{model.traits.name} cannot speculate: {model.traits.why_no_rollback}; "
                "use gamma=0 for plain decoding"
            )
    for model in models[1:]:
        if model.traits.is_encoder_decoder != target.traits.is_encoder_decoder:
            raise InvalidRequestError(
                f"draft {model.traits.name} and target {target.traits.name} must both be "
                "encoder-decoder models or both be decoder-only"
            )


def _models_of(draft: Drafter) -> list[LanguageModel]:
    if isinstance(draft, SpeculativeDrafter):
        return [draft.model, *_models_of(draft.inner)]
    return [draft.model] if isinstance(draft, ModelDrafter) else []
