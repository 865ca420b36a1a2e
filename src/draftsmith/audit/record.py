"""A certificate: one record for each check, and a verdict in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from draftsmith.audit.findings import Trace, name_mistakes

__all__ = ["Certificate", "Grid", "Record", "Status"]

Status = Literal["pass", "fail", "info"]


@dataclass(frozen=True)
class Grid:
    """Figures of one check, side by side."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


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

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "status": self.status,
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
    def is_pass(self) -> bool:
        """Whether nothing failed, and something passed."""
        statuses = {record.status for record in self.records}
        return "fail" not in statuses and "pass" in statuses

    @property
    def mistakes(self) -> Sequence[str]:
        """The mistakes that the failed checks point to."""
        return name_mistakes({trace for record in self.records for trace in record.traces})

    @property
    def verdict(self) -> str:
        """One sentence."""
        passed = sum(record.status == "pass" for record in self.records)
        failed = [record.title for record in self.records if record.status == "fail"]
        if self.is_pass:
            count = "1 check" if passed == 1 else f"{passed} checks"
            return f"{self.subject} is exact as far as {count} can tell."
        if not failed:
            return f"{self.subject} could not be tested: no check applied."
        named = f": {', '.join(self.mistakes)}" if self.mistakes else ""
        return (
            f"{self.subject} is NOT exact: {len(failed)} of {passed + len(failed)} checks failed "
            f"({', '.join(failed)}){named}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "subject": self.subject,
            "is_pass": self.is_pass,
            "verdict": self.verdict,
            "mistakes": list(self.mistakes),
            "checks": [record.to_dict() for record in self.records],
        }
