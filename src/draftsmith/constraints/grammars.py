"""Compiled forms: within limits of size and time, and kept for whoever asks again."""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from draftsmith.constraints.walk import Walk
from draftsmith.core.structured import StructuredOutputs
from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from draftsmith.constraints.guidance import Guidance, GuidanceMatcher

__all__ = ["COMPILE_LIMIT_S", "Grammar", "Grammars", "grammars_of"]

COMPILE_LIMIT_S = 10.0
"""Seconds that a form may take to compile."""
_MOST_KEPT = 64
"""Compiled forms that are kept, of one tokenizer."""
_STACK_BYTES = 128 * 2**20
"""Of the thread that compiles: llguidance goes down a chain of rules call by call, and the longest
that a form has room for overflows the usual 8 MiB, which would end the process."""


class Grammar:
    """A compiled form, in which any number of texts may be written.

    Args:
        matcher: At its beginning; copied for each text.
        form: What was compiled.
        end_token_ids: With which a text ends.
        vocab_size: The model's.
    """

    def __init__(
        self,
        matcher: "GuidanceMatcher",
        form: StructuredOutputs,
        end_token_ids: frozenset[int],
        vocab_size: int,
    ) -> None:
        self._matcher = matcher
        self._form = form
        self._ends = end_token_ids
        self._vocab_size = vocab_size

    def begin(self) -> Walk:
        """The constraint of a new text."""
        return Walk(self._matcher.copy, self._ends, self._vocab_size, self._form.kind)


class Grammars:
    """What was compiled for a tokenizer and its end tokens; safe to be called from any thread.

    Args:
        tokenizer: The model's.
        vocab_size: The model's.
        end_token_ids: With which a text may end.
    """

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, end_token_ids: frozenset[int]
    ) -> None:
        self._guidance = _guidance(tokenizer, vocab_size, end_token_ids)
        self._vocab_size = vocab_size
        self._ends = end_token_ids
        self._kept: OrderedDict[StructuredOutputs, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def compiled(self, form: StructuredOutputs) -> Grammar:
        """A form, compiled unless it is kept.

        Raises:
            InvalidRequestError: If it does not compile, or not in time.
        """
        with self._lock:
            grammar = self._kept.get(form)
            if grammar is not None:
                self._kept.move_to_end(form)
                return grammar
        matcher = _in_time(lambda: self._guidance.compile(form), form.kind)
        grammar = Grammar(matcher, form, self._ends, self._vocab_size)
        with self._lock:
            self._kept[form] = grammar
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return grammar


_opened: "weakref.WeakKeyDictionary[Tokenizer, dict[tuple[int, frozenset[int]], Grammars]]" = (
    weakref.WeakKeyDictionary()
)
_opening = threading.Lock()
_starting = threading.Lock()
"""The size of stacks is the process's."""


def grammars_of(tokenizer: Tokenizer, vocab_size: int, end_token_ids: frozenset[int]) -> Grammars:
    """The compiled forms of a tokenizer, which all engines share.

    Args:
        tokenizer: The model's.
        vocab_size: The model's.
        end_token_ids: With which a text may end.

    Raises:
        InvalidRequestError: If llguidance is missing, or does not understand the tokenizer.
    """
    with _opening:
        of_tokenizer = _opened.setdefault(tokenizer, {})
        key = vocab_size, end_token_ids
        if key not in of_tokenizer:
            of_tokenizer[key] = Grammars(tokenizer, vocab_size, end_token_ids)
        return of_tokenizer[key]


def _guidance(tokenizer: Tokenizer, vocab_size: int, end_token_ids: frozenset[int]) -> "Guidance":
    try:
        from draftsmith.constraints.guidance import Guidance
    except ModuleNotFoundError as error:
        if error.name != "llguidance":
            raise
        raise InvalidRequestError(
            "structured_outputs needs llguidance: pip install 'draftsmith[constraints]'"
        ) from error
    return Guidance(tokenizer, vocab_size, sorted(end_token_ids))


def _in_time(compile_: "Callable[[], GuidanceMatcher]", kind: str) -> "GuidanceMatcher":
    """What compiles in time; what does not goes on in a thread of its own until its fuel ends."""
    found: list[GuidanceMatcher] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            found.append(compile_())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="compile a grammar", daemon=True)
    with _starting:
        usual = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
    thread.join(COMPILE_LIMIT_S)
    if failures:
        raise failures[0]
    if not found:
        raise InvalidRequestError(
            f"structured_outputs.{kind} takes more than {COMPILE_LIMIT_S:g} s to compile: make it "
            "simpler"
        )
    return found[0]
