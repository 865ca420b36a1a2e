"""The proof by enumeration: the exact law of a round, summed over every draft and every draw.

It runs the verifiers' own code. Each uniform is cut into the cells on which the verdict is
constant; each cell contributes its measure. Acceptance cells are represented by their left end,
so that `u <= threshold` in the place of `u < threshold` is seen.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.noise import CounterNoise, NoiseKeys, uniforms
from draftsmith.core.verdict import PAD_TOKEN
from draftsmith.core.verify import Check, CoupledVerifier, ThresholdVerifier, Verifier

__all__ = [
    "RandomWorld",
    "Tokens",
    "World",
    "coupled_text",
    "draw_cells",
    "plain_law",
    "plain_text",
    "round_law",
    "text_law",
    "total_variation",
]

Tokens: TypeAlias = tuple[int, ...]
TextLaw: TypeAlias = dict[Tokens, float]
Cut: TypeAlias = Callable[[Tokens, Tensor], int]
"""How many tokens of a draft are checked, given the draft and its laws."""


@runtime_checkable
class World(Protocol):
    """Two language models over a small vocabulary, as functions of the history."""

    vocab: int

    def target(self, history: Tokens) -> Float[Tensor, " vocab"]:
        """The target's law after `history`."""
        ...

    def draft(self, history: Tokens) -> Float[Tensor, " vocab"]:
        """The law that the drafter reports."""
        ...

    def drawn_from(self, history: Tokens) -> Float[Tensor, " vocab"]:
        """The law that the drafter's tokens are drawn from; an honest one's is `draft`."""
        ...


class RandomWorld:
    """A world with history-dependent laws of small counts, so that zeros and ties are common.

    Args:
        seed: Different seeds give unrelated worlds.
        vocab: Number of tokens.
        mismatch: 0 makes the draft equal the target, 1 makes it unrelated.
    """

    def __init__(self, seed: int, vocab: int, mismatch: float = 1.0) -> None:
        self.vocab = vocab
        self._seed = seed
        self._mismatch = mismatch
        self._laws: dict[tuple[int, Tokens], Tensor] = {}

    def target(self, history: Tokens) -> Float[Tensor, " vocab"]:
        """Counts from 0 to 4, normalised."""
        return self._law(0, history)

    def draft(self, history: Tokens) -> Float[Tensor, " vocab"]:
        """The target's law mixed with an unrelated one."""
        mixed = (1 - self._mismatch) * self._law(0, history)
        return mixed + self._mismatch * self._law(1, history)

    def drawn_from(self, history: Tokens) -> Float[Tensor, " vocab"]:
        """What it reports."""
        return self.draft(history)

    def _law(self, role: int, history: Tokens) -> Float[Tensor, " vocab"]:
        if (role, history) not in self._laws:
            code = 1
            for token in history:
                code = code * (self.vocab + 1) + token + 1
            keys = NoiseKeys(torch.tensor([self._seed]), torch.tensor([role]))
            columns = torch.arange(self.vocab + 1)
            draws = uniforms(keys, 0, torch.tensor([code % 2**31]), columns)[0]
            counts = (draws[:-1] * 5).floor()
            # One certain token: a law needs mass.
            counts[int(draws[-1] * self.vocab)] += 1
            self._laws[role, history] = counts / counts.sum()
        return self._laws[role, history]


def round_law(
    world: World,
    verifier: ThresholdVerifier,
    gamma: int,
    history: Tokens = (),
    cut: Cut | None = None,
) -> TextLaw:
    """The law of the tokens that one round commits after `history`."""
    check, drafts = _all_drafts(world, gamma, history, cut)
    accept, weight, rows = _acceptance_cells(verifier, check, drafts, world, history)
    return _emit(verifier, _take(check, rows), accept, weight)


def text_law(
    world: World,
    verifier: ThresholdVerifier,
    gamma: int,
    length: int,
    history: Tokens = (),
    cut: Cut | None = None,
) -> TextLaw:
    """The law of the first `length` tokens, over as many rounds as they take."""
    if length <= 0:
        return {(): 1.0}
    law: TextLaw = {}
    pending: TextLaw = {(): 1.0}
    while pending:
        text = min(pending, key=len)  # no other leads to it any more
        mass = pending.pop(text)
        for tokens, share in round_law(world, verifier, gamma, (*history, *text), cut).items():
            longer = (*text, *tokens)[:length]
            into = law if len(longer) == length else pending
            into[longer] = into.get(longer, 0.0) + mass * share
    return law


def plain_law(world: World, length: int, history: Tokens = ()) -> TextLaw:
    """The target's own law of the next `length` tokens."""
    law: TextLaw = {(): 1.0}
    for _ in range(length):
        law = {
            (*text, token): mass * share
            for text, mass in law.items()
            for token, share in enumerate(world.target((*history, *text)).tolist())
            if share
        }
    return law


def total_variation(one: TextLaw, other: TextLaw) -> float:
    """Half the L1 distance of two laws."""
    keys = one.keys() | other.keys()
    return 0.5 * sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in keys)


def plain_text(world: World, length: int, seed: int) -> Tokens:
    """The text of `seed` without speculation: the coupled verifier with nothing drafted."""
    text: Tokens = ()
    while len(text) < length:
        text += _coupled_round(world, CoupledVerifier(), (), text, seed, len(text))
    return text[:length]


def coupled_text(
    world: World, verifier: Verifier, drafts: Callable[[Tokens], Tokens], length: int, seed: int
) -> Tokens:
    """The text of `seed` when `drafts(history)` is proposed in every round."""
    text: Tokens = ()
    num_rounds = 0
    while len(text) < length:
        text += _coupled_round(world, verifier, drafts(text), text, seed, num_rounds)
        num_rounds += 1
    return text[:length]


