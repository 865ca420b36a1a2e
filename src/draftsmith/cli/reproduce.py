"""`draftsmith reproduce`: the source papers' numbers, ours beside theirs."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from draftsmith.cli.comparison import console, print_item, print_items, write
from draftsmith.cli.exits import INTERRUPTED
from draftsmith.cli.files import DEFAULT_FILES, FileOptions
from draftsmith.cli.loops import RUN, LoopOptions
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import Flag, MaxTokens, Seed, Temperature, TextPrompt
from draftsmith.cli.prompt import check_unicode
from draftsmith.cli.runtime import DEFAULT_MODELS, ModelOptions
from draftsmith.core.params import SamplingParams
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.requests.result import Completion
    from draftsmith.models.tokenizer import Tokenizer
    from draftsmith.report.page import Section

__all__ = ["app"]

app = App(name="reproduce", help="The source papers' numbers, ours beside theirs.")

_DEFAULT_LOOPS = LoopOptions()
_TRACE_PROMPT = """\
class Basket:
    def add_apple(self, apple):
        self.apples.append(apple)
        return len(self.apples)

    def add_pear(self, pear):
        self.pears.append(pear)
        return len(self.pears)

    def add_plum("""


@app.command
def leviathan(
    *,
    all_items: Annotated[Flag, Parameter(name="--all", group=RUN)] = False,
    prompt: Annotated[TextPrompt | None, Parameter(group=RUN)] = None,
    max_tokens: Annotated[MaxTokens, Parameter(group=RUN)] = 38,
    temperature: Annotated[Temperature, Parameter(group=RUN)] = 0.0,
    seed: Annotated[Seed | None, Parameter(group=RUN)] = None,
    models: ModelOptions = DEFAULT_MODELS,
    report: FileOptions = DEFAULT_FILES,
    messages: MessageOptions = DEFAULT_MESSAGES,
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
    messages.apply()
    from draftsmith.papers.leviathan import computed

    report.check()
    models.check()
    if models.branches is not None:
        raise InvalidRequestError(
            f"Algorithm 1 drafts chains, got --branches {models.branches}: drop it"
        )
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
    text = check_unicode(_TRACE_PROMPT if prompt is None else prompt, "--prompt")
    if not text:
        raise InvalidRequestError("--prompt '' is empty: give at least one character")
    items = computed()
    if not report.json_output:
        print_items("leviathan", items)
    trace = None
    if all_items or prompt is not None or models != DEFAULT_MODELS:
        trace = _trace(models, text, params, is_shown=not report.json_output)
    write(report, "leviathan", items, {} if trace is None else {"trace": trace}, _shown(trace))


@app.command
def chen(
    *,
    all_items: Annotated[Flag, Parameter(name="--all", group=RUN)] = False,
    loops: LoopOptions = _DEFAULT_LOOPS,
    models: ModelOptions = DEFAULT_MODELS,
    report: FileOptions = DEFAULT_FILES,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Chen et al.: what they print, held against itself; Figure 1 measured on a pair of models.

    Parameters
    ----------
    all_items
        The measurement as well, which runs models; naming models or --num-prompts asks for it too.
    """
    messages.apply()
    from draftsmith.papers.chen import computed

    report.check()
    loops.check(models)
    items = computed()
    if not report.json_output:
        print_items("chen", items)
    if not all_items and loops == _DEFAULT_LOOPS and models == DEFAULT_MODELS:
        write(report, "chen", items, {}, [])
        return
    found = loops.measure(models)
    items.append(found.item)
    if not report.json_output:
        print_item(console(), found.item)
    points = [one.to_dict() for one in found.points]
    write(report, "chen", items, {"measured": points, "is_whole": found.is_whole}, [])
    if not found.is_whole:
        sys.exit(INTERRUPTED)


def _trace(
    models: ModelOptions, prompt: str, params: SamplingParams, *, is_shown: bool
) -> dict[str, Any]:
    """Run Algorithm 1, print its rounds, and return them."""
    from draftsmith.cli.rounds import as_rounds

    engine = models.load()
    completion = engine.generate(prompt, params)[0].completions[0]
    assert engine.tokenizer is not None
    if is_shown:
        _print_rounds(completion, engine.tokenizer)
    return {
        "target": models.target,
        "draft": models.drafted_by,
        "gamma": models.num_drafted,
        "temperature": params.temperature,
        "prompt": prompt,
        "num_tokens": completion.statistics.num_committed,
        "num_target_runs": completion.statistics.num_rounds,
        "rounds": as_rounds(completion, engine.tokenizer),
    }


def _print_rounds(completion: "Completion", tokenizer: "Tokenizer") -> None:
    """One line a target run, coloured."""
    from draftsmith.cli.messages import notes
    from draftsmith.cli.report import console as coloured
    from draftsmith.cli.report import legend
    from draftsmith.cli.rounds import round_lines, title

    out = coloured()
    out.print(f"\n[bold]Figure 1[/bold]: {title(completion)}")
    out.print("one line a target run, as the paper's 38 tokens in 9", style="dim")
    for line in round_lines(completion, tokenizer):
        out.print(line)
    legend(notes())


def _shown(trace: dict[str, Any] | None) -> "list[Section]":
    """The trace as a part of the page."""
    from draftsmith.report.page import Section, Table

    if trace is None:
        return []
    rows = [
        [str(number), *map(_seen, ("".join(one["kept"]), one["rejected"], one["emitted"]))]
        for number, one in enumerate(trace["rounds"], start=1)
    ]
    count = f"{trace['num_tokens']} tokens in {trace['num_target_runs']} target runs"
    how = f"{trace['target']} drafted by {trace['draft']}, gamma {trace['gamma']}"
    table = Table(how, ["run", "kept", "rejected", "emitted"], rows)
    return [
        Section("Figure 1: Algorithm 1's trace", [f"{count}; the paper's has 38 in 9."], [table])
    ]


def _seen(text: str | None) -> str:
    """A text that shows in a cell of a table, where blanks would not."""
    marked = (text or "").replace("\n", "↵")
    return marked.replace(" ", "␣") if marked.isspace() else marked
