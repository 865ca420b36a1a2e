"""Rung 0 for grammars: the engine's own drafts and laws, summed over every draw and every test.

A round is run with its draws scripted; where the script ends, it is run again for each token that
the law allows. So the forced tokens before, within and behind a draft, the cut of refused ones and
the masks of every row are the engine's, and the sum is exact.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from draftsmith.core.constraint import ConstrainedLaw
from draftsmith.core.enumeration import RandomWorld, total_variation
from draftsmith.core.laws import History
from draftsmith.core.noise import RoundNoise
from draftsmith.core.verdict import Verdict
from draftsmith.core.verify import (
    BlockVerifier,
    Check,
    CoupledVerifier,
    RejectionVerifier,
    ThresholdVerifier,
    Verifier,
)
from draftsmith.drafters.contract import DraftContext, Drafter, SequenceView, open_state
from draftsmith.drafters.draft import Draft
from draftsmith.engine.rounds.forced import propose_along
from draftsmith.engine.rounds.outcomes import Checked
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.rounds.verdicts import judged
from draftsmith.kernels.cpu.sampling import NoiseSlot
from draftsmith.models.contract import ModelTraits
from tests.constraints.kit import Text, listed
from tests.grids import thinned
from tests.wrapped import Wrapped

VOCAB = 4
END = 3
CPU = torch.device("cpu")
LANGUAGES: dict[str, set[Text]] = {
    "forced before": {(0, 1, 2), (0, 1, 1, 0), (0, 1, 0)},
    "forced within": {(0, 2, 2, 1), (1, 0, 0, 2), (2,), (2, 1)},
    "forced behind": {(0, 1, 0, 1), (2, 0, 0, 0), (1, 1)},
    "all choice": {*product(range(2), repeat=2), (2, 2)},
    "one text": {(2, 1, 0, 0)},
}
VERIFIERS: list[ThresholdVerifier] = [RejectionVerifier(), BlockVerifier()]


def quantised(counts: Tensor) -> Tensor:
    """Counts as a law that float32 holds exactly, as the engine holds the laws of drafts."""
    law = ((counts / counts.sum()) * 1024).floor()
    law[law.argmax()] += 1024 - law.sum()
    return law / 1024


class Counts:
    """A law of float64: the counts that are its logits, normalised."""

    is_greedy = False
    cuts = None

    def __call__(self, logits: Tensor, history: History, drafted: Tensor) -> Tensor:
        return torch.stack([quantised(row.double().clamp(min=0)) for row in logits])

    def points(self, logits: Tensor, history: History, drafted: Tensor) -> Tensor:
        raise NotImplementedError


class Branch(Exception):
    """A draw that the script does not tell."""

    def __init__(self, law: Tensor) -> None:
        self.law = law


class Scripted(Verifier):
    """Draws what it is told to, and shows what it would check."""

    name = "scripted"
    needs_draft_probs = True

    def __init__(self, script: Text) -> None:
        self.left = list(script)
        self.check: Check | None = None

    def draw(self, probs: Tensor, noise: RoundNoise, index: int) -> Tensor:
        if not self.left:
            raise Branch(probs[0])
        return torch.tensor([self.left.pop(0)])

    def verify(self, check: Check, noise: RoundNoise) -> Verdict:
        self.check = check
        return Verdict(torch.tensor([0]), torch.tensor([[0]]))


class FromCounts(Drafter):
    """Draws gamma tokens from a world's draft."""

    def __init__(self, world: RandomWorld) -> None:
        self.world = world

    def propose(self, context: DraftContext) -> Draft:
        [view] = context.sequences
        text = list(view.tokens[view.num_prompt :])
        while context.wanting([0]):
            counts = counts_of(self.world.draft(tuple(text)))
            text += context.draw([0], counts.unsqueeze(0))
            text += context.follow([0])[0]
        return context.drawn()


class Certain(Drafter):
    """Proposes one text whatever the grammar says."""

    def __init__(self, text: Text) -> None:
        self.text = text

    def propose(self, context: DraftContext) -> Draft:
        return Draft.certain([self.text[: view.gamma] for view in context.sequences], CPU)


def counts_of(law: Tensor) -> Tensor:
    """Positive where the grammar may ask for it: a law without mass under a mask is no world."""
    return (law * 64 + 1).round()


class Model(Wrapped):
    """A target that is asked for its vocabulary and device alone."""

    def __init__(self) -> None:
        self.device = CPU
        self.traits = ModelTraits("a world", VOCAB, (END,), None)


