"""A conversation into text by a model's chat template, which `transformers` renders."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message

# A template is a program of the model's: what goes wrong in it is its own.
_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)

__all__ = ["chat_renderer", "render_chat"]


def chat_renderer(
    chat_template: str | dict[str, str] | None, special_tokens: dict[str, str]
) -> PreTrainedTokenizerFast:
    """A tokenizer without a vocabulary, which can render its chat template and nothing else."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Backend(BPE()), chat_template=chat_template, **special_tokens
    )


def render_chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Render a conversation, ready for the answer.

    Args:
        tokenizer: Any of `transformers`.
        messages: The conversation, oldest first.

    Raises:
        InvalidRequestError: If the model has no chat template, or it refuses the messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidRequestError(
            "chat needs a model with a chat template: use an instruct model, or a plain prompt"
        )
    turns = [dict(message) for message in messages]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except _FAULTS as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise InvalidRequestError(
            f"the chat template refuses the messages: {why}: change the turns, or mend the template"
        ) from error
