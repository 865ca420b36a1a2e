"""Inputs of the model are honoured as `transformers` honours them, or refused by name."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import copy
import functools
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

import draftsmith.transformers
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.errors import InvalidRequestError
from draftsmith.models.hf.arguments import cache_argument
from draftsmith.transformers.prompts import check_inputs
from tests import tiny

OURS: dict[str, Any] = {"custom_generate": draftsmith.transformers.generate}
IDS = torch.tensor([[5, 6, 7, 8, 5, 6, 7]])
PADDED = torch.tensor([[5, 6, 7, 8, 5, 6, 7], [0, 0, 20, 21, 22, 20, 21]])
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
DRAFTS: tuple[dict[str, Any], ...] = ({}, {"prompt_lookup_num_tokens": 3}, {"assistant": True})
_SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def lively(model: Any) -> Any:
    """Random weights with clear favourites, and ids that a text can begin and end with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25, generator=generator)
    start = getattr(model.config, "decoder_start_token_id", None)
    model.generation_config = tf.GenerationConfig(
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=start
    )
    return model.eval()


@functools.cache
def llama() -> Any:
    return lively(tf.LlamaForCausalLM(tf.LlamaConfig(**_SMALL, num_key_value_heads=2)))


@functools.cache
def mistral() -> Any:
    config = tf.MistralConfig(**_SMALL, num_key_value_heads=2, sliding_window=6)
    return lively(tf.MistralForCausalLM(config))


@functools.cache
def llava() -> Any:
    vision = tf.CLIPVisionConfig(
        **{name: value for name, value in _SMALL.items() if name != "vocab_size"},
        image_size=8,
        patch_size=4,
    )
    text = tf.LlamaConfig(**_SMALL, num_key_value_heads=2)
    config = tf.LlavaConfig(text_config=text, vision_config=vision, image_token_index=90)
    return lively(tf.LlavaForConditionalGeneration(config))


@functools.cache
def bart() -> Any:
    return lively(
        tf.BartForConditionalGeneration(
            tf.BartConfig(
                vocab_size=96,
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                max_position_embeddings=64,
                decoder_start_token_id=1,
                forced_eos_token_id=None,
            )
        )
    )


@functools.cache
def bert() -> Any:
    return lively(tf.BertLMHeadModel(tf.BertConfig(**_SMALL, is_decoder=True)))


CACHE = cache_argument(llama(), "llama")
"""`cache` since transformers 5.24, `past_key_values` before."""


def mask(ids: Tensor) -> Tensor:
    return (ids > 0).long()


def same_for_every_draft(model: Any, assistant: Any = None, **inputs: Any) -> Tensor:
    """Our text, which is transformers' own with no draft, with prompt lookup and with a model."""
    plain = model.generate(**copy.deepcopy(inputs), **GREEDY)
    for drafts in DRAFTS:
        more = {"assistant_model": assistant or model} if "assistant" in drafts else drafts
        ours = model.generate(**copy.deepcopy(inputs), **GREEDY, **OURS, **more)
        assert torch.equal(ours, plain), more
    return plain


def picture(seed: int, count: int = 1) -> Tensor:
    return 2 * torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_picture_is_read_and_the_text_goes_on_from_it() -> None:
    ids = torch.tensor([[5, 90, 90, 90, 90, 6, 7]])
    texts = [
        same_for_every_draft(
            llava(), llama(), input_ids=ids, attention_mask=mask(ids), pixel_values=picture(seed)
        )
        for seed in (0, 1)
    ]
    assert not torch.equal(*texts)


def test_pictures_of_a_padded_batch_and_of_several_samples_are_each_rows_own() -> None:
    ids = torch.tensor([[5, 90, 90, 90, 90, 6, 7], [0, 0, 90, 90, 90, 90, 7]])
    inputs = {"input_ids": ids, "attention_mask": mask(ids), "pixel_values": picture(0, 2)}
    same_for_every_draft(llava(), llama(), **inputs)
    many = llava().generate(
        **inputs, num_return_sequences=2, max_new_tokens=8, do_sample=True, seed=3, **OURS
    )
    lone = llava().generate(
        **inputs, num_return_sequences=2, max_new_tokens=8, do_sample=True, seed=3, **OURS,
        draft=PromptLookupDrafter(),
    )  # fmt: skip
    assert torch.equal(many, lone)
    assert not torch.equal(many[0], many[1])


def test_a_pictures_prompt_may_end_in_the_picture() -> None:
    ids = torch.tensor([[5, 6, 7, 90, 90, 90, 90]])
    same_for_every_draft(
        llava(), llama(), input_ids=ids, attention_mask=mask(ids), pixel_values=picture(0)
    )


