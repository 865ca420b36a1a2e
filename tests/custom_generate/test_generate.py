"""`model.generate(custom_generate=draftsmith.transformers.generate)` is `model.generate`."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from typing import Any

import pytest
import torch

import draftsmith.transformers
from draftsmith.errors import InvalidRequestError
from tests import tiny

FAMILIES = ("llama", "gpt2", "t5", "bart")
OURS: dict[str, Any] = {"custom_generate": draftsmith.transformers.generate}


def inputs(kind: str) -> dict[str, torch.Tensor]:
    """Two prompts of different lengths, padded where `transformers` wants it."""
    short = [0, 0, 0, 20, 21, 22, 20, 21]
    if kind in tiny.ENCODER_DECODER:
        short = [*short[3:], 0, 0, 0]
    ids = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7], short])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.fixture(params=FAMILIES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def pair(kind: str) -> tuple[Any, Any]:
    target, draft = tiny.raw_model(kind), tiny.raw_model(kind, seed=1)
    target.generation_config.pad_token_id = 0
    return target, draft


def test_a_greedy_batch_is_transformers_own_for_every_draft(kind: str) -> None:
    target, draft = pair(kind)
    options: dict[str, Any] = {
        "max_new_tokens": 20,
        "min_new_tokens": 5,
        "do_sample": False,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
        **inputs(kind),
    }
    plain = target.generate(**options)
    for drafts in (
        {},
        {"assistant_model": draft, "num_assistant_tokens": 3},
        {"assistant_model": target},
        {"prompt_lookup_num_tokens": 3},
    ):
        assert torch.equal(target.generate(**options, **OURS, **drafts), plain)


def test_the_assistant_drafts_and_the_target_runs_less_often(kind: str) -> None:
    target, draft = tiny.raw_model(kind), tiny.raw_model(kind)
    target.generation_config.pad_token_id = 0
    passes = {"target": 0, "draft": 0}

    def counting(name: str) -> Any:
        def count(*_: object) -> None:
            passes[name] += 1

        return count

    target.register_forward_hook(counting("target"))
    draft.register_forward_hook(counting("draft"))
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, **inputs(kind)}
    target.generate(**options, **OURS, assistant_model=draft, num_assistant_tokens=4)
    assert passes["draft"] >= 12
    # Four passes of 5 tokens, and one a prompt for its prefill or its encoder.
    assert passes["target"] <= 8


def test_a_sampled_batch_depends_on_the_seed_alone(kind: str) -> None:
    target, draft = pair(kind)
    options = {"max_new_tokens": 16, "do_sample": True, "top_p": 0.9, "seed": 5, **inputs(kind)}
    plain = target.generate(**options, **OURS)
    assert torch.equal(target.generate(**options, **OURS, assistant_model=draft), plain)
    assert torch.equal(target.generate(**options, **OURS, prompt_lookup_num_tokens=2), plain)
    other = target.generate(**{**options, "seed": 6}, **OURS)
    assert other.shape != plain.shape or not torch.equal(other, plain)


def test_torchs_seed_is_honoured_and_rows_differ() -> None:
    target, draft = pair("llama")
    ids = torch.tensor([[5, 6, 7, 8]]).expand(2, -1)
    options = {"max_new_tokens": 12, "do_sample": True, "assistant_model": draft, **OURS}
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(target.generate(ids, **options))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0][0], outputs[0][1])


def test_several_samples_of_a_prompt_differ(kind: str) -> None:
    target, _ = pair(kind)
    options = {"max_new_tokens": 12, "do_sample": True, "num_return_sequences": 2, "seed": 1}
    output = target.generate(**inputs(kind), **options, **OURS)
    assert len(output) == 4
    assert not torch.equal(output[0], output[1])


def test_prefix_functions_see_their_own_row() -> None:
    target, draft = pair("llama")

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        return [10 + row, 20 + row, 30 + (len(ids) % 3)]

    options = {"max_new_tokens": 10, "do_sample": False, "prefix_allowed_tokens_fn": allowed}
    plain = target.generate(**inputs("llama"), **options)
    with pytest.warns(UserWarning, match="PrefixConstrained"):
        ours = target.generate(**inputs("llama"), **options, **OURS, assistant_model=draft)
    assert torch.equal(ours, plain)
    draftsmith.transformers.stateless(allowed)
    ours = target.generate(**inputs("llama"), **options, **OURS, assistant_model=draft)
    assert torch.equal(ours, plain)


def test_stopping_criteria_end_a_text_inside_a_kept_block() -> None:
    target, _ = pair("llama")
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 20, **inputs("llama")}
    free = target.generate(**options)
    stop = int(free[0, 8 + 6])

    def is_over(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return ids[:, -1] == stop

    plain = target.generate(**options, stopping_criteria=[is_over])
    with pytest.warns(UserWarning, match="is_over may keep a state"):
        ours = target.generate(
            **options, stopping_criteria=[is_over], assistant_model=target, **OURS
        )
    assert torch.equal(ours, plain)
    draftsmith.transformers.stateless(is_over)
    ours = target.generate(**options, stopping_criteria=[is_over], assistant_model=target, **OURS)
    assert torch.equal(ours, plain)


def test_a_dict_is_returned_if_asked_for() -> None:
    target, draft = pair("llama")
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    output = target.generate(**inputs("llama"), **options, **OURS, assistant_model=draft)
    assert output.sequences.shape == (2, 12)


def test_a_streamer_gets_every_token() -> None:
    class Streamer:
        def __init__(self) -> None:
            self.tokens: list[int] = []
            self.is_over = False

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.is_over = True

    target, draft = pair("llama")
    streamer = Streamer()
    ids = torch.tensor([[5, 6, 7]])
    output = target.generate(
        ids, max_new_tokens=9, do_sample=False, streamer=streamer, assistant_model=draft, **OURS
    )
    assert streamer.is_over
    assert streamer.tokens == output[0].tolist()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_beams": 2}, "num_beams"),
        ({"output_scores": True, "return_dict_in_generate": True}, "output_scores"),
        ({"num_assistant_tokens": 99}, "gamma"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options: dict[str, Any], name: str) -> None:
    target, draft = pair("llama")
    more = {"max_new_tokens": 4, "do_sample": False, **inputs("llama"), **options}
    assistant = {} if "num_beams" in options else {"assistant_model": draft}
    with pytest.raises(InvalidRequestError, match=name):
        target.generate(**more, **OURS, **assistant)


def test_an_encoder_padded_on_the_left_is_read_as_transformers_reads_it() -> None:
    target, draft = pair("bart")
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, **inputs("llama")}
    plain = target.generate(**options)
    assert torch.equal(target.generate(**options, **OURS), plain)
    assert torch.equal(target.generate(**options, **OURS, assistant_model=draft), plain)
