"""A certificate: one record for each check, and a verdict in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from draftsmith.audit.findings import Trace, name_mistakes
from draftsmith.report.status import Outcome, Status

__all__ = ["Certificate", "Grid", "Record", "judged"]


@dataclass(frozen=True)
class Grid:
    """Figures of one check, side by side."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    statuses: Sequence[Status | None] = ()
    """Of each row, where rows that failed or were not tested must be seen; empty if none has."""


@dataclass(frozen=True)
class Record:
    """One check: what it found, and what it would have found."""

    name: str
    """For machines."""
    title: str
    status: Status
    summary: str
    """What was found, in a sentence or two."""
    detects: str
    """What would have been detected, and how surely."""
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The numbers, ready for JSON."""
    grids: Sequence[Grid] = ()
    traces: Sequence[Trace] = ()
    """What is wrong, where the check can tell."""
    untested: Sequence[str] = ()
    """What this check says nothing of because nothing happened there, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "status": self.status,
            "untested": list(self.untested),
            "summary": self.summary,
            "would_detect": self.detects,
            "traces": [{"part": part, "finding": finding.name} for part, finding in self.traces],
            "figures": dict(self.figures),
        }


@dataclass(frozen=True)
class Certificate:
    """All records of one run."""

    subject: str
    """What was certified, in words."""
    records: Sequence[Record]

    @property
    def untested(self) -> Sequence[str]:
        """What the certificate says nothing of: whole checks, and rows of those that passed."""
        words = {record.title: "; ".join(record.untested) for record in self.records}
        return [
            f"{record.title} ({words[record.title]})" if words[record.title] else record.title
            for record in self.records
            if record.status == "untested" or (record.status == "pass" and record.untested)
        ]

    @property
    def outcome(self) -> Outcome:
        """What the whole came to, in a word."""
        if any(record.status == "fail" for record in self.records):
            return Outcome("fail", "FAILED")
        if not self.is_pass:
            return Outcome("untested", "NOT TESTED")
        return Outcome("untested", "PASSED IN PART") if self.untested else Outcome("pass", "PASSED")

    @property
    def is_pass(self) -> bool:
        """Whether nothing failed, and something passed; see `untested` for what it leaves out."""
        statuses = {record.status for record in self.records}
        return "fail" not in statuses and "pass" in statuses

    @property
    def mistakes(self) -> Sequence[str]:
        """The mistakes that the failed checks point to."""
        return name_mistakes({trace for record in self.records for trace in record.traces})

    @property
    def verdict(self) -> str:
        """One sentence, and one more on what was not tested."""
        passed = sum(record.status == "pass" for record in self.records)
        failed = [record.title for record in self.records if record.status == "fail"]
        if self.is_pass:
            count = "1 check" if passed == 1 else f"{passed} checks"
            return f"{self.subject} is exact as far as {count} can tell.{self._left_out}"
        if not failed:
            return f"{self.subject} could not be tested: no check applied.{self._left_out}"
        named = f": {', '.join(self.mistakes)}" if self.mistakes else ""
        return (
            f"{self.subject} is NOT exact: {len(failed)} of {passed + len(failed)} checks failed "
            f"({', '.join(failed)}){named}."
        )

    @property
    def _left_out(self) -> str:
        return f" NOT TESTED: {', '.join(self.untested)}." if self.untested else ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "subject": self.subject,
            "outcome": self.outcome.word.lower(),
            "is_pass": self.is_pass,
            "untested": list(self.untested),
            "verdict": self.verdict,
            "mistakes": list(self.mistakes),
            "checks": [record.to_dict() for record in self.records],
        }


def judged(*, is_failed: bool, is_tested: bool) -> Status:
    """The status of a check or a row: a failure counts in any case, a pass only if it was tested.

    Example:
        >>> judged(is_failed=False, is_tested=False)
        'untested'
    """
    if is_failed:
        return "fail"
    return "pass" if is_tested else "untested"
