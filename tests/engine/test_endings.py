"""Where a text ends: exactly where plain decoding ends, wherever in a kept block that is."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter, RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.result import Completion, FinishReason, Origin
from draftsmith.engine.requests.text import OutputText
from draftsmith.models.contract import Cache, Rows
from draftsmith.models.tokenizer import Message, Tokenizer
from tests.engine.kit import PROMPTS, target, text_model, text_tokenizer, texts, twin
from tests.wrapped import Wrapped

GAMMAS = (1, 2, 3, 5, 8)
SEEDED = SamplingParams(max_tokens=24, temperature=0.9, seed=4, ignore_eos=True)


@cache
def long_text() -> Completion:
    """What all of these tests cut short."""
    return Engine(text_model(), text_tokenizer()).generate([5, 6, 7], SEEDED)[0].completions[0]


def assert_ends_as_plain_does(
    params: SamplingParams, prompt: Sequence[int] = (5, 6, 7)
) -> Completion:
    """Every gamma, with drafts that are all kept, ends as gamma 0 does; return the plain one."""
    plain = Engine(text_model(), text_tokenizer()).generate(list(prompt), params)[0].completions[0]
    for gamma in GAMMAS:
        engine = Engine(text_model(), text_tokenizer(), ModelDrafter(text_model()), gamma=gamma)
        run = engine.generate(list(prompt), params)[0].completions[0]
        assert run.text == plain.text, gamma
        assert run.token_ids == plain.token_ids, gamma
        assert (run.finish_reason, run.stop_reason) == (plain.finish_reason, plain.stop_reason)
        assert [trace.token_id for trace in run.trace] == list(run.token_ids)
        assert run.statistics.num_committed == plain.statistics.num_committed == len(run.token_ids)
        assert run.statistics.num_accepted == run.statistics.num_tested, "all is kept"
        if plain.finish_reason is FinishReason.LENGTH:
            assert run.statistics.num_drafted == run.statistics.num_accepted, "no room, no draft"
        kept = sum(trace.origin is Origin.KEPT for trace in run.trace)
        assert run.statistics.num_accepted == kept
        assert_same_logprobs(run, plain)
    return plain


def assert_same_logprobs(one: Completion, other: Completion) -> None:
    for mine, theirs in zip(one.trace, other.trace, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [top.token_id for top in mine.top_logprobs] == [
            top.token_id for top in theirs.top_logprobs
        ]
        assert [top.logprob for top in mine.top_logprobs] == [
            pytest.approx(top.logprob, abs=1e-4) for top in theirs.top_logprobs
        ]


# --- tokens that end a text -----------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 6, 9])
def test_a_stop_id_inside_a_kept_block_ends_the_text_there(at: int) -> None:
    token = long_text().token_ids[at]
    params = replace(SEEDED, stop_token_ids=(token,), logprobs=3)
    plain = assert_ends_as_plain_does(params)
    first = long_text().token_ids.index(token)
    assert plain.token_ids == long_text().token_ids[: first + 1]
    assert (plain.finish_reason, plain.stop_reason) == (FinishReason.STOP, token)


@pytest.mark.parametrize("at", [1, 4, 7])
def test_an_end_of_sequence_id_inside_a_kept_block_ends_the_text_there(at: int) -> None:
    # A bias makes the model's own ending id come early; which position that is depends on `at`.
    ending = text_model().traits.eos_token_ids[0]
    banned = replace(SEEDED, ignore_eos=False, min_tokens=at, logit_bias={ending: 30.0}, logprobs=1)
    plain = assert_ends_as_plain_does(banned)
    assert len(plain.token_ids) == at + 1
    assert plain.token_ids[-1] == ending
    assert (plain.finish_reason, plain.stop_reason) == (FinishReason.STOP, ending)


def test_an_ignored_end_of_sequence_id_goes_on() -> None:
    ending = text_model().traits.eos_token_ids[0]
    plain = assert_ends_as_plain_does(replace(SEEDED, logit_bias={ending: 5.0}))
    assert ending in plain.token_ids[:-1]
    assert (plain.finish_reason, plain.stop_reason) == (FinishReason.LENGTH, None)


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 5, 8, 9])
def test_a_length_inside_a_kept_block_ends_the_text_there(max_tokens: int) -> None:
    plain = assert_ends_as_plain_does(replace(SEEDED, max_tokens=max_tokens, logprobs=0))
    assert plain.token_ids == long_text().token_ids[:max_tokens]
    assert (plain.finish_reason, plain.stop_reason) == (FinishReason.LENGTH, None)


@pytest.mark.parametrize("min_tokens", [1, 3, 6])
def test_a_minimum_length_keeps_every_ending_id_out(min_tokens: int) -> None:
    ending = text_model().traits.eos_token_ids[0]
    likely = long_text().token_ids[0]
    params = replace(
        SEEDED,
        ignore_eos=False,
        min_tokens=min_tokens,
        stop_token_ids=(likely,),
        logit_bias={ending: 20.0, likely: 20.0},
    )
    plain = assert_ends_as_plain_does(params)
    assert len(plain.token_ids) == min_tokens + 1
    assert plain.token_ids[-1] in (ending, likely)


def test_a_minimum_length_is_kept_with_drafts_that_are_rejected() -> None:
    params = replace(SEEDED, ignore_eos=False, min_tokens=7, logit_bias={1: 20.0}, max_tokens=12)
    runs = [
        Engine(target("llama"), draft=RandomDrafter(96), gamma=gamma).generate(PROMPTS, params)
        for gamma in (0, 4)
    ]
    assert texts(runs[0]) == texts(runs[1])
    assert {len(text) for (text,) in texts(runs[0])} == {8}


# --- stop strings ---------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 2, 5, 9, 14])
@pytest.mark.parametrize("length", [1, 3])
def test_a_stop_string_inside_a_kept_block_ends_the_text_there(start: int, length: int) -> None:
    whole = long_text().text
    stop = whole[start : start + length]
    plain = assert_ends_as_plain_does(replace(SEEDED, stop=(stop,), logprobs=0))
    assert plain.text == whole[: whole.index(stop)]
    assert (plain.finish_reason, plain.stop_reason) == (FinishReason.STOP, stop)
    assert len(plain.token_ids) < len(long_text().token_ids)


def test_the_earliest_of_several_stop_strings_wins() -> None:
    whole = long_text().text
    late, early = whole[8:10], whole[4:6]
    assert whole.index(early) < whole.index(late)
    for stop in ((late, early), (early, late)):
        plain = assert_ends_as_plain_does(replace(SEEDED, stop=stop))
        assert plain.text == whole[: whole.index(early)]
        assert plain.stop_reason == early


class Letters(Tokenizer):
    """Token 10 + i is the i-th piece."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def encode_plain(self, text: str) -> list[int]:
        raise NotImplementedError

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.pieces[token - 10] for token in tokens)

    def token_strings(self) -> dict[int, str]:
        return {10 + i: piece for i, piece in enumerate(self.pieces)}

    def special_tokens(self) -> dict[str, int]:
        return {}

    @property
    def has_chat_template(self) -> bool:
        return False


