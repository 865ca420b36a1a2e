"""What a round does once for many tokens, beside the same one token at a time."""

import copy
import pickle
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Draft, DraftContext, Drafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.result import Origin
from draftsmith.engine.requests.sequence import Sequence
from draftsmith.models.contract import ModelTraits
from draftsmith.models.follower import common_prefix
from tests.engine.kit import target
from tests.tiny import VOCAB

CPU = torch.device("cpu")
TRAITS = ModelTraits("the target", VOCAB, (3,), 40)


class Cycling(Drafter):
    """Drafts that are right now and then, of lengths that differ."""

    def propose(self, context: DraftContext) -> Draft:
        """A few tokens that follow from the last one."""
        rows = [
            [
                (view.tokens[-1] + step) % VOCAB
                for step in range(len(view.tokens) % (view.gamma + 1))
            ]
            for view in context.sequences
        ]
        return Draft.certain(rows, context.device)


def sequence(**options: Any) -> Sequence:
    """A new sequence that lives in token ids."""
    params = SamplingParams(max_tokens=options.pop("max_tokens", 12), **options)
    return make_request([1, 2], params, TRAITS, None).sequence(0, 0, CPU, None)


@given(
    rounds=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=6),
    max_tokens=st.integers(1, 12),
    stop=st.sets(st.integers(0, 9), max_size=2),
)
def test_a_round_appended_at_once_ends_where_its_tokens_one_by_one_end(
    rounds: list[list[int]], max_tokens: int, stop: set[int]
) -> None:
    quick = sequence(max_tokens=max_tokens, stop_token_ids=tuple(stop))
    plain = sequence(max_tokens=max_tokens, stop_token_ids=tuple(stop))
    plain.is_each_asked_about = True
    for tokens in rounds:
        if quick.finish_reason is not None:
            break
        for one in (quick, plain):
            one.commit_round(tokens, tokens[:-1], len(tokens) - 1)
    states = [
        (one.tokens, one.records, one.finish_reason, one.stop_reason, one.take_new_rounds())
        for one in (quick, plain)
    ]
    assert states[0] == states[1]


def test_the_traces_say_what_the_rounds_were() -> None:
    one = sequence()
    one.commit_round([5, 6, 7], [5, 6], 2)
    one.commit_round([8, 9], [8, 1, 2], 1)
    one.commit_round([4])
    told = [
        (trace.token_id, trace.origin, trace.round, trace.rejected)
        for trace in one.take_new_rounds().traces()
    ]
    assert told == [
        (5, Origin.KEPT, 0, None),
        (6, Origin.KEPT, 0, None),
        (7, Origin.BONUS, 0, None),
        (8, Origin.KEPT, 1, None),
        (9, Origin.RESIDUAL, 1, 1),
        (4, Origin.BONUS, 2, None),
    ]


def test_a_draft_cut_by_the_end_has_no_rejection() -> None:
    one = sequence(max_tokens=2)
    one.commit_round([5, 6, 7], [5, 6, 1], 2)
    assert [(t.token_id, t.origin, t.rejected) for t in one.take_new_rounds().traces()] == [
        (5, Origin.KEPT, None),
        (6, Origin.KEPT, None),
    ]
    assert one.records[0] == (3, 2, 2, 2)


@pytest.mark.parametrize("options", [{}, {"logprobs": 2}, {"temperature": 1.0, "seed": 3}])
def test_generating_and_streaming_tell_the_same(options: dict[str, Any]) -> None:
    params = SamplingParams(max_tokens=9, n=1 if not options.get("seed") else 2, **options)
    engine = Engine(target("llama"), draft=Cycling(), gamma=3)
    prompts = [[1, 2, 3], [4, 5]]
    whole = engine.generate(prompts, params)
    events = list(engine.stream(prompts, params))
    results = {event.prompt_index: event.result for event in events if event.result}
    for index, result in enumerate(whole):
        streamed = results[index]
        assert streamed is not None
        assert streamed.completions == result.completions
        for sample, completion in enumerate(result.completions):
            mine = [e for e in events if (e.prompt_index, e.sample_index) == (index, sample)]
            assert sum((event.tokens for event in mine), ()) == completion.trace
            assert [event.result for event in mine[:-1]] == [None] * (len(mine) - 1)


def test_a_trace_that_nobody_asked_for_is_there_for_all_that_ask() -> None:
    engine = Engine(target("llama"), draft=Cycling(), gamma=3)
    completion = engine.generate([1, 2, 3], max_tokens=6, ignore_eos=True)[0].completions[0]
    for twin in (pickle.loads(pickle.dumps(completion)), copy.copy(completion)):
        assert [one.token_id for one in twin.trace] == list(completion.token_ids)
    assert "trace" in asdict(completion)
    assert replace(completion, text="x").trace == completion.trace
    assert completion.trace is completion.trace
    with pytest.raises(AttributeError, match="has no attribute 'tracks'"):
        _ = completion.tracks  # type: ignore[attr-defined] # the point of the test


@given(st.lists(st.integers(0, 2), max_size=70), st.lists(st.integers(0, 2), max_size=70))
def test_a_common_prefix_is_as_long_as_the_tokens_say(held: list[int], tokens: list[int]) -> None:
    length = 0
    while length < min(len(held), len(tokens)) and held[length] == tokens[length]:
        length += 1
    assert common_prefix(held, tokens) == length
