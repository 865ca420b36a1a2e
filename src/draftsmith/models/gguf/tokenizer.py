"""The tokenizer of a GGUF file, read from the file alone.

Special tokens that stand in a prompt are those tokens, as llama.cpp's server and `transformers`
take them. A conversation is tokenized as its chat template writes it: what begins it is the
template's to say.

A text is decoded piece by piece, special tokens left out: pieces are bytes, so that characters
of several tokens come together. No spaces are taken out (llama.cpp's server takes none out
either), but the one that the file puts before a text.
"""

import ctypes
import gc
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.alphabet import BYTES
from draftsmith.models.gguf.byte_pair import BytePairEncoder
from draftsmith.models.gguf.keys import CHAT_TEMPLATE, PREFIX, check_keys, flag
from draftsmith.models.gguf.pre_tokenizers import PRE_TOKENIZERS, pre_rule
from draftsmith.models.gguf.sentence_piece import SentencePieceEncoder
from draftsmith.models.gguf.special import Special, special_tokens, token_types
from draftsmith.models.gguf.tokenizer_files import Described, byte_pair_files
from draftsmith.models.gguf.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    read_vocabulary,
)
from draftsmith.models.native.bounds import named_after
from draftsmith.models.tokenizer import Message, Pieces, Tokenizer, Tool, check_text

__all__ = ["GgufTokenizer", "open_gguf_tokenizer"]

_MODELS = ("gpt2", "gemma4", "llama")
_SPACE = "\u2581"
# What `isspace` of C knows, for llama.cpp asks that.
_WHITE = " \t\n\v\f\r"
_NAMES = {
    "bos": "bos_token",
    "eos": "eos_token",
    "unknown": "unk_token",
    "seperator": "sep_token",
    "padding": "pad_token",
    "cls": "cls_token",
    "mask": "mask_token",
}
"""What a chat template may name."""


class _Encoder(Protocol):
    def encode(self, text: str, is_first: bool) -> list[int]: ...


