"""What is wrong with a command line, in one line: the option as typed, the value, the remedy."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from draftsmith.cli.typed import Typed, options_of

__all__ = ["as_typed", "explain", "one_line"]

_LONGEST = 600
"""Characters of a refusal: a value of a megabyte must not fill the terminal."""
_PYTHON_NAMES = {"n": "--num-samples", "parallel": "--tensor-parallel"}
"""Parameters whose option has another name."""
_ONE_WORD = r"^{name}(?= (\S+ )?(must|is|has|needs|changes|does)\b)|\b{name}(?==)"
"""Where a name that is also an English word means the parameter."""
_NOUNS = {"file", "prompt", "prompts", "system"}
"""Names of options that refusals use as plain words."""
_SNAKE = r"(?<![\w./'\"-])-{{0,2}}{name}(?![\w./-])"
_NAMES_ONE = re.compile(r"(?<![\w-])-{1,2}[a-z]")
"""An option in a refusal."""
_RENAMED = {
    "--n": "-n is --max-tokens, and the number of samples --num-samples",
    "--samples": "give --num-samples",
    "--quiet": "put it after the command",
    "--verbose": "put it after the command",
    "-": "for standard input give --file -, or --prompts - for a batch",
    "-q": "put it after the command",
    "-v": "put it after the command",
}


def explain(error: CycloptsError) -> str:
    """The refusal of a command line that cyclopts could not read."""
    command = " ".join(("draftsmith", *(error.command_chain or ())))
    return f"{_reason(error)} (see {command} --help)"


def as_typed(message: str, app: App, arguments: Sequence[str]) -> str:
    """A refusal from below the command line, in the words of the command line.

    Python's names become the options as they were typed; a refusal that names no option begins
    with the one whose value it speaks of.

    Args:
        message: Of a `DraftsmithError`.
        app: The command line.
        arguments: What was typed, less the program's name.
    """
    options, typed = options_of(app, arguments)
    for name, option in [*options.items(), *_PYTHON_NAMES.items()]:
        if name in _NOUNS:
            continue
        message = _replaced(message, name, _spelling(option, typed))
    if message.startswith(("the prompt", "prompt ")) or _NAMES_ONE.search(message):
        return message
    named = next((one for one in typed if _speaks_of(message, one.value)), None)
    return message if named is None else f"{named.spelling}: {message}"


def one_line(text: str) -> str:
    """The text with every run of whitespace made one space, its middle left out if it is long."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return line
    return f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"


def _spelling(option: str, typed: Sequence[Typed]) -> str:
    """How an option was typed; its first name where it was not."""
    return next((one.spelling for one in typed if option in one.names), option)


def _replaced(message: str, name: str, option: str) -> str:
    pattern = _SNAKE if "_" in name else _ONE_WORD
    replaced = re.sub(pattern.format(name=re.escape(name)), option, message)
    # "use gamma=0" is Python's way to say it.
    return re.sub(rf"(?<![\w-]){re.escape(option)}='?([^\s,;:')]+)'?", rf"{option} \1", replaced)


def _speaks_of(message: str, value: str | None) -> bool:
    """Whether a value stands in a message, as a word of its own; of `bigram:FILE`, the file."""
    if not value:
        return value == "" and "''" in message
    # A number means nothing by itself: it may count something else.
    words = {one for one in (value, value.partition(":")[2]) if re.search(r"[^\d.]", one)}
    return any(re.search(rf"(?<![\w/.-]){re.escape(one)}(?![\w-])", message) for one in words)


def _reason(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return _unused(error)
    if isinstance(error, UnknownOptionError):
        option = (error.token.keyword or error.token.value).partition("=")[0]
        if " " in option:
            return f"unknown option {option!r}: put -- before a prompt that begins with a dash"
        if option in _RENAMED:
            return f"unknown option {option}: {_RENAMED[option]}"
    if isinstance(error, UnknownCommandError):
        option = (error.unused_tokens or [""])[0]
        if option in _RENAMED:
            return f"unknown option {option}: {_RENAMED[option]}"
        return _unknown_command(option, error.app)
    if isinstance(error, CoercionError) and error.token is not None and error.target_type is bool:
        return f"{error.token.keyword} takes no value, got {error.token.value!r}: give it alone"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _missing(error.argument.name, error.keyword)
    text = one_line(str(error)).removesuffix(".")
    if isinstance(error, CoercionError | UnknownCommandError | UnknownOptionError):
        return text[0].lower() + text[1:]
    return text


def _unknown_command(typed: str, app: App | None) -> str:
    """With the command that was meant, also where only its beginning was typed."""
    commands = [name for name in app or () if not name.startswith("-")]
    begun = [name for name in commands if name.startswith(typed)]
    meant = begun if len(begun) == 1 else get_close_matches(typed, commands, n=1, cutoff=0.5)
    hint = f' Did you mean "{meant[0]}"?' if meant else ""
    return f'unknown command "{typed}".{hint} Commands: {", ".join(commands)}'


def _unused(error: UnusedCliTokensError) -> str:
    extra = (error.unused_tokens or [""])[0]
    before = (error.root_input_tokens or [])[: (error.root_input_tokens or [extra]).index(extra)]
    if before and before[-1] == "--json":
        return f"unexpected argument {extra!r}: --json prints; a file is --json-file {extra}"
    is_prompt = bool(error.command_chain) and error.command_chain[-1] == "generate"
    hint = ": put a prompt that has spaces in quotes" if is_prompt else ": leave it out"
    return f"unexpected argument {extra!r}{hint}"


def _missing(name: str, given: str | None) -> str:
    if given is None:
        return (
            f"{name} is required: give {name} VALUE"
            if name.startswith("-")
            else f"{name} is missing: give it"
        )
    return f"{given} needs a value: write {given}=VALUE for one that begins with a dash"
