"""`draftsmith chat`: a conversation, streamed."""

import sys
from typing import TYPE_CHECKING

from draftsmith.cli.options import ModelOptions, SamplingOptions

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine

__all__ = ["chat"]

_DEFAULT_MODELS = ModelOptions()
_DEFAULT_SAMPLING = SamplingOptions(max_tokens=1024)
_HELP = "/reset begins anew, /exit or Ctrl-D leaves, Ctrl-C stops an answer"


def chat(
    *,
    models: ModelOptions = _DEFAULT_MODELS,
    sampling: SamplingOptions = _DEFAULT_SAMPLING,
    system: str | None = None,
) -> None:
    """Talk to a model; each line is a turn.

    Parameters
    ----------
    system
        What the model is told before the conversation.
    """
    from rich.console import Console

    notes = Console(stderr=True, highlight=False)
    params = sampling.params()
    engine = models.load()
    opening = [{"role": "system", "content": system}] if system else []
    messages = list(opening)
    notes.print(f"{models.target} · {_HELP}", style="dim")
    while (line := _next_line()) is not None:
        if line == "/reset":
            messages = list(opening)
        elif line:
            messages.append({"role": "user", "content": line})
            answer, note = _answer(engine, messages, params)
            messages.append({"role": "assistant", "content": answer})
            notes.print(note, style="dim", markup=False)


def _next_line() -> str | None:
    """The user's next turn; None at the end."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if line == "/exit" else line


def _answer(
    engine: "Engine", messages: list[dict[str, str]], params: "SamplingParams"
) -> tuple[str, str]:
    """Stream one answer; Ctrl-C ends it with what there is."""
    from draftsmith.cli.report import summary_line

    run = engine.start(messages, params)
    try:
        for event in run:
            sys.stdout.write(event.text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        for event in run.abort():
            sys.stdout.write(event.text)
    sys.stdout.write("\n")
    sys.stdout.flush()
    result = run.results()[0]
    note = result.error or summary_line(result.statistics, result.tokens_per_second)
    return result.text, note
