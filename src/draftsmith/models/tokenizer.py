"""Text to token ids and back, one token at a time where text is streamed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

from draftsmith.errors import InvalidRequestError, VocabularyMismatchError

__all__ = [
    "Detokenizer",
    "Message",
    "Pieces",
    "Tokenizer",
    "Tool",
    "check_same_vocabulary",
    "check_text",
    "decode_after",
    "prompt_tail",
]

_SHORTEST_TAIL = 8

Message = Mapping[str, str]
"""One turn of a conversation: its `role` and its `content`."""
Tool = Mapping[str, Any]
"""A function that a model may call, as OpenAI's API and chat templates describe it."""


class Pieces(NamedTuple):
    """How a tokenizer spells, in bytes."""

    of_ids: Sequence[bytes]
    """What each id adds to a text; nothing where it is a special token."""
    cut: Callable[[str], list[int]]
    """The ids of a stretch of text that goes on from another, none of them special."""


class Tokenizer(ABC):
    """What the engine asks of a tokenizer."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that the model expects."""

    @abstractmethod
    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text and nothing else: no special token is added."""

    @abstractmethod
    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the answer.

        Raises:
            InvalidRequestError: If the model has no chat template, or it refuses the messages.
        """

    def encode_tool_chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """The same with tools that the model may call, as the template tells it of them.

        Raises:
            InvalidRequestError: If there is no template that does.
        """
        raise InvalidRequestError(
            f"tools need a chat template that tells of them, and {type(self).__name__} has none: "
            "leave them out"
        )

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens; special tokens are left out."""

    @abstractmethod
    def token_strings(self) -> dict[int, str]:
        """The tokenizer's own name of each id."""

    @abstractmethod
    def special_tokens(self) -> dict[str, int]:
        """What `decode` leaves out, by the string that a prompt names it by."""

    @property
    @abstractmethod
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""

    def byte_pieces(self) -> Pieces | None:
        """How it spells; None where that is not known, and grammars cannot be followed."""
        return None

    def spellings(self) -> Sequence[bytes] | None:
        """What each id adds to a text, in bytes, nothing for a special token; None: not known."""
        pieces = self.byte_pieces()
        return None if pieces is None else pieces.of_ids

    def as_json(self) -> str | None:
        """The whole of it as the text of a `tokenizer.json`; None where there is no such."""
        return None

    def as_files(self) -> dict[str, str]:
        """The files of a folder from which `transformers` loads it, their texts by name.

        Raises:
            InvalidRequestError: If no such folder means the same.
        """
        raise InvalidRequestError(
            f"a tokenizer of the kind {type(self).__name__} cannot be written in the layout of "
            "transformers: give the model's original folder"
        )


class Detokenizer:
    """Text of a growing token sequence, never in the middle of a character.

    The text of the last few tokens can change until the next one arrives (bytes of one character,
    joined words), so the end is held back while it may.

    Args:
        tokenizer: Whose ids they are.
        before: Tokens that the text goes on from, as `prompt_tail` has them. Without them the first
            word would be read as the beginning of a text, and with many vocabularies lose its
            space.

    Example:
        >>> from draftsmith.models.load import load_tokenizer
        >>> tokenizer = load_tokenizer("smollm2-135m-instruct")
        >>> detokenizer = Detokenizer(tokenizer)
        >>> parts = [detokenizer.push(token) for token in tokenizer.encode("un café")]
        >>> "".join(parts) + detokenizer.flush()
        'un café'
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(before)
        self._start = 0
        """First token of the window that is decoded again."""
        self._settled = len(before)
        """Tokens whose text has been given out."""

    def push(self, token: int) -> str:
        """Append a token; return the text that is now certain."""
        self._tokens.append(token)
        before, now = self._window()
        # A token without text (a special one) must not begin the window: what comes after it
        # would be decoded as the beginning of a text, and may lose its space.
        if now == before or now.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        return self._settle(before, now)

    def flush(self) -> str:
        """The text still held back: an unfinished character shows as a replacement character."""
        return self._settle(*self._window())

    def _settle(self, before: str, now: str) -> str:
        """Give out what is new; text given out already is not taken back if bytes spoil it."""
        self._start, self._settled = self._settled, len(self._tokens)
        num_given = len(commonprefix([before, now]))  # noqa: RUF071 - characters are meant
        return now[num_given:]

    def _window(self) -> tuple[str, str]:
        """Text of the window without and with the unsettled tokens."""
        before = self._tokenizer.decode(self._tokens[self._start : self._settled])
        return before, self._tokenizer.decode(self._tokens[self._start :])


def prompt_tail(tokenizer: Tokenizer, prompt: Sequence[int]) -> tuple[int, ...]:
    """The last tokens of a prompt, enough of them to have a text (special ones have none)."""
    size = _SHORTEST_TAIL
    while size < len(prompt) and not tokenizer.decode(prompt[-size:]):
        size *= 2
    return tuple(prompt[-size:])


def decode_after(tokenizer: Tokenizer, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """The text that `tokens` add to a prompt, its first space included."""
    detokenizer = Detokenizer(tokenizer, prompt_tail(tokenizer, prompt))
    return "".join([*map(detokenizer.push, tokens), detokenizer.flush()])


def check_same_vocabulary(
    target: Tokenizer, draft: Tokenizer, target_name: str, draft_name: str
) -> None:
    """Refuse a draft whose ids mean other tokens than the target's.

    Ids that only one of the two knows (padding, added tokens) do no harm: the draft cannot
    propose what the target's logits do not have, and a wrong proposal is only rejected.

    Raises:
        VocabularyMismatchError: Naming the first id on which they differ.
    """
    ours, theirs = target.token_strings(), draft.token_strings()
    shared = ours.keys() & theirs.keys()
    differing = min((token for token in shared if ours[token] != theirs[token]), default=None)
    if differing is not None:
        raise VocabularyMismatchError(
            f"draft {draft_name} has another tokenizer than target {target_name}: token "
            f"{differing} is {theirs[differing]!r}, not {ours[differing]!r}; "
            "use a draft of the target's family"
        )


def check_text(text: str) -> str:
    """Return a text that can be encoded.

    Raises:
        InvalidRequestError: It holds half a surrogate pair, as broken input gives.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"the prompt has a lone surrogate at character {error.start}: give valid Unicode"
        ) from error
    return text
