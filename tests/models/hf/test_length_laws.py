"""Models whose frequencies depend on the length of the text: one text, whatever is drafted."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import draftsmith.transformers as ours
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter, RandomDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.contract import Rows
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.hf.rotary_laws import LengthLaw, length_law
from draftsmith.testing import check_model
from tests import tiny
from tests.models.hf.test_probe import lively, text_of_generate
from tests.versions import text_of_newest

SWITCH = 16
PROMPTS = [[5, 6, 7, 5, 6, 7, 5, 6, 7, 5], list(range(10, 26)), list(range(9, 26)), [8] * 14]
LONG = list(range(10, 40))
NUM_TOKENS = 14
_SMALL: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "original_max_position_embeddings": SWITCH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
}


def _factors(**more: Any) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0 + i for i in range(8)],
        "factor": 8.0,
        "original_max_position_embeddings": SWITCH,
        **more,
    }


@cache
def phi3() -> Any:
    return lively("Phi3", _SMALL | {"rope_parameters": _factors()})


@cache
def minicpm3() -> Any:
    return lively("MiniCPM3", _SMALL | _LATENT | {"rope_parameters": _factors()})


def dynamic() -> Any:
    """A fresh one: a text beyond the trained length leaves its frequencies in the model."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    more = {"max_position_embeddings": SWITCH, "rope_parameters": rope}
    return lively("Llama", _SMALL | more)


def drafters(model: Any) -> list[Drafter | None]:
    wrapped = wrap_model(model)
    return [None, RandomDrafter(tiny.VOCAB), PromptLookupDrafter(1, 3), ModelDrafter(wrapped)]


def texts(model: Any, prompts: list[list[int]], draft: Drafter | None, gamma: int) -> list[Any]:
    params = SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True)
    engine = Engine(wrap_model(model, "tiny"), draft=draft, gamma=gamma if draft else 0)
    return [list(result.token_ids) for result in engine.generate(prompts, params)]


# --- two sets of frequencies ----------------------------------------------------------------


@text_of_newest
def test_long_rope_has_one_text_for_every_draft_and_batch() -> None:
    expected = [text_of_generate(phi3(), prompt, NUM_TOKENS) for prompt in [*PROMPTS, LONG]]
    assert len({token for text in expected for token in text}) > 8
    for draft in drafters(phi3()):
        assert texts(phi3(), [*PROMPTS, LONG], draft, 4) == expected
        assert texts(phi3(), PROMPTS[:1], draft, 1) == expected[:1]


def test_long_rope_is_refilled_where_transformers_does_not() -> None:
    # MiniCPM3's own generate keeps keys of the short factors: its text has no one law.
    expected = [text_of_generate(minicpm3(), prompt, 14, use_cache=False) for prompt in PROMPTS]
    for draft in drafters(minicpm3()):
        assert texts(minicpm3(), PROMPTS, draft, 3) == expected


def test_the_switch_makes_a_difference() -> None:
    steady = _factors(long_factor=[1.0] * 8)
    model = lively("Phi3", _SMALL | {"rope_parameters": steady})
    assert texts(model, PROMPTS, None, 0) != texts(phi3(), PROMPTS, None, 0)


@pytest.mark.parametrize("make", [phi3, minicpm3])
def test_a_model_with_a_switch_keeps_the_contract(make: Any) -> None:
    check_model(wrap_model(make(), "tiny"))


def test_rows_that_go_back_over_the_switch_are_read_as_short_again() -> None:
    model = wrap_model(phi3(), "tiny")
    text = [*PROMPTS[0], *range(20, 40)]
    rows = model.open_cache(), model.open_cache()
    long_row, short_row = rows[0].add(), rows[1].add()
    model.forward(rows[0], Rows([long_row], [text]))
    rows[0].rollback(long_row, 12)
    again = model.forward(rows[0], Rows([long_row], [text[12:15]]))
    alone = model.forward(rows[1], Rows([short_row], [text[:15]]))[:, 12:]
    assert torch.allclose(again, alone, atol=1e-5)


