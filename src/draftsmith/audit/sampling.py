"""Many samples of the engine on the real models: their first tokens, and which drafts were kept."""

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.audit.memo import Memo
from draftsmith.audit.significance import LawTest, judge_law
from draftsmith.core.laws import History
from draftsmith.core.noise import RoundNoise
from draftsmith.core.params import SamplingParams
from draftsmith.core.tree_verify import TreeCheck, TreeVerdict
from draftsmith.core.verdict import Verdict
from draftsmith.core.verify import VERIFIERS, Check, Verifier
from draftsmith.drafters.contract import Drafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.result import Completion, Origin
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import LanguageModel

__all__ = ["NUM_CELLS", "Samples", "Setting", "Tests", "most_telling", "sampled"]

_DEPTH, _GAMMA, _TOP_K = 2, 2, 4
NUM_CELLS = _TOP_K**_DEPTH
"""Texts of the first tokens that can come, at most."""
_PENALTY = 0.3
"""A frequency penalty: every drafted position needs the law of its own prefix."""
_NUM_PILOT = 48
_LONGEST = 64
_NUM_STARTS = 6


@dataclass(frozen=True)
class Setting:
    """One drafter, with the temperature that it drafts at."""

    name: str
    drafter: Drafter
    draft_temperature: float | None = None
    """None is the target's."""

    def params(self, verifier: str, seed: int, num_samples: int = 1) -> SamplingParams:
        """Two tokens to look at, and one that may be drafted behind them."""
        return SamplingParams(
            temperature=1.0,
            draft_temperature=self.draft_temperature,
            top_k=_TOP_K,
            frequency_penalty=_PENALTY,
            max_tokens=_DEPTH + 1,
            ignore_eos=True,
            n=num_samples,
            seed=seed,
            verifier=verifier,
        )


@dataclass
class Tests:
    """Every test of a drafted token that one verifier made, by position in the draft."""

    kept: list[list[bool]] = field(default_factory=lambda: [[] for _ in range(_GAMMA)])
    probabilities: list[list[float]] = field(default_factory=lambda: [[] for _ in range(_GAMMA)])
    """Sum of min(target, draft) over the vocabulary, at each test."""

    def add(self, other: "Tests") -> None:
        """Take in the tests of another run."""
        for position in range(_GAMMA):
            self.kept[position] += other.kept[position]
            self.probabilities[position] += other.probabilities[position]


class Samples(NamedTuple):
    """What came of one setting under one verifier on one prompt."""

    law: LawTest
    tests: Tests
    num_drafted: int
    """Samples in whose first tokens a draft had a part; the law of the others is plain decoding's.
    """


def sampled(
    target: LanguageModel,
    memo: Memo,
    setting: Setting,
    verifier: str,
    prompt: Sequence[int],
    seed: int,
    count: int,
) -> Samples:
    """Draw many samples and set their first tokens beside the exact law.

    Args:
        target: What the engine runs.
        memo: What gives the exact law; the same model, unless a bug is planted in it.
        setting: What drafts.
        verifier: By name; the one that is registered now.
        prompt: Token ids.
        seed: Of all samples; each has random numbers of its own.
        count: How many samples.
    """
    law = _exact_law(memo, setting, prompt)
    texts, tests, num_drafted = _first_tokens(target, setting, verifier, prompt, seed, count)
    found = Counter(texts)
    # A text that cannot come gets a cell without mass.
    cells = [*law, *(text for text in found if text not in law)]
    observed = torch.tensor([found[text] for text in cells])
    masses = torch.tensor([law.get(text, 0.0) for text in cells], dtype=torch.float64)
    return Samples(judge_law(observed, masses), tests, num_drafted)


def most_telling(
    target: Memo, setting: Setting, prompts: Sequence[Sequence[int]], seed: int
) -> list[int]:
    """The start of a text after which drafts are neither always kept nor always rejected.

    A pilot run with random numbers of its own chooses, so the choice says nothing of the test.
    """
    return max(_starts(prompts), key=lambda start: _telling(target, setting, start, seed))


def _telling(target: Memo, setting: Setting, prompt: list[int], seed: int) -> float:
    """How much the verdicts vary: the variance of the tests, given their probabilities."""
    texts, tests, _ = _first_tokens(target, setting, "rejection", prompt, seed + 1, _NUM_PILOT)
    chances = [chance for position in tests.probabilities for chance in position]
    return sum(chance * (1 - chance) for chance in chances) + 0.1 * len(set(texts))


