"""What is wrong with a command line, in one line with a remedy."""

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

__all__ = ["explain", "one_line"]


def explain(error: CycloptsError) -> str:
    """The refusal of a command line that cyclopts could not read."""
    command = " ".join(("draftsmith", *(error.command_chain or ())))
    return f"{_reason(error)} (see {command} --help)"


def one_line(text: str) -> str:
    """The text with every run of whitespace made one space."""
    return " ".join(text.split())


def _reason(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        is_prompt = bool(error.command_chain) and error.command_chain[-1] == "generate"
        hint = ": put a prompt that has spaces in quotes" if is_prompt else ""
        return f"unexpected argument {(error.unused_tokens or [''])[0]!r}{hint}"
    if isinstance(error, UnknownOptionError):
        option = error.token.keyword or error.token.value
        if " " in option:
            return f"unknown option {option!r}: put -- before a prompt that begins with a dash"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _missing(error.argument.name, error.keyword)
    text = one_line(str(error)).removesuffix(".")
    if isinstance(error, CoercionError | UnknownCommandError | UnknownOptionError):
        return text[0].lower() + text[1:]
    return text


def _missing(name: str, given: str | None) -> str:
    if given is None:
        return (
            f"{name} is required: give {name} VALUE"
            if name.startswith("-")
            else f"{name} is missing"
        )
    return f"{given} needs a value: write {given}=VALUE for one that begins with a dash"