_EYE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
}
_TEXT: dict[str, Any] = _SMALL | {"num_key_value_heads": 2, "head_dim": 8}


def gemma3() -> Any:
    """Its prompt's picture sees itself whole; layers slide and do not in turn."""
    layers = ["sliding_attention", "full_attention"]
    text = _TEXT | {"sliding_window": 6, "layer_types": layers}
    config = tf.Gemma3Config(
        text_config=text, vision_config=_EYE, mm_tokens_per_image=4, image_token_index=90
    )
    return lively(tf.Gemma3ForConditionalGeneration(config))


def paligemma() -> Any:
    """It counts positions from 1."""
    config = tf.PaliGemmaConfig(
        text_config=_TEXT | {"model_type": "gemma"},
        vision_config=_EYE | {"model_type": "siglip_vision_model", "projection_dim": 32},
        image_token_index=90,
        projection_dim=32,
    )
    return lively(tf.PaliGemmaForConditionalGeneration(config))


def test_pictures_of_other_families_are_honoured_or_refused_never_dropped() -> None:
    ids = torch.tensor([[5, 90, 90, 90, 90, 6, 7]])
    inputs = {"input_ids": ids, "attention_mask": mask(ids), "pixel_values": picture(0)}
    same_for_every_draft(gemma3(), llama(), **inputs, token_type_ids=(ids == 90).long())
    types = torch.zeros_like(ids)
    refused(paligemma(), "pixel_values, token_type_ids cannot", **inputs, token_type_ids=types)
    # Without a picture nothing has to be read by transformers.
    alone = {"input_ids": IDS, "attention_mask": mask(IDS)}
    plain = paligemma().generate(**alone, **GREEDY)
    assert torch.equal(paligemma().generate(**alone, **GREEDY, **OURS), plain)


@pytest.mark.parametrize("ids", [IDS, PADDED])
def test_embeddings_beside_ids_and_alone_are_read(ids: Tensor) -> None:
    embeds = (1.5 * llama().get_input_embeddings()(ids)).detach()
    beside = same_for_every_draft(
        llama(), input_ids=ids, attention_mask=mask(ids), inputs_embeds=embeds
    )
    alone = same_for_every_draft(llama(), attention_mask=mask(ids), inputs_embeds=embeds)
    # Only new tokens come back where no ids went in.
    assert torch.equal(alone, beside[:, 7:])


def chat(model: Any, more: dict[str, Any], *, is_whole: bool, ids: Tensor) -> tuple[Any, ...]:
    """Two turns over one cache; their texts and the cache."""
    cache = tf.DynamicCache(config=model.config)
    first = model.generate(
        input_ids=ids, attention_mask=mask(ids), **{CACHE: cache}, **GREEDY, **more
    )
    turn = torch.tensor([[30, 31, 32]]).expand(len(ids), -1)
    whole = torch.cat([first, turn], dim=1)
    given = whole if is_whole else whole[:, cache.get_seq_length() :]
    second = model.generate(
        input_ids=given, attention_mask=torch.ones_like(whole), **{CACHE: cache}, **GREEDY,
        **more,
    )  # fmt: skip
    return first, second, cache


