"""What a head would be worth: acceptance on held-out text, by place, and the speed from it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.heads.block import Block, BlockHead
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.drafter import HeadDrafter
from draftsmith.drafters.heads.steps import Span
from draftsmith.drafters.model import ModelDrafter
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.train.pupil import Pupil
from draftsmith.train.teacher import Lesson, Teacher, batches
from draftsmith.train.texts import Text

__all__ = [
    "Acceptance",
    "Costs",
    "Gain",
    "Tally",
    "acceptance",
    "foretold",
    "measured_costs",
    "no_dearer_than_wider",
]

_MOST_GAMMA = 8
_CONTEXT = 64
_REPEATS = 7
_MOST_TOKENS = 30_000
"""Of held-out text that one trial looks at."""
_LEAST = 1e-9


@dataclass(frozen=True)
class Acceptance:
    """Of a drafted token by its place in the draft, if all before it were kept."""

    greedy: Sequence[float]
    """At temperature 0: how often the two likeliest tokens are one."""
    sampled: Sequence[float]
    """At the training's temperature: the overlap of the two laws, the sum of their minimum."""
    num_tokens: int

    @property
    def score(self) -> float:
        """One number to compare by: tokens a pass beyond the first, both temperatures' mean."""
        return (_tokens(self.greedy, len(self.greedy)) + _tokens(self.sampled, 0)) / 2 - 1


class Costs(NamedTuple):
    """Seconds, measured on this machine."""

    plain_s: float
    """Of a target pass over one token."""
    checks_s: Sequence[float]
    """Of one over 1, 2, 3, … tokens."""
    drafts_s: Sequence[float]
    """Of a draft of 1, 2, 3, … tokens."""


class Gain(NamedTuple):
    """What is to be expected of a chain of drafts."""

    gamma: int
    tokens_per_pass: float
    speed_up: float


@torch.no_grad()
def acceptance(
    pupil: Pupil,
    teacher: Teacher,
    texts: Sequence[Text],
    ids: Tensor | None,
    temperature: float,
) -> Acceptance:
    """Hold a head's laws against the target's on texts that it was not trained on.

    Args:
        pupil: In plain torch.
        teacher: With the target.
        texts: Held out.
        ids: Of each drafted id the target's.
        temperature: Of the sampled rates; 0 counts as 1.
    """
    device = teacher.device
    greedy, sampled = (Tally(pupil.num_places, device) for _ in range(2))
    ids = None if ids is None else ids.to(device)
    some, size = list[Text](), 0
    for text in texts:
        some.append(text)
        size += len(text.tokens)
        if size > _MOST_TOKENS:
            break
    for part in batches(some, 2048, 0, 0):
        lesson = teacher.lesson(part)
        laws = _laws(teacher, lesson, temperature)
        along = torch.zeros(2, len(laws), device=device)
        for drafted in pupil.drafts(lesson, None):
            law = laws[drafted.of_law]
            draft = (drafted.logits.float() / (temperature or 1.0)).softmax(-1)
            best = draft.argmax(-1)
            inside = law if ids is None else law[:, ids]
            is_right = (best if ids is None else ids[best]) == law.argmax(-1)
            overlap = torch.minimum(inside, draft).sum(-1)
            if pupil.is_alike_everywhere:
                along[:, drafted.of_law] = torch.stack((is_right.float(), overlap))
            else:
                greedy.add(drafted.place, is_right)
                sampled.add(drafted.place, overlap)
        if pupil.is_alike_everywhere:
            for tally, kept in zip((greedy, sampled), along, strict=True):
                tally.add_along(kept.view(lesson.is_own.shape), lesson.is_own.to(device))
    return Acceptance(greedy.rates, sampled.rates, greedy.num_first)


class Tally:
    """Of every place of a draft, how many tokens were tested there, and how many of them kept."""

    def __init__(self, num_places: int, device: torch.device) -> None:
        self._kept, self._tested = (torch.zeros(num_places, device=device) for _ in range(2))

    def add(self, place: int, kept: Shaped[Tensor, " rows"]) -> None:
        """Tokens at one place, each with its chance."""
        self._kept[place] += kept.sum()
        self._tested[place] += len(kept)

    def add_along(self, kept: Float[Tensor, "batch n"], is_own: Bool[Tensor, "batch n"]) -> None:
        """Drafts that begin at every token: one is tested if all before it in the draft were kept.

        Args:
            kept: The chance of every token.
            is_own: Which tokens the target wrote.
        """
        tested = is_own.float()
        for place in range(min(len(self._kept), is_own.shape[1])):
            tested = tested[:, : is_own.shape[1] - place] * is_own[:, place:]
            self._tested[place] += tested.sum()
            tested = tested * kept[:, place:]
            self._kept[place] += tested.sum()

    @property
    def rates(self) -> list[float]:
        """Kept of those tested, by place."""
        return (self._kept / self._tested.clamp(min=_LEAST)).tolist()

    @property
    def num_first(self) -> int:
        """Tokens that were tested at the first place."""
        return int(self._tested[0])


