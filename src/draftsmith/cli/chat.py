"""`draftsmith chat`: a conversation, streamed."""

import contextlib
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from draftsmith.cli.exits import INTERRUPTED
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import System
from draftsmith.cli.prompt import check_unicode
from draftsmith.cli.runtime import DEFAULT_MODELS, ModelOptions
from draftsmith.cli.sampling import DEFAULT_SAMPLING, SamplingOptions
from draftsmith.cli.stdout import write_text
from draftsmith.errors import DraftsmithError, InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.result import GenerationResult, StreamEvent

__all__ = ["chat"]

_MAX_TOKENS = 1024
_HELP = "/reset begins anew, /exit or Ctrl-D leaves, Ctrl-C stops an answer"
_RESET = ("/reset", "/clear")
_EXIT = ("/exit", "/quit")


def chat(
    *,
    models: ModelOptions = DEFAULT_MODELS,
    sampling: SamplingOptions = DEFAULT_SAMPLING,
    system: System | None = None,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Talk to a model; each line is a turn, typed or piped.

    Parameters
    ----------
    system
        What the model is told before the conversation.
    """
    messages.apply()
    params = sampling.params(max_tokens=_MAX_TOKENS)
    system = check_unicode(system or "", "--system")
    conversation = _Conversation(_load(models), params, system)
    if is_terminal():
        _note(f"{models.target} · {_HELP}")
    while (line := _next_line()) is not None:
        if line in _RESET:
            conversation.reset()
        elif line:
            _turn(conversation, line)


def _load(models: ModelOptions) -> "Engine":
    engine = models.load()
    if engine.tokenizer is None or not engine.tokenizer.has_chat_template:
        raise InvalidRequestError(
            f"{models.target} has no chat template: use an instruct model, or draftsmith generate"
        )
    return engine


class _Conversation:
    """The turns so far."""

    def __init__(self, engine: "Engine", params: "SamplingParams", system: str) -> None:
        self._engine = engine
        self._params = params
        self._opening = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._opening)

    def reset(self) -> None:
        """Begin anew, with the system's turn alone."""
        self._messages = list(self._opening)

    def say(self, line: str) -> "GenerationResult":
        """Stream the answer to a turn; a turn that is refused is forgotten."""
        from draftsmith.cli.interrupt import follow

        messages = [*self._messages, {"role": "user", "content": line}]
        result = follow(self._engine.start(messages, self._params), _show)[0]
        write_text("\n")
        self._messages = [*messages, {"role": "assistant", "content": result.text}]
        return result


def _show(event: "StreamEvent") -> None:
    if event.text:
        write_text(event.text)


def _turn(conversation: _Conversation, line: str) -> None:
    """One exchange. At a terminal a refused turn is told and the talk goes on."""
    from draftsmith.cli.report import print_summary
    from draftsmith.engine.result import FinishReason

    try:
        result = conversation.say(line)
        if result.error is not None:
            raise DraftsmithError(result.error)
    except DraftsmithError as error:
        if not is_terminal():
            raise
        _note(f"{error} (/reset begins anew)")
        return
    print_summary([result])
    if result.finish_reason is FinishReason.ABORT and not is_terminal():
        sys.exit(INTERRUPTED)


def _next_line() -> str | None:
    """The user's next turn; None at the end."""
    try:
        line = check_unicode(_read_line(), "a line of standard input").strip()
    except (EOFError, KeyboardInterrupt) as end:
        if is_terminal():
            sys.stderr.write("\n")
        elif isinstance(end, KeyboardInterrupt):
            raise
        return None
    except UnicodeDecodeError as error:
        raise InvalidRequestError("standard input is not UTF-8 text: convert it") from error
    return None if line in _EXIT else line


def is_terminal() -> bool:
    """Whether someone types the turns."""
    return sys.stdin.isatty()


def _read_line() -> str:
    if not is_terminal():
        return input()
    if not sys.stdout.isatty():
        # `input` would write its prompt to stdout, which holds the answers alone.
        sys.stderr.write("> ")
        sys.stderr.flush()
        return input()
    # Imported for its effect alone: it gives `input` arrow keys and a history.
    with contextlib.suppress(ImportError):
        import_module("readline")
    return input("> ")


def _note(text: str) -> None:
    from draftsmith.cli.messages import notes

    notes().print(text, style="dim", markup=False)
