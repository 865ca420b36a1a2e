"""`draftsmith generate`: one prompt, text on stdout."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from draftsmith.cli.options import ModelOptions, SamplingOptions, read_prompt

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.request import Prompt
    from draftsmith.engine.result import Completion, GenerationResult

__all__ = ["generate"]

_DEFAULT_MODELS = ModelOptions()
_DEFAULT_SAMPLING = SamplingOptions()


def generate(
    prompt: str | None = None,
    /,
    *,
    models: ModelOptions = _DEFAULT_MODELS,
    sampling: SamplingOptions = _DEFAULT_SAMPLING,
    file: Annotated[Path | None, Parameter(alias="-f")] = None,
    chat: Annotated[bool, Parameter(negative="")] = False,
    system: str | None = None,
    n: int = 1,
    logprobs: int | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
    trace: Annotated[bool, Parameter(negative="")] = False,
    trace_html: Path | None = None,
) -> None:
    """Generate text for one prompt.

    Parameters
    ----------
    prompt
        The text to go on from.
    file
        Read the prompt from a file; - is standard input.
    chat
        Put the prompt through the model's chat template, as a user's turn.
    system
        With --chat: the system's turn before it.
    n
        Samples to draw.
    logprobs
        Report log-probabilities, and this many alternatives, in --json.
    json_output
        Print one object: text, token ids, finish reason, statistics.
    trace
        Colour every token by where it came from.
    trace_html
        Write the coloured trace as a page.
    """
    params = sampling.params(n=n, logprobs=logprobs)
    text = read_prompt(prompt, file)
    request = _conversation(text, system) if chat else text
    engine = models.load()
    result = _run(engine, request, params, is_live=not (json_output or trace or n > 1))
    if json_output:
        _print_json(result, models)
    else:
        _print_text(engine, result, is_live=not (trace or n > 1), has_colours=trace)
    if trace_html is not None:
        from draftsmith.cli.trace_page import write_page

        assert engine.tokenizer is not None
        write_page(trace_html, result, engine.tokenizer, models.target, models.draft)


def _conversation(text: str, system: str | None) -> "Prompt":
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": text}]


def _run(
    engine: "Engine", prompt: "Prompt", params: object, *, is_live: bool
) -> "GenerationResult":
    """Generate; Ctrl-C ends it with what there is."""
    from draftsmith.core.params import SamplingParams

    assert isinstance(params, SamplingParams)
    run = engine.start(prompt, params)
    try:
        for event in run:
            if is_live:
                sys.stdout.write(event.text)
                sys.stdout.flush()
    except KeyboardInterrupt:
        for event in run.abort():
            if is_live:
                sys.stdout.write(event.text)
    return run.results()[0]


def _print_json(result: "GenerationResult", models: ModelOptions) -> None:
    from draftsmith.cli.report import as_json

    about = {"target": models.target, "draft": models.draft, "gamma": models.gamma}
    sys.stdout.write(json.dumps(as_json(result, **about), ensure_ascii=False) + "\n")


def _print_text(
    engine: "Engine", result: "GenerationResult", *, is_live: bool, has_colours: bool
) -> None:
    from rich.console import Console

    from draftsmith.cli.report import coloured, legend, summary_line

    notes = Console(stderr=True, highlight=False)
    if not is_live:
        console = Console(highlight=False, soft_wrap=True)
        for completion in result.completions:
            assert engine.tokenizer is not None
            console.print(coloured(completion, engine.tokenizer) if has_colours else _plain(completion))
    else:
        sys.stdout.write("\n")
    if has_colours:
        legend(notes)
    if result.error is not None:
        notes.print(f"ended early: {result.error}", markup=False)
    notes.print(summary_line(result.statistics, result.tokens_per_second), style="dim")


def _plain(completion: "Completion") -> object:
    from rich.text import Text

    return Text(completion.text)