def read(stop: tuple[str, ...], *pieces: str) -> tuple[str, str | None, list[str]]:
    """The text, what stopped it, and what was shown after each piece."""
    output = OutputText(Letters(*pieces), stop)
    shown: list[str] = []
    for token in range(10, 10 + len(pieces)):
        is_over = output.push(token)
        shown.append(output.take(is_final=is_over))
        if is_over:
            break
    output.close()
    return output.text, output.stopped_by, [*shown, output.take(is_final=True)]


def test_a_stop_string_across_token_boundaries_is_found() -> None:
    assert read(("STOP",), "ab S", "TO", "Pcd") == ("ab ", "STOP", ["ab ", "", "", ""])


def test_text_after_a_stop_string_in_one_token_is_cut_off() -> None:
    assert read(("\n",), "ab", "c\nd\ne") == ("abc", "\n", ["ab", "c", ""])


def test_within_one_token_the_earliest_stop_string_wins_whatever_their_order() -> None:
    for stop in (("cd", "b"), ("b", "cd")):
        assert read(stop, "abcd")[:2] == ("a", "b")


def test_a_false_start_of_a_stop_string_is_shown_late_but_whole() -> None:
    text, stopped_by, shown = read(("STOP",), "a ST", "ART", " S", "")
    assert (text, stopped_by) == ("a START S", None)
    assert shown == ["a ", "START", " ", "", "S"]