class Case(NamedTuple):
    """What is enumerated."""

    drafter: Drafter
    language: set[Text]
    world: RandomWorld
    gamma: int
    guesses: bool
    """Whether the grammar guesses how the text goes on where it has a choice."""


def turn_of(text: Text, case: Case, verifier: Verifier) -> Turn:
    walk = listed(case.language, (END,), VOCAB, guesses=case.guesses)
    law = ConstrainedLaw(Counts(), walk)
    empty = torch.empty(0, dtype=torch.long)
    room = 12 - len(text)
    return Turn(
        view=SequenceView(0, list(text), 0, (), min(case.gamma, room - 1)),
        law=law,
        draft_law=law,
        verifier=verifier,
        make_history=lambda: History(empty, torch.tensor(text, dtype=torch.long)),
        make_slot=lambda: NoiseSlot(0, 0, 0, len(text)),
        device=CPU,
        constraint=walk,
        room=room,
    )


def scripts(text: Text, case: Case) -> Iterator[tuple[float, Check]]:
    """Every way in which a round's draft may come out: its chance, and what is checked."""
    pending: list[tuple[Text, float]] = [((), 1.0)]
    while pending:
        script, mass = pending.pop()
        verifier = Scripted(script)
        turn = turn_of(text, case, verifier)
        try:
            proposal = propose_along(Model(), open_state(case.drafter), "it", [turn])
        except Branch as branch:
            law = branch.law.tolist()
            pending += [((*script, x), mass * share) for x, share in enumerate(law) if share]
            continue
        assert not turn.fault
        drafted = proposal.tokens[0]
        prefixes = [(*text, *drafted[:count]) for count in range(len(drafted) + 1)]
        rows = [counts_of(case.world.target(prefix)) for prefix in prefixes]
        judged([turn], Checked(torch.stack(rows).unsqueeze(0), [0], proposal, VOCAB))
        check = verifier.check
        assert check is not None
        assert check.draft_probs is not None
        yield mass, check._replace(draft_probs=check.draft_probs.double())


def round_law(check: Check, verifier: ThresholdVerifier) -> dict[Text, float]:
    """The law of what a round commits: every pattern of tests, every emitted token."""
    width = check.draft_tokens.shape[1]
    thresholds = verifier.thresholds(check)[0].tolist()
    patterns = list(product((True, False), repeat=width))
    counts = verifier.count(
        torch.tensor(patterns, dtype=torch.bool).view(len(patterns), width)
    ).tolist()
    masses = [0.0] * (width + 1)
    for pattern, kept in zip(patterns, counts, strict=True):
        chances = (t if ok else 1 - t for t, ok in zip(thresholds, pattern, strict=True))
        masses[kept] += math.prod(chances)
    law: dict[Text, float] = {}
    for kept, mass in enumerate(masses):
        if mass > 0:
            emitted = verifier.emitted_law(check, torch.tensor([kept]))[0].tolist()
            prefix = tuple(check.draft_tokens[0, :kept].tolist())
            for token, share in enumerate(emitted):
                if share:
                    text = up_to_end((*prefix, token))
                    law[text] = law.get(text, 0.0) + mass * share
    return law


def up_to_end(text: Text) -> Text:
    return text[: text.index(END) + 1] if END in text else text


def text_law(case: Case, verifier: ThresholdVerifier) -> dict[Text, float]:
    """The law of whole texts, over as many rounds as they take."""
    law: dict[Text, float] = {}
    pending: dict[Text, float] = {(): 1.0}
    while pending:
        text = min(pending, key=len)
        assert len(text) < 8, f"{text} is no beginning of a text"
        mass = pending.pop(text)
        for share, check in scripts(text, case):
            for tokens, chance in round_law(check, verifier).items():
                whole = (*text, *tokens)
                into = law if whole[-1] == END else pending
                into[whole] = into.get(whole, 0.0) + mass * share * chance
    return law


def plain_law(language: set[Text], world: RandomWorld) -> dict[Text, float]:
    """The masked law by the chain rule, from the list of texts alone."""
    law: dict[Text, float] = {}
    pending: dict[Text, float] = {(): 1.0}
    while pending:
        text, mass = pending.popitem()
        allowed = {one[len(text)] for one in language if one[: len(text)] == text != one}
        allowed |= {END} if text in language else set()
        is_allowed = torch.tensor([token in allowed for token in range(VOCAB)])
        shares = quantised(counts_of(world.target(text)).double() * is_allowed).tolist()
        for token in allowed:
            into = law if token == END else pending
            into[*text, token] = mass * shares[token]
    return law


