"""Text from outside on a terminal: a model's, a file's name, a template's message.

A terminal obeys control sequences: they can rename its window, move text over other text, or type
for the user. So each control character is shown by its name there. A pipe or a file gets the text
as it is.
"""

import io
import sys
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult

__all__ = ["CONTROL_NAMES", "harmless", "styled_console", "text_for", "write_stderr"]

CONTROL_NAMES: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: 0x2421,
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
}
"""C0 and DEL to Unicode's pictures of them, C1 to escapes, as `str.translate` takes them."""


def harmless(text: str) -> str:
    r"""The text with control characters by their names; newlines and tabs stay.

    Example:
        >>> harmless("\x1b]0;mine\x07")
        '␛]0;mine␇'
    """
    return text.translate(CONTROL_NAMES)


def text_for(stream: IO[str] | io.TextIOBase, text: str) -> str:
    """The text as a stream should get it: harmless where it is a terminal."""
    return harmless(text) if stream.isatty() else text


def write_stderr(text: str) -> None:
    """Write at once; what the encoding lacks becomes an escape. Nothing, if stderr is closed."""
    if sys.stderr is not None:
        whole = text.encode(errors="backslashreplace").decode()
        sys.stderr.write(text_for(sys.stderr, whole))
        sys.stderr.flush()


def styled_console(file: IO[str] | io.TextIOBase | None = None, **options: Any) -> "Console":  # noqa: ANN401 - whatever rich's console takes
    """A console of rich whose own styles reach a terminal, and no control sequence of a text.

    Args:
        file: Where it writes; None is stderr.
        **options: As rich's console takes them.
    """
    from rich.console import Console

    console = Console(file=cast("IO[str] | None", file), stderr=file is None, **options)
    if console.file.isatty():
        console.push_render_hook(cast(Any, _Filter()))  # without importing rich for its base
    return console


class _Filter:
    """Rich's hook on what is printed: its segments are texts and styles, still apart."""

    def process_renderables(
        self, renderables: "list[ConsoleRenderable]"
    ) -> "list[ConsoleRenderable]":
        return [_Filtered(one) for one in renderables]


class _Filtered:
    def __init__(self, inner: "ConsoleRenderable") -> None:
        self._inner = inner

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment

        segments: Iterable[Segment] = console.render(self._inner, options)
        for text, style, control in segments:
            yield Segment(text if control else harmless(text), style, control)
