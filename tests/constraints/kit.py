"""A grammar that is a list of texts, and what the tests of structured outputs share."""

from collections.abc import Collection
from functools import cache

import torch
from torch import Tensor

from draftsmith.constraints.walk import Walk
from draftsmith.core.params import SamplingParams
from draftsmith.core.structured import StructuredOutputs
from draftsmith.engine.engine import Engine
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.tokenizer import Tokenizer
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

    def __init__(self, texts: Collection[Text], ends: Collection[int], vocab_size: int) -> None:
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


def listed(texts: Collection[Text], ends: Collection[int], vocab_size: int) -> Walk:
    """The constraint of a text that is one of a list."""
    return Walk(Listed(texts, ends, vocab_size), frozenset(ends), vocab_size, "choice")


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


def plain_texts(form: StructuredOutputs, prompts: list[str], params: SamplingParams) -> list[Text]:
    """Each prompt's ids without speculation, in a batch of one."""
    from dataclasses import replace

    engine = Engine(model(), tokenizer(), gamma=0)
    params = replace(params, structured_outputs=form)
    return [engine.generate(prompt, params)[0].token_ids for prompt in prompts]
