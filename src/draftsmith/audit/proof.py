"""The proof by enumeration, run on the verifiers that the engine looks up at this moment."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from draftsmith.audit.findings import Finding, Trace
from draftsmith.audit.probes import AsDrawn, probe_verifier
from draftsmith.audit.record import Grid, Record, judged
from draftsmith.core.enumeration import (
    Cut,
    RandomWorld,
    Tokens,
    coupled_text,
    plain_law,
    plain_text,
    round_law,
    text_law,
    total_variation,
)
from draftsmith.core.tree_enumeration import tree_round_law
from draftsmith.core.verify import VERIFIERS, ThresholdVerifier, Verifier

__all__ = [
    "EXACT",
    "Proof",
    "a_world",
    "distance_of_a_round",
    "distance_of_a_tree",
    "distance_of_rounds",
    "num_seeded_differences",
    "proof_record",
    "prove",
]

EXACT = 1e-12
"""A law nearer than this is the same to rounding."""
_MISMATCHES = (0.2, 0.6, 1.0)
_TREES = ((-1, -1, 0, 0, 1, 1), (-1, -1, 0, 1, 2, 3), (-1, 0, 0), (-1, -1, -1, 0, 2))
"""Parents of the nodes of some trees."""


@dataclass(frozen=True)
class Proof:
    """What the enumeration says of one verifier."""

    name: str
    num_worlds: int
    distance: float
    """Total variation in the worst world; for `coupled`, the share of texts that differ."""
    traces: tuple[Trace, ...]

    @property
    def is_exact(self) -> bool:
        """Whether it proves the verifier exact."""
        return self.distance <= EXACT


def a_world(seed: int, verifier: ThresholdVerifier | None = None) -> RandomWorld:
    """One of many small worlds; with a verifier, its tokens are drawn as that one draws them."""
    vocab, mismatch = 3 + seed % 2, _MISMATCHES[seed % 3]
    if verifier is None:
        return RandomWorld(seed, vocab, mismatch)
    return AsDrawn(seed, vocab, mismatch, verifier)


def distance_of_a_round(
    world: RandomWorld,
    verifier: ThresholdVerifier,
    gamma: int,
    history: Tokens = (),
    cut: Cut | None = None,
) -> float:
    """TV between one round, continued by plain draws, and plain decoding."""
    law = round_law(world, verifier, gamma, history, cut)
    return _distance(world, law, gamma + 1, history)


def distance_of_a_tree(
    world: RandomWorld, verifier: ThresholdVerifier, parents: Sequence[int], history: Tokens = ()
) -> float:
    """The same of a round over trees of this shape, whose tokens are drawn."""
    law = tree_round_law(world, verifier, parents, history)
    return _distance(world, law, 1 + max(map(len, law)), history)


def _distance(world: RandomWorld, law: dict[Tokens, float], length: int, history: Tokens) -> float:
    """TV between texts of a law, continued by plain draws, and plain decoding."""
    whole: dict[Tokens, float] = {}
    for tokens, mass in law.items():
        rest = plain_law(world, length - len(tokens), (*history, *tokens))
        for tail, share in rest.items():
            whole[(*tokens, *tail)] = whole.get((*tokens, *tail), 0.0) + mass * share
    return total_variation(whole, plain_law(world, length, history))


def distance_of_rounds(
    world: RandomWorld, verifier: ThresholdVerifier, gamma: int, length: int, cut: Cut | None = None
) -> float:
    """TV between the first tokens of as many rounds as they take, and plain decoding."""
    law = text_law(world, verifier, gamma, length, cut=cut)
    return total_variation(law, plain_law(world, length))


def num_seeded_differences(verifier: Verifier, num_worlds: int, gamma: int) -> tuple[int, int]:
    """Texts under every possible draft that are not the seed's plain text, and all texts."""
    differing = total = 0
    for seed in range(num_worlds):
        world = a_world(seed)
        plain = plain_text(world, length=4, seed=seed)
        for draft in itertools.product(range(world.vocab), repeat=gamma):
            text = coupled_text(world, verifier, lambda _, one=draft: one, 4, seed)
            differing += text != plain
            total += 1
    return differing, total


