"""A conversation into text by a model's chat template, which `transformers` renders."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message

if TYPE_CHECKING:
    from draftsmith.models.hf.guarded import Ended

# A template is a program of the model's: what goes wrong in it is its own.
_FAULTS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError),
)
_LIMIT_S = 10.0
"""A template takes some milliseconds, also on a machine that is busy."""
_MEMORY_BYTES = 1 << 29
_CAN_GUARD = sys.platform == "linux"

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

    def render() -> str:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    ended = _guarded(render) if _CAN_GUARD else _unguarded(render)
    if ended.how == "returned":
        _keep_compiled(tokenizer)
        return ended.text
    why = {
        "raised": f"refuses the messages: {ended.text.rstrip('.'):.300}",
        "out of time": f"does not end within {_LIMIT_S:g} s",
    }.get(ended.how, "takes too much memory")
    raise InvalidRequestError(f"the chat template {why}: change the turns, or mend the template")


def _guarded(render: Callable[[], str]) -> "Ended":
    # Here, because not every system can fork, or limit a process.
    from draftsmith.models.hf.guarded import run_guarded

    return run_guarded(render, _LIMIT_S, _MEMORY_BYTES)


def _unguarded(render: Callable[[], str]) -> "Ended":
    """The plain twin, and all that there is elsewhere."""
    from draftsmith.models.hf.guarded import Ended

    try:
        return Ended("returned", render())
    except _FAULTS as error:
        return Ended("raised", " ".join(str(error).split()) or type(error).__name__)


def _keep_compiled(tokenizer: Any) -> None:
    """Compile a template here once it has ended there, so that no later fork must do it again."""
    compile = getattr(chat_template_utils, "_compile_jinja_template", None)
    if compile is not None:
        compile(tokenizer.get_chat_template())
