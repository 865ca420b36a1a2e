"""`draftsmith reproduce`: the source papers' numbers, ours beside theirs."""

import contextlib
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import App, Group, Parameter

from draftsmith.cli.comparison import ReportOptions, console, print_item, print_items, write
from draftsmith.cli.options import Flag, ModelOptions, Whole
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.request import Prompt
    from draftsmith.papers.loops import TextTiming
    from draftsmith.report.page import Section

__all__ = ["app"]

app = App(name="reproduce", help="The source papers' numbers, ours beside theirs.")

_RUN = Group("What is run", sort_key=1)
_DEFAULT_MODELS = ModelOptions()
_TRACE_PROMPT = """\
class Basket:
    def add_apple(self, apple):
        self.apples.append(apple)
        return len(self.apples)

    def add_pear(self, pear):
        self.pears.append(pear)
        return len(self.pears)

    def add_plum("""

_DEFAULT_REPORT = ReportOptions()


@app.command
def leviathan(
    *,
    all_items: Annotated[Flag, Parameter(name="--all", group=_RUN)] = False,
    prompt: Annotated[str | None, Parameter(alias="-p", group=_RUN)] = None,
    max_tokens: Annotated[Whole, Parameter(alias="-n", group=_RUN)] = 38,
    temperature: Annotated[float, Parameter(alias="--temp", group=_RUN)] = 0.0,
    seed: Annotated[Whole | None, Parameter(alias="-s", group=_RUN)] = None,
    models: ModelOptions = _DEFAULT_MODELS,
    report: ReportOptions = _DEFAULT_REPORT,
) -> None:
    """Leviathan, Kalman & Matias: what they print, computed; Algorithm 1's trace as in Figure 1.

    Parameters
    ----------
    all_items
        The trace as well, which runs models; naming models or a prompt asks for it too.
    prompt
        Of the trace.
    max_tokens
        Of the trace.
    temperature
        Of the trace; 0 is greedy.
    seed
        Of the trace, where the temperature is above 0.
    """
    from draftsmith.papers.leviathan import computed

    report.check()
    items = computed()
    print_items("leviathan", items)
    trace = None
    if all_items or prompt is not None or models != _DEFAULT_MODELS:
        text = _TRACE_PROMPT if prompt is None else prompt
        trace = _trace(models, text, max_tokens, temperature, seed)
    write(report, "leviathan", items, {} if trace is None else {"trace": trace}, _shown(trace))


@app.command
def chen(
    *,
    all_items: Annotated[Flag, Parameter(name="--all", group=_RUN)] = False,
    prompts: Annotated[Whole | None, Parameter(group=_RUN)] = None,
    workload: Annotated[str, Parameter(group=_RUN)] = "default",
    gamma_max: Annotated[Whole, Parameter(group=_RUN)] = 7,
    temperature: Annotated[float, Parameter(alias="--temp", group=_RUN)] = 0.8,
    top_p: Annotated[float, Parameter(group=_RUN)] = 0.95,
    seed: Annotated[Whole | None, Parameter(alias="-s", group=_RUN)] = None,
    verifier: Annotated[
        Literal["rejection", "block", "coupled"], Parameter(group=_RUN)
    ] = "rejection",
    models: ModelOptions = _DEFAULT_MODELS,
    report: ReportOptions = _DEFAULT_REPORT,
) -> None:
    """Chen et al.: what they print, held against itself; Figure 1 measured on a pair of models.

    Parameters
    ----------
    all_items
        The measurement as well, which runs models; naming models or --prompts asks for it too.
    prompts
        How many of the workload, 8 by default; each is run at every gamma.
    workload
        chat, edit, summarise, default (of all three), humaneval, or a JSONL file.
    gamma_max
        Measures gamma 0 to this; the paper has 7.
    temperature
        Of the measurement; the paper's HumanEval has 0.8.
    top_p
        Of the measurement; the paper's HumanEval has 0.95.
    seed
        Fixes the texts, for every gamma the same with --verifier coupled.
    verifier
        How drafts are checked; rejection is the paper's rule.
    """
    from draftsmith.papers.chen import computed

    report.check()
    items = computed()
    print_items("chen", items)
    points: list[dict[str, Any]] = []
    if all_items or prompts is not None or models != _DEFAULT_MODELS:
        from draftsmith.core.params import SamplingParams
        from draftsmith.papers.loops import measured, panels
        from draftsmith.workloads import load_workload

        params = SamplingParams(temperature=temperature, top_p=top_p, seed=seed, verifier=verifier)
        chosen = load_workload(workload).first(8 if prompts is None else prompts)
        if models.gamma != _DEFAULT_MODELS.gamma or gamma_max < 1:
            raise InvalidRequestError("every gamma to --gamma-max, 1 or more, is run: drop --gamma")
        engine = replace(models, gamma=gamma_max).load()
        texts = [_readable(item.prompt, engine) for item in chosen.items]
        summed = panels(_timed(engine, texts, range(gamma_max + 1), params))
        how = f"temperature {temperature:g}, top-p {top_p:g}, {verifier} verifier"
        what = f"{models.target} drafted by {models.draft}, workload {chosen.name}, {how}"
        items.append(measured(summed, what))
        points = [one.to_dict() for one in summed]
        print_item(console(), items[-1])
    write(report, "chen", items, {"measured": points} if points else {}, [])