def _starts(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Texts cut where they begin to repeat themselves (a lookup drafts there), and whole ones."""
    starts: list[list[int]] = []
    for prompt in prompts:
        seen: set[tuple[int, ...]] = set()
        repeats: list[int] = []
        for end in range(2, len(prompt)):
            pair = tuple(prompt[end - 2 : end])
            if pair in seen and end > _LONGEST // 2:
                repeats.append(end)
            seen.add(pair)
        ends = [*repeats[:: max(1, len(repeats) // 2)][:2], len(prompt)]
        starts += [list(prompt[max(0, end - _LONGEST) : end]) for end in ends]
    return starts[:_NUM_STARTS]


def _exact_law(memo: Memo, setting: Setting, prompt: Sequence[int]) -> dict[tuple[int, ...], float]:
    """The law of the first tokens: the chain rule over every text that can come."""
    request = make_request(prompt, setting.params("block", 0), memo.traits, None)
    ids, none = torch.tensor(request.prompt), torch.empty(0, dtype=torch.long)
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(_DEPTH):
        longer: dict[tuple[int, ...], float] = {}
        for text, mass in law.items():
            logits = memo.logits_after(request.source, [*request.prompt, *text])
            history = History(ids, torch.tensor(text, dtype=torch.long))
            row = request.law(logits.unsqueeze(0), history, none)[0].double()
            row = row / row.sum()
            for token in row.nonzero()[:, 0].tolist():
                longer[(*text, token)] = mass * float(row[token])
        law = longer
    return law


def _first_tokens(
    target: LanguageModel,
    setting: Setting,
    verifier: str,
    prompt: Sequence[int],
    seed: int,
    count: int,
) -> tuple[list[tuple[int, ...]], Tests, int]:
    gamma = min(_GAMMA, setting.drafter.longest)
    engine = Engine(
        target, None, setting.drafter, gamma=gamma, max_batch_size=1, prefix_caching=False
    )
    with _observed(verifier) as tests:
        result = engine.generate(list(prompt), setting.params(verifier, seed, count))[0]
    if result.error is not None:
        raise DraftsmithError(f"a prompt of the certificate failed: {result.error}")
    num_drafted = sum(map(_is_drafted, result.completions))
    return [one.token_ids[:_DEPTH] for one in result.completions], tests, num_drafted


def _is_drafted(completion: Completion) -> bool:
    """Whether one of the first tokens was drafted, or took the place of a draft."""
    return any(token.origin is not Origin.BONUS for token in completion.trace[:_DEPTH])


@contextmanager
def _observed(name: str) -> Generator[Tests]:
    """Look on while a registered verifier works."""
    inner, tests = VERIFIERS[name], Tests()
    VERIFIERS[name] = _Observer(inner, tests)
    try:
        yield tests
    finally:
        VERIFIERS[name] = inner


class _Observer(Verifier):
    """Another verifier's verdicts, noted beside what each test should have come to."""

    name: ClassVar[str] = "observed"

    def __init__(self, inner: Verifier, tests: Tests) -> None:
        self.inner = inner
        self.tests = tests

    @property
    def takes_trees(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.takes_trees

    @property
    def needs_draft_probs(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.needs_draft_probs

    def draw(self, probs: Tensor, noise: RoundNoise, index: int) -> Int[Tensor, " batch"]:
        return self.inner.draw(probs, noise, index)

    def choose(self, probs: Tensor, noise: RoundNoise, index: int) -> Int[Tensor, " batch"]:
        return self.inner.choose(probs, noise, index)

    def verify_tree(self, check: TreeCheck, noise: RoundNoise) -> TreeVerdict:
        return self.inner.verify_tree(check, noise)

    def verify(self, check: Check, noise: RoundNoise) -> Verdict:
        verdict = self.inner.verify(check, noise)
        if check.draft_probs is not None:
            self._note(check, check.draft_probs, verdict)
        return verdict

    def _note(self, check: Check, draft_probs: Tensor, verdict: Verdict) -> None:
        """The drafts up to the first rejection were tested."""
        for row, accepted in enumerate(verdict.num_accepted.tolist()):
            tested = min(accepted + 1, int(check.num_drafted[row]))
            for index in range(tested):
                draft, target = draft_probs[row, index], check.target_probs[row, index]
                overlap, mass = torch.minimum(target, draft).double().sum(), draft.double().sum()
                self.tests.kept[index].append(index < accepted)
                # A draw takes the law's own sum for 1, which rounding has moved.
                self.tests.probabilities[index].append(float(overlap / mass))
