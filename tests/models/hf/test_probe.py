"""What a probe finds in a model when it is wrapped."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import ModelFormatError, NotRollbackableError
from draftsmith.models.hf.load import wrap_model
from draftsmith.testing import check_model
from tests import tiny

_GPT: dict[str, Any] = {"vocab_size": tiny.VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4}
_SMALL: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_PAIR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
}
_INDEXED = _SMALL | {
    "moe_intermediate_size": 32,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_EXPERTS: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "num_experts": 4,
    "expert_capacity": 3,
    "decoder_start_token_id": 0,
}
_TRANSLATOR = _PAIR | {
    "langs": ["en", "de"],
    "src_vocab_size": tiny.VOCAB,
    "tgt_vocab_size": tiny.VOCAB,
    "bos_token_id": 0,
    "eos_token_id": 95,
}
_HYBRID = _SMALL | {
    "num_key_value_heads": 2,
    "attn_layer_indices": [1],
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
}


def lively(name: str, options: dict[str, Any], kind: str = "ForCausalLM") -> Any:
    """A class of transformers, small, in which every token matters."""
    config = getattr(transformers, f"{name}Config")(**options)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}{kind}")(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25, generator=generator)
    start = options.get("decoder_start_token_id")
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=0, decoder_start_token_id=start
    )
    return model


def openai_gpt() -> Any:
    return lively("OpenAIGPT", _GPT | {"n_positions": 64}, "LMHeadModel")


def fsmt() -> Any:
    return lively("FSMT", _TRANSLATOR, "ForConditionalGeneration")


def cpm_ant() -> Any:
    options = {
        "vocab_size": tiny.VOCAB,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "dim_head": 8,
        "dim_ff": 64,
        "num_hidden_layers": 2,
        "prompt_types": 8,
        "prompt_length": 4,
        "segment_types": 8,
    }
    return lively("CpmAnt", options)


def text_of_generate(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    ids = torch.tensor([prompt])
    text = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        **options,
    )[0].tolist()
    return text[1:] if model.config.is_encoder_decoder else text[len(prompt) :]


PLAIN_ONLY: list[tuple[str, Callable[[], Any], str, bool]] = [
    ("no cache", openai_gpt, "has no cache", True),
    ("puts a prompt of its own before", cpm_ant, "fails as it is fed here", False),
    ("an indexed cache", lambda: lively("DeepseekV32", _INDEXED), "DynamicIndexedLayer", True),
    ("counts by its first layer", lambda: lively("Bamba", _HYBRID), "recurrent state", True),
    (
        "a state of its own kind",
        lambda: lively(
            "Rwkv", {"vocab_size": tiny.VOCAB, "hidden_size": 32, "num_hidden_layers": 2}
        ),
        "recurrent state",
        True,
    ),
    (
        "a state on the module",
        lambda: lively("RecurrentGemma", _SMALL | {"num_hidden_layers": 3}),
        "recurrent state",
        True,
    ),
    ("a bidirectional reader", lambda: lively("Bert", _SMALL, "LMHeadModel"), "at once", False),
]


@pytest.mark.parametrize(
    ("make", "why", "use_cache"),
    [one[1:] for one in PLAIN_ONLY],
    ids=[one[0] for one in PLAIN_ONLY],
)
def test_what_cannot_be_speculated_with_decodes_plainly(
    make: Callable[[], Any], why: str, use_cache: bool
) -> None:
    raw = make()
    model = wrap_model(raw, "tiny")
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14]]
    results = Engine(model).generate(prompts, SamplingParams(max_tokens=10, ignore_eos=True))
    expected = [text_of_generate(raw, prompt, 10, use_cache=use_cache) for prompt in prompts]
    assert [list(result.token_ids) for result in results] == expected
    with pytest.raises(NotRollbackableError, match=f"tiny cannot speculate: .*{why}.*gamma=0"):
        Engine(model, draft=RandomDrafter(tiny.VOCAB), gamma=2)


@pytest.mark.parametrize("source", [[5, 6, 7, 8], [6, 7, 8], [9, 10, 11, 12, 13, 14]])
def test_a_pair_is_held_to_a_pass_of_the_whole_model(source: list[int]) -> None:
    """FSMT, handed its encoder's output alone, sees the tokens ahead."""
    raw = fsmt()
    model = wrap_model(raw, "tiny")
    assert "three tokens at once" in model.traits.why_no_rollback
    [result] = Engine(model).generate(source, SamplingParams(max_tokens=8, ignore_eos=True))
    text, ids = [2], torch.tensor([source])
    for _ in range(8):
        decoder = torch.tensor([text])
        logits = raw(input_ids=ids, decoder_input_ids=decoder, use_cache=False).logits
        text.append(int(logits[0, -1].argmax()))
    assert list(result.token_ids) == text[1:]


