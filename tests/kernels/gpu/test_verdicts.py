"""A greedy round between its passes, beside the plain verdict."""

import itertools

import pytest
import torch
from torch import Tensor

from draftsmith.core.laws import best_tokens
from draftsmith.kernels.gpu import plain, verdicts
from draftsmith.kernels.gpu.verdicts import State, best_parts, prepare, settle, take_draft
from draftsmith.models.follower import common_prefix
from tests.kernels.gpu.device import DEVICE

VOCAB = 9000  # more than one part


def _logits(bests: list[int]) -> Tensor:
    rows = torch.zeros(len(bests), VOCAB, device=DEVICE)
    for row, best in enumerate(bests):
        rows[row, best] = 1.0
    return rows


def _ints(*numbers: object) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


def _state(lengths: list[int], newest: list[int], previous: list[int], live: list[int]) -> State:
    return State(_ints(*lengths), _ints(*newest), _ints(*previous), _ints(*live))


def _settled(logits: Tensor, tokens: Tensor, state: State, vocab: int = VOCAB) -> Tensor:
    batch, rows = tokens.shape
    found = torch.full((batch, 2 * rows), -7, dtype=torch.int32, device=DEVICE)
    settle(best_parts(logits, vocab), tokens, state, found)
    return found


@pytest.mark.parametrize("gamma", [0, 1, 3])
def test_a_verdict_is_the_plain_one(gamma: int) -> None:
    generator = torch.Generator().manual_seed(gamma)
    kept_of = set[int]()
    for _ in range(12):
        bests = torch.randint(8189, 8195, (gamma + 1,), generator=generator).tolist()
        drafted = torch.randint(8189, 8192, (gamma,), generator=generator).tolist()
        agreed = int(torch.randint(0, gamma + 1, (1,), generator=generator))
        drafted[:agreed] = bests[:agreed]
        state = _state([10, 20], [4, 0], [3, 0], [1, 0])
        tokens = _ints([4, *drafted], [0] * (gamma + 1))
        found = _settled(_logits([*bests, *[0] * (gamma + 1)]), tokens, state)[0].tolist()
        kept = common_prefix(drafted, bests)
        kept_of.add(kept)
        assert found == [*bests, *drafted, kept]
        text = [4, *drafted[:kept], bests[kept]]
        assert state.lengths.tolist() == [11 + kept, 20]
        assert (int(state.previous[0]), int(state.newest[0])) == (text[-2], text[-1])
    assert kept_of == set(range(gamma + 1))


def test_drafted_tokens_beyond_their_number_do_not_count() -> None:
    """Nor does a row of no token agree with a place where nothing is drafted."""
    logits = _logits([5, 6, 7, 8])
    logits[2] = torch.nan
    for num, want in ((0, 0), (1, 1), (2, 2), (3, 2)):
        state = _state([10], [4], [3], [1])
        found = torch.full((1, 8), -7, dtype=torch.int32, device=DEVICE)
        settle(best_parts(logits, VOCAB), _ints([4, 5, 6, 0]), state, found, _ints(num))
        drafted = [5, 6, 0][:num]
        assert found[0].tolist() == [5, 6, -1, 8, *drafted, *[-1] * (3 - num), want]


def test_what_is_kept_is_added_to_the_text() -> None:
    history = torch.full((2, 12), -9, dtype=torch.int32, device=DEVICE)
    found = torch.empty(2, 6, dtype=torch.int32, device=DEVICE)
    state = _state([4, 3], [1, 0], [1, 0], [1, 0])
    tokens = _ints([1, 5, 9], [0, 0, 0])
    settle(best_parts(_logits([5, 6, 7] * 2), VOCAB), tokens, state, found, None, history)
    assert history[0].tolist() == [*[-9] * 4, 5, 6, *[-9] * 6]
    assert history[1].tolist() == [-9] * 12


