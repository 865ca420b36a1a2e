"""Acceptance at each position beside 1 - TV at the very same tests, with stated error rates."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from draftsmith.audit.law import HOLDS, LawRun, Power
from draftsmith.audit.record import Grid, Record, judged
from draftsmith.audit.sampling import Tests
from draftsmith.audit.significance import AcceptanceTest, detectable_shift, holm, judge_acceptance
from draftsmith.report.status import Status

__all__ = ["acceptance_record"]


class _Row(NamedTuple):
    """What came of one drafter at one position of its drafts."""

    setting: str
    position: int
    test: AcceptanceTest
    shift: float
    """About how far off the rate must be to be seen; 1 if it never would be."""
    is_rejected: bool

    @property
    def status(self) -> Status:
        """A test that no shift can fail has tested nothing."""
        is_tested = self.test.num_tested > 0 and self.shift < 1
        return judged(is_failed=self.is_rejected, is_tested=is_tested)

    @property
    def cells(self) -> list[str]:
        """For the table."""
        place = [self.setting, str(self.position + 1), str(self.test.num_tested)]
        if not self.test.num_tested:
            return [*place, *["-"] * 4, HOLDS[self.status]]
        return [
            *place,
            f"{self.test.observed:.4f}",
            f"{self.test.expected:.4f}",
            f"{self.test.p_value:.2g}",
            f"{self.shift:.3f}" if self.shift < 1 else "nothing",
            HOLDS[self.status],
        ]

    @property
    def figures(self) -> dict[str, Any]:
        """For the document."""
        return {
            "draft": self.setting,
            "position": self.position,
            "observed": self.test.observed,
            **self.test._asdict(),
            "detectable_shift": self.shift,
            "is_rejected": self.is_rejected,
            "status": self.status,
        }


def acceptance_record(runs: Sequence[LawRun], power: Power) -> Record:
    """Acceptance at each position as a check of the certificate.

    Args:
        runs: The sampled texts; those under the rejection verifier count.
        power: What must be seen.
    """
    rows = _rows(runs, power)
    tested = [row for row in rows if row.test.num_tested]
    idle = [row for row in rows if row.status == "untested"]
    gaps = [abs(row.test.observed - row.test.expected) for row in tested]
    summary = (
        f"Over {sum(row.test.num_tested for row in tested)} tests, the kept share differs from "
        f"the mean of 1 - TV by {max(gaps):.4f} at most."
        if tested
        else "No drafted token was tested."
    )
    columns = ["draft", "position", "tested", "kept", "1 - TV", "p at most", "would see", "share"]
    return Record(
        "acceptance",
        "Acceptance by position",
        judged(
            is_failed=any(row.is_rejected for row in rows),
            is_tested=any(row.status == "pass" for row in rows),
        ),
        summary,
        f"A shift of an acceptance rate by what the table says, about, with power {power.power:g}. "
        f"A correct system fails with probability {power.rate:.1g} at most (a bound; Holm over "
        f"{len(tested)} tests).",
        {"false_fail_rate": power.rate, "tests": [row.figures for row in tested]},
        [
            Grid(
                "Drafted tokens that the rejection verifier tested",
                columns,
                [row.cells for row in rows],
                [row.status for row in rows],
            )
        ],
        untested=[f"{row.setting} at position {row.position + 1}" for row in idle],
    )


def _rows(runs: Sequence[LawRun], power: Power) -> list[_Row]:
    found = [
        (run.setting, position, test)
        for run in runs
        if run.verifier == "rejection" and not run.has_trees
        for position, test in enumerate(_judged(run.samples.tests))
    ]
    # A position that no draft reached is no hypothesis that could be rejected.
    tried = [test for *_, test in found if test.num_tested]
    rejected = iter(holm([test.p_value for test in tried], power.rate))
    rate = power.rate / max(len(tried), 1)
    return [
        _Row(
            setting,
            position,
            test,
            _shift(test, rate, power),
            bool(test.num_tested) and next(rejected),
        )
        for setting, position, test in found
    ]


def _shift(test: AcceptanceTest, rate: float, power: Power) -> float:
    if not test.num_tested:
        return 1.0
    return detectable_shift(test.num_tested, test.expected, rate, power.power)


def _judged(tests: Tests) -> Iterator[AcceptanceTest]:
    for kept, probabilities in zip(tests.kept, tests.probabilities, strict=True):
        yield judge_acceptance(torch.tensor(kept).double(), torch.tensor(probabilities).double())
