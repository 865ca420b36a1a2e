"""The sampling transform: logits and the tokens before them, to the law at that position.

Plain decoding, target and draft all call it, so they can never mean different distributions.
"Standardized sampling" of Leviathan et al. (arXiv:2211.17192), section 2.2.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.core.params import SamplingParams
from draftsmith.core.prefix_rules import Prefixes, PrefixRules
from draftsmith.core.sums import running_sums

__all__ = ["NO_TOKEN", "Cuts", "History", "Law", "SamplingLaw", "best_tokens", "point_masses"]

NO_TOKEN = -1
"""Stands for the token of a row that is no distribution."""


class History(NamedTuple):
    """The committed tokens of one sequence."""

    prompt: Int[Tensor, " prompt"]
    output: Int[Tensor, " output"]


class Cuts(NamedTuple):
    """A law that is the same after every prefix, in four numbers."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float


@runtime_checkable
class Law(Protocol):
    """Turns logits into distributions."""

    @property
    def cuts(self) -> Cuts | None:
        """What the law is after every prefix; None if the tokens before a row change it.

        Rows of such laws, of any number of sequences, are transformed together.
        """
        ...

    @property
    def is_greedy(self) -> bool:
        """Whether every distribution is a point mass."""
        ...

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`.

        With `rows` = 1 + drafts that is one row after each prefix of the draft; a drafter that
        asks for one row at a time passes all that it has drafted so far. A row of logits that is
        no distribution (NaN, infinite, nothing allowed) gives a law without mass: zeros.
        """
        ...

    def points(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Int[Tensor, " rows"]:
        """Where the point masses of a greedy law stand; `NO_TOKEN` for a law without mass."""
        ...


@dataclass(frozen=True)
class SamplingLaw:
    """The transform that `SamplingParams` describes: float32 in, float32 out, row by row.

    Order: bias and bans, penalties, repetition bans, minimum length, forced and suppressed ids,
    temperature, top-k, top-p, min-p. A row's law depends on that row and its prefix alone, never on
    how many rows are transformed together.

    Example:
        >>> from draftsmith.core.params import SamplingParams
        >>> import torch
        >>> law = SamplingLaw(SamplingParams(temperature=1.0, top_k=1), eos_token_ids=())
        >>> empty = torch.empty(0, dtype=torch.long)
        >>> law(torch.tensor([[1.0, 3.0, 2.0]]), History(empty, empty), empty).tolist()
        [[0.0, 1.0, 0.0]]
    """

    params: SamplingParams
    eos_token_ids: tuple[int, ...]
    """The ids that a minimum length bans, beside the request's own stop ids."""
    model_demands: Demands = NO_DEMANDS
    """What the model's files ask where the request asks nothing."""
    source: tuple[int, ...] = ()
    """An encoder-decoder's source; for a decoder-only model, the prompt."""

    @cached_property
    def demands(self) -> Demands:
        """The model's, with the request's own in their place."""
        return self.params.over(self.model_demands)

    @cached_property
    def _rules(self) -> PrefixRules:
        endings = () if self.params.ignore_eos else self.eos_token_ids
        return PrefixRules(self.demands, endings, self.source, self.params.longest_output)

    @property
    def is_greedy(self) -> bool:
        """Whether every distribution is a point mass."""
        return self.params.is_greedy

    @property
    def cuts(self) -> Cuts | None:
        """The four numbers, if nothing else is asked."""
        return self._cuts

    @cached_property
    def _cuts(self) -> Cuts | None:
        params = self.params
        is_biased = bool(params.logit_bias or params.banned_token_ids)
        if is_biased or params.allowed_token_ids is not None:
            return None
        if not self._rules.is_idle or params.has_penalties:
            return None
        return Cuts(params.temperature, params.top_k, params.top_p, params.min_p)

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`."""
        scores = self.adjusted(logits, history, drafted)
        best = scores.amax(-1, keepdim=True)
        if self.params.is_greedy:
            law = point_masses(scores)
        else:
            # The maximum goes first: a tiny temperature must not overflow.
            law = self._filtered((scores - best) / self.params.temperature)
        return torch.where(best.isfinite(), law, 0.0)

    def points(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Int[Tensor, " rows"]:
        """Where the point masses of a greedy law stand; `NO_TOKEN` for a law without mass."""
        return best_tokens(self.adjusted(logits, history, drafted))

    def adjusted(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The scores before temperature, float32; float32 logits as they are with nothing asked."""
        params, rules, demands = self.params, self._rules, self.demands
        scores, vocab = logits.float(), logits.shape[-1]
        if params.logit_bias:
            scores = scores + self._bias(vocab, logits.device)
        if params.banned_token_ids or params.allowed_token_ids is not None:
            scores = scores.masked_fill(self._banned(vocab, logits.device), -torch.inf)
        if rules.is_idle and not params.has_penalties:
            return scores
        tokens = torch.cat([history.prompt, history.output, drafted])
        prefixes = Prefixes(tokens, len(history.prompt), len(logits))
        if rules.biases_words:
            scores = rules.biased(scores, prefixes)
        scores = self._penalised(scores, history, drafted)
        if rules.bans_repetition:
            scores = rules.without_repetition(scores, prefixes)
        if prefixes.num_outputs()[0] < max(demands.min_tokens, demands.min_length):
            scores = self._without_early_end(scores, prefixes)
        return rules.at_ends(scores, prefixes) if rules.rules_ends else scores

    def _bias(self, vocab: int, device: torch.device) -> Float[Tensor, " vocab"]:
        ids = torch.tensor(_within(tuple(self.params.logit_bias), vocab), device=device)
        values = [self.params.logit_bias[token] for token in ids.tolist()]
        bias = torch.zeros(vocab, device=device)
        bias[ids.long()] = torch.tensor(values, device=device)
        return bias

    def _banned(self, vocab: int, device: torch.device) -> Bool[Tensor, " vocab"]:
        allowed = self.params.allowed_token_ids
        banned = torch.full((vocab,), allowed is not None, device=device)
        banned[list(_within(allowed or (), vocab))] = False
        banned[list(_within(self.params.banned_token_ids, vocab))] = True
        return banned

    def _without_early_end(
        self, scores: Float[Tensor, "rows vocab"], prefixes: Prefixes
    ) -> Float[Tensor, "rows vocab"]:
        """Ban the ending ids in the rows that stand before the minimum length."""
        endings = self.params.stop_token_ids
        if not self.params.ignore_eos:
            endings += self.eos_token_ids
        is_ending = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        is_ending[list(_within(endings, scores.shape[-1]))] = True
        demands, num_prompt = self.demands, prefixes.num_prompt
        least = max(demands.min_tokens, demands.min_length - num_prompt)
        is_early = torch.tensor(prefixes.num_outputs(), device=scores.device) < least
        return scores.masked_fill(is_early.unsqueeze(1) & is_ending, -torch.inf)

    def _penalised(
        self,
        scores: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The source's penalty, then repetition, frequency and presence, each row's own prefix."""
        params, demands, vocab = self.params, self.demands, scores.shape[-1]
        if demands.encoder_repetition_penalty != 1:
            source = torch.tensor(self.source, dtype=torch.long, device=scores.device)
            # Inverse, as in transformers: above 1, tokens of the source become likelier.
            rewarded = _divided(scores, 1 / demands.encoder_repetition_penalty)
            scores = torch.where(_occurs(source, vocab), rewarded, scores)
        is_divided = demands.repetition_penalty != 1
        if not (is_divided or params.presence_penalty or params.frequency_penalty):
            return scores
        counts = _output_counts(scores, history, drafted)
        seen = counts > 0
        if is_divided:
            penalised = _divided(scores, demands.repetition_penalty)
            scores = torch.where(seen | _occurs(history.prompt, vocab), penalised, scores)
        return scores - params.frequency_penalty * counts - params.presence_penalty * seen.float()

    def _filtered(self, scores: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
        """Softmax, and what top-k, top-p and min-p leave of it, normalised."""
        params = self.params
        if 0 < params.top_k < scores.shape[-1]:
            scores = scores.masked_fill(~_largest(scores, params.top_k), -torch.inf)
        probs = scores.softmax(dim=-1)
        if params.top_p < 1:
            probs = probs * _nucleus(probs, params.top_p)
        if params.min_p > 0:
            probs = probs * (probs >= params.min_p * probs.amax(-1, keepdim=True))
        if params.top_p < 1 or params.min_p > 0:
            # Not probs / probs.sum(): with many threads, one long row is summed in another order.
            probs = scores.masked_fill(probs == 0, -torch.inf).softmax(dim=-1)
        return probs


def point_masses(scores: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows vocab"]:
    """All mass on the largest score of each row, ties to the lowest id."""
    return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)


def best_tokens(scores: Float[Tensor, "rows vocab"]) -> Int[Tensor, " rows"]:
    """The largest score of each row, ties to the lowest id; `NO_TOKEN` where none is finite."""
    is_law = scores.amax(-1).isfinite()
    return torch.where(is_law, scores.argmax(-1), NO_TOKEN)


def _within(ids: tuple[int, ...], vocab: int) -> tuple[int, ...]:
    """The ids that this vocabulary has: a padded twin may have fewer, and -1 stands for none."""
    return tuple(token for token in ids if 0 <= token < vocab)


def _occurs(tokens: Int[Tensor, " tokens"], vocab: int) -> Bool[Tensor, " vocab"]:
    return torch.bincount(tokens, minlength=vocab)[:vocab] > 0


def _divided(scores: Float[Tensor, "rows vocab"], penalty: float) -> Float[Tensor, "rows vocab"]:
    """Positive scores divided, the others multiplied."""
    return torch.where(scores > 0, scores / penalty, scores * penalty)


def _output_counts(
    scores: Float[Tensor, "rows vocab"], history: History, drafted: Int[Tensor, " drafts"]
) -> Float[Tensor, "rows vocab"]:
    """How often each token occurs in the output before each row, drafts before it included."""
    rows, vocab = scores.shape
    first = len(drafted) - (rows - 1)
    settled = torch.cat([history.output, drafted[:first]])
    counts = torch.zeros_like(scores)
    counts += torch.bincount(settled, minlength=vocab)[:vocab]
    for row in range(1, rows):
        counts[row:, drafted[first + row - 1]] += 1
    return counts


def _largest(values: Float[Tensor, "rows vocab"], count: int) -> Bool[Tensor, "rows vocab"]:
    """Exactly the `count` largest of each row, ties at the cut-off to the lowest ids."""
    threshold = values.topk(count, dim=-1).values[:, -1:]
    return _at_least(values, threshold, torch.full_like(threshold, count).long())


def _at_least(
    values: Float[Tensor, "rows vocab"],
    threshold: Float[Tensor, "rows 1"],
    count: Int[Tensor, "rows 1"],
) -> Bool[Tensor, "rows vocab"]:
    """Values above the threshold, and of those equal to it the lowest ids up to `count`."""
    above = values > threshold
    ties = values == threshold
    room = count - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= room))


def _nucleus(probs: Float[Tensor, "rows vocab"], top_p: float) -> Bool[Tensor, "rows vocab"]:
    """The smallest set of likeliest tokens whose mass is at least `top_p`."""
    vocab = probs.shape[-1]
    width = min(vocab, 256)
    while True:
        largest = probs.topk(width, dim=-1).values
        mass = running_sums(largest)
        if width == vocab or bool((mass[:, -1] >= top_p).all()):
            break
        width = min(vocab, 8 * width)
    # Rounding may leave the whole row below top_p; then the whole row is the nucleus.
    count = ((mass < top_p).sum(-1, keepdim=True) + 1).clamp(max=width)
    return _at_least(probs, largest.gather(-1, count - 1), count)
