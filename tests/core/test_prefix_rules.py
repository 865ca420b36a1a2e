"""Rules that look at the prefix, beside the logits processors of transformers, token by token."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

from draftsmith.core.demands import Demands
from draftsmith.core.enumeration import (
    RandomWorld,
    coupled_text,
    plain_law,
    plain_text,
    text_law,
    total_variation,
)
from draftsmith.core.laws import History, SamplingLaw
from draftsmith.core.params import SamplingParams
from draftsmith.core.verify import (
    BlockVerifier,
    CoupledVerifier,
    RejectionVerifier,
    ThresholdVerifier,
)
from tests.grids import beginning

VOCAB = 6
EOS = 5
token_ids = st.integers(0, VOCAB - 1)
quarters = st.integers(-12, 12).map(lambda value: value / 4)


def ids(*tokens: int) -> Tensor:
    return torch.tensor(tokens, dtype=torch.long)


def processors(options: dict[str, Any], source: list[int], num_prompt: int) -> Any:
    """What `transformers` would build (generation/utils.py, `_get_logits_processor`, 5.24)."""
    made: list[Any] = []
    seen: Any = torch.tensor([source])
    get = options.get
    if get("sequence_bias"):
        pairs = [[list(word), bias] for word, bias in options["sequence_bias"].items()]
        made.append(theirs.SequenceBiasLogitsProcessor(pairs))
    if get("encoder_repetition_penalty"):
        penalty = options["encoder_repetition_penalty"]
        made.append(theirs.EncoderRepetitionPenaltyLogitsProcessor(penalty, seen))
    if get("repetition_penalty"):
        made.append(theirs.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    if get("no_repeat_ngram_size"):
        made.append(theirs.NoRepeatNGramLogitsProcessor(options["no_repeat_ngram_size"]))
    if get("encoder_no_repeat_ngram_size"):
        size = options["encoder_no_repeat_ngram_size"]
        made.append(theirs.EncoderNoRepeatNGramLogitsProcessor(size, seen))
    if get("bad_words"):
        made.append(theirs.NoBadWordsLogitsProcessor([list(word) for word in options["bad_words"]]))
    if get("min_tokens"):
        least = options["min_tokens"]
        made.append(theirs.MinNewTokensLengthLogitsProcessor(num_prompt, least, EOS))
    if get("forced_bos_token_id") is not None:
        made.append(theirs.ForcedBOSTokenLogitsProcessor(options["forced_bos_token_id"]))
    if get("forced_eos_token_id") is not None:
        longest = num_prompt + options["max_tokens"]
        made.append(theirs.ForcedEOSTokenLogitsProcessor(longest, options["forced_eos_token_id"]))
    if get("exponential_decay_length_penalty"):
        decay = options["exponential_decay_length_penalty"]
        made.append(theirs.ExponentialDecayLengthPenalty(decay, EOS, num_prompt))
    if get("suppress_token_ids"):
        made.append(theirs.SuppressTokensLogitsProcessor(list(options["suppress_token_ids"])))
    if get("begin_suppress_token_ids"):
        is_forced = get("forced_bos_token_id") is not None and num_prompt == 1
        made.append(
            theirs.SuppressTokensAtBeginLogitsProcessor(
                list(options["begin_suppress_token_ids"]), num_prompt + is_forced
            )
        )
    return theirs.LogitsProcessorList(made)


@st.composite
def prefix_options(draw: st.DrawFn) -> dict[str, Any]:
    """Every rule that looks at the prefix, off in about half of the examples."""
    some_ids = st.lists(token_ids, min_size=1, max_size=2, unique=True).map(tuple)
    words = st.lists(token_ids, min_size=1, max_size=3).map(tuple)
    choices: dict[str, st.SearchStrategy[Any]] = {
        "sequence_bias": st.dictionaries(words, quarters, min_size=1, max_size=3),
        "encoder_repetition_penalty": st.sampled_from([0.5, 2.0]),
        "repetition_penalty": st.sampled_from([0.5, 2.0]),
        "no_repeat_ngram_size": st.integers(1, 4),
        "encoder_no_repeat_ngram_size": st.integers(1, 4),
        "bad_words": st.lists(words, min_size=1, max_size=3, unique=True),
        "min_tokens": st.integers(1, 6),
        "forced_bos_token_id": token_ids,
        "forced_eos_token_id": token_ids,
        "exponential_decay_length_penalty": st.tuples(
            st.integers(0, 4), st.sampled_from([0.5, 2.0])
        ),
        "suppress_token_ids": some_ids,
        "begin_suppress_token_ids": some_ids,
    }
    chosen = {name: draw(values) for name, values in choices.items() if draw(st.booleans())}
    return chosen | {"max_tokens": draw(st.integers(7, 9))}


@settings(max_examples=120, deadline=None)
@given(
    options=prefix_options(),
    prompt=st.lists(token_ids, min_size=1, max_size=5),
    has_encoder=st.booleans(),
    source=st.lists(token_ids, min_size=1, max_size=6),
    output=st.lists(token_ids, max_size=4),
    drafted=st.lists(token_ids, max_size=3),
    data=st.data(),
)
def test_every_rule_of_the_prefix_is_transformers_own_at_every_drafted_position(
    options: dict[str, Any],
    prompt: list[int],
    has_encoder: bool,
    source: list[int],
    output: list[int],
    drafted: list[int],
    data: st.DataObject,
) -> None:
    """As a request's own fields, and as the demands of a model's files; any number of rows."""
    prompt, source = (prompt[:1], source) if has_encoder else (prompt, prompt)
    line = st.lists(quarters, min_size=VOCAB, max_size=VOCAB)
    table = data.draw(st.lists(line, min_size=len(drafted) + 1, max_size=len(drafted) + 1))
    logits, text = torch.tensor(table), [*prompt, *output, *drafted]
    rules = processors(options, source, len(prompt))
    first = len(prompt) + len(output)
    expected = torch.cat(
        [
            rules(torch.tensor([text[: first + row]]), logits[row : row + 1].clone())
            for row in range(len(table))
        ]
    )
    params = SamplingParams.from_options(**options)
    asked = SamplingLaw(params, (EOS,), source=tuple(source))
    demanded = SamplingLaw(
        SamplingParams(max_tokens=options["max_tokens"]),
        (EOS,),
        params.over(),
        tuple(source),
    )
    history = History(ids(*prompt), ids(*output))
    for law in (asked, demanded):
        found = law.adjusted(logits, history, ids(*drafted))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(logits, torch.tensor(table)), "the input was written to"
        tail = law.adjusted(logits[1:], history, ids(*drafted)) if drafted else found[1:]
        assert torch.equal(tail, found[1:])


# --- a request's own value in the place of the model's ---------------------------------------

MODEL = Demands(
    repetition_penalty=1.5,
    no_repeat_ngram_size=2,
    suppress_token_ids=(3,),
    bad_words=((1, 2),),
    forced_bos_token_id=4,
    forced_eos_token_id=(5,),
    exponential_decay_length_penalty=(2, 1.5),
    min_tokens=3,
    min_length=7,
    stop=("x",),
)


def test_what_a_request_leaves_open_is_the_models() -> None:
    assert SamplingParams(temperature=0.7, top_p=0.9).over(MODEL) == MODEL


def test_every_demand_can_be_lifted_by_a_request() -> None:
    lifted = SamplingParams(
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        suppress_token_ids=(),
        bad_words=(),
        forced_bos_token_id=-1,
        forced_eos_token_id=-1,
        exponential_decay_length_penalty=(0, 1.0),
        min_tokens=0,
        stop=(),
    ).over(MODEL)
    assert replace(lifted, exponential_decay_length_penalty=None).is_idle


def test_a_draft_obeys_the_same_rules_as_the_target() -> None:
    params = SamplingParams(no_repeat_ngram_size=2, draft_temperature=0.5)
    assert params.for_draft().over(MODEL) == params.over(MODEL)
    assert params.for_draft().temperature == 0.5


# --- the proof by enumeration, with laws that depend on the whole prefix ---------------------

RULES: dict[str, dict[str, Any]] = {
    "no repeated pairs": {"no_repeat_ngram_size": 2},
    "no repeated token": {"no_repeat_ngram_size": 1},
    "bad words": {"bad_words": [(1, 0), (2,), (0, 0, 1)]},
    "biased words": {"sequence_bias": {(0, 1): 2.0, (1, 0): -1.0}},
    "forced and suppressed": {
        "forced_bos_token_id": 1,
        "forced_eos_token_id": 2,
        "begin_suppress_token_ids": (0,),
        "max_tokens": 4,
    },
    "a growing wish for an end": {"exponential_decay_length_penalty": (0, 2.0)},
    "a penalty and a minimum": {"repetition_penalty": 2.0, "min_tokens": 2},
    "all at once": {
        "no_repeat_ngram_size": 3,
        "bad_words": [(0, 1)],
        "begin_suppress_token_ids": (0,),
        "repetition_penalty": 0.5,
        "min_tokens": 1,
    },
}


class RuledWorld:
    """Two models under a request's rules; the first token is the prompt.

    Args:
        seed: Of the laws without rules.
        options: The request's.
        num_settled: A bug, unless None: the rules see so many tokens, and no later ones.
    """

    vocab = 3

    def __init__(self, seed: int, options: dict[str, Any], num_settled: int | None = None) -> None:
        self._free = RandomWorld(seed, self.vocab)
        params = SamplingParams.from_options(**{"temperature": 1.0, "min_tokens": 0, **options})
        self._law = SamplingLaw(params, (2,), source=(0,))
        self._num_settled = num_settled
        self._known: dict[tuple[bool, tuple[int, ...]], Tensor] = {}

    def target(self, history: tuple[int, ...]) -> Tensor:
        return self._ruled(history, is_draft=False)

    def draft(self, history: tuple[int, ...]) -> Tensor:
        return self._ruled(history, is_draft=True)

    def drawn_from(self, history: tuple[int, ...]) -> Tensor:
        return self.draft(history)

    def _ruled(self, history: tuple[int, ...], *, is_draft: bool) -> Tensor:
        key = (is_draft, history)
        if key not in self._known:
            free = self._free.draft(history) if is_draft else self._free.target(history)
            self._known[key] = self._rule(free, history)
        return self._known[key]

    def _rule(self, law: Tensor, history: tuple[int, ...]) -> Tensor:
        if self._num_settled is not None:
            history = history[: self._num_settled]
        logits = (law + 0.01).log().float().unsqueeze(0)
        # As the engine asks: what is committed, then what is drafted.
        cut = len(history) // 2
        before, drafted = History(ids(0), ids(*history[:cut])), ids(*history[cut:])
        ruled = self._law(logits, before, drafted)[0].double()
        # With everything banned a text ends in an error; here it goes on with any token.
        return ruled / ruled.sum() if ruled.sum() > 0 else torch.full_like(ruled, 1 / self.vocab)


@pytest.mark.parametrize("verifier", [RejectionVerifier(), BlockVerifier()], ids=lambda v: v.name)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("chunk", beginning(range(3), 1))
def test_a_text_under_rules_of_the_prefix_has_plain_decodings_law(
    name: str, verifier: ThresholdVerifier, chunk: int
) -> None:
    for seed in (2 * chunk, 2 * chunk + 1):
        world = RuledWorld(seed, RULES[name])
        found = text_law(world, verifier, 1 + seed % 2, 3)
        assert total_variation(plain_law(world, 3), found) <= 1e-12, seed


@pytest.mark.parametrize("name", RULES)
def test_a_seeded_text_under_rules_of_the_prefix_is_plain_decodings_for_every_draft(
    name: str,
) -> None:
    for seed in range(3):
        world = RuledWorld(seed, RULES[name])
        plain = plain_text(world, 4, seed)
        for draft in itertools.product(range(3), repeat=2):
            found = coupled_text(world, CoupledVerifier(), lambda _, d=draft: d, 4, seed)
            assert found == plain


@pytest.mark.parametrize("name", ["no repeated pairs", "no repeated token", "bad words"])
def test_rules_that_do_not_see_the_drafted_tokens_are_caught(name: str) -> None:
    worst = 0.0
    for seed in range(6):
        broken = RuledWorld(seed, RULES[name], num_settled=0)
        exact = plain_law(RuledWorld(seed, RULES[name]), 3)
        worst = max(worst, total_variation(exact, text_law(broken, RejectionVerifier(), 2, 3)))
    assert worst > 1e-3
