"""A conversation into text by a model's chat template, which `transformers` renders."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import json
import sys
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Message, Tool

if TYPE_CHECKING:
    from draftsmith.models.hf.guarded import Ended, Guarded

# A template is a program of the model's: what goes wrong in it is its own.
_FAULTS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError),
)
_LIMIT_S = 10.0
"""A template takes some milliseconds, also on a machine that is busy."""
_MEMORY_BYTES = 1 << 29
_CAN_GUARD = sys.platform == "linux"
_guards: "weakref.WeakKeyDictionary[Any, tuple[Any, Guarded]]" = weakref.WeakKeyDictionary()

__all__ = ["chat_renderer", "render_chat"]


def chat_renderer(
    chat_template: str | dict[str, str] | None, special_tokens: dict[str, str]
) -> PreTrainedTokenizerFast:
    """A tokenizer without a vocabulary, which can render its chat template and nothing else."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Backend(BPE()), chat_template=chat_template, **special_tokens
    )


def render_chat(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Tool] | None = None
) -> str:
    """Render a conversation, ready for the answer.

    Args:
        tokenizer: Any of `transformers`.
        messages: The conversation, oldest first.
        tools: What the model may call.

    Raises:
        InvalidRequestError: If the model has no chat template, or it refuses the messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidRequestError(
            "chat needs a model with a chat template: use an instruct model, or a plain prompt"
        )
    try:
        told = None if tools is None else [dict(tool) for tool in tools]
        turns = json.dumps({"messages": [dict(one) for one in messages], "tools": told})
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"the messages hold what is no plain value ({error}): give texts, numbers, lists, dicts"
        ) from error
    ended = _guarded(tokenizer)(turns) if _CAN_GUARD else _unguarded(tokenizer, turns)
    if ended.how == "returned":
        _keep_compiled(tokenizer)
        return ended.text
    why = {
        "raised": f"refuses the messages: {ended.text.rstrip('.'):.300}",
        "out of time": f"does not end within {_LIMIT_S:g} s",
    }.get(ended.how, "takes too much memory")
    raise InvalidRequestError(f"the chat template {why}: change the turns, or mend the template")


def _guarded(tokenizer: Any) -> "Guarded":
    """The process that renders for a tokenizer, as long as its template is the same."""
    # Here, because not every system can fork, or limit a process.
    from draftsmith.models.hf.guarded import Guarded

    template, found = _guards.get(tokenizer, (None, None))
    if found is None or template != tokenizer.chat_template:
        weak = weakref.ref(tokenizer)  # else the guard would keep its own key alive
        found = Guarded(lambda turns: _rendered(weak(), turns), _LIMIT_S, _MEMORY_BYTES)
        _guards[tokenizer] = tokenizer.chat_template, found
    return found


def _unguarded(tokenizer: Any, turns: str) -> "Ended":
    """The plain twin, and all that there is elsewhere."""
    from draftsmith.models.hf.guarded import Ended

    try:
        return Ended("returned", _rendered(tokenizer, turns))
    except _FAULTS as error:
        return Ended("raised", " ".join(str(error).split()) or type(error).__name__)


def _rendered(tokenizer: Any, turns: str) -> str:
    talk = json.loads(turns)
    return tokenizer.apply_chat_template(
        talk["messages"], tools=talk["tools"], tokenize=False, add_generation_prompt=True
    )


def _keep_compiled(tokenizer: Any) -> None:
    """Compile a template here once it has ended there, so that no later fork must do it again."""
    compile = getattr(chat_template_utils, "_compile_jinja_template", None)
    if compile is not None:
        compile(tokenizer.get_chat_template())
