"""Probes of a verifier's parts, each against the plain rule: they say where a mistake is."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.audit.findings import Finding, Trace
from draftsmith.core.enumeration import RandomWorld, Tokens
from draftsmith.core.noise import NoiseKeys, RoundNoise, uniforms
from draftsmith.core.verdict import draw
from draftsmith.core.verify import (
    BlockVerifier,
    Check,
    RejectionVerifier,
    ThresholdVerifier,
    Verifier,
)

__all__ = ["AsDrawn", "drawn_law", "probe_verifier"]

_VOCAB, _GAMMA, _NUM_CHECKS = 5, 3, 400
_ROUNDING = 0.02
"""A drawn law nearer than this to the reported one is a rounded copy of it."""
_SAME = 1e-12
_NUM_BITS = 60
_PLAIN: dict[str, ThresholdVerifier] = {
    "rejection": RejectionVerifier(),
    "block": BlockVerifier(),
}


def probe_verifier(name: str, verifier: Verifier) -> list[Trace]:
    """What is wrong with the parts of the verifier that goes by `name`.

    The coupled verifier has no parts that could be told apart: its text is what is checked.
    """
    if not isinstance(verifier, ThresholdVerifier):
        return []
    check, plain = _checks(), _PLAIN[name]
    findings = [
        *_drawing(verifier, check),
        *_noise(verifier, check),
        *_keeping(verifier, plain, check),
        *_emitting(verifier, plain, check),
    ]
    return [Trace(name, finding) for finding in findings]


class AsDrawn(RandomWorld):
    """A world whose drafted tokens come as a verifier draws them, not as its laws say."""

    def __init__(self, seed: int, vocab: int, mismatch: float, verifier: ThresholdVerifier) -> None:
        super().__init__(seed, vocab, mismatch)
        self._verifier = verifier
        self._drawn: dict[Tokens, Tensor] = {}

    def drawn_from(self, history: Tokens) -> Float[Tensor, " vocab"]:
        """Measured on the verifier's own draws."""
        if history not in self._drawn:
            self._drawn[history] = drawn_law(self._verifier, self.draft(history))
        return self._drawn[history]