def test_a_long_prompt_is_read_in_chunks_as_the_long_text_that_it_is() -> None:
    model = wrap_model(phi3(), "tiny")
    prompt = [10 + index % 80 for index in range(1100)]
    cache = model.open_cache()
    row = cache.add()
    model.prefill(cache, row, prompt[:-1])
    logits = model.forward(cache, Rows([row], [prompt[-1:]]))[0, 0]
    other = model.open_cache()
    whole = model.forward(other, Rows([other.add()], [prompt]))[0, -1]
    assert torch.allclose(logits, whole, atol=1e-4)


@text_of_newest
def test_custom_generate_gives_a_dict_and_refuses_embeddings_by_name() -> None:
    ids = torch.tensor(PROMPTS[:1])
    options: dict[str, Any] = {"max_new_tokens": NUM_TOKENS, "do_sample": False}
    expected = phi3().generate(ids, attention_mask=torch.ones_like(ids), **options)
    options |= {"custom_generate": ours.generate, "return_dict_in_generate": True}
    output = phi3().generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert output.sequences.tolist() == expected.tolist()
    embeddings = phi3().get_input_embeddings()(ids)
    with pytest.raises(InvalidRequestError, match="inputs_embeds cannot be honoured by phi3"):
        phi3().generate(inputs_embeds=embeddings, **options)


# --- other frequencies for every length -----------------------------------------------------


def test_dynamic_frequencies_have_one_text_for_every_draft_and_batch() -> None:
    prompts, gamma = [*PROMPTS[::2], LONG], 3
    expected = [text_of_generate(dynamic(), prompt, NUM_TOKENS) for prompt in prompts]
    model = dynamic()
    for draft in drafters(model):
        params = {"max_new_tokens": NUM_TOKENS, "do_sample": False}
        for prompt, text in zip(prompts, expected, strict=True):
            ids = torch.tensor([prompt])
            options = params | {"draft": draft, "num_assistant_tokens": gamma}
            got = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                custom_generate=ours.generate,
                **options,
            )
            assert got[0].tolist()[len(prompt) :] == text
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    got = model.generate(
        ids,
        attention_mask=mask,
        custom_generate=ours.generate,
        prompt_lookup_num_tokens=gamma,
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
    )
    assert got[:, width:].tolist() == expected


def test_dynamic_frequencies_are_left_as_they_were_found() -> None:
    model = dynamic()
    before = model.model.rotary_emb.inv_freq.clone()
    wrapped = wrap_model(model, "tiny")
    cache = wrapped.open_cache()
    wrapped.forward(cache, Rows([cache.add()], [LONG]))
    assert torch.equal(model.model.rotary_emb.inv_freq, before)
    assert model.model.rotary_emb.max_seq_len_cached == SWITCH


# --- what a model has -----------------------------------------------------------------------


def test_only_frequencies_that_change_have_a_law() -> None:
    assert length_law(phi3()) == LengthLaw(SWITCH, is_dynamic=False)
    assert length_law(dynamic()) == LengthLaw(SWITCH, is_dynamic=True)
    assert length_law(tiny.raw_model("llama")) is None
    assert length_law(tiny.raw_model("gpt2")) is None


class _Rotary(nn.Module):
    """As Gemma 3 has it: kinds by layer."""

    def __init__(self, **lengths: int) -> None:
        super().__init__()
        self.rope_type = dict.fromkeys(lengths, "longrope") | {"sliding_attention": "default"}
        self.config = SimpleNamespace(
            rope_parameters={
                name: {"original_max_position_embeddings": length}
                for name, length in lengths.items()
            }
        )


def test_kinds_by_layer_are_read_and_several_switches_are_refused() -> None:
    model = nn.Sequential(_Rotary(full_attention=32))
    assert length_law(model) == LengthLaw(32, is_dynamic=False)
    model = nn.Sequential(_Rotary(full_attention=32, other=64))
    model.config = SimpleNamespace(model_type="odd")  # type: ignore[assignment]
    with pytest.raises(ModelFormatError, match=r"odd has .* several lengths \(\[32, 64\]\)"):
        length_law(model)
