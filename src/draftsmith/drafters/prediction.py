"""A text that the output is expected to equal for the most part: drafted from as it is followed."""

from collections import defaultdict
from collections.abc import Sequence

from draftsmith.core.values import check_token_ids, check_whole, require
from draftsmith.drafters.contract import DraftContext, DraftState, SequenceView, StatefulDrafter
from draftsmith.drafters.draft import Draft

__all__ = ["PredictionDrafter"]

_MAX_MATCH = 16
"""Longest match that is told apart from longer ones."""


class PredictionDrafter(StatefulDrafter):
    """Drafts a predicted output: an answer that is known but for some edits.

    It begins with the first predicted token and goes on for as long as the output is the
    prediction. Where the two part, it waits until the last tokens of the output occur in the
    prediction, and goes on from there: the longest match counts, and of equal ones the first behind
    the place where they parted.

    Args:
        tokens: The prediction.
        min_match: Tokens that must agree before it goes on from another place.

    Raises:
        InvalidRequestError: If `tokens` are no token ids, or `min_match` is below 1.

    Example:
        >>> import draftsmith
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", PredictionDrafter([5, 6, 7]))
        >>> len(engine.generate("one prompt", max_tokens=4)[0].token_ids)
        4
    """

    name = "prediction"
    uses_torch_threads = False
    draws_from_law = False

    def __init__(self, tokens: Sequence[int], min_match: int = 2) -> None:
        self.tokens = check_token_ids("tokens", tokens)
        self.min_match = check_whole("min_match", min_match)
        require(self.min_match >= 1, "min_match", "1 or more", min_match)

    def open(self) -> "_Followed":
        """No sequence yet."""
        return _Followed(self.tokens, self.min_match)


class _Followed(DraftState):
    """Where in the prediction each sequence of one engine is."""

    def __init__(self, tokens: tuple[int, ...], min_match: int) -> None:
        self._tokens = tokens
        self._min_match = min_match
        self._ends: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        """Where each n-gram of the prediction ends."""
        for end in range(min_match, len(tokens) + 1):
            self._ends[tokens[end - min_match : end]].append(end)
        self._cursors: dict[int, _Cursor] = {}

    def propose(self, context: DraftContext) -> Draft:
        """What the prediction says next; the longer it was right, the surer."""
        found = [self._next(view) for view in context.sequences]
        rows, confidences = [tokens for tokens, _ in found], [sure for _, sure in found]
        return Draft.certain(rows, context.device, confidences)

    def release(self, sequence: int) -> None:
        """Forget where a sequence was."""
        self._cursors.pop(sequence, None)

    def _next(self, view: SequenceView) -> tuple[list[int], list[float]]:
        cursor = self._cursors.setdefault(view.id, _Cursor())
        output = view.tokens[view.num_prompt :]
        cursor.follow(output, self._tokens)
        if cursor.is_lost:
            self._find(cursor, output)
        if cursor.is_lost or not view.gamma:
            return [], []
        tokens = list(self._tokens[cursor.place : cursor.place + view.gamma])
        # Where nothing has come yet, a prediction is taken at its word.
        known = cursor.num_right if output else _MAX_MATCH
        matches = [min(known + step, _MAX_MATCH) for step in range(len(tokens))]
        return tokens, [match / (match + 1) for match in matches]

    def _find(self, cursor: "_Cursor", output: Sequence[int]) -> None:
        """Go on from another place, if the output's last tokens stand there."""
        ends = self._ends.get(tuple(output[-self._min_match :]), [])
        if not ends:
            return
        # min() keeps the first of equals; places behind the parting come before those ahead of it.
        lengths = [(self._match_length(output, end), end) for end in ends]
        length, end = min(lengths, key=lambda one: (-one[0], one[1] < cursor.place, one[1]))
        cursor.place, cursor.num_right, cursor.is_lost = end, length, False

    def _match_length(self, output: Sequence[int], end: int) -> int:
        """How many tokens before `end` equal the output's last ones."""
        most, length = min(_MAX_MATCH, end, len(output)), 0
        while length < most and self._tokens[end - 1 - length] == output[-1 - length]:
            length += 1
        return length


class _Cursor:
    """One sequence's place in the prediction."""

    def __init__(self) -> None:
        self.place = 0
        """The token that is expected next; or that was, where the two parted."""
        self.num_right = 0
        """Tokens that were as expected, up to the place."""
        self.is_lost = False
        self._num_read = 0

    def follow(self, output: Sequence[int], tokens: tuple[int, ...]) -> None:
        """Move along with what is new."""
        for token in output[self._num_read :]:
            if not self.is_lost and self.place < len(tokens) and tokens[self.place] == token:
                self.place += 1
                self.num_right += 1
            else:
                self.is_lost, self.num_right = True, 0
        self._num_read = len(output)
