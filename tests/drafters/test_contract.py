"""Every drafter through the public contract suite; and planted bad ones, each caught by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from draftsmith.drafters import (
    BlockDrafter,
    Draft,
    DraftContext,
    Drafter,
    ModelDrafter,
    NgramDrafter,
    NgramTable,
    PromptLookupDrafter,
    RandomDrafter,
    SequenceView,
)
from draftsmith.drafters.draft import _Certain  # pyright: ignore[reportPrivateUsage]
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.errors import DraftError, InvalidRequestError
from draftsmith.testing import check_drafter
from tests import tiny

VOCAB = 24
SHARP = torch.tensor([4.0, 2.0, *[0.0] * (VOCAB - 2)])
"""Logits of a law with one clear favourite."""


class Ramp(BlockDrafter):
    """A block drafter whose laws depend on the last token and on the position."""

    name = "ramp"

    def block_logits(self, sequences: Sequence[SequenceView], gamma: int) -> Tensor:
        shifts = [[view.tokens[-1] + step for step in range(gamma)] for view in sequences]
        return torch.stack([torch.stack([SHARP.roll(by) for by in row]) for row in shifts])


def bigram() -> NgramDrafter:
    texts = [[i % 7 for i in range(40)], list(range(VOCAB))]
    return NgramDrafter(NgramTable.from_tokens(texts, VOCAB))


def unigram() -> NgramDrafter:
    return NgramDrafter(NgramTable.from_tokens([[1, 2, 2, 3, 3, 3]], VOCAB, order=1))


def small_model(kind: str = "llama", seed: int = 0, vocab_size: int = VOCAB) -> ModelDrafter:
    return ModelDrafter(tiny.model(kind, seed, vocab_size=vocab_size))


def over(inner: Drafter) -> SpeculativeDrafter:
    return SpeculativeDrafter(tiny.model("gpt2", vocab_size=VOCAB), inner, inner_gamma=2)


GOOD: dict[str, Callable[[], Drafter]] = {
    "random": lambda: RandomDrafter(VOCAB),
    "block": Ramp,
    "prompt lookup": PromptLookupDrafter,
    "prompt lookup of one token": lambda: PromptLookupDrafter(1, 3),
    "unigram": unigram,
    "bigram": bigram,
    "model": small_model,
    "model with a smaller vocabulary": lambda: small_model(vocab_size=VOCAB - 3),
    "model with a larger vocabulary": lambda: small_model(vocab_size=VOCAB + 3),
    "model over prompt lookup": lambda: over(PromptLookupDrafter(1)),
    "model over model": lambda: over(small_model()),
    "model over model over bigram": lambda: over(over(bigram())),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_drafter_keeps_the_contract(name: str) -> None:
    check_drafter(GOOD[name](), vocab_size=VOCAB, gamma=3, num_draws=200)


@pytest.mark.parametrize("kind", tiny.ENCODER_DECODER)
def test_an_encoder_decoder_drafter_keeps_the_contract(kind: str) -> None:
    drafter = small_model(kind)
    check_drafter(drafter, vocab_size=VOCAB, gamma=2, is_encoder_decoder=True, num_draws=100)


def test_prompt_lookup_in_a_source_keeps_the_contract() -> None:
    drafter = PromptLookupDrafter(1)
    check_drafter(drafter, vocab_size=VOCAB, is_encoder_decoder=True, num_draws=64)


# --- planted bugs ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Edited(Drafter):
    """An honest drafter whose draft is changed before it is handed over."""

    edit: Callable[[Draft, DraftContext], Draft]
    name: str = "edited"

    def propose(self, context: DraftContext) -> Draft:
        return self.edit(Ramp().propose(context), context)


def too_many(draft: Draft, context: DraftContext) -> Draft:
    """One token more than was wanted."""
    rows = [[1] * (view.gamma + 1) for view in context.sequences]
    return Draft.certain(rows, context.device)


def unknown_id(draft: Draft, context: DraftContext) -> Draft:
    """The first id behind the vocabulary."""
    return Draft.certain([[VOCAB] * view.gamma for view in context.sequences], context.device)


def negative_id(draft: Draft, context: DraftContext) -> Draft:
    """The padding in the place of a token."""
    return replace(draft, tokens=torch.full_like(draft.tokens, -1))


def one_row_short(draft: Draft, context: DraftContext) -> Draft:
    """No draft for the last sequence."""
    return Draft.certain([[] for _ in context.sequences[1:]], context.device)


def one_row_of_tokens_short(draft: Draft, context: DraftContext) -> Draft:
    """Lengths for all, tokens for all but the last sequence."""
    broken = replace(draft, probs=None)
    # Past the shape checks, which a user's own code does not have.
    object.__setattr__(broken, "tokens", draft.tokens[:-1])
    return broken


def a_tree(draft: Draft, context: DraftContext) -> Draft:
    """Parents beside laws, which no verifier takes."""
    return replace(draft, parents=[[-1] * int(count) for count in draft.num_drafted])


def narrow_laws(draft: Draft, context: DraftContext) -> Draft:
    """Laws over fewer ids than the target has."""
    return draft if draft.probs is None else replace(draft, probs=draft.probs[..., :-1])


def not_normalised(draft: Draft, context: DraftContext) -> Draft:
    """Laws that sum to 1.01."""
    return draft if draft.probs is None else replace(draft, probs=draft.probs * 1.01)


def nan_laws(draft: Draft, context: DraftContext) -> Draft:
    """Laws that are not numbers."""
    return draft if draft.probs is None else replace(draft, probs=draft.probs * torch.nan)


def negative_laws(draft: Draft, context: DraftContext) -> Draft:
    """Laws that sum to 1, but not of probabilities."""
    if draft.probs is None or not draft.probs.numel():
        return draft
    probs = draft.probs.clone()
    probs[..., 0] -= 0.2
    probs[..., 1] += 0.2
    return replace(draft, probs=probs)


def mass_elsewhere(draft: Draft, context: DraftContext) -> Draft:
    """Laws in which the drafted token cannot come."""
    if draft.probs is None or not draft.probs.numel():
        return draft
    other = ((draft.tokens.clamp(min=0) + 1) % VOCAB).unsqueeze(-1)
    return replace(draft, probs=torch.zeros_like(draft.probs).scatter_(-1, other, 1.0))


def another_law(draft: Draft, context: DraftContext) -> Draft:
    """Reports a uniform law for tokens that were drawn from a sharp one."""
    if draft.probs is None:
        return draft
    return replace(draft, probs=torch.full_like(draft.probs, 1 / VOCAB))


def law_of_the_next_row(draft: Draft, context: DraftContext) -> Draft:
    """Off by one: the law of the second token is reported for the first."""
    return draft if draft.probs is None else replace(draft, probs=draft.probs.roll(-1, dims=1))


def says_certain(draft: Draft, context: DraftContext) -> Draft:
    """Draws, and says that it did not."""
    return replace(draft, probs=None)


def anticipating_cut(draft: Draft, context: DraftContext) -> Draft:
    """Drops a drawn token that looks weak: the others then come too often."""
    if draft.probs is None:
        return draft
    index = draft.tokens.clamp(min=0).unsqueeze(-1)
    is_strong = draft.probs.gather(-1, index).squeeze(-1) > 0.3
    return replace(draft, num_drafted=is_strong.long().cumprod(dim=1).sum(dim=1))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (too_many, "drafted 2 tokens of 1"),
        (unknown_id, "an id outside 0 … 23"),
        (negative_id, "an id outside 0 … 23"),
        (one_row_short, "gave 0 drafts for 1 sequences"),
        (one_row_of_tokens_short, "drafts for 1 sequences"),
        (a_tree, "proposed a tree"),
        (narrow_laws, "laws of shape"),
        (not_normalised, "sums to 1.01, not 1"),
        (nan_laws, "sums to nan, not 1"),
    ],
)
def test_a_draft_that_is_wrong_in_form_is_caught(
    edit: Callable[[Draft, DraftContext], Draft], why: str
) -> None:
    with pytest.raises(DraftError, match=why) as caught:
        check_drafter(Edited(edit), vocab_size=VOCAB)
    assert "edited" in str(caught.value)
    assert "\n" not in str(caught.value)


class Nameless(Drafter):
    """Proposes what is no draft, and does not say what it is called."""

    def propose(self, context: DraftContext) -> Draft:
        return Draft.certain([[VOCAB] for _ in context.sequences], context.device)


def test_a_drafter_without_a_name_is_called_by_its_class() -> None:
    with pytest.raises(DraftError, match=r"^drafter Nameless drafted an id outside"):
        check_drafter(Nameless(), vocab_size=VOCAB)

    class Derived(PromptLookupDrafter): ...

    assert Derived().name == "prompt-lookup"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (negative_laws, "has a negative probability"),
        (mass_elsewhere, "gives no mass to the token"),
        (another_law, "token 0 does not follow the law reported for it"),
        (law_of_the_next_row, "gives no mass|does not follow the law|sums to 0|differ"),
        (says_certain, "must be certain, but it changes with the noise"),
        (anticipating_cut, "does not follow the law reported for it"),
    ],
)
def test_a_draft_whose_law_is_a_lie_is_caught(
    edit: Callable[[Draft, DraftContext], Draft], why: str
) -> None:
    with pytest.raises((AssertionError, DraftError), match=why) as caught:
        check_drafter(Edited(edit), vocab_size=VOCAB, gamma=2, num_draws=800)
    assert "edited" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_honest_drafter_that_was_edited_is_honest() -> None:
    check_drafter(Edited(lambda draft, _: draft), vocab_size=VOCAB, gamma=2, num_draws=800)


class OwnDice(Drafter):
    """Honest laws, but its random numbers are its own."""

    name = "own dice"

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def propose(self, context: DraftContext) -> Draft:
        laws = SHARP.softmax(0).expand(len(context.sequences), 1, VOCAB)
        tokens = torch.multinomial(laws[:, 0], 1, generator=self.generator)
        wanted = torch.tensor([min(view.gamma, 1) for view in context.sequences])
        return Draft(tokens, wanted, laws)


class Haunted(Drafter):
    """Goes by the last draft that it made, kept or not."""

    name = "haunted"

    def __init__(self) -> None:
        self.last: dict[int, int] = {}

    def propose(self, context: DraftContext) -> Draft:
        rows: list[list[int]] = []
        for view in context.sequences:
            start = self.last.get(view.id, view.tokens[-1])
            rows.append([(start + 1 + i) % VOCAB for i in range(view.gamma)])
            self.last[view.id] = start + view.gamma
        return Draft.certain(rows, context.device)


class Greedier(Drafter):
    """Draws more often than wanted through the context itself."""

    name = "greedier"

    def propose(self, context: DraftContext) -> Draft:
        everyone = list(range(len(context.sequences)))
        for _ in range(max(view.gamma for view in context.sequences)):
            context.draw(everyone, SHARP.expand(len(everyone), VOCAB))
        return context.drawn()


def test_random_numbers_of_its_own_are_caught() -> None:
    with pytest.raises(AssertionError, match="a random number is not the context's"):
        check_drafter(OwnDice(), vocab_size=VOCAB)


def test_random_numbers_of_its_own_may_be_allowed_and_are_then_honest() -> None:
    check_drafter(OwnDice(), vocab_size=VOCAB, is_reproducible=False)


def test_a_drafter_that_rejected_drafts_have_marked_is_caught() -> None:
    with pytest.raises(AssertionError, match="rejected drafts have left a trace"):
        check_drafter(Haunted(), vocab_size=VOCAB)


def test_drawing_more_than_gamma_is_caught() -> None:
    with pytest.raises(DraftError, match="more than gamma = "):
        check_drafter(Greedier(), vocab_size=VOCAB)


def test_gamma_0_is_refused_since_it_would_show_nothing() -> None:
    with pytest.raises(AssertionError, match="gamma must be 1 or more"):
        check_drafter(RandomDrafter(VOCAB), vocab_size=VOCAB, gamma=0)
    with pytest.raises(InvalidRequestError, match="gamma must be between 0 and 32"):
        check_drafter(RandomDrafter(VOCAB), vocab_size=VOCAB, gamma=33)


# --- the pieces of a draft ------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[], [[]], [[5, 6], [], [7]]])
def test_a_certain_draft_is_padded_and_a_point_mass(rows: list[list[int]]) -> None:
    draft = Draft.certain(rows, torch.device("cpu"))
    assert draft.num_drafted.tolist() == [len(row) for row in rows]
    for row, tokens in enumerate(rows):
        assert draft.tokens[row].tolist()[: len(tokens)] == tokens
        assert set(draft.tokens[row].tolist()[len(tokens) :]) <= {-1}
        laws = draft.dense_probs(VOCAB)[row, : len(tokens)]
        assert laws.argmax(-1).tolist() == tokens
        assert laws.sum(-1).tolist() == [1.0] * len(tokens)


# --- drafts that were given as lists ----------------------------------------------------------


def test_a_certain_draft_has_lists_and_tensors_that_agree() -> None:
    draft = Draft.certain([[5, 6], [], [7]], torch.device("cpu"), [[0.5, 0.4], [], [1.0]])
    twin = Draft(draft.tokens, draft.num_drafted, None)
    assert draft.is_listed
    assert not twin.is_listed
    assert draft.lists() == twin.lists() == [[5, 6], [], [7]]
    assert draft.tokens.tolist() == [[5, 6], [-1, -1], [7, -1]]
    assert draft.of([2, 0]).lists() == twin.of([2, 0]).lists() == [[7], [5, 6]]
    assert draft.of([0, 1, 2]) is draft
    assert draft.cut([1, 0, 1]).lists() == twin.cut([1, 0, 1]).lists() == [[5], [], [7]]
    changed = replace(draft, num_drafted=torch.tensor([1, 0, 1]))
    assert changed.lists() == changed.of([0, 1, 2]).lists() == [[5], [], [7]]
    assert changed.confidences == draft.confidences


def test_a_greedy_round_makes_no_tensor_of_a_certain_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Draft) -> Tensor:
        raise AssertionError("nobody asks for it")

    monkeypatch.setattr(_Certain, "tokens", property(never))
    engine = Engine(tiny.model("llama", 3), draft=PromptLookupDrafter(min_ngram=1), gamma=3)
    [result] = engine.generate([5, 6, 7, 5, 6], max_tokens=20)
    assert result.statistics.num_drafted > 0
