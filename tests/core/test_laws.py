"""The sampling transform against a slow plain one, and row by row."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.core.laws import (
    History,
    Law,
    SamplingLaw,
    _largest,  # pyright: ignore[reportPrivateUsage]  # compared with a plain one, ties and all
    _nucleus,  # pyright: ignore[reportPrivateUsage]  # the same
    point_masses,
)
from draftsmith.core.params import SamplingParams

few = settings(max_examples=100, deadline=None)
# Quarters and powers of two: every sum and product below is exact, so ties stay ties.
quarters = st.integers(-12, 12).map(lambda value: value / 4)
VOCAB = 6
token_ids = st.integers(0, VOCAB - 1)


def ids(*tokens: int) -> Tensor:
    return torch.tensor(tokens, dtype=torch.long)


NO_TOKENS = ids()
NOTHING_BEFORE = History(NO_TOKENS, NO_TOKENS)


def law_of(**options: Any) -> SamplingLaw:
    eos = options.pop("eos", ())
    return SamplingLaw(SamplingParams.from_options(**{"temperature": 1.0, **options}), eos)


def one_row(logits: list[float], **options: Any) -> list[float]:
    """The law of one row with nothing before it."""
    return law_of(**options)(torch.tensor([logits]), NOTHING_BEFORE, NO_TOKENS)[0].tolist()


def support(law: list[float]) -> list[int]:
    return [token for token, mass in enumerate(law) if mass > 0]


# --- the slow, plain transform --------------------------------------------------------------


def slow_law(
    logits: list[float],
    params: SamplingParams,
    eos: tuple[int, ...],
    prompt: list[int],
    output: list[int],
) -> list[float]:
    """One row, token by token; `output` holds the drafted tokens before the row as well."""
    scores = [_slow_score(token, logits, params, prompt, output) for token in range(len(logits))]
    endings = {*params.stop_token_ids, *(() if params.ignore_eos else eos)}
    if len(output) < params.over().min_tokens:
        scores = [-math.inf if token in endings else x for token, x in enumerate(scores)]
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    if scores[order[0]] == -math.inf:
        return [0.0] * len(scores)
    if params.temperature == 0:
        return [float(token == order[0]) for token in range(len(scores))]
    scores = [score / params.temperature for score in scores]
    if params.top_k:
        kept = order[: params.top_k]
        scores = [x if token in kept else -math.inf for token, x in enumerate(scores)]
    # Float32, so that a cut-off sees the very numbers that the fast transform sees.
    probs = (torch.tensor(scores) - scores[order[0]]).softmax(-1).tolist()
    kept = slow_nucleus(probs, params.top_p) if params.top_p < 1 else order
    kept = [token for token in kept if probs[token] >= params.min_p * probs[order[0]]]
    mass = sum(probs[token] for token in kept)
    return [probs[token] / mass if token in kept else 0.0 for token in range(len(scores))]


def _slow_score(
    token: int, logits: list[float], params: SamplingParams, prompt: list[int], output: list[int]
) -> float:
    score = logits[token] + params.logit_bias.get(token, 0.0)
    allowed = params.allowed_token_ids
    if token in params.banned_token_ids or (allowed is not None and token not in allowed):
        return -math.inf
    if token in prompt or token in output:
        penalty = params.over().repetition_penalty
        score = score / penalty if score > 0 else score * penalty
    score -= params.frequency_penalty * output.count(token)
    return score - params.presence_penalty * (token in output)


def slow_nucleus(probs: list[float], top_p: float) -> list[int]:
    """Take the likeliest token, the lowest id first, until the mass is reached."""
    kept: list[int] = []
    mass = 0.0
    for token in sorted(range(len(probs)), key=lambda token: (-probs[token], token)):
        kept.append(token)
        mass += probs[token]
        if mass >= top_p:
            break
    return kept


@st.composite
def sampling_options(draw: st.DrawFn) -> dict[str, Any]:
    """Every field that the law reads, off in about half of the examples."""

    def maybe(default: object, values: st.SearchStrategy[Any]) -> Any:
        return draw(st.one_of(st.just(default), values))

    some_ids = st.lists(token_ids, max_size=3).map(tuple)
    allowed = maybe(None, st.sets(token_ids, min_size=2).map(tuple))
    banned = maybe((), some_ids)
    if allowed is not None and not set(allowed) - set(banned):
        banned = ()
    return {
        "temperature": maybe(1.0, st.sampled_from([0.0, 0.25, 0.5, 2.0])),
        "top_k": maybe(0, st.integers(1, VOCAB + 1)),
        "top_p": maybe(1.0, st.sampled_from([0.01, 0.25, 0.5, 0.75, 0.9, 0.999999])),
        "min_p": maybe(0.0, st.sampled_from([0.125, 0.25, 0.5, 1.0])),
        "repetition_penalty": maybe(1.0, st.sampled_from([0.5, 2.0, 4.0])),
        "presence_penalty": maybe(0.0, quarters),
        "frequency_penalty": maybe(0.0, quarters),
        "logit_bias": maybe({}, st.dictionaries(token_ids, quarters, max_size=3)),
        "banned_token_ids": banned,
        "allowed_token_ids": allowed,
        "min_tokens": maybe(0, st.integers(1, 8)),
        "stop_token_ids": maybe((), some_ids),
        "ignore_eos": draw(st.booleans()),
    }


@settings(max_examples=400, deadline=None)
@given(
    options=sampling_options(),
    eos=st.lists(token_ids, max_size=2).map(tuple),
    prompt=st.lists(token_ids, max_size=4),
    output=st.lists(token_ids, max_size=4),
    drafted=st.lists(token_ids, max_size=4),
    data=st.data(),
)
def test_every_option_agrees_with_the_slow_transform_at_every_drafted_prefix(
    options: dict[str, Any],
    eos: tuple[int, ...],
    prompt: list[int],
    output: list[int],
    drafted: list[int],
    data: st.DataObject,
) -> None:
    """Row i sees exactly drafted[:i], whether one row is asked for or all of them."""
    row = st.lists(quarters, min_size=VOCAB, max_size=VOCAB)
    table = data.draw(st.lists(row, min_size=len(drafted) + 1, max_size=len(drafted) + 1))
    # Built here, since the type checker of the test run is random, and strategies may not be.
    params = SamplingParams(**options)
    law = SamplingLaw(params, eos)
    history = History(ids(*prompt), ids(*output))
    logits = torch.tensor(table)
    laws = law(logits, history, ids(*drafted))
    assert torch.equal(logits, torch.tensor(table)), "the input was written to"
    for index, scores in enumerate(table):
        expected = slow_law(scores, params, eos, prompt, [*output, *drafted[:index]])
        assert laws[index].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert support(laws[index].tolist()) == support(expected)
        alone = law(logits[index : index + 1], history, ids(*drafted[:index]))
        assert torch.equal(alone[0], laws[index])
        # A drafter that asks for the last rows only.
        tail = law(logits[index:], history, ids(*drafted))
        assert torch.equal(tail, laws[index:])


# --- temperature ----------------------------------------------------------------------------


def test_a_tiny_temperature_is_the_argmax_and_does_not_overflow() -> None:
    assert one_row([1.0, 3e4, 2e4, -3e4], temperature=1e-30) == [0.0, 1.0, 0.0, 0.0]


def test_temperature_0_is_a_point_mass_with_ties_to_the_lowest_id() -> None:
    assert one_row([1.0, 3.0, 3.0], temperature=0.0) == [0.0, 1.0, 0.0]
    assert law_of(temperature=0.0).is_greedy
    assert not law_of(temperature=1e-30).is_greedy


def test_temperature_0_sees_penalties_and_bans_too() -> None:
    options: dict[str, Any] = {"temperature": 0.0, "banned_token_ids": (1,), "logit_bias": {2: 5.0}}
    assert one_row([1.0, 9.0, 0.0], **options) == [0.0, 0.0, 1.0]


def test_a_high_temperature_is_nearly_even() -> None:
    assert one_row([1.0, 9.0, 0.0], temperature=1e6) == pytest.approx([1 / 3] * 3, abs=1e-5)


def test_temperature_divides_the_logits() -> None:
    assert one_row([0.0, 1.0], temperature=0.5) == pytest.approx(
        [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))]
    )


def test_point_masses_stand_on_the_first_largest_score() -> None:
    scores = torch.tensor([[0.0, 2.0, 2.0], [-torch.inf, -torch.inf, -5.0]])
    assert point_masses(scores).tolist() == [[0, 1, 0], [0, 0, 1]]


# --- the cut-offs ---------------------------------------------------------------------------


@few
@given(
    row=st.lists(quarters, min_size=1, max_size=9),
    other=quarters,
    count=st.integers(1, 9),
)
def test_top_k_keeps_exactly_k_with_ties_to_the_lowest_ids(
    row: list[float], other: float, count: int
) -> None:
    count = min(count, len(row))
    values = torch.tensor([row, [other] * len(row)])
    kept = _largest(values, count)
    order = sorted(range(len(row)), key=lambda token: (-row[token], token))
    assert kept[0].nonzero().flatten().tolist() == sorted(order[:count])
    assert kept[1].nonzero().flatten().tolist() == list(range(count))


def test_top_k_beyond_the_vocabulary_keeps_all() -> None:
    for top_k in (3, 4, 100, 0, -1):
        assert support(one_row([1.0, 2.0, 3.0], top_k=top_k)) == [0, 1, 2]


@few
@given(
    table=st.lists(
        st.lists(st.integers(0, 4), min_size=7, max_size=7).filter(any), min_size=1, max_size=3
    ),
    top_p=st.one_of(
        st.floats(1e-6, 1, exclude_max=True),
        st.integers(1, 15).map(lambda value: value / 16),
        st.sampled_from([1 - 2.0**-53, 0.9999999, 0.99999]),
    ),
)
def test_top_p_keeps_the_smallest_set_of_likeliest_tokens(
    table: list[list[int]], top_p: float
) -> None:
    counts = torch.tensor(table, dtype=torch.float32)
    probs = counts / counts.sum(-1, keepdim=True)
    kept = _nucleus(probs, top_p)
    for row, mask in zip(probs.tolist(), kept.tolist(), strict=True):
        expected = slow_nucleus(row, top_p)
        assert [token for token in range(7) if mask[token]] == sorted(expected)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.99, 0.99999])
def test_top_p_widens_its_search_over_a_flat_law(top_p: float) -> None:
    """More than the 256 tokens that are looked at first, and more than 8 times as many."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.stack([torch.rand(5000, generator=generator), torch.zeros(5000)])
    logits[1, 4321] = 50.0
    probs = logits.softmax(-1)
    kept = _nucleus(probs, top_p)
    assert kept[1].nonzero().flatten().tolist() == [4321]
    expected = slow_nucleus(probs[0].tolist(), top_p)
    assert kept[0].nonzero().flatten().tolist() == sorted(expected)


