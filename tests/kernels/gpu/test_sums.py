# Triton has no types:
# pyright: basic
"""Sums over ranks beside their torch twins; the ranks are played by one process, one by one."""

import pytest
import torch
from torch import Tensor

from draftsmith.kernels.gpu import plain, sums
from draftsmith.kernels.gpu.peers import MOST_PLACES, Inbox, Peers
from draftsmith.kernels.gpu.products import Scratch, Stream, plan_for, product
from tests.kernels.gpu.device import DEVICE

RANKS, FLOATS = 3, 20_000


class Host:
    """The memory of all ranks, two inboxes and the flags of each, on one device."""

    def __init__(self) -> None:
        count = 2 * RANKS * FLOATS + RANKS * MOST_PLACES
        self.memory = torch.full((RANKS, count), torch.nan, device=DEVICE)
        self.flags = self.memory[:, 2 * RANKS * FLOATS :].view(torch.int32)
        self.flags.zero_()
        pointers = [one.data_ptr() for one in self.memory]
        floats = torch.tensor(pointers, dtype=torch.int64, device=DEVICE)
        is_off = torch.zeros(1, dtype=torch.int32, pin_memory=DEVICE.type == "cuda")
        self.peers = [
            Peers(
                floats,
                floats + 4 * 2 * RANKS * FLOATS,
                torch.zeros(MOST_PLACES, dtype=torch.int32, device=DEVICE),
                is_off,
                torch.zeros(1, dtype=torch.int32, device=DEVICE),
                rank,
                RANKS,
            )
            for rank in range(RANKS)
        ]

    def inbox(self, rank: int, number: int) -> Inbox:
        held = self.memory[rank, : 2 * RANKS * FLOATS].view(2, RANKS, FLOATS)
        return Inbox(held[number], (number * RANKS + rank) * FLOATS, self.peers[rank])

    def all_have_come(self, count: int) -> None:
        """As if every rank's programs had met so often: here they run one after the other."""
        self.flags.fill_(count)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE)


def stream(rows: int, columns: int) -> Stream:
    tiles = -(-columns // sums.TILE)
    values = normal(rows, columns, seed=9)
    return Stream(values, torch.empty_like(values), torch.empty(rows, tiles, device=DEVICE))


@pytest.mark.parametrize(("rows", "columns"), [(1, 300), (5, 512), (9, 64)])
def test_products_that_are_sent_add_up_on_every_rank(rows: int, columns: int) -> None:
    host, plan = Host(), plan_for(columns, 128, is_gated=False)
    x = [normal(rows, 128, seed=rank) for rank in range(RANKS)]
    weights = [normal(columns, 128, seed=10 + rank) / 8 for rank in range(RANKS)]
    norm, bias = normal(columns, seed=20), normal(columns, seed=21)
    scratch = Scratch(DEVICE, 100_000, 1000)
    for rank in range(RANKS):
        product(x[rank], weights[rank], host.inbox(rank, 1), plan, scratch=scratch)
    host.all_have_come(1)
    parts = torch.stack([one @ other.T for one, other in zip(x, weights, strict=True)])
    want = stream(rows, columns)
    plain.add_up(parts, norm=norm, to=want, outputs=sums.TILE, bias=bias, residual=want.values)
    found = [stream(rows, columns) for _ in range(RANKS)]
    for rank, to in enumerate(found):
        sums.add_up(host.inbox(rank, 1), norm=norm, to=to, bias=bias, residual=to.values)
        for one, other in zip(to, want, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    assert all(torch.equal(a, b) for to in found for a, b in zip(to, found[0], strict=True))


def test_a_rows_sum_has_the_same_bits_beside_others() -> None:
    columns, bits = 300, []
    norm = normal(columns, seed=20)
    for rows in (1, 8, 11):
        host = Host()
        for rank in range(RANKS):
            part = normal(11, columns, seed=rank)[:rows]
            host.inbox(0, 0).parts[rank, : part.numel()] = part.reshape(-1)
        host.all_have_come(1)
        to = stream(11, columns)
        to = Stream(*(one[:rows].contiguous() for one in to))
        sums.add_up(host.inbox(0, 0), norm=norm, to=to)
        bits.append([one[0].clone() for one in to])
    for other in bits[1:]:
        assert all(torch.equal(a, b) for a, b in zip(bits[0], other, strict=True))


def test_logits_are_gathered_as_far_as_the_vocabulary_goes() -> None:
    host, rows, own, ids = Host(), 3, 1500, 4400
    parts = [normal(rows, own, seed=rank) for rank in range(RANKS)]
    for rank, part in enumerate(parts):
        host.inbox(1, 0).parts[rank, : part.numel()] = part.reshape(-1)
    host.all_have_come(1)
    out = torch.full((rows, ids), torch.nan, device=DEVICE)
    sums.gather(host.inbox(1, 0), own, out)
    assert torch.equal(out, torch.cat(parts, dim=1)[:, :ids])


def test_every_embedding_is_sent_by_the_rank_that_has_it() -> None:
    host, hidden, own = Host(), 300, 7
    table = normal(RANKS * own, hidden)
    tokens = torch.tensor([0, 6, 7, 20, 13], dtype=torch.int32, device=DEVICE)
    for rank in range(RANKS):
        part = table[own * rank : own * (rank + 1)]
        sums.embed_part(tokens, part, own * rank, host.inbox(rank, 0))
        want = torch.empty(len(tokens), hidden, device=DEVICE)
        plain.embed_part(tokens, part, own * rank, want)
        sent = host.inbox(2, 0).parts[rank, : want.numel()].view_as(want)
        assert torch.equal(sent, want)
    host.all_have_come(1)
    to = stream(len(tokens), hidden)
    sums.add_up(host.inbox(2, 0), norm=torch.ones(hidden, device=DEVICE), to=to)
    assert torch.equal(to.values, table[tokens.long()])


def test_a_wait_can_be_called_off() -> None:
    host = Host()
    # The device knows already: to look at the host takes the interpreter a minute.
    host.peers[0].off_here.fill_(1)
    to = stream(1, 64)
    # Nobody else ever comes.
    sums.add_up(host.inbox(0, 0), norm=torch.ones(64, device=DEVICE), to=to)
    assert host.flags[1, 0] == 1
    assert host.flags[2, 0] == 1


@pytest.mark.skipif(DEVICE.type == "cpu", reason="takes the interpreter a minute")
def test_the_last_place_that_waits_hears_of_it_from_the_host() -> None:
    host = Host()
    host.peers[0].is_off.fill_(1)
    # The others came to the first place, and ended before they came to the second.
    host.flags.view(RANKS, RANKS, MOST_PLACES)[0, :, 0] = 1
    to = stream(1, 300)
    sums.add_up(host.inbox(0, 0), norm=torch.ones(300, device=DEVICE), to=to)
    assert host.peers[0].meetings[:2].tolist() == [1, 1]


def test_counts_of_meetings_may_go_round() -> None:
    host = Host()
    most = 2**31 - 1
    host.peers[0].meetings.fill_(most)
    host.all_have_come(-(2**31))
    to = stream(1, 64)
    sums.add_up(host.inbox(0, 0), norm=torch.ones(64, device=DEVICE), to=to)
    assert host.peers[0].meetings[0] == -(2**31)
