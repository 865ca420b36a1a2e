"""Streams: the events join to the result, nothing is shown too early, an abort keeps all."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.result import FinishReason, GenerationResult, StreamEvent
from draftsmith.errors import InvalidRequestError
from tests.engine.kit import PROMPTS, target, text_model, text_tokenizer, texts

LONG = SamplingParams(max_tokens=40, temperature=1.1, seed=9, ignore_eos=True)
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def engine(gamma: int = 4, draft: Drafter | None = None, max_batch_size: int = 16) -> Engine:
    draft = draft or ModelDrafter(text_model())
    return Engine(text_model(), text_tokenizer(), draft, gamma=gamma, max_batch_size=max_batch_size)


def joined(events: Sequence[StreamEvent]) -> dict[tuple[int, int], str]:
    shown: defaultdict[tuple[int, int], str] = defaultdict(str)
    for event in events:
        shown[event.prompt_index, event.sample_index] += event.text
    return dict(shown)


def wanted(results: Sequence[GenerationResult]) -> dict[tuple[int, int], str]:
    return {
        (i, one.index): one.text for i, result in enumerate(results) for one in result.completions
    }


@pytest.mark.parametrize("gamma", [0, 1, 4, 8])
def test_the_texts_of_the_events_join_to_the_result(gamma: int) -> None:
    params = replace(LONG, n=2)
    events = list(engine(gamma, max_batch_size=3).stream(PROMPTS, params))
    results = engine(gamma).generate(PROMPTS, params)
    assert joined(events) == wanted(results)
    finished = [event.completion for event in events if event.completion]
    assert len(finished) == 2 * len(PROMPTS)
    ended = {event.prompt_index: event.result for event in events if event.result}
    assert {i: result.text for i, result in ended.items()} == {
        i: result.text for i, result in enumerate(results)
    }


def test_the_tokens_of_the_events_join_to_the_result() -> None:
    ids: defaultdict[int, list[int]] = defaultdict(list)
    for event in engine().stream(PROMPTS, LONG):
        ids[event.prompt_index] += [token.token_id for token in event.tokens]
    assert [[tuple(ids[i])] for i in range(len(PROMPTS))] == texts(engine().generate(PROMPTS, LONG))


def test_the_last_event_of_a_sample_is_its_last() -> None:
    is_over: set[int] = set()
    for event in engine().stream(PROMPTS, LONG):
        assert event.prompt_index not in is_over
        if event.completion:
            is_over.add(event.prompt_index)
    assert is_over == set(range(len(PROMPTS)))


def test_text_comes_while_it_is_made() -> None:
    events = list(engine(gamma=2).stream(PROMPTS[0], LONG))
    assert len(events) == 14  # 40 tokens, three a round
    assert sum(bool(event.text) for event in events) > 5


def test_a_stop_string_never_leaks() -> None:
    whole = engine().generate(PROMPTS[0], LONG)[0].text
    for start in range(2, 12):
        stop = whole[start : start + 3]
        for gamma in (0, 1, 4):
            events = list(engine(gamma).stream(PROMPTS[0], replace(LONG, stop=(stop,))))
            shown = joined(events)[0, 0]
            assert shown == whole[: whole.index(stop)]
            assert events[-1].completion is not None
            assert events[-1].completion.stop_reason == stop


def test_what_may_become_a_stop_string_is_shown_once_it_has_not() -> None:
    whole = engine().generate(PROMPTS[0], LONG)[0].text
    almost = tuple(whole[start : start + 2] + "\x00" for start in range(len(whole) - 2))
    events = list(engine(2).stream(PROMPTS[0], replace(LONG, stop=almost)))
    assert joined(events)[0, 0] == whole


@pytest.mark.parametrize("gamma", [0, 3])
def test_a_multi_byte_character_is_never_split(gamma: int) -> None:
    # Only the bytes of these characters may come, in the order that a bias cannot give: so the
    # output is full of unfinished characters, and whole ones among them.
    tokenizer = text_tokenizer()
    allowed = tuple({token for char in "é€🙂" for token in tokenizer.encode(char)})
    params = replace(LONG, max_tokens=60, temperature=2.0, allowed_token_ids=allowed, n=6)
    run = list(engine(gamma).stream(PROMPTS[0], params))
    for index, text in joined(run).items():
        (completion,) = [
            event.completion for event in run if event.completion and event.sample_index == index[1]
        ]
        assert text == completion.text == tokenizer.decode(completion.token_ids)
    unfinished = [event.text for event in run if event.completion is None]
    assert not any(text.endswith(UNFINISHED) for text in unfinished)
    assert any(char in text for text in unfinished for char in "é€🙂")


def test_one_bad_prompt_raises_before_the_first_event() -> None:
    with pytest.raises(InvalidRequestError, match="the prompt is empty"):
        next(iter(engine().stream("")))


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="prompts is empty"):
        list(engine().stream([]))


# --- abort ----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_events", [0, 1, 4, 7, 12])
def test_an_abort_keeps_what_there_is(num_events: int) -> None:
    whole = engine().generate(PROMPTS, LONG)
    run = engine(gamma=2, max_batch_size=3).start(PROMPTS, LONG)
    stream = iter(run)
    events = [next(stream) for _ in range(num_events)]
    events += list(run.abort())
    results = run.results()
    assert len(results) == len(PROMPTS)
    assert joined(events) == wanted(results)
    for result, full in zip(results, whole, strict=True):
        assert result.finish_reason is FinishReason.ABORT
        assert full.token_ids[: len(result.token_ids)] == result.token_ids
    if num_events > 3:
        assert 0 < len(results[0].token_ids) < 40
    assert results[-1].token_ids == () or num_events > 6


@pytest.mark.parametrize("num_events", [1, 2, 3, 4])
def test_an_abort_amid_a_rounds_events_loses_no_sample_that_has_ended(num_events: int) -> None:
    # All five end in the same round; the caller stops before it has heard of all.
    short = replace(LONG, max_tokens=3)
    run = engine(gamma=4).start(PROMPTS, short)
    stream = iter(run)
    events = [next(stream) for _ in range(num_events)]
    events += list(run.abort())
    assert {result.finish_reason for result in run.results()} == {FinishReason.LENGTH}
    assert joined(events) == wanted(run.results())
    assert len(run.results()) == len(PROMPTS)


def test_an_abort_needs_no_one_to_listen() -> None:
    run = engine().start(PROMPTS[0], LONG)
    next(iter(run))
    run.abort()
    assert run.results()[0].finish_reason is FinishReason.ABORT


def test_after_an_abort_nothing_goes_on() -> None:
    run = engine().start(PROMPTS, LONG)
    stream = iter(run)
    next(stream)
    list(run.abort())
    assert list(stream) == []
    assert list(run.abort()) == []


def test_a_drafter_serves_on_after_an_abort() -> None:
    draft = RandomDrafter(len(text_tokenizer().token_strings()))
    one = engine(draft=draft)
    run = one.start(PROMPTS, LONG)
    next(iter(run))
    run.abort()
    expected = texts(engine(gamma=0).generate(PROMPTS, LONG))
    assert texts(one.generate(PROMPTS, LONG)) == expected


def test_a_target_serves_on_when_a_stream_is_dropped() -> None:
    one = Engine(target("llama"), draft=ModelDrafter(target("llama")), gamma=2)
    expected = texts(one.generate(PROMPTS, LONG))
    stream = one.stream(PROMPTS, LONG)
    next(iter(stream))
    del stream
    assert texts(one.generate(PROMPTS, LONG)) == expected
