"""The checks' own test: every planted bug is switched in, and must be caught and named."""

from typing import NamedTuple

from draftsmith.audit.bits import bit_tests, bit_traces
from draftsmith.audit.findings import Trace, name_mistakes
from draftsmith.audit.lengths import draft_lengths, length_traces
from draftsmith.audit.planted import BUGS, PlantedBug, plant
from draftsmith.audit.proof import prove
from draftsmith.audit.record import Grid, Record
from draftsmith.audit.subject import Subject

__all__ = ["Bite", "bite", "teeth_record"]

_NUM_WORLDS = 6
_NUM_TOKENS = 12


class Bite(NamedTuple):
    """What the exact checks make of one planted bug."""

    name: str
    mistake: str
    seen_by: str
    distance: float
    """Total variation in the worst world, the share of texts, or the largest logit error."""
    named: str
    """What the checks took it for; empty if they saw nothing."""

    @property
    def is_named(self) -> bool:
        """Whether it was caught under its own name, in the right part."""
        bug = BUGS[self.name]
        kind = bug.name.removeprefix("block-") if bug.part == "block" else bug.name
        return self.named in (f"{kind} ({bug.part})", f"{bug.name} ({bug.part})")


def bite(bug: PlantedBug, subject: Subject) -> Bite | None:
    """Switch a bug in and run the exact checks; None where they promise nothing.

    Args:
        bug: The bug.
        subject: A correct system.
    """
    if bug.model is not None and not subject.is_row_exact:
        return None
    with plant(bug, subject) as broken:
        if bug.model is not None:
            tests = list(bit_tests(broken, 1, _NUM_TOKENS))
            traces = bit_traces(tests, is_exact=subject.is_row_exact)
            return _bite(bug, "bits of the logits", max(test.error for test in tests), traces)
        names = set(bug.verifiers) or {"rejection"}
        proofs = prove(_NUM_WORLDS, broken.cut, names)
        lengths = list(draft_lengths(broken)) if bug.cut is not None else []
    traces = [*length_traces(lengths), *(trace for proof in proofs for trace in proof.traces)]
    return _bite(bug, "enumeration", max(proof.distance for proof in proofs), traces)


def teeth_record(bites: list[Bite]) -> Record:
    """Every planted bug as a row of one check."""
    missed = [one.name for one in bites if not one.is_named]
    rows = [[one.name, one.seen_by, f"{one.distance:.2g}", one.named or "-"] for one in bites]
    summary = (
        f"All {len(bites)} planted bugs are caught and named."
        if not missed
        else f"{len(missed)} of {len(bites)} planted bugs are not caught under their names: "
        f"{', '.join(missed)}."
    )
    return Record(
        "teeth",
        "Planted bugs",
        "fail" if missed else "pass",
        summary,
        "A check that has lost its teeth: each bug is switched in, one after the other.",
        {
            "bugs": [
                {"name": one.name, "mistake": one.mistake, "seen_by": one.seen_by}
                | {"distance": one.distance, "named": one.named, "is_named": one.is_named}
                for one in bites
            ]
        },
        [Grid("What each bug looks like", ["bug", "seen by", "off by", "named"], rows)],
    )


def _bite(bug: PlantedBug, seen_by: str, distance: float, traces: list[Trace]) -> Bite:
    return Bite(bug.name, bug.mistake, seen_by, distance, "; ".join(name_mistakes(traces)))
