"""A converted GGUF file's tokenizer, read by `tokenizers` alone: `transformers` stays out.

What is kept is the very object on which the tokenizer of `transformers` runs, as that library
has set it up, so that both give the same ids and the same text. (The `tokenizer.json` that it
saves is another thing: on loading it the library may put in parts of its own, as the
normalisation of Qwen2's.)
"""

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from draftsmith.models.tokenizer import Message, Tokenizer, check_text

__all__ = ["ChatTemplate", "FileTokenizer", "keep_tokenizer", "open_tokenizer"]

ChatTemplate = str | dict[str, str] | None
"""In Jinja: one, or several by name, or none."""

_BACKEND, _CHAT = "backend.json", "chat.json"


class FileTokenizer(Tokenizer):
    """A `tokenizers.Tokenizer` behind our contract.

    Args:
        backend: Encodes and decodes; it is set to neither cut nor pad.
        chat_template: As the model has it.
        special_tokens: What the template may name: `bos_token` and its like.
    """

    def __init__(
        self, backend: Backend, chat_template: ChatTemplate, special_tokens: dict[str, str]
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._chat_template = chat_template
        self._special_tokens = special_tokens

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the model expects."""
        return self._backend.encode(check_text(text)).ids

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the answer."""
        # Here, because it imports transformers, which only a conversation needs.
        from draftsmith.models.hf.chat import render_chat

        text = check_text(render_chat(self._renderer, messages))
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens; special tokens are left out."""
        return self._backend.decode(list(tokens), skip_special_tokens=True)

    def token_strings(self) -> dict[int, str]:
        """The tokenizer's own name of each id."""
        return {index: token for token, index in self._backend.get_vocab().items()}

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return bool(self._chat_template)

    @cached_property
    def _renderer(self) -> Any:  # noqa: ANN401 - an object of transformers
        from draftsmith.models.hf.chat import chat_renderer

        return chat_renderer(self._chat_template, self._special_tokens)


def open_tokenizer(folder: Path) -> FileTokenizer | None:
    """Open the tokenizer that `keep_tokenizer` left in a folder; None if it left none."""
    if not (folder / _BACKEND).exists():
        return None
    chat = json.loads((folder / _CHAT).read_bytes())
    backend = Backend.from_file(str(folder / _BACKEND))
    _give_back_memory()
    return FileTokenizer(backend, chat["chat_template"], chat["special_tokens"])


def keep_tokenizer(
    folder: Path, backend: Backend, chat_template: ChatTemplate, special_tokens: dict[str, str]
) -> None:
    """Leave a tokenizer in an existing folder for `open_tokenizer`.

    Args:
        folder: Of one model's conversion.
        backend: Written as it is now; it neither cuts nor pads.
        chat_template: As `FileTokenizer` takes it.
        special_tokens: As `FileTokenizer` takes it.
    """
    chat = {"chat_template": chat_template, "special_tokens": special_tokens}
    _write_atomically(folder / _CHAT, json.dumps(chat))
    # Last: a reader takes it for the sign that all is there.
    _write_atomically(folder / _BACKEND, backend.to_str())


def _write_atomically(path: Path, text: str) -> None:
    """Write so that a reader sees nothing or the whole, whoever else writes the same."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _give_back_memory() -> None:
    """Return to the system what parsing the file took, where the C library can."""
    if sys.platform != "linux":
        return
    # glibc would keep 44 MB for a vocabulary of 152k tokens; musl has no such function.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
