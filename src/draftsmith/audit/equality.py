"""Same seed, same text: every drafter and gamma, alone and in a batch, beside plain decoding."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from draftsmith.audit.attribution import Attributor, Difference
from draftsmith.audit.record import Grid, Record, judged
from draftsmith.audit.subject import Subject
from draftsmith.core.gamma import Gamma
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters.contract import Drafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import LanguageModel
from draftsmith.report.status import Status

__all__ = ["Comparison", "compare_texts", "equality_record", "generated", "num_comparisons"]

_SHOWN = 8


class Comparison(NamedTuple):
    """Texts of one configuration beside plain decoding's."""

    drafter: str
    gamma: Gamma
    batch: int
    temperature: float
    num_texts: int
    """Texts that the comparison says something of: a draft was tested in them, or they differ."""
    num_idle: int
    """Texts that are the same because nothing was drafted in them."""
    num_tokens: int
    """Of the former."""
    num_tested: int
    """Drafted tokens that were tested."""
    num_accepted: int
    num_same: int
    differences: tuple[Difference, ...]

    @property
    def is_same(self) -> bool:
        """Whether every difference is numerics, if there are any."""
        return all(difference.is_numerics for difference in self.differences)

    @property
    def status(self) -> Status:
        """Not tested, where nothing was drafted."""
        return judged(is_failed=not self.is_same, is_tested=self.num_texts > 0)

    @property
    def result(self) -> str:
        """In words."""
        if self.status != "pass":
            return "not tested" if self.status == "untested" else "DIFFERS"
        return "differs by numerics" if self.differences else "same"


def generated(
    target: LanguageModel,
    drafter: Drafter | None,
    gamma: Gamma,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    batch: int = 1,
) -> tuple[list[tuple[int, ...]], list[SpeculationStatistics]]:
    """Output ids of every prompt, `batch` prompts at a time, and what speculation did for each.

    Raises:
        DraftsmithError: If a text ends with an error.
    """
    engine = Engine(
        target, None, drafter, gamma=gamma, max_batch_size=max(batch, 1), prefix_caching=False
    )
    texts: list[tuple[int, ...]] = []
    counts: list[SpeculationStatistics] = []
    for first in range(0, len(prompts), batch):
        for result in engine.generate(list(prompts[first : first + batch]), params):
            if result.error is not None:
                raise DraftsmithError(f"a prompt of the certificate failed: {result.error}")
            texts.append(result.token_ids)
            counts.append(result.statistics)
    return texts, counts


def compare_texts(
    subject: Subject,
    gammas: Sequence[int],
    temperatures: Sequence[float],
    max_tokens: int,
    seed: int,
) -> Iterator[Comparison]:
    """Generate with every drafter and gamma, and compare with plain decoding token by token."""
    prompts = subject.prompts
    for temperature in temperatures:
        params = SamplingParams(
            temperature=temperature, seed=seed, max_tokens=max_tokens, ignore_eos=True
        )
        plain, _ = generated(subject.target, None, 0, prompts, params)
        why = Attributor(subject.target, params)
        for name, drafter, gamma, batch in _configurations(subject, gammas):
            texts, counts = generated(subject.target, drafter, gamma, prompts, params, batch)
            rows = enumerate(zip(prompts, plain, texts, strict=True))
            found = [why.explain(number, *row) for number, row in rows]
            yield _compared((name, gamma, batch, temperature), texts, counts, found)


def _compared(
    configuration: tuple[str, Gamma, int, float],
    texts: Sequence[Sequence[int]],
    counts: Sequence[SpeculationStatistics],
    found: Sequence[Difference | None],
) -> Comparison:
    differences = tuple(one for one in found if one is not None)
    telling = [
        len(text)
        for text, count, difference in zip(texts, counts, found, strict=True)
        if count.num_tested or difference is not None
    ]
    return Comparison(
        *configuration,
        num_texts=len(telling),
        num_idle=len(texts) - len(telling),
        num_tokens=sum(telling),
        num_tested=sum(count.num_tested for count in counts),
        num_accepted=sum(count.num_accepted for count in counts),
        num_same=len(telling) - len(differences),
        differences=differences,
    )