def prove(
    num_worlds: int, cut: Cut | None = None, names: Collection[str] | None = None
) -> list[Proof]:
    """Enumerate the verifiers as they are registered now.

    Args:
        num_worlds: Random worlds for each; zeros and ties are common in them.
        cut: How many tokens of a draft the drafters hand on; None is all.
        names: Which verifiers; None is all.
    """
    proofs: list[Proof] = []
    for name, verifier in VERIFIERS.items():
        if names is not None and name not in names:
            continue
        if isinstance(verifier, ThresholdVerifier):
            proofs.append(_threshold_proof(name, verifier, num_worlds, cut))
        else:
            proofs.append(_coupled_proof(name, verifier, num_worlds))
    return proofs


def proof_record(num_worlds: int, cut: Cut | None = None) -> Record:
    """The proof as a check of the certificate."""
    proofs = prove(num_worlds, cut)
    failed = [proof for proof in proofs if not proof.is_exact]
    figures = {
        proof.name: {"num_worlds": proof.num_worlds, "distance": proof.distance} for proof in proofs
    }
    rows = [
        [
            proof.name,
            str(proof.num_worlds),
            f"{proof.distance:.1e}",
            "; ".join(trace.finding.value for trace in proof.traces) or "-",
        ]
        for proof in proofs
    ]
    summary = (
        "Summed over every draft, chain or tree, and every draw, each verifier has the target's "
        "law."
        if not failed
        else "; ".join(f"{one.name} is off by {one.distance:.2g}" for one in failed) + "."
    )
    return Record(
        "enumeration",
        "Proof by enumeration",
        judged(is_failed=bool(failed), is_tested=bool(proofs)),
        summary,
        f"Any rule whose law is off by more than {EXACT:g} in total variation, in one of these "
        "worlds; chance plays no part.",
        figures,
        [Grid("Distance from the target's law", ["verifier", "worlds", "worst", "parts"], rows)],
        [trace for proof in proofs for trace in proof.traces],
    )


def _threshold_proof(
    name: str, verifier: ThresholdVerifier, num_worlds: int, cut: Cut | None
) -> Proof:
    traces = probe_verifier(name, verifier)
    distances = [
        distance_of_a_round(
            a_world(seed, verifier), verifier, 1 + seed % 3, (0, 1, 2, 0)[: seed % 5], cut
        )
        for seed in range(num_worlds)
    ]
    # Rounds upon rounds: what a round leaves behind must not matter to the next.
    distances += [
        distance_of_rounds(a_world(seed, verifier), verifier, 2, 4, cut)
        for seed in range(1 + num_worlds // 20)
    ]
    if verifier.tree_rule is not None:
        trees = [_tree_distance(seed, verifier) for seed in range(num_worlds)]
        if max(trees) > EXACT:
            traces.append(Trace(name, Finding.TREE))
        distances += trees
    worst = max(distances)
    return Proof(name, num_worlds, worst, tuple(traces))


def _tree_distance(seed: int, verifier: ThresholdVerifier) -> float:
    world = RandomWorld(seed, 3, _MISMATCHES[seed % 3])
    return distance_of_a_tree(world, verifier, _TREES[seed % len(_TREES)], (0, 1, 2)[: seed % 4])


def _coupled_proof(name: str, verifier: Verifier, num_worlds: int) -> Proof:
    num_worlds = 1 + num_worlds // 20
    counts = [num_seeded_differences(verifier, num_worlds, gamma) for gamma in (1, 2)]
    share = sum(one for one, _ in counts) / sum(total for _, total in counts)
    traces = (Trace(name, Finding.SEEDED_TEXT),) if share else ()
    return Proof(name, num_worlds, share, traces)
