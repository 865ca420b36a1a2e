"""Prompt lookup: copy what followed the last time that the text ran like this.

"Copy from context" of Leviathan et al., section 3.6; prompt lookup decoding (Saxena 2023).
"""

from collections import defaultdict
from collections.abc import Sequence

from draftsmith.core.values import check_whole
from draftsmith.drafters.contract import DraftContext, DraftState, SequenceView, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.errors import InvalidRequestError
from draftsmith.models.follower import common_prefix

__all__ = ["PromptLookupDrafter"]

_MAX_CANDIDATES = 64
"""Earlier places that are compared, newest first, so that a round costs microseconds."""


class _Index:
    """Where each n-gram of one growing sequence ends."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._read: list[int] = []
        self._ends: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)

    def read(self, tokens: Sequence[int]) -> None:
        """Take in the tokens that are new, and forget the ones that are gone.

        Tokens go where a drafter that is checked itself asks: its own drafts come and go.
        """
        common = common_prefix(self._read, tokens)
        for end in range(len(self._read), max(common, self._size - 1), -1):
            self._ends[tuple(self._read[end - self._size : end])].pop()
        self._read[common:] = tokens[common:]
        for end in range(max(common + 1, self._size), len(tokens) + 1):
            self._ends[tuple(tokens[end - self._size : end])].append(end)

    def earlier_ends(self, tokens: Sequence[int]) -> list[int]:
        """Where the last n-gram of `tokens` ended before, newest first."""
        ends = self._ends.get(tuple(tokens[-self._size :]), [])
        return [end for end in reversed(ends[-_MAX_CANDIDATES - 1 :]) if end < len(tokens)]


class PromptLookupDrafter(StatefulDrafter):
    """Copies the continuation of the longest earlier match of the last tokens.

    The match may lie in the prompt, in the output, or in an encoder's source; of equal matches
    the newest counts. The draft is deterministic: a point mass at each token.

    Args:
        min_ngram: Shortest match that is followed, in tokens.
        max_ngram: Longest match that is told apart from longer ones.

    Raises:
        InvalidRequestError: If `min_ngram` is not between 1 and `max_ngram`.

    Example:
        >>> import draftsmith
        >>> draft = PromptLookupDrafter(min_ngram=1)
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", draft, gamma=8)
        >>> engine.draft.name
        'prompt-lookup'
    """

    name = "prompt-lookup"
    uses_torch_threads = False
    draws_from_law = False

    def __init__(self, min_ngram: int = 2, max_ngram: int = 16) -> None:
        min_ngram = check_whole("min_ngram", min_ngram)
        max_ngram = check_whole("max_ngram", max_ngram)
        if not 1 <= min_ngram <= max_ngram:
            raise InvalidRequestError(
                f"min_ngram must be between 1 and max_ngram ({max_ngram}), got {min_ngram}"
            )
        self._min_ngram = min_ngram
        self._max_ngram = max_ngram

    @property
    def ngrams(self) -> tuple[int, int]:
        """Shortest match that is followed, and the longest that is told from longer ones."""
        return self._min_ngram, self._max_ngram

    def open(self) -> "_Lookup":
        """No text yet."""
        return _Lookup(self._min_ngram, self._max_ngram)


class _Lookup(DraftState):
    """The n-grams of one engine's sequences."""

    def __init__(self, min_ngram: int, max_ngram: int) -> None:
        self._min_ngram = min_ngram
        self._max_ngram = max_ngram
        self._indices: dict[int, _Index] = {}

    def propose(self, context: DraftContext) -> Draft:
        """Copies, which are certain; the longer its match, the surer a token."""
        copies = [self._copy(view) for view in context.sequences]
        rows, confidences = [copy for copy, _ in copies], [sure for _, sure in copies]
        return Draft.certain(rows, context.device, confidences)

    def release(self, sequence: int) -> None:
        """Forget the n-grams of a sequence."""
        self._indices.pop(sequence, None)

    def _copy(self, view: SequenceView) -> tuple[list[int], list[float]]:
        """What is copied, and how sure it is: the longer the match, which each token prolongs."""
        text = [*view.source, *view.tokens] if view.source else view.tokens
        index = self._indices.setdefault(view.id, _Index(self._min_ngram))
        index.read(text)
        ends = index.earlier_ends(text)
        if not ends or not view.gamma:
            return [], []
        # max() keeps the first of equals, which is the newest.
        length, end = max(
            ((self._match_length(text, end), end) for end in ends), key=lambda match: match[0]
        )
        copied = list(text[end : end + view.gamma])
        matches = (min(length + step, self._max_ngram) for step in range(len(copied)))
        return copied, [match / (match + 1) for match in matches]

    def _match_length(self, text: Sequence[int], end: int) -> int:
        """How many tokens before `end` equal the last tokens of the text."""
        length = 0
        while length < min(self._max_ngram, end) and text[end - 1 - length] == text[-1 - length]:
            length += 1
        return length
