"""Where positions end, and where they only were not trained further."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from typing import Any

import pytest
import torch
import transformers

import draftsmith.transformers as ours
from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import Rows
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.hf.positions import context_length, position_limit, source_length
from tests import tiny

_LED: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 16,
    "attention_window": 4,
    "eos_token_id": 95,
}
_SINUSOIDS: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "d_model": 32,
    "num_layers": 1,
    "attention_heads": 4,
    "ffn_dim": 64,
    "max_position_embeddings": 16,
}


def led() -> Any:
    torch.manual_seed(0)
    return transformers.LEDForConditionalGeneration(transformers.LEDConfig(**_LED)).eval()


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("llama", None),
        ("gemma2-sliding", None),
        ("gpt-neox", None),
        ("bloom-alibi", None),
        ("t5", None),
        ("gpt2", 128),
        ("opt", 128),
        ("bart", 128),
    ],
)
def test_only_a_table_of_positions_ends(kind: str, limit: int | None) -> None:
    assert position_limit(tiny.raw_model(kind)) == limit


def test_sinusoids_that_grow_are_no_table() -> None:
    model = transformers.XGLMForCausalLM(transformers.XGLMConfig(**_SINUSOIDS))
    assert context_length(model.config) == 16
    assert position_limit(model) is None


def test_a_decoder_may_be_shorter_than_its_encoder() -> None:
    model = led()
    assert (context_length(model.config), source_length(model.config)) == (16, 64)
    assert position_limit(model) == 16


def test_a_text_ends_with_its_decoders_positions() -> None:
    engine = Engine(wrap_model(led(), "led"))
    result = engine.generate(list(range(5, 40)), SamplingParams(max_tokens=15, ignore_eos=True))[0]
    assert len(result.token_ids) == 15  # one of 16 is the start
    with pytest.raises(InvalidRequestError, match=r"at most 15, .* led's context of 16"):
        engine.generate([5, 6], SamplingParams(max_tokens=16))
    with pytest.raises(InvalidRequestError, match="65 tokens, but led has a context of 64"):
        engine.generate([5] * 65)


def _generate(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    ids = torch.tensor([prompt])
    options |= {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0].tolist()


@pytest.mark.parametrize("gamma", [0, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt-neox"])
def test_generate_goes_on_beyond_the_trained_length_as_transformers_does(
    kind: str, gamma: int
) -> None:
    model = tiny.raw_model(kind, 3, max_position_embeddings=16)
    prompt = [5, 6, 7, 5, 6, 7, 5, 6, 7, 5]
    options = {"custom_generate": ours.generate, "prompt_lookup_num_tokens": gamma or None}
    assert _generate(model, prompt, 20, **options) == _generate(model, prompt, 20)


def test_generate_ends_with_a_table_of_positions() -> None:
    model = tiny.raw_model("gpt2", 3, n_positions=16)
    text = _generate(model, [5, 6, 7, 8], 20, custom_generate=ours.generate)
    assert len(text) == 16


def test_a_pass_beyond_the_table_is_refused_by_name() -> None:
    model = tiny.model("gpt2", n_positions=16)
    cache = model.open_cache()
    with pytest.raises(InvalidRequestError, match="17 tokens, but tiny-gpt2 has 16 positions"):
        model.forward(cache, Rows([cache.add()], [[5] * 17]))


def test_a_source_beyond_the_encoder_is_refused_by_name() -> None:
    model = wrap_model(led(), "led")
    cache = model.open_cache()
    with pytest.raises(InvalidRequestError, match="65 tokens, but led reads 64"):
        model.encode(cache, cache.add(), [5] * 65)
