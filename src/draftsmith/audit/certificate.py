"""The certificate of a pair on this machine: every check, one after the other."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from draftsmith.audit.acceptance import acceptance_record
from draftsmith.audit.bits import bit_tests, bits_record
from draftsmith.audit.equality import compare_texts, equality_record, num_comparisons
from draftsmith.audit.law import Power, law_record, num_tests, run_laws
from draftsmith.audit.lengths import draft_lengths, lengths_record
from draftsmith.audit.memo import memoised
from draftsmith.audit.planted import BUGS, PlantedBug, plant
from draftsmith.audit.proof import proof_record
from draftsmith.audit.record import Certificate, Record
from draftsmith.audit.sampling import NUM_CELLS
from draftsmith.audit.subject import Subject
from draftsmith.audit.teeth import bite, teeth_record
from draftsmith.errors import InvalidRequestError

__all__ = ["EFFORTS", "Effort", "OnStep", "certify"]

OnStep: TypeAlias = Callable[[str, int, int], None]
"""Told which check is at which of how many steps."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Effort:
    """How much is run."""

    num_worlds: int = 100
    num_prompts: int = 4
    max_tokens: int = 24
    gammas: tuple[int, ...] = (1, 2, 4, 8)
    temperatures: tuple[float, ...] = (0.0, 0.8)
    num_bit_tokens: int = 33
    power: Power = field(default_factory=Power)


EFFORTS: dict[str, Effort] = {
    "quick": Effort(30, 2, 12, (1, 4), num_bit_tokens=20, power=Power(detects=0.2)),
    "default": Effort(),
    "thorough": Effort(400, 12, 64, num_bit_tokens=65, power=Power(detects=0.05)),
}
"""By name."""


def certify(
    subject: Subject,
    name: str,
    effort: Effort,
    *,
    bug: PlantedBug | None = None,
    seed: int = 7,
    on_step: OnStep | None = None,
) -> Certificate:
    """Run every check on a target and its drafters.

    Args:
        subject: What is certified.
        name: What it is called.
        effort: How much is run.
        bug: A planted bug that is switched into the engine for the whole run; None is none.
        seed: Of every random number.
        on_step: Told of the progress.

    Raises:
        InvalidRequestError: If the samples asked for are too few, or the bug cannot show.
    """
    tell = on_step or _silent
    # Before any work: too few samples are refused at once.
    num_samples = effort.power.samples(NUM_CELLS, num_tests(subject))
    subject = replace(subject, prompts=subject.prompts[: effort.num_prompts])
    if not subject.target.traits.can_rollback:
        raise InvalidRequestError(
            f"{subject.target.traits.name} cannot speculate: there is nothing to certify"
        )
    records = _exact(subject, effort, bug, seed, tell)
    records += _statistical(subject, effort, bug, seed, num_samples, tell)
    return Certificate(name, records)


def _exact(
    subject: Subject, effort: Effort, bug: PlantedBug | None, seed: int, tell: OnStep
) -> list[Record]:
    """The checks that chance plays no part in."""
    tell("proof by enumeration", 0, 1)
    records: list[Record] = []
    with _with(bug, subject) as broken:
        records.append(proof_record(effort.num_worlds, broken.cut))
    bites = [
        (bug.name, bite(bug, subject))
        for bug in _steps(BUGS.values(), "planted bugs", len(BUGS), tell)
    ]
    skipped = [name for name, found in bites if found is None]
    records.append(teeth_record([found for _, found in bites if found is not None], skipped))
    with _with(bug, subject) as broken:
        tests = list(
            _steps(bit_tests(broken, 2, effort.num_bit_tokens), "bits of the logits", 24, tell)
        )
        records.append(bits_record(broken, tests))
        records.append(lengths_record(list(draft_lengths(broken))))
        what = (effort.gammas, effort.temperatures)
        texts = compare_texts(broken, *what, effort.max_tokens, seed)
        total = num_comparisons(broken, *what)
        records.append(equality_record(list(_steps(texts, "seeded texts", total, tell))))
    return records


def _statistical(
    subject: Subject,
    effort: Effort,
    bug: PlantedBug | None,
    seed: int,
    num_samples: int,
    tell: OnStep,
) -> list[Record]:
    """The checks with stated error rates."""
    # The memos stay correct: the bug is switched in above them.
    remembered, memo = memoised(subject)
    with _with(bug, remembered) as broken:
        runs = run_laws(broken, memo, num_samples, seed)
        found = list(_steps(runs, "law of sampled text", num_tests(subject), tell))
    return [law_record(found, effort.power), acceptance_record(found, effort.power)]


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def _with(bug: PlantedBug | None, subject: Subject) -> AbstractContextManager[Subject]:
    return nullcontext(subject) if bug is None else plant(bug, subject)


def _steps(items: Iterable[_T], what: str, total: int, tell: OnStep) -> Iterator[_T]:
    """The same items, told of one by one."""
    tell(what, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        tell(what, min(done, total), total)