def test_top_p_at_a_tie_keeps_the_lower_id() -> None:
    assert support(one_row([0.0, 1.0, 1.0, 1.0], top_p=0.5)) == [1, 2]
    assert support(one_row([1.0] * 4, top_p=0.5)) == [0, 1]


def test_top_p_of_1_keeps_the_whole_tail() -> None:
    """The first token's mass rounds to 1."""
    assert support(one_row([0.0, -25.0, -30.0])) == [0, 1, 2]
    assert support(one_row([0.0, -25.0, -30.0], min_p=1e-12)) == [0, 1]


def test_top_p_of_nearly_nothing_keeps_the_likeliest_token() -> None:
    assert one_row([0.0, 1.0, 0.5], top_p=1e-9) == [0.0, 1.0, 0.0]


def test_a_law_that_rounding_leaves_short_of_top_p_is_kept_whole() -> None:
    short = torch.tensor([[0.5, 0.25, 0.2, 0.0]])
    assert _nucleus(short, 0.99).tolist() == [[True] * 4]
    long = torch.full((1, 300), 1 / 512)
    assert bool(_nucleus(long, 0.99).all())


def test_min_p_keeps_what_is_at_least_its_share_of_the_likeliest() -> None:
    logits = [math.log(8), math.log(4), math.log(1), math.log(2)]
    assert support(one_row(logits, min_p=0.26)) == [0, 1]
    assert support(one_row(logits, min_p=0.24)) == [0, 1, 3]
    assert support(one_row([1.0, 1.0, 0.0], min_p=1.0)) == [0, 1]