def _readable(prompt: Any, engine: "Engine") -> "Prompt":  # noqa: ANN401 - a text or turns
    from draftsmith.workloads.workload import as_text

    has_template = engine.tokenizer is not None and engine.tokenizer.has_chat_template
    return cast("Prompt", prompt if has_template else as_text(prompt))


def _timed(
    engine: "Engine",
    texts: Sequence["Prompt"],
    gammas: Sequence[int],
    params: Any,  # noqa: ANN401 - SamplingParams
) -> "list[TextTiming]":
    """Every timing; an interruption keeps those that are there."""
    from draftsmith.papers.loops import time_texts

    timings: list[TextTiming] = []
    total = len(texts) * len(gammas)
    with _counting(total) as show, contextlib.suppress(KeyboardInterrupt):
        for timing in time_texts(engine, texts, gammas, params):
            timings.append(timing)
            show(len(timings))
    if len(timings) < total:
        sys.stderr.write(f"interrupted: {len(timings)} of {total} texts were timed\n")
    return timings


@contextmanager
def _counting(total: int) -> Generator[Callable[[int], None]]:
    from rich.console import Console

    status = Console(stderr=True).status("warming up")
    if sys.stderr.isatty():
        status.start()

    def show(count: int) -> None:
        status.update(f"text {count} of {total}")

    try:
        yield show
    finally:
        status.stop()


def _trace(
    models: ModelOptions, prompt: str, max_tokens: int, temperature: float, seed: int | None
) -> dict[str, Any]:
    """Run Algorithm 1, print its rounds, and return them."""
    from draftsmith.cli.report import console as coloured
    from draftsmith.cli.report import legend, notes
    from draftsmith.cli.rounds import as_rounds, round_lines, title
    from draftsmith.core.params import SamplingParams

    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
    engine = models.load()
    completion = engine.generate(prompt, params)[0].completions[0]
    assert engine.tokenizer is not None
    out = coloured()
    out.print(f"\n[bold]Figure 1[/bold]: {title(completion)}")
    out.print("one line a target run, as the paper's 38 tokens in 9", style="dim")
    for line in round_lines(completion, engine.tokenizer):
        out.print(line)
    legend(notes())
    return {
        "target": models.target,
        "draft": models.draft,
        "gamma": models.gamma,
        "temperature": temperature,
        "prompt": prompt,
        "num_tokens": completion.statistics.num_committed,
        "num_target_runs": completion.statistics.num_rounds,
        "rounds": as_rounds(completion, engine.tokenizer),
    }


def _shown(trace: dict[str, Any] | None) -> "list[Section]":
    """The trace as a part of the page."""
    from draftsmith.report.page import Section, Table

    if trace is None:
        return []
    rows = [
        [str(number), "".join(one["kept"]), one["rejected"] or "", one["emitted"] or ""]
        for number, one in enumerate(trace["rounds"], start=1)
    ]
    count = f"{trace['num_tokens']} tokens in {trace['num_target_runs']} target runs"
    how = f"{trace['target']} drafted by {trace['draft']}, gamma {trace['gamma']}"
    table = Table(how, ["run", "kept", "rejected", "emitted"], rows)
    return [
        Section("Figure 1: Algorithm 1's trace", [f"{count}; the paper's has 38 in 9."], [table])
    ]
