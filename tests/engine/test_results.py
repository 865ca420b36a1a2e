"""What comes back: frozen records whose `str` is the text."""

from dataclasses import FrozenInstanceError, fields

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.result import Completion, GenerationResult
from tests.engine.kit import PROMPTS, target, text_model, text_tokenizer

PARAMS = SamplingParams(max_tokens=8, temperature=0.9, seed=2, n=2, ignore_eos=True)


def result() -> GenerationResult:
    engine = Engine(text_model(), text_tokenizer(), ModelDrafter(text_model()), gamma=3)
    return engine.generate("the quick brown", PARAMS)[0]


def test_results_are_frozen() -> None:
    one = result()
    completion = one.completions[0]
    for frozen in (one, completion):
        for field in fields(frozen):
            with pytest.raises(FrozenInstanceError):
                setattr(frozen, field.name, None)
    with pytest.raises(AttributeError):
        completion.trace[0].token_id = 3  # type: ignore[misc] # the point of the test
    assert isinstance(completion.token_ids, tuple)
    assert isinstance(completion.trace, tuple)


def test_a_results_string_is_its_text() -> None:
    one = result()
    assert str(one) == one.text == str(one.completions[0]) == one.completions[0].text
    assert one.text == text_tokenizer().decode(one.token_ids)
    assert one.text


def test_a_result_speaks_for_its_first_sample_and_counts_all() -> None:
    one = result()
    first, second = one.completions
    assert (one.token_ids, one.finish_reason, one.error) == (
        first.token_ids,
        first.finish_reason,
        first.error,
    )
    assert one.statistics == first.statistics + second.statistics
    assert one.statistics.num_committed == 16
    assert one.tokens_per_second == pytest.approx(16 / one.elapsed_s)


def test_a_result_holds_its_prompt() -> None:
    assert result().prompt_token_ids == tuple(text_tokenizer().encode("the quick brown"))
    pair = Engine(target("t5")).generate(PROMPTS[0], SamplingParams(max_tokens=2))[0]
    assert pair.prompt_token_ids == tuple(PROMPTS[0]), "for an encoder-decoder, the source"


def test_time_passes() -> None:
    results = Engine(target("llama"), max_batch_size=1).generate(PROMPTS, PARAMS)
    assert all(0 < one.elapsed_s < 60 for one in results)


def test_results_come_in_the_order_of_the_prompts() -> None:
    lengths = [9, 1, 5, 2, 7]
    params = [SamplingParams(max_tokens=length, ignore_eos=True) for length in lengths]
    results = Engine(target("llama"), max_batch_size=2).generate(PROMPTS, params)
    assert [len(one.token_ids) for one in results] == lengths
    assert [one.prompt_token_ids for one in results] == [tuple(prompt) for prompt in PROMPTS]


def test_a_prompt_of_any_kind_is_one_prompt() -> None:
    engine = Engine(text_model(), text_tokenizer())
    params = SamplingParams(max_tokens=3)
    chat = [{"role": "user", "content": "fox"}]
    ids = text_tokenizer().encode_chat(chat)
    assert engine.generate(chat, params)[0].token_ids == engine.generate(ids, params)[0].token_ids
    kinds = ["fox", text_tokenizer().encode("fox"), chat]
    together = [one.token_ids for one in engine.generate(kinds, params)]
    assert together == [engine.generate(kind, params)[0].token_ids for kind in kinds]
    assert together[0] == together[1] != together[2]


def test_without_a_tokenizer_there_are_ids_and_no_text() -> None:
    one = Engine(target("llama")).generate(PROMPTS[0], SamplingParams(max_tokens=4))[0]
    assert len(one.token_ids) == 4
    assert str(one) == ""


def test_an_engine_without_params_is_greedy() -> None:
    one = Engine(target("llama")).generate(PROMPTS[0])[0]
    assert one.token_ids[:8] == (
        Engine(target("llama")).generate(PROMPTS[0], SamplingParams(max_tokens=8))[0].token_ids
    )


def test_a_completion_of_nothing_is_empty_text() -> None:
    refused = Engine(target("llama")).generate([[], PROMPTS[0]])[0]
    assert isinstance(refused.completions[0], Completion)
    assert (str(refused), refused.tokens_per_second) == ("", 0.0)
