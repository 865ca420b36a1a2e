"""A grammar that is a list of texts, and what the tests of structured outputs share."""

from collections.abc import Collection, Sequence
from functools import cache

import torch
from torch import Tensor

from draftsmith.constraints.walk import Walk
from draftsmith.core.structured import StructuredOutputs
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.tokenizer import Message, Pieces, Tokenizer
from tests import tiny
from tests.engine.kit import text_tokenizer

Text = tuple[int, ...]

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}
FORMS = {
    "schema": StructuredOutputs(json=SCHEMA),
    "compact": StructuredOutputs(json=SCHEMA, disable_any_whitespace=True),
    "object": StructuredOutputs(json_object=True),
    "regex": StructuredOutputs(regex="(the|a) (quick|lazy) (fox|dog)s?"),
    "choice": StructuredOutputs(choice=["the lazy dog", "the lazy fox", "jumps"]),
    "lark": StructuredOutputs(
        grammar='start: "[" (NUMBER ("," NUMBER)*)? "]"\nNUMBER: /[0-9]{1,3}/'
    ),
}


class Listed:
    """A matcher of the texts in a list."""

    failure = ""

    def __init__(
        self,
        texts: Collection[Text],
        ends: Collection[int],
        vocab_size: int,
        *,
        guesses: bool = False,
    ) -> None:
        self.guesses = guesses
        self.texts = texts
        self.ends = ends
        self.vocab_size = vocab_size
        self.fed: Text = ()
        self.num_masks = 0

    def feed(self, token: int) -> bool:
        self.fed += (token,)
        return True

    def take_back(self, count: int) -> None:
        assert 0 < count <= len(self.fed)
        self.fed = self.fed[: len(self.fed) - count]

    def spelled(self) -> list[int]:
        """A guess, which may be wrong: the next token of the first text that goes on from here."""
        length = len(self.fed)
        following = [one[length:] for one in sorted(self.texts) if one[:length] == self.fed]
        return list(next(filter(None, following), ())) if self.guesses else []

    def mask(self) -> Tensor:
        self.num_masks += 1
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        length = len(self.fed)
        for text in self.texts:
            if text == self.fed:
                mask[list(self.ends)] = True
            elif text[:length] == self.fed:
                mask[text[length]] = True
        return mask


def listed(
    texts: Collection[Text], ends: Collection[int], vocab_size: int, *, guesses: bool = False
) -> Walk:
    """The constraint of a text that is one of a list."""
    return Walk(
        lambda: Listed(texts, ends, vocab_size, guesses=guesses),
        frozenset(ends),
        vocab_size,
        "choice",
    )


class Bytes(Tokenizer):
    """A token for each byte, then padding and an end; it says nothing of itself but its pieces."""

    END = 257

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_plain(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode(errors="replace")

    def token_strings(self) -> dict[int, str]:
        return {token: str(token) for token in range(258)}

    def special_tokens(self) -> dict[str, int]:
        return {"<pad>": 256, "<end>": 257}

    @property
    def has_chat_template(self) -> bool:
        return False

    def byte_pieces(self) -> Pieces:
        return Pieces([*(bytes([byte]) for byte in range(256)), b"", b""], self.encode_plain)


@cache
def model(seed: int = 3) -> LanguageModel:
    """A llama that speaks the ids of the tests' tokenizer."""
    return wrap_model(_raw(seed), name=f"tiny-{seed}")


@cache
def near() -> LanguageModel:
    """A draft model for it that is right often."""
    return wrap_model(tiny.near_twin(_raw(3)), name="near")


@cache
def _raw(seed: int) -> object:
    size = len(text_tokenizer().token_strings())
    return tiny.raw_model("llama", seed, vocab_size=size)


def tokenizer() -> Tokenizer:
    """Byte-level, with merges."""
    return text_tokenizer()