class GgufTokenizer(Tokenizer):
    """A GGUF file's tokenizer behind our contract.

    Args:
        vocabulary: Of the file.

    Raises:
        ModelFormatError: If the file says of its tokenizer what we cannot do exactly.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        _check_known(vocabulary)
        path, values = vocabulary.path, vocabulary.values
        self._tokens = vocabulary.tokens
        self._types = token_types(vocabulary)
        self._specials = special_tokens(vocabulary, self._types)
        self._adds_space = flag(path, values, "add_space_prefix", vocabulary.is_sentence_piece)
        adds_bos, self._is_spelled_in_bytes = vocabulary.is_sentence_piece, False
        if vocabulary.is_sentence_piece:
            self._encoder: _Encoder = SentencePieceEncoder(vocabulary, self._adds_space)
        else:
            rule = pre_rule(vocabulary)
            adds_bos, self._is_spelled_in_bytes = rule.adds_bos, not rule.is_raw
            self._encoder = BytePairEncoder(vocabulary)
        adds_bos = flag(path, values, "add_bos_token", adds_bos) or _is_gemma4(vocabulary)
        adds_eos = flag(path, values, "add_eos_token", False)
        self._before = [_edge(vocabulary, "bos")] if adds_bos else []
        self._after = [_edge(vocabulary, "eos")] if adds_eos else []
        self._chat_template = _chat_template(vocabulary)
        self._named = _named_tokens(vocabulary)
        self._path = path

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the model expects."""
        return [*self._before, *self._ids(text), *self._after]

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text and nothing else: no special token is added."""
        return self._ids(text)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the answer."""
        # Here, because it imports transformers, which only a conversation needs.
        from draftsmith.models.hf.chat import render_chat

        return self._ids(render_chat(self._renderer, messages))

    def encode_tool_chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """The same with tools that the model may call, as the template tells it of them."""
        from draftsmith.models.hf.chat import render_chat

        return self._ids(render_chat(self._renderer, messages, tools))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens; special tokens are left out."""
        text = b"".join(map(self._piece, tokens)).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._adds_space else text

    def token_strings(self) -> dict[int, str]:
        """The file's own name of each id."""
        return dict(enumerate(self._tokens))

    def special_tokens(self) -> dict[str, int]:
        """What `decode` leaves out, by the string that a prompt names it by."""
        kinds = zip(self._tokens, self._types, strict=True)
        return {
            text: token for token, (text, kind) in enumerate(kinds) if kind in (CONTROL, UNKNOWN)
        }

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return bool(self._chat_template)

    def byte_pieces(self) -> Pieces:
        """How the file spells."""
        # Not `self`: who keeps this does not keep the tokenizer.
        encoder = self._encoder

        def cut(text: str) -> list[int]:
            return encoder.encode(text, is_first=False) if text else []

        return Pieces([self._piece(token) for token in range(len(self._tokens))], cut)

    def as_files(self) -> dict[str, str]:
        """The files of a folder of `transformers`, for a byte-level vocabulary of pairs."""
        # Read once more: what is held for a run is less than what a folder says.
        described = Described(
            self._types,
            self._specials,
            self._before,
            self._after,
            self._chat_template,
            self._named,
        )
        with named_after(self._path):
            return byte_pair_files(read_vocabulary(self._path), described)

    @cached_property
    def _renderer(self) -> Any:  # noqa: ANN401 - an object of transformers
        from draftsmith.models.hf.chat import chat_renderer

        return chat_renderer(self._chat_template, self._named)

    def _ids(self, text: str) -> list[int]:
        """Ids of a text, nothing before or after it."""
        ids: list[int] = []
        is_first = True
        for part in _cut_at_specials(check_text(text), self._specials):
            if isinstance(part, str):
                ids += self._encoder.encode(part, is_first)
            else:
                ids.append(part.token)
            is_first = not isinstance(part, str)
        return ids

    def _piece(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        if token >= len(self._tokens):
            return b""  # a row of the embedding that only fills it up
        text, type = self._tokens[token], self._types[token]
        if type in (CONTROL, UNKNOWN):
            return b""
        if type == USER_DEFINED:
            return text.encode()
        if type == BYTE:
            return bytes([int(text[3:5], 16)])
        if type != NORMAL:
            return b""
        if not self._is_spelled_in_bytes:
            return text.replace(_SPACE, " ").encode()
        try:
            return bytes(map(BYTES.__getitem__, text))
        except KeyError:
            return text.encode()  # a letter that stands for no byte: the token is plain text


def open_gguf_tokenizer(path: Path) -> GgufTokenizer:
    """Open the tokenizer of a GGUF file.

    Args:
        path: The file.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: It has no tokenizer, or one that cannot be read exactly; the message
            names the key and the value.
    """
    with _no_collection(), named_after(path):
        tokenizer = GgufTokenizer(read_vocabulary(path))
    _give_back_memory()
    return tokenizer


def _cut_at_specials(text: str, specials: Sequence[Special]) -> list[str | Special]:
    """Cut a text at its special tokens: the longest first, wherever it stands, then the next."""
    parts: list[str | Special] = [text] if text else []
    for special in specials:
        if special.text in text:
            parts = [piece for part in parts for piece in _cut_at(part, special)]
    return parts


def _cut_at(part: str | Special, special: Special) -> Iterator[str | Special]:
    """Cut one part at one special token, without the white space that it takes."""
    if not isinstance(part, str):
        yield part
        return
    before, found, rest = part.partition(special.text)
    while found:
        before = before.rstrip(_WHITE) if special.strips_left else before
        if before:
            yield before
        yield special
        # First, for the token may be white space itself.
        rest = rest.lstrip(_WHITE) if special.strips_right else rest
        before, found, rest = rest.partition(special.text)
    if before:
        yield before


def _check_known(vocabulary: Vocabulary) -> None:
    """Refuse what we cannot do exactly."""
    path, header = vocabulary.path, vocabulary.header
    model = header.values.get(PREFIX + "model")
    if model not in _MODELS:
        raise ModelFormatError(
            f"{path}: {PREFIX}model is {model!r}, not one of {', '.join(_MODELS)}; use the "
            "model's original folder"
        )
    check_keys(path, (*header.values, *header.arrays), header.values)
    if not vocabulary.is_sentence_piece and header.values.get(PREFIX + "add_space_prefix"):
        raise ModelFormatError(
            f"{path}: {PREFIX}add_space_prefix is true, which has a meaning in SentencePiece "
            "vocabularies only; use the model's original folder"
        )


def _is_gemma4(vocabulary: Vocabulary) -> bool:
    """Whether texts begin with the bos token, also if the file says no: llama.cpp's own rule."""
    return not vocabulary.is_sentence_piece and pre_rule(vocabulary) == PRE_TOKENIZERS["gemma4"]


def _edge(vocabulary: Vocabulary, name: str) -> int:
    """The token that begins or ends every text."""
    token = vocabulary.special_id(name)
    if token is None:
        raise ModelFormatError(
            f"{vocabulary.path}: texts get a {name} token, but there is no key "
            f"tokenizer.ggml.{name}_token_id; convert the model again"
        )
    return token


def _named_tokens(vocabulary: Vocabulary) -> dict[str, str]:
    """The special tokens that a chat template may name."""
    found = {theirs: vocabulary.special_id(ours) for ours, theirs in _NAMES.items()}
    return {name: vocabulary.tokens[id] for name, id in found.items() if id is not None}


def _chat_template(vocabulary: Vocabulary) -> str | dict[str, str] | None:
    """The file's chat template, or its several by name."""
    templates: dict[str, str] = {}
    for key, value in vocabulary.values.items():
        if key == CHAT_TEMPLATE or key.startswith(f"{CHAT_TEMPLATE}."):
            if not isinstance(value, str):
                raise ModelFormatError(
                    f"{vocabulary.path}: {key} is {value!r}, not a text; fetch the file again"
                )
            templates[key.removeprefix(CHAT_TEMPLATE).removeprefix(".") or "default"] = value
    if "default" not in templates:
        return None  # the others are for tools and documents, which our conversations have not
    return templates if len(templates) > 1 else templates["default"]


@contextmanager
def _no_collection() -> Generator[None]:
    """Let no garbage collection walk the long lists while they grow: it finds nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _give_back_memory() -> None:
    """Return to the system what reading the file took, where the C library can."""
    if sys.platform != "linux":
        return
    # glibc would keep 44 MB for a vocabulary of 152k tokens; musl has no such function.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
