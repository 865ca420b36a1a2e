"""Matchers of llguidance, whose masks say what may follow; the only module that imports it.

Its mask is a function of the grammar and of the tokens before. Where the grammar leaves but one way
to go on, it holds the one token with which the tokenizer itself would go on. llguidance knows of
one end token; which others a text may end with is decided here.
"""
# llguidance's annotations are looser than pyright's strict mode asks:
# pyright: basic

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import llguidance
import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from draftsmith.core.structured import StructuredOutputs
from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["Guidance", "GuidanceMatcher"]

_ANY_OBJECT = '{"type":"object"}'
_MARK = b"\xff"
"""What llguidance has before the name of a special token: no text has this byte."""
_REFUSED_OPTION = re.compile(r"[\[,]\s*(temperature|max_tokens|stop)\s*=")
"""Options of rules: the first is no matter of masks, the others cannot be taken back."""


class Guidance:
    """llguidance's view of a tokenizer, for which it compiles forms.

    Args:
        tokenizer: The model's.
        vocab_size: The model's, which may be more than the tokenizer's.
        end_token_ids: With which a text may end, one or more.

    Raises:
        InvalidRequestError: If the bytes of the tokenizer's tokens are not known.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_token_ids: Sequence[int]) -> None:
        self._vocab_size = vocab_size
        self._ends = torch.tensor(sorted(end_token_ids))
        self._inner = _opened(tokenizer, vocab_size, list(end_token_ids))

    def compile(self, form: StructuredOutputs) -> "GuidanceMatcher":
        """A matcher at the beginning of a form.

        Raises:
            InvalidRequestError: If the form does not compile, with the reason.
        """
        limits = llguidance.LLParserLimits(verbose_errors=False)
        inner = llguidance.LLMatcher(self._inner, _grammar(form), log_level=0, limits=limits)
        if inner.is_error():
            raise InvalidRequestError(
                f"structured_outputs.{form.kind} does not compile: {_one_line(inner.get_error())}"
            )
        matcher = GuidanceMatcher(inner, self._inner, self._ends, self._vocab_size)
        # The first mask builds much of the lexer: here, and not while others wait for a round.
        matcher.mask()
        if matcher.failure or not matcher.mask().any():
            why = matcher.failure or "it allows no text"
            raise InvalidRequestError(f"structured_outputs.{form.kind} does not compile: {why}")
        return matcher


class GuidanceMatcher:
    """Where a text stands in a grammar.

    Args:
        inner: llguidance's.
        tokenizer: llguidance's.
        ends: Tokens that end a text, where it may end.
        vocab_size: The model's.
    """

    def __init__(self, inner: Any, tokenizer: Any, ends: Tensor, vocab_size: int) -> None:
        self._inner = inner
        self._tokenizer = tokenizer
        self._ends = ends
        self._vocab_size = vocab_size

    def copy(self) -> "GuidanceMatcher":
        """Another that stands in the same place."""
        inner = self._inner.deep_copy()
        return GuidanceMatcher(inner, self._tokenizer, self._ends, self._vocab_size)

    def feed(self, token: int) -> bool:
        """Go one token on; False if that was not possible."""
        return bool(self._inner.consume_token(token))

    def take_back(self, count: int) -> None:
        """Undo the last so many tokens."""
        self._inner.rollback(count)

    def mask(self) -> Bool[Tensor, " vocab"]:
        """The tokens that may come next, end tokens among them where the text may end."""
        mask = torch.zeros(self._vocab_size, dtype=torch.bool)
        if self._inner.is_error():
            return mask
        if not self._inner.is_stopped():
            bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
            flags = np.unpackbits(bits, count=self._vocab_size, bitorder="little")
            mask = torch.from_numpy(flags).bool()
        if self._inner.is_accepting():
            mask[self._ends] = True
        return mask

    def spelled(self) -> list[int]:
        """Tokens for the letters that must come next; none where there is a choice."""
        letters = self._inner.compute_ff_bytes()
        return self._tokenizer.tokenize_bytes(letters) if letters else []

    @property
    def failure(self) -> str:
        """Why it can tell nothing any more; empty while it can."""
        return _one_line(self._inner.get_error()) if self._inner.is_error() else ""


# --- forms ------------------------------------------------------------------------------------


def _grammar(form: StructuredOutputs) -> str:
    """A form as llguidance reads it."""
    make = llguidance.LLMatcher
    if form.regex is not None:
        return make.grammar_from_regex(form.regex)
    if form.choice is not None:
        texts = (json.dumps(text, ensure_ascii=False) for text in form.choice)
        return make.grammar_from_lark(f"start: {' | '.join(texts)}")
    if form.grammar is not None:
        if "::=" in form.grammar:
            raise InvalidRequestError(
                "structured_outputs.grammar is in GBNF (it has ::=): write it in Lark's notation, "
                'such as start: "yes" | "no"'
            )
        option = _REFUSED_OPTION.search(form.grammar)
        if option is not None:
            raise InvalidRequestError(
                f"structured_outputs.grammar has the option {option[1]}=, which cannot be honoured "
                "exactly: leave it out"
            )
        return make.grammar_from_lark(form.grammar)
    return _json_grammar(form)


def _json_grammar(form: StructuredOutputs) -> str:
    options: Any = {}
    if form.disable_any_whitespace:
        options["whitespace_flexible"] = False
    if form.whitespace_pattern is not None:
        options["whitespace_pattern"] = form.whitespace_pattern
    schema = _ANY_OBJECT if form.json is None else str(form.json)
    try:
        return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)
    # What Python reads as JSON, and llguidance does not: half of a surrogate pair, deep nesting.
    except ValueError as error:
        raise InvalidRequestError(
            f"structured_outputs.{form.kind} does not compile: {_one_line(str(error))}"
        ) from error


# --- tokenizers -------------------------------------------------------------------------------


class _Wrapper:
    """What llguidance asks of a tokenizer that it does not know."""

    is_tokenizer_wrapper = True

    def __init__(
        self, pieces: list[bytes], specials: list[int], end: int, cut: Callable[[str], list[int]]
    ) -> None:
        self.tokens = pieces
        self.special_token_ids = specials
        self.eos_token_id = end
        self.bos_token_id = None
        self._cut = cut

    def __call__(self, text: str) -> list[int]:
        return self._cut(text)


def _opened(tokenizer: Tokenizer, vocab_size: int, ends: list[int]) -> Any:
    described = tokenizer.as_json()
    if described is not None:
        return llguidance.LLTokenizer(described, n_vocab=vocab_size, eos_token=ends)
    pieces = tokenizer.byte_pieces()
    if pieces is None:
        raise InvalidRequestError(
            "structured_outputs needs to know the bytes of each token, which this tokenizer does "
            "not tell: use a fast tokenizer (tokenizer.json) or a GGUF file"
        )
    of_ids = list(pieces.of_ids[:vocab_size])
    of_ids += [b""] * (vocab_size - len(of_ids))
    specials = {id: name for name, id in tokenizer.special_tokens().items() if id < vocab_size}
    for id, name in specials.items():
        of_ids[id] = _MARK + name.encode()
    wrapper: Any = _Wrapper(of_ids, list(specials), ends[0], pieces.cut)
    return llguidance.LLTokenizer(wrapper, n_vocab=vocab_size, eos_token=ends)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 240 else f"{line[:120]} … {line[-117:]}"
