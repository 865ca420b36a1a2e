"""A model's laws after many texts that share their beginnings, from one pass over cache rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from draftsmith.core.beam import Tokens
from draftsmith.errors import NumericsError
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.follower import common_prefix

__all__ = ["BeamRows"]


@dataclass
class _Path:
    """A text, and those of its beginnings whose laws are read along it."""

    tokens: Tokens
    nodes: list[Tokens]


class BeamRows:
    """Cache rows that follow the texts of a beam search.

    A row holds one text. Rows cannot be copied, so that a beam that forks takes the row whose text
    it shares the longest beginning with, and runs the rest again. Beginnings of one text share its
    row; a row that nothing needs any more is taken over rather than a new one opened.

    Args:
        model: The target or the draft.
        prompt: What every text begins with.
        source: The encoder's tokens; empty for a decoder-only model.
    """

    def __init__(self, model: LanguageModel, prompt: Sequence[int], source: Sequence[int]) -> None:
        self.num_passes = 0
        self.num_rows = 0
        """Rows of all passes together, one a token that was run; prompts apart."""
        self._model = model
        self._prompt = list(prompt)
        self._source = source
        self._cache = model.open_cache()
        self._held: dict[int, list[int]] = {}

    def log_probs(self, texts: Sequence[Tokens]) -> dict[Tokens, Float[Tensor, " vocab"]]:
        """Log-probabilities of the next token after each text, in one pass.

        Args:
            texts: Outputs, without the prompt; different from each other.

        Raises:
            NumericsError: If logits are NaN.
        """
        paths = _paths(texts)
        rows = self._assign(paths)
        feeds = [self._feed(path, row) for path, row in zip(paths, rows, strict=True)]
        logits = self._model.forward(self._cache, Rows(rows, feeds))
        self.num_passes += 1
        self.num_rows += sum(map(len, feeds))
        found: dict[Tokens, Tensor] = {}
        for line, path, feed in zip(logits, paths, feeds, strict=True):
            first = len(self._prompt) + len(path.tokens) - len(feed)
            for node in path.nodes:
                found[node] = _log_law(line[len(self._prompt) + len(node) - 1 - first])
        return found

    def _assign(self, paths: Sequence[_Path]) -> list[int]:
        """A row for each path: the free one with the longest beginning in common."""
        free = set(self._held)
        rows: list[int] = []
        for path in paths:
            if not free:
                rows.append(self._open())
                continue
            tokens = [*self._prompt, *path.tokens]
            best = max(sorted(free), key=lambda row: common_prefix(self._held[row], tokens))
            free.remove(best)
            rows.append(best)
        return rows

    def _open(self) -> int:
        row = self._cache.add()
        if self._model.traits.is_encoder_decoder:
            self._model.encode(self._cache, row, self._readable(self._source))
        settled = self._prompt[:-1]
        self._model.prefill(self._cache, row, self._readable(settled))
        self._held[row] = settled
        return row

    def _feed(self, path: _Path, row: int) -> list[int]:
        """Forget what is not of this path; the tokens to run, from the first law wanted on."""
        tokens = [*self._prompt, *path.tokens]
        # The token before the first wanted law is always run: its logits are wanted.
        first_wanted = len(self._prompt) + min(map(len, path.nodes)) - 1
        common = min(common_prefix(self._held[row], tokens), first_wanted)
        self._cache.rollback(row, common)
        self._held[row] = tokens
        return self._readable(tokens[common:])

    def _readable(self, tokens: Sequence[int]) -> list[int]:
        """The ids, and 0 for those that only a padded twin of this vocabulary has."""
        size = self._model.traits.vocab_size
        return [token if token < size else 0 for token in tokens]


def _paths(texts: Sequence[Tokens]) -> list[_Path]:
    """The texts that are no other's beginning, each with the beginnings that are read along it."""
    inner = {text[:length] for text in texts for length in range(len(text))}
    paths = [_Path(text, []) for text in texts if text not in inner]
    left = set(texts)
    for path in paths:
        for length in range(len(path.tokens) + 1):
            node = path.tokens[:length]
            if node in left:
                left.remove(node)
                path.nodes.append(node)
    return paths


def _log_law(logits: Float[Tensor, " vocab"]) -> Float[Tensor, " vocab"]:
    """One row by itself: in company, its sum might run in another order."""
    law = logits.float().log_softmax(-1)
    # The sync is the step's: beams are chosen here.
    if bool(law.isnan().any()):
        raise NumericsError("the model's logits are NaN: try another dtype")
    return law
