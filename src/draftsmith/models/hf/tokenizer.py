"""A tokenizer of `transformers` behind our contract."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message, Tokenizer

__all__ = ["TransformersTokenizer"]


class TransformersTokenizer(Tokenizer):
    """Any `PreTrainedTokenizer`, fast or slow."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the model expects."""
        return list(self.tokenizer(_checked(text)).input_ids)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the answer."""
        if not self.has_chat_template:
            raise InvalidRequestError(
                "chat needs a model with a chat template: use an instruct model, or a plain prompt"
            )
        turns = [dict(message) for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidRequestError(f"the chat template refuses the messages: {error}") from error
        return list(self.tokenizer(_checked(text), add_special_tokens=False).input_ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens; special tokens are left out."""
        return self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def token_strings(self) -> dict[int, str]:
        """The tokenizer's own name of each id."""
        return {index: token for token, index in self.tokenizer.get_vocab().items()}

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return bool(getattr(self.tokenizer, "chat_template", None))


def _checked(text: str) -> str:
    """Refuse text that is no text: half a surrogate pair, as broken input gives."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"the prompt has a lone surrogate at character {error.start}: give valid Unicode"
        ) from error
    return text