def test_a_cut_law_is_normalised() -> None:
    law = one_row([math.log(4), math.log(2), 0.0, 0.0], top_k=3, top_p=0.8, min_p=0.1)
    assert law == pytest.approx([2 / 3, 1 / 3, 0.0, 0.0])


# --- the order of the transforms ------------------------------------------------------------


def test_the_temperature_comes_before_top_p() -> None:
    """At temperature 1 the first token alone has the mass; a hot law needs a second."""
    logits = [math.log(8), math.log(1), math.log(1)]
    assert support(one_row(logits, top_p=0.75)) == [0]
    assert support(one_row(logits, top_p=0.75, temperature=3.0)) == [0, 1]


def test_top_k_comes_before_top_p() -> None:
    """Of 4, 3, 3: the two that top-k leaves give the first 4/7, and that is enough mass."""
    logits = [math.log(4), math.log(3), math.log(3)]
    assert support(one_row(logits, top_p=0.5)) == [0, 1]
    assert support(one_row(logits, top_p=0.5, top_k=2)) == [0]


def test_the_bias_comes_before_the_repetition_penalty() -> None:
    """A bias that lifts a negative logit above 0 has it divided, not multiplied."""
    law = law_of(repetition_penalty=2.0, logit_bias={0: 3.0})
    row = law(torch.tensor([[-1.0, 0.0]]), History(ids(0), NO_TOKENS), NO_TOKENS)[0]
    assert row.log().diff().tolist() == pytest.approx([-1.0])


