"""The end-to-end law on the real models: with stated error rates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from draftsmith.audit.memo import Memo
from draftsmith.audit.record import Grid, Record, judged
from draftsmith.audit.sampling import NUM_CELLS, Samples, Setting, most_telling, sampled
from draftsmith.audit.significance import (
    detectable_distance,
    holm,
    samples_needed,
)
from draftsmith.audit.subject import Subject
from draftsmith.core.verify import VERIFIERS
from draftsmith.errors import InvalidRequestError
from draftsmith.report.status import Status

__all__ = ["HOLDS", "LawRun", "Power", "law_record", "run_laws", "settings"]

_ITSELF_TEMPERATURE = 2.5
"""The target drafts for itself at this temperature: often right, often rejected."""
HOLDS: dict[Status, str] = {"pass": "holds", "fail": "FAILS", "untested": "not tested"}
"""What a row says of its law."""


@dataclass(frozen=True)
class Power:
    """What the statistical checks must be able to see, and how rarely they may be wrong."""

    detects: float = 0.1
    """Total variation of the law of the first tokens."""
    power: float = 0.99
    """How surely a law that far off fails."""
    false_fail_rate: float = 1e-9
    """Probability at most that a correct system fails any statistical check."""
    num_samples: int | None = None
    """Samples of each test; None is as many as it takes."""

    def __post_init__(self) -> None:
        for name, value in (
            ("detects", self.detects),
            ("power", self.power),
            ("false_fail_rate", self.false_fail_rate),
        ):
            if not 0 < value < 1:
                raise InvalidRequestError(f"{name} must be above 0 and below 1, got {value:g}")

    def samples(self, num_cells: int, num_tests: int) -> int:
        """Samples of each of so many tests, over laws of so many outcomes.

        Raises:
            InvalidRequestError: If the number that was asked for is too small.
        """
        rate = self.rate / num_tests
        needed = samples_needed(self.detects, num_cells, rate, self.power)
        if self.num_samples is None or self.num_samples >= needed:
            return self.num_samples or needed
        if self.num_samples < 1:
            raise InvalidRequestError(f"samples must be 1 or more, got {self.num_samples}")
        found = min(1.0, detectable_distance(self.num_samples, num_cells, rate, self.power))
        raise InvalidRequestError(
            f"{self.num_samples} samples detect a total variation of {found:.2g} with power "
            f"{self.power:g}, not {self.detects:g}: give --samples {needed}, or a larger --detects"
        )

    @property
    def rate(self) -> float:
        """Of each of the two kinds of statistical check."""
        return self.false_fail_rate / 2


class LawRun(NamedTuple):
    """One setting under one verifier."""

    setting: str
    verifier: str
    samples: Samples
    has_trees: bool = False
    """Whether its drafts are trees, whose nodes are not tested position by position."""


def settings(subject: Subject) -> list[Setting]:
    """Everything that drafts, and the target itself at another temperature, also in trees."""
    found = [Setting(name, drafter) for name, drafter in subject.drafters.items()]
    if subject.itself is not None:
        name = f"the target at temperature {_ITSELF_TEMPERATURE:g}"
        found.append(Setting(name, subject.itself, _ITSELF_TEMPERATURE))
    # A planted target may take none.
    if subject.trees is not None and subject.target.takes_trees:
        name = f"the target's trees at temperature {_ITSELF_TEMPERATURE:g}"
        found.append(Setting(name, subject.trees, _ITSELF_TEMPERATURE))
    return found


def num_tests(subject: Subject) -> int:
    """How many tests of a law `run_laws` makes."""
    return len(settings(subject)) * len(VERIFIERS)


def run_laws(subject: Subject, memo: Memo, num_samples: int, seed: int) -> Iterator[LawRun]:
    """Sample with every drafter under every verifier.

    Args:
        subject: Drafters over memos.
        memo: Of the target, without any planted bug.
        num_samples: Of each test.
        seed: Of the whole check.
    """
    for number, setting in enumerate(settings(subject)):
        prompt = most_telling(memo, setting, subject.prompts, seed + 10 * number)
        for place, verifier in enumerate(VERIFIERS):
            own_seed = seed + 10 * number + 2 + place
            found = sampled(subject.target, memo, setting, verifier, prompt, own_seed, num_samples)
            yield LawRun(setting.name, verifier, found, setting.drafter.branches > 1)


def law_record(runs: Sequence[LawRun], power: Power) -> Record:
    """The first tokens beside their exact law, as a check of the certificate."""
    laws = [run.samples.law for run in runs]
    failed = holm([law.p_value for law in laws], power.rate)
    rate, count = power.rate / len(laws), laws[0].num_samples
    distance = detectable_distance(count, NUM_CELLS, rate, power.power)
    worst = max(laws, key=lambda law: law.distance)
    summary = (
        f"{len(laws)} laws of the first two tokens, {count} samples each: the largest distance "
        f"from the exact law is {worst.distance:.3f}, the smallest p-value "
        f"{min(law.p_value for law in laws):.2g}."
    )
    statuses: list[Status] = [
        judged(is_failed=fails, is_tested=run.samples.num_drafted > 0)
        for run, fails in zip(runs, failed, strict=True)
    ]
    rows = [
        [run.setting, run.verifier, *_law_cells(run.samples), HOLDS[status]]
        for run, status in zip(runs, statuses, strict=True)
    ]
    columns = ["draft", "verifier", "samples", "drafted", "texts", "G", "TV", "p at most", "law"]
    return Record(
        "law",
        "Law of sampled text",
        judged(is_failed=any(failed), is_tested="pass" in statuses),
        summary,
        f"Any law that is {distance:.3f} or more away in total variation, with probability "
        f"{power.power:g} at least; nearer ones often. A correct system fails with probability "
        f"{power.rate:.1g} at most (bounds, not approximations; Holm over {len(laws)} tests).",
        {
            "num_samples": count,
            "detectable_distance": distance,
            "power": power.power,
            "false_fail_rate": power.rate,
            "tests": [
                {"draft": run.setting, "verifier": run.verifier, **run.samples.law._asdict()}
                | {"num_drafted": run.samples.num_drafted, "is_rejected": fails, "status": status}
                for run, fails, status in zip(runs, failed, statuses, strict=True)
            ],
        },
        [Grid("Texts of two tokens beside the exact law", columns, rows, statuses)],
        untested=[
            f"{run.setting} drafted nothing under {run.verifier}"
            for run, status in zip(runs, statuses, strict=True)
            if status == "untested"
        ],
    )


def _law_cells(samples: Samples) -> list[str]:
    law = samples.law
    return [
        str(law.num_samples),
        str(samples.num_drafted),
        str(law.num_cells),
        f"{law.statistic:.1f}",
        f"{law.distance:.4f}",
        f"{law.p_value:.2g}",
    ]
