"""A tokenizer of `transformers` behind our contract."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from typing import Any

from draftsmith.models.hf.chat import render_chat
from draftsmith.models.tokenizer import Message, Tokenizer, check_text

__all__ = ["TransformersTokenizer"]


class TransformersTokenizer(Tokenizer):
    """Any `PreTrainedTokenizer`, fast or slow."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the model expects."""
        return list(self.tokenizer(check_text(text)).input_ids)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text and nothing else: no special token is added."""
        return list(self.tokenizer(check_text(text), add_special_tokens=False).input_ids)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the answer."""
        text = check_text(render_chat(self.tokenizer, messages))
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

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

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return bool(getattr(self.tokenizer, "chat_template", None))
