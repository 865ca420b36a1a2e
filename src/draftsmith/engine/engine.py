"""The engine: a target, a drafter, and prompts to generate for."""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from draftsmith.core.gamma import Gamma, gamma_for
from draftsmith.core.params import SamplingParams
from draftsmith.core.values import check_flag, check_whole
from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.lengths import check_fits, fits
from draftsmith.engine.control.auto import AutoGamma
from draftsmith.engine.control.contract import Controller
from draftsmith.engine.control.fixed import FixedGamma
from draftsmith.engine.generation import Generation, Job
from draftsmith.engine.pairs import check_counted, check_kinds, check_pair
from draftsmith.engine.requests.prompts import PlainPrompt, Prompts, plain_prompts
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.result import GenerationResult, StreamEvent
from draftsmith.engine.room import CacheStatistics, check_cache_tokens
from draftsmith.engine.scheduler import Scheduler
from draftsmith.errors import DraftsmithError, InvalidRequestError
from draftsmith.models.contract import CacheSettings, LanguageModel
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["Engine"]

_DRAFT_SETTINGS = ("draft_temperature", "draft_top_k", "draft_top_p")


class Engine:
    """Generates with a target model, and faster with a drafter; the text's law is the same.

    Each round, every live sequence of the batch gets a draft; one pass of the target checks them
    all, and each sequence keeps its own accepted length. `gamma=0` is plain decoding through the
    same code.

    Tokens that a grammar forces (`structured_outputs`) are drafted without a drafter too, unless
    `gamma=0` asks for plain decoding.

    An engine is safe to share between threads: whoever calls, their sequences run in one batch,
    and join and leave it between rounds.

    Args:
        target: The model whose law is sampled.
        tokenizer: Turns text into ids and back; None serves token ids only.
        draft: What guesses; None decodes plainly.
        gamma: Drafted tokens per round, 0 to 32; "auto" drafts what pays, and nothing where
            nothing does: see `AutoGamma`; None is 4 with a draft.
        max_batch_size: Sequences that run at once; the rest wait for their turn.
        draft_tokenizer: The draft model's, to be checked against the target's. Without it, the
            vocabularies must be of one size.
        cache_tokens: Tokens whose keys and values each model holds at most, of all sequences and
            of what is kept of ended ones, in whole blocks of 64. Where there is no room, sequences
            wait; the youngest lets go of what it holds and reads its text again later, with the
            same text in the end. None is as many as are asked for, on a GPU as its memory takes.
        prefix_caching: Whether texts that begin alike share the keys and values of that, also with
            texts that have ended; native decoders only. No text depends on it.

    Raises:
        InvalidRequestError: If gamma, the batch size or `cache_tokens` is out of range, there is a
            gamma and no draft, only one of the two models is an encoder-decoder, or the memory of a
            model cannot be counted.
        NotRollbackableError: If drafts are wanted of a target (or a draft) that cannot roll back.
        VocabularyMismatchError: If the draft's tokenizer is not the target's.

    Example:
        >>> import draftsmith
        >>> from draftsmith.models.load import load_model, load_tokenizer
        >>> name = "smollm2-135m-instruct"
        >>> engine = Engine(
        ...     load_model(name), load_tokenizer(name), draftsmith.PromptLookupDrafter(), gamma=3)
        >>> len(engine.generate("one prompt", max_tokens=4)[0].token_ids)
        4
    """

    def __init__(
        self,
        target: LanguageModel,
        tokenizer: Tokenizer | None = None,
        draft: Drafter | None = None,
        *,
        gamma: Gamma | None = None,
        max_batch_size: int = 16,
        draft_tokenizer: Tokenizer | None = None,
        cache_tokens: int | None = None,
        prefix_caching: bool = True,
    ) -> None:
        check_kinds(target, tokenizer, draft, draft_tokenizer)
        self.gamma: Gamma = _gamma_for(gamma, draft)
        self.max_batch_size = check_whole("max_batch_size", max_batch_size)
        if self.max_batch_size < 1:
            raise InvalidRequestError(f"max_batch_size must be 1 or more, got {max_batch_size}")
        self.target = target
        self.tokenizer = tokenizer
        self.draft = draft if self.gamma else None
        self._is_plain_on_purpose = gamma is not None and not self.gamma
        is_drawn = self.draft is None or self.draft.draws_from_law
        controller = (
            AutoGamma(is_drawn=is_drawn) if self.gamma == "auto" else FixedGamma(self.gamma)
        )
        self.cache_tokens = check_cache_tokens(cache_tokens)
        self.scheduler = Scheduler(
            target,
            self.draft,
            controller,
            self.max_batch_size,
            memory=CacheSettings(self.cache_tokens, check_flag("prefix_caching", prefix_caching)),
        )
        if self.draft is not None:
            check_pair(target, tokenizer, self.draft, draft_tokenizer)
        if self.cache_tokens is not None:
            check_counted(self.cache_tokens, target, self.draft)

    @property
    def controller(self) -> Controller:
        """Who says how much is drafted, and learns from every round."""
        return self.scheduler.controller

    @controller.setter
    def controller(self, controller: Controller) -> None:
        self.scheduler.controller = controller

    def generate(
        self,
        prompts: Prompts,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        **sampling: Any,  # noqa: ANN401 - any field's type
    ) -> list[GenerationResult]:
        """Generate for one prompt or many.

        A request of a batch that cannot be served ends with `finish_reason` "error" and the
        others finish; a single prompt that cannot be served raises.

        Args:
            prompts: Text, token ids, or a conversation; or a list of such. Ids may be a tensor, an
                array, or a tokenizer's mapping with `input_ids` and `attention_mask`.
            params: For all of them, or one for each; None is greedy.
            **sampling: Fields of `SamplingParams`, in the place of `params`.

        Returns:
            One result a prompt, in order.

        Raises:
            InvalidRequestError: If the only prompt, or the number of params, is not valid.
        """
        return self.start(prompts, params, **sampling).finish()

    def stream(
        self,
        prompts: Prompts,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        **sampling: Any,  # noqa: ANN401 - any field's type
    ) -> Iterator[StreamEvent]:
        """Generate as `generate` does, and yield text as the rounds make it certain.

        Characters are never split, and text that may become part of a stop string is held back.
        Leaving the loop ends the run.

        Args:
            prompts: As `generate` takes them.
            params: As `generate` takes them.
            **sampling: As `generate` takes them.

        Yields:
            New text of one sample; the last event of a sample has its whole completion, the last
            of a prompt its whole result.

        Raises:
            InvalidRequestError: As `generate` does, when the first event is asked for.

        Example:
            >>> import draftsmith
            >>> engine = draftsmith.load_engine("smollm2-135m-instruct", "prompt-lookup")
            >>> sum(len(event.tokens) for event in engine.stream("one prompt", max_tokens=4))
            4
        """
        yield from self.start(prompts, params, **sampling)

    def start(
        self,
        prompts: Prompts,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        **sampling: Any,  # noqa: ANN401 - any field's type
    ) -> Generation:
        """Set a run up: iterate over it for its events; it can be aborted.

        Args:
            prompts: As `generate` takes them.
            params: As `generate` takes them.
            **sampling: As `generate` takes them.

        Returns:
            The run, with nothing done yet.

        Raises:
            InvalidRequestError: As `generate` does.
        """
        many, _ = plain_prompts(prompts)
        each = _params_for(params, sampling, len(many))
        may_raise = len(many) == 1
        jobs = [self._job(*pair, may_raise=may_raise) for pair in zip(many, each, strict=True)]
        return Generation(self.scheduler, jobs)

    def cache_statistics(self) -> CacheStatistics:
        """What the target's cache holds at the moment, and what became of it so far.

        Returns:
            Tokens held and kept, recalled, and how often a sequence had to make way.
        """
        return self.scheduler.cache_statistics()

    def reset_prefix_cache(self) -> None:
        """Give back the memory of what is kept of texts that have ended; waits for the round."""
        self.scheduler.forget_prefixes()

    def _job(self, prompt: PlainPrompt, params: SamplingParams, *, may_raise: bool) -> Job:
        try:
            return self.prepare(prompt, params)
        except DraftsmithError as error:
            if may_raise:
                raise
            return Job.refused(error)

    def prepare(self, prompt: PlainPrompt, params: SamplingParams) -> Job:
        """One prompt's samples with nothing done yet, for whoever runs the scheduler himself.

        Args:
            prompt: Text, token ids, or a conversation.
            params: How to sample.

        Returns:
            The samples, ready for `Scheduler.add`.

        Raises:
            InvalidRequestError: If the prompt or a parameter cannot be served.

        Example:
            >>> import draftsmith
            >>> engine = draftsmith.load_engine("smollm2-135m-instruct", "prompt-lookup")
            >>> len(engine.prepare("one prompt", draftsmith.SamplingParams(n=2)).samples)
            2
        """
        self._check_draft_settings(params)
        traits, tokenizer, most = self.target.traits, self.tokenizer, self.scheduler.most_tokens
        request = make_request(prompt, params, traits, tokenizer, most_tokens=most)
        seed = secrets.randbits(64) if params.seed is None else params.seed
        device = self.target.device
        samples = [request.sequence(i, seed, device, tokenizer) for i in range(params.n)]
        for sample in samples:
            sample.drafts_forced = not self._is_plain_on_purpose
        return Job(tuple(request.source or request.prompt), samples)

    def _check_draft_settings(self, params: SamplingParams) -> None:
        odd = next((name for name in _DRAFT_SETTINGS if getattr(params, name) is not None), None)
        if odd is None:
            return
        # gamma=0 switches drafting off, whoever the draft was: its settings wait.
        if self.draft is None and not self._is_plain_on_purpose:
            value = getattr(params, odd)
            raise InvalidRequestError(f"{odd}={value} needs a draft: give one, or leave {odd} out")
        if self.draft is not None and not self.draft.draws_from_law:
            raise InvalidRequestError(
                f"{odd} is for drafts that are drawn, and {self.draft.name} draws none: "
                f"leave {odd}={getattr(params, odd)} out"
            )


def _gamma_for(gamma: Gamma | None, draft: Drafter | None) -> Gamma:
    """Gamma as it holds for a drafter."""
    found = gamma_for(gamma, has_draft=draft is not None)
    if draft is None or found == "auto":
        return found
    if gamma is None and not fits(found, draft):
        return draft.longest
    check_fits(found, draft)
    return found


def _params_for(
    params: SamplingParams | Sequence[SamplingParams] | None, sampling: dict[str, Any], count: int
) -> list[SamplingParams]:
    """One for each prompt."""
    if sampling:
        if params is not None:
            raise InvalidRequestError(
                f"params and {next(iter(sampling))} were both given: put all options in one of them"
            )
        params = SamplingParams.from_options(**sampling)
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if not isinstance(params, list | tuple):
        raise InvalidRequestError(
            f"params must be SamplingParams, or a list of them, got {params!r:.80}"
        )
    odd: list[object] = [one for one in params if not isinstance(one, SamplingParams)]  # pyright: ignore[reportUnnecessaryIsInstance]
    if odd:
        raise InvalidRequestError(f"params must be made of SamplingParams, got {odd[0]!r:.80}")
    if len(params) != count:
        raise InvalidRequestError(f"params must be one, or {count}, got {len(params)}")
    return list(params)