def drawn_law(verifier: Verifier, law: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """The law of the token that a verifier draws where `law` is reported.

    Exact to the last bits: the uniforms at which the drawn token changes are found by bisection.
    """
    edges = law.cumsum(-1)
    probes = torch.cat([edges[:-1], torch.nextafter(edges, torch.zeros(()).double())])
    if torch.equal(_drawn(verifier, law, probes), draw(law.expand(len(probes), -1), probes)):
        return law
    tokens = torch.arange(len(law) - 1)
    low, high = torch.zeros(len(tokens)).double(), torch.ones(len(tokens)).double()
    for _ in range(_NUM_BITS):
        middle = (low + high) / 2
        is_below = _drawn(verifier, law, middle) <= tokens
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    ends = torch.cat([torch.zeros(1).double(), high, torch.ones(1).double()])
    return ends.diff()


class _Scripted(RoundNoise):
    """One number for everything; it notes which streams were read."""

    def __init__(self, values: Float[Tensor, " batch"]) -> None:
        self.values = values
        self.read: list[int] = []

    def uniforms(self, stream: int, count: int) -> Float[Tensor, "batch count"]:
        """The script, whatever the stream."""
        self.read.append(int(stream))
        return self.values.unsqueeze(1).expand(-1, count)

    def exponentials(self, first: int, count: int, vocab: int) -> Float[Tensor, "batch count v"]:
        """Never asked of a verifier with thresholds."""
        raise AssertionError("a threshold verifier takes uniforms")


def _drawn(verifier: Verifier, law: Tensor, values: Tensor) -> Tensor:
    return verifier.draw(law.expand(len(values), -1), _Scripted(values), 0)


def _drawing(verifier: ThresholdVerifier, check: Check) -> Sequence[Finding]:
    """Whether the drawn law is the reported one."""
    assert check.draft_probs is not None
    distances = [
        float((drawn_law(verifier, law) - law).abs().sum() / 2)
        for law in check.draft_probs[:32].flatten(0, 1)
    ]
    if max(distances) <= _SAME:
        return []
    return [Finding.DRAWN if max(distances) > _ROUNDING else Finding.DRAWN_ROUNDED]


def _noise(verifier: ThresholdVerifier, check: Check) -> Sequence[Finding]:
    """Whether draft, acceptance and emission read streams of their own."""
    assert check.draft_probs is not None
    noise = _Scripted(torch.full((len(check.num_drafted),), 0.5, dtype=torch.float64))
    verifier.draw(check.draft_probs[:, 0], noise, 0)
    verifier.verify(check, noise)
    return [Finding.SHARED_NOISE] if len(set(noise.read)) < len(noise.read) else []


def _keeping(
    verifier: ThresholdVerifier, plain: ThresholdVerifier, check: Check
) -> Sequence[Finding]:
    """Whether as many drafts are kept as the plain rule keeps, at random uniforms and at 0."""
    findings: list[Finding] = []
    emit = torch.full((len(check.num_drafted),), 0.5, dtype=torch.float64)
    accept = _random(1, len(emit), _GAMMA)
    for uniform, finding in (
        (accept, Finding.KEPT),
        (torch.zeros_like(accept), Finding.KEEPS_FORBIDDEN),
    ):
        one, other = (rule.decide(check, uniform, emit) for rule in (verifier, plain))
        if not torch.equal(one.num_accepted, other.num_accepted):
            findings.append(finding)
    # With wrong thresholds, what happens at 0 says nothing of its own.
    return findings[:1]


def _emitting(
    verifier: ThresholdVerifier, plain: ThresholdVerifier, check: Check
) -> Sequence[Finding]:
    """Whether the emitted token's law is the plain rule's, after any number of kept drafts."""
    laws: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for kept in range(_GAMMA + 1):
        num_accepted = check.num_drafted.clamp(max=kept)
        rows = torch.arange(len(num_accepted))
        rules = (verifier, plain, RejectionVerifier())
        one, other, residual = (rule.emitted_law(check, num_accepted) for rule in rules)
        laws.append((one, other, check.target_probs[rows, num_accepted], residual))
    found, wanted, target, residual = (torch.cat(part) for part in zip(*laws, strict=True))
    if _is_same(found, wanted):
        return []
    if _is_same(found, target):
        return [Finding.EMITTED_TARGET]
    is_residual = _is_same(found, residual)
    return [Finding.EMITTED_TOKEN_RESIDUAL if is_residual else Finding.EMITTED]


def _is_same(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= _SAME


@cache
def _checks() -> Check:
    """Ragged drafts under random laws, in which zeros and ties are common."""
    counts = (_random(2, _NUM_CHECKS, (2 * _GAMMA + 1) * _VOCAB) * 5).floor()
    counts = counts.view(_NUM_CHECKS, 2 * _GAMMA + 1, _VOCAB)
    # Some token is certain to have mass.
    certain = (_random(3, _NUM_CHECKS, 2 * _GAMMA + 1) * _VOCAB).long().unsqueeze(-1)
    laws = counts.scatter_add(-1, certain, torch.ones_like(counts[..., :1]))
    laws = laws / laws.sum(-1, keepdim=True)
    draft, target = laws[:, :_GAMMA], laws[:, _GAMMA:]
    picks = _random(4, _NUM_CHECKS, _GAMMA)
    tokens = torch.stack([draw(draft[:, i], picks[:, i]) for i in range(_GAMMA)], dim=1)
    lengths = (_random(5, _NUM_CHECKS, 1)[:, 0] * (_GAMMA + 1)).long()
    return Check(tokens, lengths, draft, target)


def _random(stream: int, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    keys = NoiseKeys(torch.zeros(rows).long(), torch.arange(rows))
    return uniforms(keys, stream, torch.zeros(rows).long(), torch.arange(columns))
