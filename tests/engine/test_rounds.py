"""A batch judged together, and drawn for together: the same as one sequence after the other."""

import random
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor

from draftsmith.core import sampling_table
from draftsmith.core.laws import Cuts
from draftsmith.core.params import SamplingParams
from draftsmith.core.sampling_table import LogitRows, laws_of_rows, points_of_rows
from draftsmith.drafters import Draft
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.rounds import choices, drafting, verdicts
from draftsmith.engine.rounds.drafting import Proposal, RoundContext
from draftsmith.engine.rounds.outcomes import Checked
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.rounds.verdicts import judged, judged_apart
from draftsmith.kernels.cpu import sampling
from draftsmith.models.contract import ModelTraits

VOCAB = 40
CPU = torch.device("cpu")
TRAITS = ModelTraits("none", VOCAB, (1,), None)
MODES = [
    SamplingParams(),
    SamplingParams(temperature=0.8, seed=1),
    SamplingParams(temperature=0.8, seed=2, top_k=7, top_p=0.9, min_p=0.01),
    SamplingParams(temperature=1.2, verifier="block", top_p=0.9),
    SamplingParams(temperature=1.2, verifier="rejection"),
    SamplingParams(temperature=0.8, seed=3, repetition_penalty=1.3),
    SamplingParams(logit_bias={3: 2.0}),
    SamplingParams(temperature=0.9, verifier="rejection", lossy_lenience=0.5),
    SamplingParams(lossy_lenience=0.5),
    SamplingParams(temperature=0.7, verifier="block", draft_temperature=0.0),
]


CUTS = (Cuts(0.7, 0, 1.0, 0.0), Cuts(1.3, 9, 0.8, 0.02), Cuts(1.0, 0, 0.95, 0.0))


def turns_of(params: Sequence[SamplingParams], gamma: int = 6) -> list[Turn]:
    made: list[Turn] = []
    for number, one in enumerate(params):
        request = make_request([5, 6, number % VOCAB], one, TRAITS, None)
        seed = number if one.seed is None else one.seed
        made.append(request.sequence(number % 3, seed, CPU, None).turn(gamma))
    return made


def a_pass(
    turns: Sequence[Turn], chance: random.Random, *, is_poisoned: bool, num_ids: int = VOCAB
) -> Checked:
    """Ragged drafts, many of them likely, and the logits of a pass that also caught up."""
    generator = torch.Generator().manual_seed(chance.randrange(1 << 30))
    lengths = [chance.randint(0, 4) for _ in turns]
    firsts = [chance.randint(0, 3) for _ in turns]
    width = 1 + max(f + n for f, n in zip(firsts, lengths, strict=True))
    logits = 3 * torch.randn(len(turns), width, num_ids, generator=generator)
    best = [
        logits[i, first : first + n, :VOCAB].argmax(-1).tolist()
        for i, (first, n) in enumerate(zip(firsts, lengths, strict=True))
    ]
    tokens = [
        [one if chance.random() < 0.7 else chance.randrange(VOCAB) for one in row] for row in best
    ]
    draft = Draft.certain(tokens, CPU)
    laws = torch.randn(*draft.tokens.shape, VOCAB, generator=generator).softmax(-1)
    draft = Draft(draft.tokens, draft.num_drafted, laws)
    if is_poisoned:
        for i, first in enumerate(firsts):
            if chance.random() < 0.5:
                column = first + chance.randint(0, lengths[i])
                logits[i, column, chance.randrange(min(VOCAB, num_ids))] = chance.choice(
                    [float("nan"), float("inf")]
                )
    return Checked(logits, firsts, Proposal(draft, tokens), VOCAB)