def num_comparisons(subject: Subject, gammas: Sequence[int], temperatures: Sequence[float]) -> int:
    """How many comparisons `compare_texts` makes."""
    return len(temperatures) * len(list(_configurations(subject, gammas)))


def _configurations(
    subject: Subject, gammas: Sequence[int]
) -> Iterator[tuple[str, Drafter, Gamma, int]]:
    """Name, drafter, gamma, prompts side by side."""
    for name, drafter in subject.drafters.items():
        own = sorted({min(gamma, drafter.longest) for gamma in gammas})
        yield from ((name, drafter, gamma, 1) for gamma in own)
        yield name, drafter, max(own), len(subject.prompts)
        yield name, drafter, "auto", len(subject.prompts)
    if subject.itself is not None:
        # Its drafts are kept whole, all of them: the way that other drafts seldom take.
        yield "the target itself", subject.itself, 2, len(subject.prompts)
    if subject.trees is not None and subject.target.takes_trees:
        yield "the target's trees", subject.trees, max(gammas), len(subject.prompts)


def equality_record(comparisons: Sequence[Comparison]) -> Record:
    """The comparisons as a check of the certificate."""
    num_texts = sum(one.num_texts for one in comparisons)
    num_same = sum(one.num_same for one in comparisons)
    num_tokens = sum(one.num_tokens for one in comparisons)
    differences = [(one, difference) for one in comparisons for difference in one.differences]
    by_numerics = sum(difference.is_numerics for _, difference in differences)
    summary = f"{num_same} of {num_texts} texts ({num_tokens} tokens) are plain decoding's"
    if differences:
        summary += (
            f"; of the others {by_numerics} differ by numerics (top-2 margin below the measured "
            f"logit error) and {len(differences) - by_numerics} do not"
        )
    statuses: list[Status] = [one.status for one in comparisons]
    grids = [_grid(comparisons, statuses)]
    if differences:
        shown = [[f"{one.drafter}, gamma {one.gamma}", str(why)] for one, why in differences]
        grids.append(Grid("The first differences", ["draft", "where and why"], shown[:_SHOWN]))
    return Record(
        "equality",
        "Same seed, same text",
        judged(is_failed="fail" in statuses, is_tested=num_texts > 0),
        summary + ".",
        "Any token that speculation changes in these texts, at temperature 0 and above, alone and "
        "in a batch.",
        {
            "num_texts": num_texts,
            "num_same": num_same,
            "num_tokens": num_tokens,
            "num_numerics": by_numerics,
            "comparisons": [_figures(one) for one in comparisons],
        },
        grids,
        untested=_untested(comparisons),
    )


def _grid(comparisons: Sequence[Comparison], statuses: list[Status]) -> Grid:
    """A row for each comparison."""
    rows = [
        [
            one.drafter,
            str(one.gamma),
            str(one.batch),
            f"{one.temperature:g}",
            f"{one.num_same}/{one.num_texts}",
            str(one.num_idle),
            str(one.num_accepted),
            str(one.num_tested - one.num_accepted),
            one.result,
        ]
        for one in comparisons
    ]
    columns = [
        "draft", "gamma", "batch", "temperature", "same", "nothing drafted", "drafts kept",
        "rejected", "text",
    ]  # fmt: skip
    caption = "Texts that are plain decoding's, token by token, where a draft was tested"
    return Grid(caption, columns, rows, statuses)


def _untested(comparisons: Sequence[Comparison]) -> list[str]:
    """Drafters that drafted nothing in some or all rows, and outcomes that never came."""
    said: list[str] = []
    for name in dict.fromkeys(one.drafter for one in comparisons):
        rows = [one for one in comparisons if one.drafter == name]
        idle = sum(one.status == "untested" for one in rows)
        if idle:
            said.append(f"{name} drafted nothing in {idle} of {len(rows)} rows")
    num_accepted = sum(one.num_accepted for one in comparisons)
    num_tested = sum(one.num_tested for one in comparisons)
    if num_tested and not num_accepted:
        said.append("no draft was kept")
    if num_tested and num_accepted == num_tested:
        said.append("no draft was rejected")
    return said


def _figures(one: Comparison) -> dict[str, Any]:
    return one._asdict() | {
        "status": one.status,
        "differences": [
            difference._asdict() | {"is_numerics": difference.is_numerics}
            for difference in one.differences
        ],
    }