@pytest.mark.parametrize("make", [llama, mistral])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_cache_is_taken_from_and_goes_on_over_two_turns_of_a_chat(
    make: Any, is_whole: bool
) -> None:
    theirs = chat(make(), {}, is_whole=is_whole, ids=IDS)
    for more in ({}, {"prompt_lookup_num_tokens": 3}, {"assistant_model": make()}):
        ours = chat(make(), OURS | more, is_whole=is_whole, ids=IDS)
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        assert ours[2].get_seq_length() == theirs[2].get_seq_length()
        for mine, other in zip(ours[2].layers, theirs[2].layers, strict=True):
            torch.testing.assert_close(mine.keys, other.keys, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(mine.values, other.values, atol=1e-4, rtol=1e-4)


def test_a_batchs_cache_is_taken_from_where_its_rows_end_together() -> None:
    options = {"eos_token_id": None}
    theirs = chat(llama(), options, is_whole=True, ids=PADDED[:, 2:])
    ours = chat(llama(), OURS | options, is_whole=True, ids=PADDED[:, 2:])
    assert torch.equal(ours[1], theirs[1])


def test_a_cache_whose_content_is_not_the_ids_counts_as_it_does_in_transformers() -> None:
    cache = tf.DynamicCache(config=llama().config)
    with torch.no_grad():
        llama()(IDS[:, :4] + 30, **{CACHE: cache})
    same_for_every_draft(llama(), input_ids=IDS, attention_mask=mask(IDS), **{CACHE: cache})


def refused(model: Any, match: str, **inputs: Any) -> None:
    with pytest.raises(InvalidRequestError, match=match):
        model.generate(**({"input_ids": IDS, "attention_mask": mask(IDS)} | inputs | GREEDY | OURS))


def filled(num_tokens: int, num_rows: int = 1) -> Any:
    cache = tf.DynamicCache(config=llama().config)
    with torch.no_grad():
        llama()(IDS[:, :num_tokens].expand(num_rows, -1), **{CACHE: cache})
    return cache


def test_a_cache_that_does_not_fit_is_refused() -> None:
    refused(llama(), "cache of 7 tokens does not fit 7 ids", **{CACHE: filled(7)})
    refused(llama(), "cache of 2 sequences", **{CACHE: filled(3, 2)})
    ragged = {"input_ids": IDS[:, 4:], "attention_mask": mask(IDS), CACHE: filled(3)}
    refused(llama(), "mask of 7: give all ids", **ragged)
    static = tf.StaticCache(config=llama().config, max_cache_len=64)
    refused(llama(), "a StaticCache cannot be honoured", **{CACHE: static})


def test_the_cache_of_a_returned_dict_is_transformers_own() -> None:
    options = {"input_ids": PADDED, "attention_mask": mask(PADDED), "return_dict_in_generate": True}
    theirs = llama().generate(**options, **GREEDY, eos_token_id=None)
    ours = llama().generate(**options, **GREEDY, eos_token_id=None, **OURS)
    assert torch.equal(ours.sequences, theirs.sequences)
    for mine, other in zip(ours[CACHE].layers, theirs[CACHE].layers, strict=True):
        is_token = torch.cat([mask(PADDED), torch.ones(2, 11)], dim=1).bool()
        for part in ("keys", "values"):
            one, two = (getattr(x, part).transpose(1, 2)[is_token] for x in (mine, other))
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_positions_that_count_the_tokens_are_honoured_and_others_refused() -> None:
    positions = (mask(PADDED).cumsum(1) - 1).clamp(min=0)
    inputs = {"input_ids": PADDED, "attention_mask": mask(PADDED)}
    same_for_every_draft(llama(), **inputs, position_ids=positions)
    refused(llama(), "position_ids cannot be honoured", **inputs, position_ids=positions + 1)
    refused(llama(), "position_ids cannot be honoured", position_ids=3 * torch.arange(7)[None])


def test_token_types_are_honoured_where_new_tokens_need_none() -> None:
    types = torch.tensor([[1, 1, 1, 0, 0, 0, 0]])
    inputs = {"input_ids": IDS, "attention_mask": mask(IDS)}
    first = same_for_every_draft(bert(), **inputs, token_type_ids=types)
    second = same_for_every_draft(bert(), **inputs, token_type_ids=torch.zeros_like(types))
    assert not torch.equal(first, second)
    refused(bert(), "token_type_ids cannot be honoured: the last", token_type_ids=1 - types)
    # GPT-2 adds the embedding of id 0 for them, to every token.
    gpt2 = tiny.raw_model("gpt2")
    refused(gpt2, "token_type_ids cannot be honoured: gpt2", token_type_ids=0 * types)


def test_encoder_outputs_take_the_encoders_place() -> None:
    with torch.no_grad():
        states = bart().get_encoder()(input_ids=IDS + 20)
    plain = same_for_every_draft(bart(), input_ids=IDS, encoder_outputs=states)
    other = same_for_every_draft(bart(), input_ids=IDS)
    assert not torch.equal(plain, other)
    many = {"num_return_sequences": 2, "do_sample": True, "seed": 1, **OURS}
    inputs = {"input_ids": IDS, "encoder_outputs": copy.deepcopy(states)}
    sampled = bart().generate(**inputs, max_new_tokens=8, **many)
    assert sampled.shape[0] == 2


def test_embeddings_of_an_encoder_are_read_but_no_model_drafts_from_them() -> None:
    embeds = bart().get_encoder().embed_tokens(IDS).detach()
    inputs = {"inputs_embeds": embeds, "attention_mask": mask(IDS)}
    plain = bart().generate(**inputs, **GREEDY)
    for drafts in ({}, {"prompt_lookup_num_tokens": 3}):
        assert torch.equal(bart().generate(**inputs, **GREEDY, **OURS, **drafts), plain)
    with pytest.raises(InvalidRequestError, match="assistant_model cannot draft"):
        bart().generate(**inputs, **GREEDY, **OURS, assistant_model=bart())


def prophet_net() -> Any:
    """An encoder-decoder that can only be run by reading its whole text again."""
    config = tf.ProphetNetConfig(
        vocab_size=96,
        hidden_size=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        max_position_embeddings=64,
        decoder_start_token_id=1,
    )
    return lively(tf.ProphetNetForConditionalGeneration(config))


def test_an_encoder_decoder_without_our_cache_takes_ids_only() -> None:
    inputs = {"input_ids": IDS, "attention_mask": mask(IDS)}
    # Over its own cache it is another model.
    plain = prophet_net().generate(**inputs, **GREEDY, use_cache=False)
    assert torch.equal(prophet_net().generate(**inputs, **GREEDY, **OURS), plain)
    with torch.no_grad():
        states = prophet_net().get_encoder()(input_ids=IDS)
    refused(prophet_net(), "encoder_outputs cannot be honoured by", encoder_outputs=states)


def test_global_attention_is_the_encoders_own_matter() -> None:
    config = tf.LEDConfig(
        vocab_size=96,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_encoder_position_embeddings=128,
        max_decoder_position_embeddings=64,
        attention_window=4,
        decoder_start_token_id=2,
    )
    led = lively(tf.LEDForConditionalGeneration(config))
    source = torch.arange(5, 21)[None]
    everywhere = torch.zeros_like(source)
    everywhere[:, [0, 7]] = 1
    inputs = {"input_ids": source, "attention_mask": torch.ones_like(source)}
    same_for_every_draft(led, bart(), **inputs, global_attention_mask=everywhere)


def test_a_decoders_mask_may_hide_nothing() -> None:
    start = torch.tensor([[1, 9, 10]])
    same_for_every_draft(
        bart(), input_ids=IDS, decoder_input_ids=start, decoder_attention_mask=mask(start)
    )
    hiding = {"decoder_input_ids": start, "decoder_attention_mask": torch.tensor([[1, 0, 1]])}
    refused(bart(), "decoder_attention_mask cannot be honoured", **hiding)
    cache = tf.EncoderDecoderCache(tf.DynamicCache(), tf.DynamicCache())
    refused(bart(), "cannot be honoured with an encoder-decoder", **{CACHE: cache})


def test_inputs_of_the_model_that_nobody_decided_on_are_refused_by_name() -> None:
    refused(bart(), "decoder_inputs_embeds cannot be", decoder_inputs_embeds=torch.zeros(1, 1, 32))
    refused(bert(), "encoder_hidden_states cannot be", encoder_hidden_states=torch.zeros(1, 2, 32))
    refused(llama(), "output_router_logits cannot be", output_router_logits=True)


def test_what_transformers_uses_up_beforehand_is_refused_by_name() -> None:
    class Videos(tf.LlavaForConditionalGeneration):
        def forward(self, *args: Any, pixel_values_videos: Any = None, **options: Any) -> Any:
            raise AssertionError

    Videos.__module__ = "transformers.models.llava"
    with pytest.raises(InvalidRequestError, match="pixel_values_videos cannot be honoured"):
        check_inputs(Videos(llava().config), {"pixel_values_videos": picture(0)}, {})
    with pytest.raises(InvalidRequestError, match="synced_gpus"):
        check_inputs(llama(), {"synced_gpus": True}, {})


def test_a_recurrent_model_takes_no_embeddings() -> None:
    model = tiny.raw_model("mamba")
    embeds = model.get_input_embeddings()(IDS).detach()
    with pytest.raises(InvalidRequestError, match="inputs_embeds cannot be honoured by mamba: "):
        model.generate(inputs_embeds=embeds, **GREEDY, **OURS)


def test_a_model_that_feeds_itself_otherwise_is_refused() -> None:
    model = copy.deepcopy(llama())
    own = model.prepare_inputs_for_generation
    model.prepare_inputs_for_generation = functools.wraps(own)(lambda *args: own(*args))
    refused(model, "prepare_inputs_for_generation is replaced on this object")
    # What prompt tuning leaves behind: the method that the class has, kept on the object.
    model.prepare_inputs_for_generation = own
    same_for_every_draft(model, input_ids=IDS, attention_mask=mask(IDS))

    class Mine(tf.LlamaForCausalLM):
        def prepare_inputs_for_generation(
            self, input_ids: Any, attention_mask: Any = None, **kwargs: Any
        ) -> Any:
            raise AssertionError

    refused(lively(Mine(llama().config)), r"replaced by .*test_inputs.*Mine")


def test_adapters_named_for_each_row_are_refused() -> None:
    def select(module: Any, args: Any, kwargs: Any, adapter_names: list[str]) -> Any:
        return args, kwargs | {"adapter_names": adapter_names}

    model = copy.deepcopy(llama())
    layer = model.model.layers[0].self_attn.q_proj
    layer.register_forward_pre_hook(
        functools.partial(select, adapter_names=["one"]), with_kwargs=True
    )
    refused(model, "adapter_names cannot be honoured")