@pytest.mark.parametrize("is_poisoned", [False, True])
@pytest.mark.parametrize("num_ids", [VOCAB, VOCAB + 8, VOCAB - 3])
@pytest.mark.parametrize("with_kernels", [True, False])
def test_verdicts_together_are_the_verdicts_one_by_one(
    is_poisoned: bool, num_ids: int, with_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_kernels:
        monkeypatch.setattr(sampling, "library", lambda: None)
    chance = random.Random(7)
    for _ in range(12):
        params = [chance.choice(MODES) for _ in range(chance.randint(1, 9))]
        turns = turns_of(params)
        checked = a_pass(turns, chance, is_poisoned=is_poisoned, num_ids=num_ids)
        together = judged(turns, checked)
        for index, outcome in enumerate(together):
            alone = judged_apart(turns_of(params)[index], index, checked)
            assert outcome.tokens == alone.tokens
            assert outcome.num_accepted == alone.num_accepted
            assert outcome.error == alone.error
            assert (outcome.laws is None) == (alone.laws is None)
            if outcome.laws is not None and alone.laws is not None and not outcome.error:
                shown = len(outcome.tokens)
                torch.testing.assert_close(list(outcome.laws[:shown]), list(alone.laws[:shown]))


@pytest.mark.parametrize("num_threads", [1, 8, 1024])
def test_verdicts_look_no_further_than_they_must_on_any_number_of_threads(
    num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "num_threads", lambda: num_threads)
    with mock.patch.object(choices, "laws", wraps=choices.laws) as made:
        for is_poisoned in (False, True):
            test_verdicts_together_are_the_verdicts_one_by_one(
                is_poisoned, VOCAB, True, monkeypatch
            )
        many = [MODES[1]] * 6
        checked = a_pass(turns_of(many), random.Random(3), is_poisoned=False)
        made.reset_mock()
        together = judged(turns_of(many), checked)
    num_rows = sum(len(call.args[0].places) for call in made.call_args_list)
    num_all = sum(len(tokens) + 1 for tokens in checked.proposal.tokens)
    num_needed = sum(len(outcome.tokens) for outcome in together)
    assert num_needed < num_all
    assert num_rows == num_needed if num_threads == 1 else num_needed <= num_rows <= num_all


def test_sequences_without_rules_are_judged_in_few_calls() -> None:
    turns = turns_of([MODES[1]] * 8 + [MODES[0]] * 8)
    checked = a_pass(turns, random.Random(3), is_poisoned=False)
    with (
        mock.patch.object(verdicts, "judged_apart", side_effect=AssertionError),
        mock.patch.object(choices, "laws", wraps=choices.laws) as laws,
        mock.patch.object(choices, "num_threads", return_value=1024),
        mock.patch.object(verdicts, "points", wraps=verdicts.points) as points,
    ):
        judged(turns, checked)
    lengths = {len(tokens) for tokens in checked.proposal.tokens[:8]}
    assert (laws.call_count, points.call_count) == (len(lengths), 1)


def test_a_verdict_that_takes_its_neighbours_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the batch's rows are read one place off."""

    def off(rows: LogitRows) -> Tensor:
        return sampling.points(rows).roll(1)

    monkeypatch.setattr(verdicts, "points", off)
    with pytest.raises(AssertionError):
        test_verdicts_together_are_the_verdicts_one_by_one(False, VOCAB, True, monkeypatch)


@pytest.mark.parametrize("is_poisoned", [False, True])
@pytest.mark.parametrize("num_ids", [VOCAB, VOCAB + 8, VOCAB - 3])
def test_drafts_drawn_together_are_the_drafts_drawn_one_by_one(
    is_poisoned: bool, num_ids: int
) -> None:
    chance = random.Random(5)
    for _ in range(12):
        params = [chance.choice(MODES) for _ in range(chance.randint(1, 9))]
        steps = [2 * torch.randn(len(params), num_ids) for _ in range(3)]
        if is_poisoned:
            steps[1][chance.randrange(len(params))] = float("nan")
        together = drawn(params, steps)
        with mock.patch.object(drafting, "_kind", return_value=None):
            apart = drawn(params, steps)
        for one, other in zip(together, apart, strict=True):
            assert one.drawn == other.drawn
            assert len(one.laws) == len(other.laws)
            for law, same in zip(one.laws, other.laws, strict=True):
                torch.testing.assert_close(law, same)


def drawn(params: Sequence[SamplingParams], steps: Sequence[Tensor]) -> list[Turn]:
    turns = turns_of(params)
    context = RoundContext(turns, VOCAB, CPU)
    for number, logits in enumerate(steps):
        live = [row for row in range(len(turns)) if row % 3 or number < 2]
        if live:
            context.draw(live, logits[live])
    return turns


# --- rows where they lie ------------------------------------------------------------------------


def test_kernels_read_rows_where_they_lie() -> None:
    chance = random.Random(1)
    generator = torch.Generator().manual_seed(4)
    logits = 4 * torch.randn(5, 7, 300, generator=generator)
    logits[2, 3] = float("nan")
    for scores in (logits, logits[:, 1:], logits[:, :, :290], logits.expand(5, 7, 300)):
        places = [(chance.randrange(5), chance.randrange(scores.shape[1])) for _ in range(11)] + [
            (2, 3)
        ]
        rows = LogitRows(scores, places, 280)
        assert torch.equal(sampling.points(rows), points_of_rows(rows))
        cuts = [
            chance.choice(
                [Cuts(0.7, 0, 1.0, 0.0), Cuts(1.3, 9, 0.8, 0.02), Cuts(1.0, 0, 0.95, 0.0)]
            )
            for _ in places
        ]
        torch.testing.assert_close(sampling.laws(rows, cuts), laws_of_rows(rows, cuts))


def test_more_scores_than_a_few_are_searched_on_all_threads() -> None:
    logits = torch.randn(40, 1, 60_000, generator=torch.Generator().manual_seed(2))
    rows = LogitRows(logits, [(row, 0) for row in range(40)], 60_000)
    assert torch.equal(sampling.points(rows), logits[:, 0].argmax(-1))


def test_half_precision_and_missing_ids_go_the_plain_way() -> None:
    logits = torch.randn(3, 2, 30, generator=torch.Generator().manual_seed(2))
    rows = LogitRows(logits.bfloat16(), [(0, 1), (2, 0)], 33)
    with mock.patch.object(sampling, "points_of_rows", wraps=sampling_table.points_of_rows) as own:
        found = sampling.points(rows)
    assert own.called
    assert found.tolist() == [
        int(logits.bfloat16()[0, 1].argmax()),
        int(logits.bfloat16()[2, 0].argmax()),
    ]


@pytest.mark.parametrize(
    ("change", "is_alike"),
    [
        ({}, True),
        ({"logprobs": 3, "n": 2, "stop_token_ids": (4,)}, True),
        ({"logit_bias": {3: 1.0}}, False),
        ({"banned_token_ids": (3,)}, False),
        ({"allowed_token_ids": (3,)}, False),
        ({"presence_penalty": 0.1}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"min_tokens": 2}, False),
        ({"no_repeat_ngram_size": 2}, False),
        ({"bad_words": [[3]]}, False),
        ({"forced_eos_token_id": 1}, False),
    ],
)
def test_only_laws_that_no_prefix_changes_are_four_numbers(
    change: dict[str, object], is_alike: bool
) -> None:
    params = replace(SamplingParams(temperature=0.7, top_k=3), **change)  # type: ignore[arg-type]
    [turn] = turns_of([params])
    assert turn.law.cuts == (Cuts(0.7, 3, 1.0, 0.0) if is_alike else None)
