"""The tokens of a GGUF file: their texts, kinds and scores, and the merges.

The arrays are read where they lie. Half a million strings make a list each, and nothing else.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.header import GgufArray, GgufHeader, GgufValue, read_header
from draftsmith.models.gguf.keys import PREFIX, token_id

__all__ = ["BYTE", "CONTROL", "NORMAL", "UNKNOWN", "USER_DEFINED", "Vocabulary", "read_vocabulary"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, as `tokenizer.ggml.token_type` numbers them."""

_LENGTH: Final = struct.Struct("<Q")
_STRING, _INT32, _FLOAT32 = 8, 5, 6
_DTYPES = {_INT32: np.dtype("<i4"), _FLOAT32: np.dtype("<f4")}
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>\Z")
_EMBEDDING = "token_embd.weight"
# SentencePiece's own, which converters leave out.
_SENTENCE_PIECE_IDS = {"unknown": 0, "bos": 1, "eos": 2}


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokens.

    Attributes:
        path: The file, for messages.
        tokens: Their texts, as the file spells them, by id.
        ids: The ids by text.
        types: Their kinds, by id, as the file gives them.
        header: All else that the file says.
    """

    path: Path
    tokens: list[str]
    ids: dict[str, int]
    types: list[int]
    header: GgufHeader

    @property
    def is_sentence_piece(self) -> bool:
        """Whether texts become tokens by scores, not by merges."""
        return self.values.get(PREFIX + "model") == "llama"

    @property
    def values(self) -> Mapping[str, GgufValue]:
        """The metadata of the file."""
        return self.header.values

    def special_id(self, name: str) -> int | None:
        """The id under `tokenizer.ggml.NAME_token_id`, or the usual one; None if there is none.

        Raises:
            ModelFormatError: If the file names an id beyond its vocabulary.
        """
        given = token_id(self.path, self.values, name, len(self.tokens))
        if given is not None or not self.is_sentence_piece:
            return given
        usual = _SENTENCE_PIECE_IDS.get(name)
        return usual if usual is not None and usual < len(self.tokens) else None

    def scores(self) -> list[float]:
        """The score of each token; 0 where the file has none.

        Raises:
            ModelFormatError: If they are fewer than the tokens, or no numbers.
        """
        return _numbers(self, "scores", 0, (_FLOAT32, _INT32)).tolist()

    def merges(self) -> list[str]:
        """The merges, best first: two tokens with a space between.

        Raises:
            ModelFormatError: If there are none.
        """
        return _strings(self.path, "merges", self._merges())

    def is_merged(self, text: str) -> bool:
        """Whether a merge makes a text, so that it may be written without being meant.

        Args:
            text: Of a token.
        """
        if PREFIX + "merges" not in self.header.arrays:
            return False
        data = _bytes(self.path, self._merges())
        pairs = (f"{text[:cut]} {text[cut:]}".encode() for cut in range(1, len(text)))
        return any(_LENGTH.pack(len(pair)) + pair in data for pair in pairs)

    def _merges(self) -> GgufArray:
        array = self.header.arrays.get(PREFIX + "merges")
        if array is None:
            raise _refused(self.path, "it has no tokenizer.ggml.merges")
        return array


def read_vocabulary(path: Path, header: GgufHeader | None = None) -> Vocabulary:
    """Read the vocabulary of a GGUF file.

    Args:
        path: The file.
        header: Its header, if it has been read.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFormatError: It is not whole, has no vocabulary, or one with ids that it does not
            have; the message names the key and the value.
    """
    header = header or read_header(path)
    array = header.arrays.get(PREFIX + "tokens")
    if array is None:
        raise _refused(path, "it has no tokenizer.ggml.tokens")
    texts = _strings(path, "tokens", array)
    tokens = [text or f"[EMPTY_{index}]" for index, text in enumerate(texts)]
    ids = {text: index for index, text in enumerate(tokens)}
    vocabulary = Vocabulary(path, tokens, ids, [], header)
    vocabulary.types.extend(_numbers(vocabulary, "token_type", NORMAL, (_INT32,)).tolist())
    _check(vocabulary)
    return vocabulary


def _check(vocabulary: Vocabulary) -> None:
    """Refuse ids that mean two things, or that the model does not have."""
    path, num_tokens = vocabulary.path, len(vocabulary.tokens)
    if len(vocabulary.ids) < num_tokens:
        pairs = enumerate(vocabulary.tokens)
        twice = next(text for index, text in pairs if vocabulary.ids[text] != index)
        raise _refused(path, f"its vocabulary has the token {twice!r} twice")
    rows = next(
        (t.shape[-1] for t in vocabulary.header.tensors if t.name == _EMBEDDING), num_tokens
    )
    if num_tokens > rows:
        raise _refused(path, f"it has {num_tokens} tokens, but {_EMBEDDING} has rows for {rows}")
    pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
    wrong = next((text for text, type in pairs if type == BYTE and not _BYTE.match(text)), None)
    if wrong is not None:
        raise _refused(
            path, f"its token {wrong!r} is marked as a byte, which is spelled like <0x0A>"
        )
    for key in vocabulary.values:
        if key.startswith(PREFIX) and key.endswith("_token_id"):
            vocabulary.special_id(key.removeprefix(PREFIX).removesuffix("_token_id"))


def _numbers(vocabulary: Vocabulary, name: str, default: int, kinds: tuple[int, ...]) -> np.ndarray:
    """An array with a number for each token."""
    num_tokens = len(vocabulary.tokens)
    array = vocabulary.header.arrays.get(PREFIX + name)
    if array is None:
        return np.full(num_tokens, default)
    if array.value_type not in kinds or array.num_values < num_tokens:
        raise _refused(
            vocabulary.path,
            f"{PREFIX}{name} has {array.num_values} values of type {array.value_type} for "
            f"{num_tokens} tokens",
        )
    dtype = _DTYPES[array.value_type]
    return np.fromfile(vocabulary.path, dtype, num_tokens, offset=array.offset)


def _strings(path: Path, name: str, array: GgufArray) -> list[str]:
    """The strings of an array whose place was checked when the header was read."""
    if array.value_type != _STRING:
        raise _refused(path, f"{PREFIX}{name} holds no strings")
    data = _bytes(path, array)
    unpack, position = _LENGTH.unpack_from, 0
    strings: list[str] = []
    try:
        for _ in range(array.num_values):
            start = position + _LENGTH.size
            position = start + unpack(data, position)[0]
            strings.append(data[start:position].decode())
    except UnicodeDecodeError as error:
        raise _refused(path, f"{PREFIX}{name} has a string that is not UTF-8") from error
    return strings


def _bytes(path: Path, array: GgufArray) -> bytes:
    with path.open("rb") as file:
        file.seek(array.offset)
        return file.read(array.num_bytes)


def _refused(path: Path, why: str) -> ModelFormatError:
    return ModelFormatError(f"{path}: {why}; fetch the file again, or convert the model again")