def test_the_penalties_come_before_the_temperature() -> None:
    law = law_of(presence_penalty=1.0, temperature=0.5)
    row = law(torch.zeros(1, 2), History(NO_TOKENS, ids(0)), NO_TOKENS)[0]
    assert row.log().diff().tolist() == pytest.approx([2.0])


def test_the_repetition_penalty_comes_before_the_subtracted_ones() -> None:
    law = law_of(repetition_penalty=2.0, presence_penalty=1.0)
    row = law(torch.tensor([[4.0, 0.0]]), History(NO_TOKENS, ids(0)), NO_TOKENS)[0]
    assert row.log().diff().tolist() == pytest.approx([-1.0])  # 4 / 2 - 1, not (4 - 1) / 2


# --- penalties and prefixes -----------------------------------------------------------------


def test_only_the_repetition_penalty_sees_the_prompt() -> None:
    prompt = History(ids(0), NO_TOKENS)
    subtracted = law_of(presence_penalty=1.0, frequency_penalty=1.0)
    assert subtracted(torch.zeros(1, 2), prompt, NO_TOKENS).tolist() == [[0.5, 0.5]]
    divided = law_of(repetition_penalty=2.0)(torch.tensor([[2.0, 1.0]]), prompt, NO_TOKENS)
    assert divided.tolist() == [[0.5, 0.5]]


def test_the_frequency_penalty_counts_drafted_tokens_as_they_come() -> None:
    law = law_of(frequency_penalty=1.0)
    rows = law(torch.zeros(4, 2), History(ids(1), ids(0)), ids(0, 1, 1))
    assert rows.log().diff(dim=-1).flatten().tolist() == pytest.approx(
        [1.0, 2.0, 1.0, 0.0], abs=1e-6
    )


def test_a_minimum_length_ends_within_a_draft() -> None:
    law = law_of(min_tokens=3, stop_token_ids=(1,), eos=(2,))
    rows = law(torch.zeros(4, 4), History(NO_TOKENS, ids(0)), ids(0, 0, 0))
    assert [support(row) for row in rows.tolist()] == [[0, 3], [0, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    past = law(torch.zeros(1, 4), History(NO_TOKENS, ids(0, 0, 0)), NO_TOKENS)
    assert support(past[0].tolist()) == [0, 1, 2, 3]


def test_an_ignored_end_of_sequence_is_an_ordinary_token() -> None:
    law = law_of(min_tokens=3, stop_token_ids=(1,), eos=(2,), ignore_eos=True)
    assert support(law(torch.zeros(1, 4), NOTHING_BEFORE, NO_TOKENS)[0].tolist()) == [0, 2, 3]


# --- ids that this vocabulary does not have -------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": {9: 1.0, 3: 1.0}},
        {"logit_bias": {0: 1.0, 9: 1.0}},
        {"banned_token_ids": (0, 9)},
        {"banned_token_ids": (9, 3)},
        {"allowed_token_ids": (0, 1, 3, 9)},
        {"min_tokens": 2, "stop_token_ids": (3, 9)},
        {"repetition_penalty": 2.0, "presence_penalty": 0.5},
    ],
)
def test_ids_beyond_the_vocabulary_are_ignored(options: dict[str, Any]) -> None:
    """A draft's vocabulary may lack the target's padding; the common ids keep their law."""
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    history = History(ids(1, 3, 9), ids(2, 3, 9))
    small = law_of(**options)(logits, history, NO_TOKENS)
    padded = torch.nn.functional.pad(logits, (0, 7), value=-torch.inf)
    large = law_of(**options)(padded, history, NO_TOKENS)
    assert torch.equal(small, large[:, :3])
    assert not large[:, 3:].any()


def test_padding_of_the_vocabulary_never_gets_mass() -> None:
    for options in ({}, {"top_k": 5}, {"top_p": 0.999999}, {"temperature": 0.0}, {"min_p": 0.001}):
        law = one_row([1.0, 2.0, -math.inf, -math.inf], **options)
        assert law[2:] == [0.0, 0.0]
        assert sum(law) == pytest.approx(1)