def _coupled_round(
    world: World, verifier: Verifier, draft: Tokens, text: Tokens, seed: int, num_rounds: int
) -> Tokens:
    keys = NoiseKeys(torch.tensor([seed]), torch.tensor([0]))
    noise = CounterNoise(keys, torch.tensor([num_rounds]), torch.tensor([len(text)]))
    laws = [world.target((*text, *draft[:index])) for index in range(len(draft) + 1)]
    check = Check(
        torch.tensor(draft, dtype=torch.long).unsqueeze(0),
        torch.tensor([len(draft)]),
        None,
        torch.stack(laws).unsqueeze(0),
    )
    tokens = verifier.verify(check, noise).tokens[0].tolist()
    return tuple(token for token in tokens if token != PAD_TOKEN)


def _all_drafts(
    world: World, gamma: int, history: Tokens, cut: Cut | None
) -> tuple[Check, list[Tokens]]:
    """Every draft of gamma tokens, as one batch."""
    drafts = list(itertools.product(range(world.vocab), repeat=gamma))
    empty = torch.empty(0, world.vocab, dtype=torch.float64)
    drafted, targeted = (
        {prefix: law((*history, *prefix)) for prefix in _prefixes(world, count)}
        for law, count in ((world.draft, gamma), (world.target, gamma + 1))
    )
    draft_laws = [
        torch.stack([drafted[draft[:i]] for i in range(gamma)]) if gamma else empty
        for draft in drafts
    ]
    target_laws = [torch.stack([targeted[draft[:i]] for i in range(gamma + 1)]) for draft in drafts]
    lengths = [
        cut(draft, laws) if cut else gamma for draft, laws in zip(drafts, draft_laws, strict=True)
    ]
    check = Check(
        torch.tensor(drafts, dtype=torch.long).view(len(drafts), gamma),
        torch.tensor(lengths),
        torch.stack(draft_laws),
        torch.stack(target_laws),
    )
    return check, drafts


def _acceptance_cells(
    verifier: ThresholdVerifier,
    check: Check,
    drafts: list[Tokens],
    world: World,
    history: Tokens,
) -> tuple[Float[Tensor, "cells gamma"], Float[Tensor, " cells"], Int[Tensor, " cells"]]:
    """Every draft with every pattern of tests: left ends, measures, and the draft's row."""
    gamma = check.draft_tokens.shape[1]
    thresholds = verifier.thresholds(check).tolist()
    is_shared = verifier.streams[0] == verifier.streams[1]
    # The uniforms for which the drafter draws a token lie between its number's end and the next.
    ends_of = {
        prefix: [0.0, *world.drawn_from((*history, *prefix)).cumsum(-1).tolist()]
        for prefix in _prefixes(world, gamma)
    }
    ends: list[list[float]] = []
    weights: list[float] = []
    rows: list[int] = []
    for row, draft in enumerate(drafts):
        cells = [ends_of[draft[:i]][draft[i] : draft[i] + 2] for i in range(gamma)]
        for pattern in itertools.product((True, False), repeat=gamma):
            left: list[float] = []
            weight = 1.0
            for (low, high), test, is_kept in zip(cells, thresholds[row], pattern, strict=True):
                if not is_shared:
                    weight *= high - low
                    low, high = 0.0, 1.0
                start, stop = (low, min(high, test)) if is_kept else (max(low, test), high)
                weight *= max(stop - start, 0.0)
                left.append(start)
            if weight:
                ends.append(left)
                weights.append(weight)
                rows.append(row)
    dtype = check.target_probs.dtype
    accept = torch.tensor(ends, dtype=torch.float64).view(len(rows), gamma)
    return accept, torch.tensor(weights, dtype=dtype), torch.tensor(rows)


def _prefixes(world: World, count: int) -> Iterator[Tokens]:
    """Every text of fewer tokens than `count`."""
    for length in range(count):
        yield from itertools.product(range(world.vocab), repeat=length)


def _emit(
    verifier: ThresholdVerifier,
    check: Check,
    accept: Float[Tensor, "cells gamma"],
    weight: Float[Tensor, " cells"],
) -> TextLaw:
    """Cut the last uniform into the cells of the emitted token, and sum."""
    cells = len(weight)
    first = verifier.decide(check, accept, torch.zeros(cells, dtype=torch.float64))
    rows, middles, share = draw_cells(verifier.emitted_law(check, first.num_accepted))
    verdict = verifier.decide(_take(check, rows), accept[rows], middles)
    masses = (weight[rows] * share).tolist()
    law: TextLaw = {}
    for tokens, mass in zip(verdict.tokens.tolist(), masses, strict=True):
        if mass:
            key = tuple(token for token in tokens if token != PAD_TOKEN)
            law[key] = law.get(key, 0.0) + mass
    return law


def draw_cells(
    laws: Float[Tensor, "cells vocab"],
) -> tuple[Int[Tensor, " draws"], Float[Tensor, " draws"], Float[Tensor, " draws"]]:
    """Every token of every law: its row, a uniform that it is drawn at, and its mass."""
    rows = torch.arange(len(laws)).repeat_interleave(laws.shape[1])
    middles = laws.cumsum(-1) - laws / 2
    return rows, middles.flatten(), laws.flatten()


def _take(check: Check, rows: Int[Tensor, " cells"]) -> Check:
    assert check.draft_probs is not None
    return Check(*(part[rows] for part in check if part is not None))
