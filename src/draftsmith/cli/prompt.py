"""Where prompts come from: the command line, a file, or standard input; one or a batch."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

from draftsmith.cli.options import PROMPT, Flag, StreamPath, System
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.requests.request import Prompt
    from draftsmith.workloads import Item

__all__ = ["Asked", "PromptOptions", "check_unicode"]


class Asked(NamedTuple):
    """One thing that is asked of the model."""

    id: str | None
    """Its label in a batch; None where there is one prompt alone."""
    prompt: "Prompt"
    max_tokens: int | None
    """The longest output, where the prompts file says so."""


@Parameter(name="*", group=PROMPT)
@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What the model is given.

    Parameters
    ----------
    file
        Read the one prompt from a file, less the newline at its end; - is standard input.
    prompts
        Read a batch from a file; - is standard input. A prompt a line; or, where the first line
        begins with a brace, an object a line, with `prompt` or `messages`, and perhaps `id` and
        `max_tokens`. Each answer is labelled.
    chat
        Put each prompt through the model's chat template, as a user's turn.
    system
        With --chat: the system's turn before it.
    """

    file: Annotated[StreamPath | None, Parameter(alias="-f")] = None
    prompts: StreamPath | None = None
    chat: Flag = False
    system: System | None = None

    def read(self, prompt: str | None) -> list[Asked]:
        """What is asked, checked as far as it can be without a model.

        Raises:
            InvalidRequestError: If there is no prompt, or two sources, or one is empty,
                unreadable or not UTF-8.
        """
        given = [
            name
            for name, value in (
                ("a prompt", prompt),
                (f"--file {self.file}", self.file),
                (f"--prompts {self.prompts}", self.prompts),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise InvalidRequestError(f"give {' or '.join(given)}, not both")
        if not given:
            raise InvalidRequestError(
                "no prompt: give one, or --file FILE (- is standard input), or --prompts FILE"
            )
        if self.prompts is not None:
            return [self._asked(item) for item in _read_items(self.prompts)]
        return [Asked(None, self._turns(_one(prompt, self.file)), None)]

    def check(self) -> None:
        """Refuse a system's turn of no conversation."""
        if self.system is not None and not self.chat:
            raise InvalidRequestError(
                f"--system is a turn of a conversation: give --chat as well, got {self.system!r}"
            )

    def _turns(self, text: str) -> "Prompt":
        """The text, or the conversation that it begins."""
        return [*self._opening(), {"role": "user", "content": text}] if self.chat else text

    def _opening(self) -> list[dict[str, str]]:
        system = check_unicode(self.system or "", "--system")
        return [{"role": "system", "content": system}] if system else []

    def _asked(self, item: "Item") -> Asked:
        if isinstance(item.prompt, str):
            return Asked(item.id, self._turns(item.prompt), item.max_tokens)
        opening = self._opening()
        if opening and item.prompt[0]["role"] == "system":
            raise InvalidRequestError(
                f"prompt {item.id!r} has a system's turn of its own: drop --system {self.system!r}"
            )
        return Asked(item.id, [*opening, *item.prompt], item.max_tokens)


def check_unicode(text: str, name: str) -> str:
    """Return a text that came from outside, if it can be encoded.

    Raises:
        InvalidRequestError: If it holds bytes that were no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{name} is not UTF-8 text (character {error.start}): convert it"
        ) from error
    return text


def _one(prompt: str | None, file: Path | None) -> str:
    text = check_unicode(prompt or "", "the prompt") if file is None else _read(file, "--file")
    text = text if file is None else _without_last_newline(text)
    if not text:
        where = "" if file is None else f" (--file {file})"
        raise InvalidRequestError(f"the prompt is empty{where}: give at least one character")
    return text


def _read_items(file: Path) -> "tuple[Item, ...]":
    """A batch: texts a line, or objects a line."""
    from draftsmith.workloads.lines import Item, read_items

    text = _read(file, "--prompts").removeprefix("\ufeff")
    name = "stdin" if str(file) == "-" else file.stem
    # Not by `splitlines`, which would also cut at a U+2028 inside a prompt.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if text.lstrip().startswith("{"):
        return read_items(lines, f"--prompts {file}", name)
    items = tuple(
        Item(f"{name}/{number}", line, None, name)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )
    if not items:
        raise InvalidRequestError(f"--prompts {file} is empty: give a prompt a line")
    return items


def _read(file: Path, option: str) -> str:
    name = f"{option} {file}"
    try:
        if str(file) != "-":
            return file.read_bytes().decode()
        if sys.stdin is None:
            raise InvalidRequestError(f"{name}: standard input is closed: name a file")
        return sys.stdin.buffer.read().decode()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InvalidRequestError(f"{name} cannot be read: {why}: check the path") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{name} is not UTF-8 text (byte {error.start}): convert it"
        ) from error


def _without_last_newline(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
