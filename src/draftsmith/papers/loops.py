"""Figure 1 of Chen et al. (arXiv:2302.01318) measured: texts, loops and efficiency by gamma."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from draftsmith.core.gamma import check_gamma
from draftsmith.core.params import SamplingParams
from draftsmith.core.theory import chen_efficiency
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import Prompt
from draftsmith.errors import DraftsmithError, InvalidRequestError
from draftsmith.papers.comparison import Item
from draftsmith.papers.printed_chen import TEXT_LENGTH
from draftsmith.report.figure import Figure, Series
from draftsmith.report.page import Table

__all__ = ["Panel", "Spread", "TextTiming", "measured", "panels", "time_texts"]

_WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class TextTiming:
    """One text at one gamma, from its second loop on: the first one reads the prompt as well."""

    prompt: int
    """Which prompt, from 0."""
    gamma: int
    num_tokens: int
    num_loops: int
    ms: float


class Spread(NamedTuple):
    """A mean, and the standard deviation over texts; 0 for one text."""

    mean: float
    std: float


@dataclass(frozen=True)
class Panel:
    """One gamma: a point in each of the figure's three panels."""

    gamma: int
    num_texts: int
    text_ms: Spread
    """For 128 tokens."""
    efficiency: float
    """Tokens of a loop over gamma + 1."""
    loop_ms: Spread
    speedup: float
    """Of the mean time for a text, over that at gamma 0 with the same prompts."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        spreads = {"text_ms": self.text_ms._asdict(), "loop_ms": self.loop_ms._asdict()}
        return {**asdict(self), **spreads}


def time_texts(
    engine: Engine,
    prompts: Sequence[Prompt],
    gammas: Sequence[int],
    params: SamplingParams,
    *,
    num_tokens: int = TEXT_LENGTH,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[TextTiming]:
    """Generate every prompt at every gamma, in turn, so that whatever else happens meets all alike.

    Args:
        engine: Its models are used, its own gamma is not.
        prompts: At least one.
        gammas: Drafted tokens per round; 0 is plain decoding.
        params: How to sample; ends of text are gone past, and the length is set here.
        num_tokens: Timed tokens of each text, at least.
        clock: Seconds.

    Raises:
        InvalidRequestError: If the engine has no draft, or a text has no room for so many tokens.
    """
    if engine.draft is None or not prompts or not gammas:
        raise InvalidRequestError("timing loops needs a draft, prompts and gammas")
    # A draft is never cut short at the end, which would be a loop of another kind.
    room = num_tokens + 2 * (max(gammas) + 1)
    params = replace(params, max_tokens=room, min_tokens=0, ignore_eos=True, stop=(), n=1)
    engines = {
        gamma: Engine(
            engine.target,
            engine.tokenizer,
            engine.draft,
            gamma=check_gamma(gamma),
            prefix_caching=False,
        )
        for gamma in gammas
    }
    for gamma in gammas:
        _time(engines[gamma], 0, prompts[0], gamma, params, _WARM_UP_TOKENS, clock)
    for number, prompt in enumerate(prompts):
        # Turned round from prompt to prompt, so that no gamma always comes first.
        shift = number % len(gammas)
        for gamma in (*gammas[shift:], *gammas[:shift]):
            yield _time(engines[gamma], number, prompt, gamma, params, num_tokens, clock)


def _time(
    engine: Engine,
    number: int,
    prompt: Prompt,
    gamma: int,
    params: SamplingParams,
    num_tokens: int,
    clock: Callable[[], float],
) -> TextTiming:
    try:
        run = engine.start(prompt, params)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"prompt {number}: {error}") from error
    events = iter(run)
    next(events)
    start, count, loops = clock(), 0, 0
    for event in events:
        count, loops = count + len(event.tokens), loops + 1
        stop = clock()
        if event.completion is not None and event.completion.error is not None:
            raise DraftsmithError(f"prompt {number}: {event.completion.error}")
        if count >= num_tokens:
            list(run.abort())
            return TextTiming(number, gamma, count, loops, 1e3 * (stop - start))
    raise InvalidRequestError(
        f"prompt {number} leaves room for {count} of {num_tokens} tokens: shorten it"
    )


def panels(timings: Sequence[TextTiming]) -> list[Panel]:
    """Sum texts up by gamma.

    Args:
        timings: Of gamma 0 as well, which the speed-ups are taken over; prompts that do not have
            every gamma (an interrupted run's last) are left out.

    Raises:
        InvalidRequestError: If no prompt has every gamma, or none of them is 0.
    """
    gammas = sorted({one.gamma for one in timings})
    present = {(one.prompt, one.gamma) for one in timings}
    whole = [
        prompt
        for prompt in sorted({one.prompt for one in timings})
        if all((prompt, gamma) in present for gamma in gammas)
    ]
    if not whole or gammas[0] != 0:
        raise InvalidRequestError("no prompt was timed at every gamma, 0 included: let one finish")
    by_gamma = {
        gamma: [one for one in timings if one.gamma == gamma and one.prompt in whole]
        for gamma in gammas
    }
    plain = _spread([_text_ms(one) for one in by_gamma[0]]).mean
    return [_panel(gamma, texts, plain) for gamma, texts in by_gamma.items()]


def _panel(gamma: int, texts: Sequence[TextTiming], plain_ms: float) -> Panel:
    text_ms = _spread([_text_ms(one) for one in texts])
    tokens = sum(one.num_tokens for one in texts) / sum(one.num_loops for one in texts)
    return Panel(
        gamma=gamma,
        num_texts=len(texts),
        text_ms=text_ms,
        efficiency=chen_efficiency(tokens, gamma),
        loop_ms=_spread([one.ms / one.num_loops for one in texts]),
        speedup=plain_ms / text_ms.mean,
    )


def _text_ms(one: TextTiming) -> float:
    return TEXT_LENGTH * one.ms / one.num_tokens


def _spread(values: Sequence[float]) -> Spread:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), std)


def measured(points: Sequence[Panel], what: str) -> Item:
    """The three panels as an item of the reproduction.

    Args:
        points: One a gamma, in order.
        what: The models, the prompts and the sampling, in words.
    """
    best = min(points, key=lambda one: one.text_ms.mean)
    rows = [
        [
            str(one.gamma),
            f"{one.text_ms.mean:.0f} ± {one.text_ms.std:.0f}",
            f"{one.speedup:.2f}x",
            f"{one.efficiency:.2f}",
            f"{one.loop_ms.mean:.2f} ± {one.loop_ms.std:.2f}",
        ]
        for one in points
    ]
    columns = ["K", f"ms for {TEXT_LENGTH} tokens", "speed", "efficiency", "ms of a loop"]
    remark = (
        f"{what}; {best.num_texts} texts a point, mean ± standard deviation over texts, gammas in "
        f"turn. The first loop of a text, which reads the prompt, is left out. Fastest is "
        f"K = {best.gamma}."
    )
    return Item(
        "Figure 1, measured",
        "texts, efficiency and loops by K",
        remarks=[remark],
        tables=[Table("", columns, rows)],
        figures=_figures(points),
    )


def _figures(points: Sequence[Panel]) -> list[Figure]:
    gammas = [one.gamma for one in points]
    shares = Series("measured", gammas, [one.efficiency for one in points])
    return [
        Figure(
            "Measured: time for a text",
            "K",
            f"ms for {TEXT_LENGTH} tokens",
            [_series(gammas, [one.text_ms for one in points])],
            caption="The band is one standard deviation over texts.",
        ),
        Figure("Measured: efficiency", "K", "tokens of a loop / (K + 1)", [shares]),
        Figure(
            "Measured: time of a loop",
            "K",
            "ms of a loop",
            [_series(gammas, [one.loop_ms for one in points])],
            caption="The band is one standard deviation over texts.",
        ),
    ]


def _series(gammas: Sequence[int], spreads: Sequence[Spread]) -> Series:
    means = [one.mean for one in spreads]
    low, high = [one.mean - one.std for one in spreads], [one.mean + one.std for one in spreads]
    return Series("measured", gammas, means, low, high)
