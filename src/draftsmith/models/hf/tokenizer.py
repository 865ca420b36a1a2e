"""A tokenizer of `transformers` behind our contract."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from draftsmith.errors import InvalidRequestError
from draftsmith.models.gguf.alphabet import BYTES
from draftsmith.models.hf.chat import render_chat
from draftsmith.models.tokenizer import Message, Tokenizer, Tool, check_text

__all__ = ["TransformersTokenizer", "files_of"]


class TransformersTokenizer(Tokenizer):
    """Any `PreTrainedTokenizer`, fast or slow."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the model expects."""
        return self._ids(text)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text and nothing else: no special token is added."""
        return self._ids(text, add_special_tokens=False)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the answer."""
        return self._ids(render_chat(self.tokenizer, messages), add_special_tokens=False)

    def encode_tool_chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """The same with tools that the model may call, as the template tells it of them."""
        text = render_chat(self.tokenizer, messages, tools)
        return self._ids(text, add_special_tokens=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens; special tokens are left out."""
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def token_strings(self) -> dict[int, str]:
        """The tokenizer's own name of each id."""
        return {index: token for token, index in self.tokenizer.get_vocab().items()}

    def special_tokens(self) -> dict[str, int]:
        """What `decode` leaves out, by the string that a prompt names it by."""
        added = self.tokenizer.added_tokens_decoder
        specials = {token.content: index for index, token in added.items() if token.special}
        # A slow tokenizer leaves out its named ones, however they were added.
        ids = self.tokenizer.all_special_ids
        return specials | dict(zip(self.tokenizer.all_special_tokens, ids, strict=True))

    def _ids(self, text: str, **options: Any) -> list[int]:
        try:
            return list(self.tokenizer(check_text(text), **options).input_ids)
        except Exception as error:
            # The library's own errors have no class: they are `Exception` itself.
            if type(error) is not Exception:
                raise
            why = " ".join(str(error).split())
            raise InvalidRequestError(
                f"the model's tokenizer cannot encode the prompt ({why:.200}): leave out what it "
                "does not know"
            ) from error

    def spellings(self) -> Sequence[bytes] | None:
        """What each id adds to a text, in bytes; None where letters do not stand for bytes."""
        described = self.as_json()
        decoder = json.loads(described).get("decoder") if described else None
        if not decoder or decoder.get("type") != "ByteLevel":
            return None
        special = set(self.special_tokens().values())
        strings = self.token_strings()
        return [
            b"" if token in special else _spelled(strings.get(token, ""))
            for token in range(max(strings, default=-1) + 1)
        ]

    def as_json(self) -> str | None:
        """The whole of it as the text of a `tokenizer.json`; None for a slow one."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        # Both are habits of the last call, and no part of the vocabulary.
        return json.dumps(json.loads(backend.to_str()) | {"padding": None, "truncation": None})

    def as_files(self) -> dict[str, str]:
        """The files of a folder from which `transformers` loads it, their texts by name."""
        return _saved(self.tokenizer)

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return bool(getattr(self.tokenizer, "chat_template", None))


def files_of(
    backend: Backend, chat_template: str | dict[str, str] | None, named: dict[str, str]
) -> dict[str, str]:
    """The files of a tokenizer of the `tokenizers` library, by name.

    Args:
        backend: The tokenizer.
        chat_template: One, or several by name.
        named: Special tokens by the names that `transformers` has for them.
    """
    options: dict[str, Any] = {"chat_template": chat_template} if chat_template else {}
    return _saved(
        PreTrainedTokenizerFast(
            tokenizer_object=backend, clean_up_tokenization_spaces=False, **named, **options
        )
    )


def _saved(tokenizer: Any) -> dict[str, str]:
    """What `save_pretrained` writes, by its place in the folder."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        root = Path(folder)
        return {
            path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


def _spelled(letters: str) -> bytes:
    try:
        return bytes(map(BYTES.__getitem__, letters))
    except KeyError:
        return letters.encode()  # an added token is plain text