@pytest.mark.parametrize("make", [fsmt, cpm_ant, lambda: lively("DeepseekV32", _INDEXED)])
def test_what_decodes_plainly_keeps_the_contract(make: Callable[[], Any]) -> None:
    check_model(wrap_model(make(), "tiny"))


SPECULATES: list[tuple[str, Callable[[], Any]]] = [
    ("views taken apart", lambda: lively("GPTNeoXJapanese", _SMALL)),
    ("routed pair", lambda: lively("SwitchTransformers", _EXPERTS, "ForConditionalGeneration")),
    (
        "another routed pair",
        lambda: lively(
            "NllbMoe",
            _PAIR | {"vocab_size": tiny.VOCAB, "num_experts": 4, "expert_capacity": 8},
            "ForConditionalGeneration",
        ),
    ),
    (
        "experts",
        lambda: lively("Mixtral", _SMALL | {"num_key_value_heads": 2, "num_local_experts": 4}),
    ),
    ("positions that count", lambda: lively("Roberta", _SMALL | {"is_decoder": True})),
]


@pytest.mark.parametrize("make", [one[1] for one in SPECULATES], ids=[one[0] for one in SPECULATES])
def test_what_the_probe_finds_right_speculates_in_ragged_batches(make: Callable[[], Any]) -> None:
    raw = make()
    model = wrap_model(raw, "tiny")
    check_model(model)
    prompts = [[5, 6, 7], [9, 10, 11, 12, 13, 14]]
    engine = Engine(model, draft=RandomDrafter(tiny.VOCAB), gamma=3)
    results = engine.generate(prompts, SamplingParams(max_tokens=10, ignore_eos=True))
    expected = [text_of_generate(raw, prompt, 10) for prompt in prompts]
    assert [list(result.token_ids) for result in results] == expected


def test_a_model_that_runs_in_no_way_is_refused_by_name() -> None:
    class Broken(transformers.LlamaForCausalLM):
        def forward(self, input_ids: Any = None, cache: Any = None, **kwargs: Any) -> Any:
            raise KeyError("pictures")

    config = transformers.LlamaConfig(**_SMALL)
    with pytest.raises(ModelFormatError, match=r"tiny cannot generate here: llama fails.*pictures"):
        wrap_model(Broken(config), "tiny")


def test_memories_of_its_own_are_refused_by_name() -> None:
    config = transformers.XLNetConfig(vocab_size=96, d_model=32, n_layer=1, n_head=4, d_inner=64)
    with pytest.raises(ModelFormatError, match="tiny carries memories"):
        wrap_model(transformers.XLNetLMHeadModel(config), "tiny")


class Widened(transformers.LlamaForCausalLM):
    """Lets a later token of the same pass change the earlier ones a little."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output: Any = super().forward(*args, **kwargs)
        output.logits = output.logits + 0.02 * output.logits.mean(1, keepdim=True)
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numerics_are_told_from_faults_at_every_precision(dtype: torch.dtype) -> None:
    fine = tiny.raw_model("llama", 3).to(dtype)
    assert wrap_model(fine).traits.can_rollback
    if dtype == torch.float32:
        faulty = Widened(fine.config)
        faulty.load_state_dict(fine.state_dict())
        assert not wrap_model(faulty.eval()).traits.can_rollback


def test_a_probe_leaves_a_model_as_it_was() -> None:
    model = tiny.raw_model("llama").train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    seen: list[int] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    torch.manual_seed(3)
    numbers = torch.get_rng_state()
    settings = model.generation_config.to_dict()
    wrap_model(model)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers)
    assert model.generation_config.to_dict() == settings
    assert not seen
    model(torch.tensor([[5]]))
    assert seen


def test_a_model_is_probed_once_and_again_when_it_was_changed() -> None:
    model, passes = tiny.raw_model("llama"), [0]
    model.model.register_forward_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))
    wrap_model(model)
    assert passes == [6]
    wrap_model(model)
    assert passes == [6]
    wrap_model(model.to(torch.bfloat16))
    assert passes == [12]


def test_a_model_without_weights_is_not_run() -> None:
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SMALL))
    assert wrap_model(model, "tiny").traits.can_rollback
