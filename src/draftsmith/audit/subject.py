"""What is certified: a target, its drafters, and texts to run them on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from draftsmith.core.enumeration import Cut
from draftsmith.drafters import ModelDrafter
from draftsmith.drafters.contract import Drafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.t5 import NativeT5
from draftsmith.models.tokenizer import Message, Tokenizer

__all__ = ["NUM_BRANCHES", "Subject", "encode_prompts", "is_row_exact", "make_subject"]

NUM_BRANCHES = 2
"""Guesses for each position of the trees that are certified."""
_LONGEST_PROMPT = 256
"""Tokens of a prompt: the passes that are compared come behind it."""


@dataclass(frozen=True)
class Subject:
    """One target and everything that drafts for it."""

    target: LanguageModel
    drafters: Mapping[str, Drafter]
    """By the name that reports give them."""
    prompts: Sequence[Sequence[int]]
    """Token ids: the decoder's, or an encoder-decoder's source."""
    is_row_exact: bool
    """Whether the target promises the same bits for a row in any company."""
    itself: Drafter | None = None
    """The target as its own draft, where it can be: with another temperature it is right often."""
    cut: Cut | None = None
    """How many tokens of a draft its drafters hand on; None is all."""
    trees: Drafter | None = None
    """The target as its own draft, in trees, where it checks such."""


def make_subject(
    engine: Engine, drafters: Mapping[str, Drafter], prompts: Sequence[str | Sequence[Message]]
) -> Subject:
    """What is certified, from a loaded target.

    Args:
        engine: Of the target, with its tokenizer.
        drafters: By the name that reports give them.
        prompts: Texts and conversations; one that does not fit the context is cut at its start.

    Raises:
        InvalidRequestError: If the engine has no tokenizer.
    """
    target, tokenizer = engine.target, engine.tokenizer
    if tokenizer is None:
        raise InvalidRequestError("a certificate needs the target's tokenizer")
    ids = encode_prompts(tokenizer, target, prompts)
    itself = ModelDrafter(target) if target.traits.can_rollback else None
    trees = ModelDrafter(target, branches=NUM_BRANCHES) if target.takes_trees else None
    return Subject(target, drafters, ids, is_row_exact(target), itself, trees=trees)


def encode_prompts(
    tokenizer: Tokenizer, target: LanguageModel, prompts: Sequence[str | Sequence[Message]]
) -> list[list[int]]:
    """Token ids of texts and conversations, their ends where they are long."""
    longest = min(_LONGEST_PROMPT, (target.traits.context_length or 10**9) // 2)
    return [_encode(tokenizer, prompt)[-longest:] for prompt in prompts]


def _encode(tokenizer: Tokenizer, prompt: str | Sequence[Message]) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    try:
        return tokenizer.encode_chat(prompt)
    except InvalidRequestError:
        # A model without a chat template.
        return tokenizer.encode("\n\n".join(turn["content"] for turn in prompt))


def is_row_exact(model: LanguageModel) -> bool:
    """Whether a model promises that a row's logits do not depend on its company."""
    return isinstance(model, CpuDecoder | NativeT5)