# --- rows that are no distribution ----------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"top_k": 3},
    {"top_p": 0.8},
    {"min_p": 0.2},
    {"top_k": 300, "top_p": 0.9, "min_p": 0.01, "temperature": 0.7},
    {"repetition_penalty": 1.3, "presence_penalty": 0.3, "frequency_penalty": 0.2},
    {"logit_bias": {3: 1.5}, "banned_token_ids": (1,), "min_tokens": 9, "stop_token_ids": (4,)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_no_distribution_has_no_mass_and_disturbs_no_other(
    options: dict[str, Any], bad: float
) -> None:
    logits = torch.randn(4, 600, generator=torch.Generator().manual_seed(1))
    history, drafted = History(ids(5), ids(6, 7)), ids(8, 9, 8)
    clean = law_of(**options)(logits, history, drafted)
    logits[2, 17] = bad
    spoilt = law_of(**options)(logits, history, drafted)
    assert not spoilt[2].any()
    assert torch.equal(spoilt[[0, 1, 3]], clean[[0, 1, 3]])
    assert torch.allclose(clean.sum(-1), torch.ones(4))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_row_with_nothing_allowed_has_no_mass(options: dict[str, Any]) -> None:
    logits = torch.zeros(2, 10)
    logits[1] = -torch.inf
    rows = law_of(**options)(logits, NOTHING_BEFORE, ids(0))
    assert rows[0].sum() == pytest.approx(1)
    assert not rows[1].any()


def test_banning_everything_by_id_leaves_no_mass() -> None:
    assert one_row([1.0, 2.0], banned_token_ids=(0, 1)) == [0.0, 0.0]


# --- rows do not know each other ------------------------------------------------------------


@contextmanager
def threads(count: int) -> Generator[None]:
    """Sums over long rows are split between threads; the test run itself has one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("vocab", [13, 1000, 49152])
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_row_equals_its_own_one_row_call_bit_for_bit(
    vocab: int, num_threads: int, options: dict[str, Any]
) -> None:
    law = law_of(**options)
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(5, vocab, generator=generator) * torch.tensor(
        [[3.0], [0.1], [9], [3], [1]]
    )
    drafted = torch.randint(0, vocab, (4,), generator=generator)
    history = History(ids(5), ids(6, 7))
    with threads(num_threads):
        rows = law(logits, history, drafted)
        for index in range(5):
            alone = law(logits[index : index + 1], history, drafted[:index])
            assert torch.equal(alone[0], rows[index])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_law_is_float32_whatever_the_logits_are(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]], dtype=dtype)
    law = law_of(top_p=0.9)(logits, NOTHING_BEFORE, NO_TOKENS)
    assert law.dtype == torch.float32
    assert torch.equal(law, law_of(top_p=0.9)(logits.float(), NOTHING_BEFORE, NO_TOKENS))


def test_a_sampling_law_is_a_law_and_never_changes() -> None:
    law = law_of()
    assert isinstance(law, Law)
    with pytest.raises(FrozenInstanceError):
        law.eos_token_ids = (1,)  # pyright: ignore[reportAttributeAccessIssue]  # the point


# --- against transformers -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_law_is_that_of_transformers_own_processors(seed: int) -> None:
    from transformers.generation import logits_process as peer

    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 500, generator=generator) * 4
    prompt = torch.randint(0, 500, (20,), generator=generator)
    output = torch.randint(0, 500, (30,), generator=generator)
    text = torch.cat([prompt, output]).unsqueeze(0)
    scores = logits.clone()
    for processor in (
        peer.RepetitionPenaltyLogitsProcessor(1.3),
        peer.TemperatureLogitsWarper(0.8),
        peer.TopKLogitsWarper(60),
        peer.TopPLogitsWarper(0.93),
        peer.MinPLogitsWarper(0.02),
    ):
        scores = processor(text, scores)  # pyright: ignore[reportArgumentType]  # a LongTensor is a Tensor
    law = law_of(repetition_penalty=1.3, temperature=0.8, top_k=60, top_p=0.93, min_p=0.02)
    ours = law(logits, History(prompt, output), NO_TOKENS)
    # The last output tokens may as well be drafted ones.
    drafted = law(logits, History(prompt, output[:-4]), output[-4:])
    assert torch.equal(ours, drafted)
    theirs = scores.softmax(-1)
    assert torch.equal(ours > 0, theirs > 0)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-8)
    assert 1 < int((ours > 0).sum()) < 60
