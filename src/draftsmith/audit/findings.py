"""What a check may find wrong, in words; and which mistake leaves which traces."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

__all__ = ["SIGNATURES", "Finding", "Trace", "name_mistakes"]


class Finding(StrEnum):
    """One thing that is not as it should be."""

    DRAWN = "drafted tokens are not drawn from the law that is reported for them"
    DRAWN_ROUNDED = "drafted tokens are drawn from a rounded copy of the law that is reported"
    SHARED_NOISE = "one random number serves two purposes"
    KEEPS_FORBIDDEN = "a token that the target forbids is kept when the uniform is 0"
    KEPT = "drafted tokens are kept with the wrong probability"
    EMITTED_TARGET = "after a rejection the token is drawn from the target itself"
    EMITTED_TOKEN_RESIDUAL = "after a rejection the token is drawn from the token residual"
    EMITTED = "after a rejection the token is drawn from the wrong law"
    TREE = "a tree of drawn tokens is judged wrongly"
    CUT = "how many drafted tokens are checked depends on the tokens themselves"
    SEEDED_TEXT = "the text of a seed depends on the draft"
    ROWS = "the logits of a token depend on the rows beside it in the pass"
    ROLLBACK = "a token that was rolled back leaves a trace in later logits"


class Trace(NamedTuple):
    """A finding, and the part in which it was found."""

    part: str
    """`rejection`, `block` or `coupled`, `draft` or `model`."""
    finding: Finding

    def __str__(self) -> str:
        return f"{self.part}: {self.finding.value}"


SIGNATURES: dict[frozenset[Finding], str] = {
    frozenset({Finding.EMITTED_TARGET}): "wrong-residual",
    frozenset({Finding.DRAWN}): "draft-law-not-sampled-from",
    frozenset({Finding.DRAWN_ROUNDED}): "bf16-draft-law",
    frozenset({Finding.KEEPS_FORBIDDEN}): "accepts-on-equality",
    frozenset({Finding.SHARED_NOISE}): "shared-noise-streams",
    frozenset({Finding.KEPT, Finding.EMITTED}): "row-off-by-one",
    frozenset({Finding.EMITTED_TOKEN_RESIDUAL}): "block-with-token-residual",
    frozenset({Finding.TREE}): "tree-row-off-by-one",
    frozenset({Finding.CUT}): "anticipating-cut",
    frozenset({Finding.SEEDED_TEXT}): "coupled-noise-used-twice",
    frozenset({Finding.ROWS}): "bf16-check",
    frozenset({Finding.ROLLBACK}): "stale-cache",
}
"""Which traces in one part point to which known mistake."""


def name_mistakes(traces: Iterable[Trace]) -> Sequence[str]:
    """The known mistakes that leave these traces; a part whose traces fit none is described.

    Example:
        >>> name_mistakes([Trace("block", Finding.EMITTED_TARGET)])
        ['wrong-residual (block)']
    """
    parts: dict[str, set[Finding]] = {}
    for trace in traces:
        parts.setdefault(trace.part, set()).add(trace.finding)
    return [_named(part, findings) for part, findings in sorted(parts.items())]


def _named(part: str, findings: set[Finding]) -> str:
    known = SIGNATURES.get(frozenset(findings))
    if known is not None:
        return f"{known} ({part})"
    return f"unknown mistake ({part}): {'; '.join(sorted(item.value for item in findings))}"
