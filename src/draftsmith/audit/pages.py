"""A certificate as a document and as a page."""

from collections.abc import Sequence
from typing import Any

from draftsmith.audit.record import Certificate, Record
from draftsmith.report.figure import Figure, Series
from draftsmith.report.page import Section, Table

__all__ = ["as_document", "sections"]


def as_document(
    certificate: Certificate, environment: dict[str, Any], command: str
) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "what": "certificate of exactness",
        "command": command,
        "environment": environment,
        **certificate.to_dict(),
    }


def sections(certificate: Certificate) -> list[Section]:
    """One section for each check, and what the failures point to."""
    return [*_heads(certificate), *map(_section, certificate.records)]


def _heads(certificate: Certificate) -> list[Section]:
    """What a reader must not overlook: what is wrong, and what nothing was said of."""
    heads: list[Section] = []
    if certificate.mistakes:
        named = [f"The failures point to: {', '.join(certificate.mistakes)}."]
        heads.append(Section("What is wrong", named, status="fail"))
    if certificate.untested:
        said = ["This certificate says nothing of:", *certificate.untested]
        heads.append(Section("What was not tested", said, status="untested"))
    return heads


def _section(record: Record) -> Section:
    tables = [Table(grid.caption, grid.columns, grid.rows, grid.statuses) for grid in record.grids]
    paragraphs = [record.summary, f"It would have seen: {record.detects}"]
    if record.untested:
        paragraphs.append(f"Not tested: {'; '.join(record.untested)}.")
    return Section(record.title, paragraphs, tables, _figures(record), record.status)


def _figures(record: Record) -> Sequence[Figure]:
    if record.name != "acceptance":
        return []
    tests: list[dict[str, Any]] = record.figures["tests"]
    drafts = dict.fromkeys(test["draft"] for test in tests)
    return [_figure(name, [test for test in tests if test["draft"] == name]) for name in drafts]


def _figure(draft: str, tests: Sequence[dict[str, Any]]) -> Figure:
    places = list(range(len(tests)))
    ends = [(test["expected"], test["detectable_shift"]) for test in tests]
    return Figure(
        draft,
        "position in the draft",
        "share kept",
        [
            Series("kept", places, [test["observed"] for test in tests], style="bars"),
            Series(
                "1 - TV",
                places,
                [mean for mean, _ in ends],
                low=[max(0.0, mean - shift) for mean, shift in ends],
                high=[min(1.0, mean + shift) for mean, shift in ends],
                style="points",
            ),
        ],
        "Of the tested drafts. Points: the mean of 1 - TV over the same tests; a bar is the shift "
        "that would have been seen.",
        [str(test["position"] + 1) for test in tests],
    )