def test_a_stop_string_that_overlaps_itself_is_found() -> None:
    assert read(("aab",), "a", "a", "a", "b", "c")[:2] == ("a", "aab")


def test_a_short_stop_string_inside_a_longer_one_wins_by_coming_first() -> None:
    assert read(("bcd", "c"), "a", "b", "c", "d")[:2] == ("ab", "c")


def test_no_tokenizer_means_no_text() -> None:
    output = OutputText(None, ())
    assert not output.push(5)
    assert not output.close()
    assert output.text == ""


# --- log-probabilities and counts -----------------------------------------------------------


@pytest.mark.parametrize("gamma", [1, 4])
def test_logprobs_are_those_of_plain_decoding_with_drafts_kept_or_not(gamma: int) -> None:
    params = SamplingParams(
        max_tokens=14, temperature=0.8, seed=3, logprobs=5, frequency_penalty=0.5
    )
    plain = Engine(target("llama")).generate(PROMPTS, params)
    for draft in (ModelDrafter(twin("llama")), RandomDrafter(96)):
        results = Engine(target("llama"), draft=draft, gamma=gamma).generate(PROMPTS, params)
        for one, other in zip(results, plain, strict=True):
            assert one.token_ids == other.token_ids
            assert_same_logprobs(one.completions[0], other.completions[0])


def test_logprobs_are_of_the_raw_law_and_sorted() -> None:
    params = SamplingParams(max_tokens=5, logprobs=96, temperature=0.3, top_k=2, seed=1)
    trace = Engine(target("llama")).generate(PROMPTS[0], params)[0].completions[0].trace
    for token in trace:
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert sum(math.exp(value) for value in values) == pytest.approx(1, abs=1e-4)
        assert dict(token.top_logprobs)[token.token_id] == token.logprob


def test_no_logprobs_unless_asked() -> None:
    trace = Engine(target("llama")).generate(PROMPTS[0])[0].completions[0].trace
    assert {token.logprob for token in trace} == {None}
    assert {token.top_logprobs for token in trace} == {()}


def test_every_token_says_where_it_came_from() -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")), gamma=3)
    completion = engine.generate(PROMPTS[0], params)[0].completions[0]
    trace, counts = completion.trace, completion.statistics
    origins = [token.origin for token in trace]
    assert origins.count(Origin.KEPT) == counts.num_accepted
    assert {*origins} == {*Origin}
    assert all((token.rejected is not None) == (token.origin is Origin.RESIDUAL) for token in trace)
    assert all(token.rejected != token.token_id for token in trace)
    assert [token.round for token in trace] == sorted(token.round for token in trace)
    assert trace[-1].round == counts.num_rounds - 1
    assert counts.tokens_per_pass == pytest.approx(len(trace) / counts.num_rounds)


def test_the_target_makes_one_pass_a_round() -> None:
    passes: list[int] = []

    class Counted(Wrapped):
        def forward(self, cache: Cache, batch: Rows) -> Tensor:
            passes.append(len(batch.rows))
            return super().forward(cache, batch)

    params = SamplingParams(max_tokens=20, ignore_eos=True)
    engine = Engine(Counted(target("llama")), draft=ModelDrafter(target("llama")), gamma=4)
    result = engine.generate(PROMPTS[0], params)[0]
    assert len(passes) == result.statistics.num_rounds == 4
    assert result.statistics.tokens_per_pass == 5