def _laws(teacher: Teacher, lesson: Lesson, temperature: float) -> Tensor:
    logits = teacher.tables.logits(lesson.final.flatten(0, 1))
    return (logits / (temperature or 1.0)).softmax(-1)


def _tokens(rates: Sequence[float], gamma: int) -> float:
    """Expected tokens of a pass with a chain of so many drafts; 0 is as many as there are rates."""
    kept, total = 1.0, 1.0
    for place in range(gamma or len(rates)):
        # Beyond what was tried a place is taken to be as good as the last one.
        kept *= rates[min(place, len(rates) - 1)]
        total += kept
    return total


def foretold(rates: Sequence[float], costs: Costs) -> Gain:
    """The chain that should bring the most tokens per second.

    Args:
        rates: Of `Acceptance`.
        costs: Of this machine.

    Returns:
        Its length, what a pass brings, and the speed beside plain decoding.

    Example:
        >>> foretold([0.8, 0.7], Costs(10.0, [10.0, 11.0, 12.0], [0.5, 1.0])).gamma
        2
    """
    rounds = zip(costs.checks_s[1:], costs.drafts_s, strict=False)
    gains = [
        Gain(gamma, tokens, tokens * costs.plain_s / (check_s + draft_s))
        for gamma, (check_s, draft_s) in enumerate(rounds, 1)
        for tokens in (_tokens(rates, gamma),)
    ]
    return max(gains, key=lambda gain: gain.speed_up)


@torch.inference_mode()
def measured_costs(drafter: Drafter, target: LanguageModel) -> Costs:
    """Time target passes of 1 to 9 tokens, and drafts of 1 to 8.

    Args:
        drafter: Loaded as it would run.
        target: What it drafts for.
    """
    checks = _pass_times(target, _MOST_GAMMA + 1)
    return Costs(checks[0], checks, _draft_times(drafter))


def _pass_times(model: LanguageModel, widest: int) -> list[float]:
    """Seconds of a model's passes over 1, 2, 3, … tokens."""
    cache = model.open_cache()
    row = cache.add()
    model.prefill(cache, row, [1] * _CONTEXT)

    def check(width: int) -> None:
        model.forward(cache, Rows([row], [[1] * width]))
        cache.rollback(row, _CONTEXT)

    times = [_least(lambda width=width: check(width)) for width in range(1, widest + 1)]
    return no_dearer_than_wider(times)


def no_dearer_than_wider(times: Sequence[float]) -> list[float]:
    """Seconds of ever wider passes, without what other work added where a wider one took less.

    Args:
        times: As they were measured.

    Example:
        >>> no_dearer_than_wider([9.0, 4.0, 5.0])
        [4.0, 4.0, 5.0]
    """
    return list(accumulate(reversed(times), min))[::-1]


def _draft_times(drafter: Drafter) -> list[float]:
    """Seconds of drafts of 1, 2, 3, … tokens."""
    if isinstance(drafter, BlockDrafter):
        return _block_times(drafter.head)
    if isinstance(drafter, ModelDrafter):
        (step_s,) = _pass_times(drafter.model, 1)
    else:
        assert isinstance(drafter, HeadDrafter)
        step_s = _step_s(drafter)
    return [gamma * step_s for gamma in range(1, _MOST_GAMMA + 1)]


def _step_s(drafter: HeadDrafter) -> float:
    head = drafter.head
    held = head.open_row()
    states = torch.zeros(_CONTEXT, len(head.config.boundaries), head.config.target_hidden_size)
    head.run([Span(held, [1] * _CONTEXT, 0)], head.feature(states))
    feature = torch.zeros(1, head.config.hidden_size)

    def step() -> None:
        head.finish(head.run([Span(held, [1], _CONTEXT)], feature))
        held.length = _CONTEXT

    return _least(step)


def _block_times(head: BlockHead) -> list[float]:
    config, row = head.config, head.open_row()
    head.read(row, torch.zeros(_CONTEXT, len(config.boundaries), config.target_hidden_size))
    tokens = [1, *[config.mask_id] * (config.block_size - 1)]

    def draft(gamma: int) -> None:
        hidden = head.run([Block(row, tokens, _CONTEXT)])[:gamma]
        logits = head.logits(hidden)
        for place in range(gamma):
            line, rows = logits[place : place + 1], hidden[place : place + 1]
            if head.markov is not None:
                state = head.markov.begin().unsqueeze(0)
                line = line + head.markov.added(head.markov.step(rows, [1], state)[0])
            head.spread(line)
            head.confidences(rows, [1])

    most = min(_MOST_GAMMA, config.longest)
    return [_least(lambda gamma=gamma: draft(gamma)) for gamma in range(1, most + 1)]


def _least(run: Callable[[], None]) -> float:
    times: list[float] = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