def drafters(world: RandomWorld) -> Sequence[Drafter]:
    return (FromCounts(world), Certain((0, 1, 0, 1)), Certain((2, 1, 3, 3)))


@pytest.mark.parametrize(
    ("name", "verifier", "seed"), thinned(LANGUAGES, VERIFIERS, range(3), every=3)
)
def test_the_law_of_whole_texts_is_the_masked_models(
    verifier: ThresholdVerifier, name: str, seed: int
) -> None:
    language, gamma = LANGUAGES[name], (1, 3, 2)[seed]
    world = RandomWorld(seed, VOCAB, 0.7)
    expected = plain_law(language, world)
    assert abs(sum(expected.values()) - 1) < 1e-12
    assert {text[:-1] for text in expected} == language
    for drafter in drafters(world):
        for guesses in (False, True) if seed == 0 else (True,):
            case = Case(drafter, language, world, gamma, guesses)
            law = text_law(case, verifier)
            assert total_variation(law, expected) <= 1e-12, case


def seeded_text(case: Case, seed: int, *, is_plain: bool = False) -> Text:
    """The text of a seed with the coupled verifier, by rounds of the engine."""
    text: Text = ()
    for number in range(12):
        turn = turn_of(text, case, CoupledVerifier())
        slot = NoiseSlot(seed, 0, number, len(text))
        turn = replace(turn, make_slot=lambda slot=slot: slot, drafts_forced=not is_plain)
        state = None if is_plain else open_state(case.drafter)
        proposal = propose_along(Model(), state, "it", [turn])
        drafted = proposal.tokens[0]
        assert not is_plain or not drafted
        prefixes = [(*text, *drafted[:count]) for count in range(len(drafted) + 1)]
        rows = torch.stack([counts_of(case.world.target(prefix)) for prefix in prefixes])
        [outcome] = judged([turn], Checked(rows.unsqueeze(0), [0], proposal, VOCAB))
        text = up_to_end((*text, *outcome.tokens))
        if text[-1] == END:
            return text
    raise AssertionError(f"{text} does not end")


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_seed_has_one_text_whatever_is_drafted(name: str) -> None:
    language, texts = LANGUAGES[name], set[Text]()
    drafts = [*product(range(VOCAB), repeat=2), (0, 1, 0, 1), (2, 1, 0, 0)]
    for seed in range(4):
        world = RandomWorld(seed % 2, VOCAB, 0.7)
        plain = seeded_text(Case(Certain(()), language, world, 0, False), seed, is_plain=True)
        assert plain[:-1] in language
        texts.add(plain)
        for drafter in (FromCounts(world), *map(Certain, drafts)):
            for guesses in (False, True):
                assert seeded_text(Case(drafter, language, world, 3, guesses), seed) == plain
    assert len(texts) >= min(len(language), 2)


def test_a_target_row_that_is_not_masked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teeth: one mask of a draft's rows left out changes the sum."""
    masked = ConstrainedLaw.__call__

    def without_last(
        law: ConstrainedLaw, logits: Tensor, history: History, drafted: Tensor
    ) -> Tensor:
        rows = masked(law, logits, history, drafted)
        if len(rows) > 1:
            rows[-1] = Counts()(logits[-1:], history, drafted)[0]
        return rows

    monkeypatch.setattr(ConstrainedLaw, "__call__", without_last)
    world = RandomWorld(0, VOCAB, 0.7)
    case = Case(FromCounts(world), LANGUAGES["all choice"], world, 1, guesses=False)
    law = text_law_of_one_round(case, RejectionVerifier())
    assert any(not is_beginning(text, case.language) for text in law)


def text_law_of_one_round(case: Case, verifier: ThresholdVerifier) -> dict[Text, float]:
    """The law of what the first round commits."""
    law: dict[Text, float] = {}
    for share, check in scripts((), case):
        for text, chance in round_law(check, verifier).items():
            law[text] = law.get(text, 0.0) + share * chance
    return law


def is_beginning(text: Text, language: set[Text]) -> bool:
    """Whether a text of the language begins so, or is so and has ended."""
    if text[-1] == END:
        return text[:-1] in language
    return any(one[: len(text)] == text for one in language)


def test_what_a_round_commits_is_the_beginning_of_a_text() -> None:
    world = RandomWorld(1, VOCAB, 0.7)
    for language in LANGUAGES.values():
        for drafter in drafters(world):
            case = Case(drafter, language, world, 2, guesses=True)
            law = text_law_of_one_round(case, BlockVerifier())
            assert all(is_beginning(text, language) for text in law)
