"""The checks' own test: every planted bug is switched in, and must be caught and named."""

from collections.abc import Sequence
from typing import NamedTuple

from draftsmith.audit.bits import bit_tests, bit_traces
from draftsmith.audit.findings import Trace, name_mistakes
from draftsmith.audit.lengths import draft_lengths, length_traces
from draftsmith.audit.planted import BUGS, PlantedBug, plant
from draftsmith.audit.proof import prove
from draftsmith.audit.record import Grid, Record, judged
from draftsmith.audit.subject import Subject
from draftsmith.report.status import Status

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


def teeth_record(bites: Sequence[Bite], skipped: Sequence[str] = ()) -> Record:
    """Every planted bug as a row of one check.

    Args:
        bites: What was made of each bug that could be switched in.
        skipped: Names of the others.
    """
    missed = [one.name for one in bites if not one.is_named]
    rows = [[one.name, one.seen_by, f"{one.distance:.2g}", one.named or "-"] for one in bites]
    rows += [[name, "-", "-", "not tested"] for name in skipped]
    statuses: list[Status] = [
        *(judged(is_failed=not one.is_named, is_tested=True) for one in bites),
        *("untested" for _ in skipped),
    ]
    columns = ["bug", "seen by", "off by", "named"]
    summary = (
        f"All {len(bites)} planted bugs are caught and named."
        if not missed
        else f"{len(missed)} of {len(bites)} planted bugs are not caught under their names: "
        f"{', '.join(missed)}."
    )
    return Record(
        "teeth",
        "Planted bugs",
        judged(is_failed=bool(missed), is_tested=bool(bites)),
        summary,
        "A check that has lost its teeth: each bug is switched in, one after the other.",
        {
            "bugs": [
                {"name": one.name, "mistake": one.mistake, "seen_by": one.seen_by}
                | {"distance": one.distance, "named": one.named, "is_named": one.is_named}
                for one in bites
            ],
            "skipped": list(skipped),
        },
        [Grid("What each bug looks like", columns, rows, statuses)],
        untested=[f"{', '.join(skipped)}: this target promises no equal bits"] if skipped else (),
    )


def _bite(bug: PlantedBug, seen_by: str, distance: float, traces: list[Trace]) -> Bite:
    return Bite(bug.name, bug.mistake, seen_by, distance, "; ".join(name_mistakes(traces)))