def test_the_best_token_is_the_plain_one() -> None:
    rows = torch.randn(12, VOCAB, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    rows[0, [3, 8500]] = 9.0  # equals: the lowest
    rows[1, 8999] = 9.0
    rows[2, 8700], rows[3, 5] = torch.nan, torch.nan
    rows[4, 7], rows[5] = torch.inf, -torch.inf
    rows[6, 8400] = -torch.inf
    rows[7, :8998] = -torch.inf
    rows[8, 8998:] = torch.nan  # beyond the vocabulary
    want = best_tokens(rows[:, : VOCAB - 2])
    assert -1 in want.tolist()
    found = _settled(
        rows, _ints(*[[0]] * 12), _state([2] * 12, [2] * 12, [2] * 12, [1] * 12), VOCAB - 2
    )
    assert found[:, 0].tolist() == want.tolist()


def test_no_token_keeps_what_was_before_it() -> None:
    logits = _logits([5, 0, 7])
    logits[1] = torch.nan
    state = _state([10], [4], [3], [1])
    found = _settled(logits, _ints([4, 5, 6]), state)
    assert found.tolist() == [[5, -1, 7, 5, 6, 1]]
    assert state.newest.tolist() == [0]  # an id that can be fed


def test_passes_begin_where_the_caches_end() -> None:
    state = _state([10, 1], [4, 9], [3, 9], [1, 0])
    check = torch.zeros(2, 2, dtype=torch.int32, device=DEVICE)
    tokens = torch.zeros(2, 4, dtype=torch.int32, device=DEVICE)
    drafts = torch.zeros(2, 3, 2, dtype=torch.int32, device=DEVICE)
    first = torch.zeros(2, 2, dtype=torch.int32, device=DEVICE)
    prepare(state, (check[0], check[1], tokens), (drafts[0], drafts[1], first), 9)
    assert check.tolist() == [[9, 0], [4, 0]]
    assert tokens[:, 0].tolist() == [4, 9]
    assert first.tolist() == [[3, 4], [0, 0]]  # a draft of 9 ids has no 9
    assert drafts[0, :, 0].tolist() == [8, 10, 11]
    assert drafts[1].tolist() == [[2, 0], [1, 0], [1, 0]]


def test_a_draft_is_the_last_rows_best() -> None:
    following = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    tokens = torch.zeros(2, 3, dtype=torch.int32, device=DEVICE)
    logits = _logits([1, 8300, 2, 6])
    logits[3] = torch.nan
    take_draft(best_parts(logits, VOCAB), tokens, following, 2)
    assert tokens.tolist() == [[0, 0, 8300], [0, 0, 0]]
    assert following.tolist() == [8300, 0]
    assert list(itertools.chain(*tokens.tolist())).count(8300) == 1


@pytest.mark.parametrize("gamma", [1, 4])
def test_a_round_is_its_twins(gamma: int) -> None:
    generator = torch.Generator().manual_seed(3)
    rows, state = gamma + 1, _state([10, 3, 1], [4, 2, 0], [3, 1, 0], [1, 1, 0])
    twins = State(*(one.clone() for one in state))
    found = []
    for kernels, held in ((verdicts, state), (plain, twins)):
        generator.manual_seed(3)
        check = [_ints(*[0] * 3), _ints(*[0] * 3), _ints(*[[0] * rows] * 3)]
        drafts = [_ints(*[[0] * 3] * gamma), _ints(*[[0] * 3] * gamma), _ints(*[[0] * 2] * 3)]
        kernels.prepare(held, tuple(check), tuple(drafts), 3)
        following = _ints(0, 0, 0)
        for step in range(gamma):
            logits = torch.randn(6 if step == 0 else 3, VOCAB, generator=generator).to(DEVICE)
            kernels.take_draft(kernels.best_parts(logits, VOCAB), check[2], following, step + 1)
        logits = torch.randn(3 * rows, VOCAB, generator=generator).to(DEVICE)
        logits[0, int(check[2][0, 1])] = 99.0  # one token is kept
        verdict = _ints(*[[0] * 2 * rows] * 3)
        kernels.settle(kernels.best_parts(logits, VOCAB), check[2], held, verdict)
        found.append([*check, *drafts, following, verdict])
    for one, other in zip(*found, strict=True):
        assert one.tolist() == other.tolist()
    assert [one.tolist() for one in state] == [one.tolist() for one in twins]
    assert state.lengths.tolist() == [12, 4, 1]
