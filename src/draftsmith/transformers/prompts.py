"""What the user hands to the model: prompts, pictures, embeddings, caches; honoured or refused."""
# transformers' objects have no types that hold from one version to the next:
# pyright: basic

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.arguments import accepted_arguments
from draftsmith.models.hf.goes_on import goes_on_alike
from draftsmith.models.hf.read import (
    EncodedModel,
    ReadModel,
    new_cache,
    read_prompts,
    takes_prompts,
    takes_sources,
    why_not_read,
)

__all__ = ["Prompts", "check_inputs", "take_prompts"]

_CACHES = ("cache", "past_key_values", "cache_params")
_PICTURES = {"pixel_values", "pixel_attention_mask", "image_sizes", "mm_encoder_outputs"}
_PROMPT_ONLY = _PICTURES | {"inputs_embeds", "token_type_ids"}
"""Inputs of a decoder-only model's prompt that transformers has to read."""
_TEXT = {"input_ids", "attention_mask", "use_cache", "inputs_embeds", "token_type_ids", *_CACHES}
_DECODER_ONLY = _TEXT | _PICTURES | {"position_ids"}
_ENCODED = {"encoder_outputs", "inputs_embeds", "global_attention_mask", "token_type_ids"}
"""What an encoder reads beside ids, or has made."""
_ENCODER_DECODER = _TEXT | {
    "decoder_input_ids",
    "decoder_attention_mask",
    "encoder_outputs",
    "global_attention_mask",
}
_PREPARED = {"logits_to_keep"}
"""What transformers adds by itself, and no text depends on."""

_tried: WeakKeyDictionary[Any, set[frozenset[str]]] = WeakKeyDictionary()
"""Inputs after which a model was seen to go on as transformers has it go on."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of a call, unpadded."""

    target: LanguageModel
    tokens: list[list[int]]
    """Of each row, what the engine and its drafters know."""
    sources: list[list[int]]
    """The encoder's; empty for a decoder-only model, and where only its output is known."""
    num_hidden: list[int]
    """Places of each row that are no tokens: embeddings, and what a cache held before."""
    read: ReadModel | None = None
    """The target, if transformers has read the prompts."""
    cache: Any = None
    """What they were read into, where the user sees it."""


def check_inputs(model: Any, arguments: Mapping[str, Any], model_kwargs: Mapping[str, Any]) -> None:
    """Refuse inputs of the model that cannot be honoured exactly.

    Args:
        model: The object of `transformers`.
        arguments: What the user passed to `generate`.
        model_kwargs: What has become of it, and what was prepared.

    Raises:
        InvalidRequestError: If there is one, naming it.
    """
    _check_model(model)
    if arguments.get("synced_gpus"):
        raise InvalidRequestError("synced_gpus=True cannot be honoured: generate on one device")
    known = _ENCODER_DECODER if model.config.is_encoder_decoder else _DECODER_ONLY
    inputs = accepted_arguments(model)
    # What transformers has used up (a video's grid) is in the first only, what it made in the last.
    for name in [*(name for name in arguments if name in inputs), *model_kwargs]:
        given = arguments.get(name) is not None or model_kwargs.get(name) is not None
        if given and name not in known and not (name in _PREPARED and name not in arguments):
            raise InvalidRequestError(f"{name} cannot be honoured: leave it out")


def _check_model(model: Any) -> None:
    """Refuse a model that feeds itself otherwise than `transformers` would."""
    name = "prepare_inputs_for_generation"
    kind = type(model)
    owner = next(one for one in kind.__mro__ if name in vars(one))
    own = vars(model).get(name)
    is_replaced = own is not None and getattr(own, "__func__", None) is not getattr(kind, name)
    if is_replaced or not owner.__module__.startswith("transformers."):
        where = "on this object" if is_replaced else f"by {owner.__module__}.{owner.__qualname__}"
        raise InvalidRequestError(
            f"{kind.__name__}.{name} is replaced {where} (prompt tuning does so): its inputs "
            "cannot be honoured, generate without custom_generate"
        )
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    if any("adapter_names" in getattr(hook, "keywords", {}) for hook in hooks):
        raise InvalidRequestError(
            "adapter_names cannot be honoured: generate for one adapter at a time (set_adapter)"
        )


def take_prompts(
    model: Any,
    target: LanguageModel,
    input_ids: Tensor,
    inputs_tensor: Tensor | None,
    config: Any,
    arguments: Mapping[str, Any],
    model_kwargs: dict[str, Any],
) -> Prompts:
    """The prompts, and the target that goes on from them.

    Args:
        model: The object of `transformers`.
        target: The same behind our contract.
        input_ids: The decoder's, padded on the left.
        inputs_tensor: What the encoder was given.
        config: The generation config.
        arguments: What the user passed to `generate`.
        model_kwargs: What `transformers` has prepared.

    Raises:
        InvalidRequestError: If they cannot be honoured exactly.
    """
    if target.traits.is_encoder_decoder:
        return _encoded(target, input_ids, inputs_tensor, arguments, model_kwargs)
    _check_positions(input_ids, model_kwargs)
    given = {name: model_kwargs.get(name) for name in _PROMPT_ONLY}
    # Beside text alone, mm_encoder_outputs is there and empty.
    special = {name for name, value in given.items() if value is not None and len(value) > 0}
    has_cache = any(arguments.get(name) is not None for name in _CACHES)
    if special or has_cache or (config.return_dict_in_generate and takes_prompts(target)):
        # transformers has replaced pictures by what their encoder made of them: say what was typed.
        typed = {name for name in _PROMPT_ONLY if arguments.get(name) is not None} or special
        return _read(model, target, input_ids, config, has_cache, typed, model_kwargs)
    rows = _rows(input_ids, model_kwargs.get("attention_mask"))
    return Prompts(target, rows, [[] for _ in rows], [0] * len(rows))


def _encoded(
    target: LanguageModel,
    input_ids: Tensor,
    inputs_tensor: Tensor | None,
    arguments: Mapping[str, Any],
    model_kwargs: dict[str, Any],
) -> Prompts:
    """An encoder-decoder's: `transformers` has run the encoder, whatever it was given."""
    for name in _CACHES:
        if arguments.get(name) is not None:
            raise InvalidRequestError(f"{name} cannot be honoured with an encoder-decoder")
    mask = model_kwargs.get("decoder_attention_mask")
    if mask is not None and not bool((mask == 1).all()):
        raise InvalidRequestError(
            "decoder_attention_mask cannot be honoured where it hides a token: all must be 1"
        )
    if not takes_sources(target):
        return _encoded_again(target, input_ids, inputs_tensor, arguments, model_kwargs)
    states = model_kwargs["encoder_outputs"][0]
    keep = model_kwargs.get("attention_mask")
    if states.ndim != 3 or (keep is not None and keep.shape != states.shape[:2]):
        raise InvalidRequestError("encoder_outputs cannot be honoured: not one state a token")
    kept = torch.ones(states.shape[:2]).bool() if keep is None else keep.cpu().bool()
    rows = [state[one.to(state.device)] for state, one in zip(states, kept, strict=True)]
    sources = _sources(inputs_tensor, kept)
    return Prompts(EncodedModel(target, rows), input_ids.tolist(), sources, [0] * len(rows))


def _encoded_again(
    target: LanguageModel,
    input_ids: Tensor,
    inputs_tensor: Tensor | None,
    arguments: Mapping[str, Any],
    model_kwargs: Mapping[str, Any],
) -> Prompts:
    """An encoder-decoder's that can only encode token ids by itself."""
    for name in sorted(_ENCODED):
        if arguments.get(name) is not None:
            why = target.traits.why_no_rollback
            raise InvalidRequestError(f"{name} cannot be honoured by {target.traits.name}: {why}")
    keep = model_kwargs.get("attention_mask")
    kept = torch.ones(model_kwargs["encoder_outputs"][0].shape[:2]) if keep is None else keep
    if bool((kept.diff(dim=1) > 0).any()):
        raise InvalidRequestError("pad an encoder's inputs on the right (padding_side='right')")
    sources = _sources(inputs_tensor, kept)
    return Prompts(target, input_ids.tolist(), sources, [0] * len(sources))


def _sources(inputs_tensor: Tensor | None, kept: Tensor) -> list[list[int]]:
    """The encoder's tokens, for drafters; empty where it was given something else."""
    ids = inputs_tensor
    # -100 stands for tokens that nobody gave.
    if ids is None or ids.ndim != 2 or ids.is_floating_point() or bool((ids < 0).any()):
        return [[] for _ in kept]
    # num_return_sequences repeats the encoder's output and the mask, but not its ids.
    ids = ids.repeat_interleave(len(kept) // len(ids), dim=0)
    return _rows(ids, kept)


def _check_positions(input_ids: Tensor, model_kwargs: Mapping[str, Any]) -> None:
    """Refuse positions that do not count the tokens."""
    given = model_kwargs.get("position_ids")
    if given is None:
        return
    mask = model_kwargs.get("attention_mask")
    if mask is None:
        counted = torch.arange(given.shape[-1], device=given.device)
    else:
        counted = (mask.long().cumsum(-1) - 1).to(given.device)[:, -given.shape[-1] :]
        hidden = (mask == 0).to(given.device)[:, -given.shape[-1] :]
        given = given.masked_fill(hidden, 0)
        counted = counted.masked_fill(hidden, 0)
    if not bool((given == counted).all()):
        raise InvalidRequestError(
            "position_ids cannot be honoured: they must be 0, 1, 2 … over the tokens of each row "
            "(leave them out)"
        )


def _read(
    model: Any,
    target: LanguageModel,
    input_ids: Tensor,
    config: Any,
    has_cache: bool,
    special: set[str],
    model_kwargs: dict[str, Any],
) -> Prompts:
    """A decoder-only model's, read by `transformers`."""
    names = sorted(special) or ["a cache"]
    if not takes_prompts(target):
        why = target.traits.why_no_rollback or "its keys and values depend on the text's length"
        kind = model.config.model_type
        raise InvalidRequestError(f"{', '.join(names)} cannot be honoured by {kind}: {why}")
    _check_types(model_kwargs)
    cache_name = next(name for name in (*_CACHES, "cache") if name in model_kwargs)
    if not has_cache:
        # A static cache cannot be taken from; which one it is changes no text.
        model_kwargs[cache_name] = new_cache(model)
    cache = model_kwargs[cache_name]
    mask = model_kwargs.get("attention_mask")
    _check_cache(cache, input_ids, mask, config, model_kwargs)
    read = read_prompts(
        model, input_ids, config, cache, model_kwargs, None if mask is None else mask.bool()
    )
    if special - {"inputs_embeds"}:
        _check_goes_on(model, target, input_ids, model_kwargs, cache_name, special, read)
    width = input_ids.shape[1]
    tokens = [[0]] * len(input_ids)  # for embeddings alone: a token that nobody sees
    if width:
        tokens = _rows(input_ids, None if mask is None else mask[:, -width:])
    hidden = [one.num_columns - len(row) for one, row in zip(read[0], tokens, strict=True)]
    reading = ReadModel(target, read[0])
    shown = cache if has_cache or config.return_dict_in_generate else None
    return Prompts(reading, tokens, [[] for _ in tokens], hidden, reading, shown)


def _check_types(model_kwargs: Mapping[str, Any]) -> None:
    types = model_kwargs.get("token_type_ids")
    if types is not None and bool(types[:, -1].any()):
        raise InvalidRequestError(
            "token_type_ids cannot be honoured: the last token's, which new tokens inherit, "
            "must be 0"
        )


def _check_cache(
    cache: Any, input_ids: Tensor, mask: Tensor | None, config: Any, model_kwargs: Mapping[str, Any]
) -> None:
    """Refuse a cache that cannot be taken from, or whose length does not fit the ids."""
    reason = why_not_read(cache)
    if reason:
        raise InvalidRequestError(f"{reason} cannot be honoured: pass a DynamicCache, or none")
    embeds = model_kwargs.get("inputs_embeds")
    num_past, num_ids = cache.get_seq_length(), input_ids.shape[1]
    if embeds is not None:
        if num_ids not in (0, embeds.shape[1]):
            raise InvalidRequestError(
                f"inputs_embeds has {embeds.shape[1]} columns, input_ids {num_ids}: give as many"
            )
        num_ids = embeds.shape[1]
    num_masked = mask.shape[1] if mask is not None else getattr(config, "_mask_length", num_ids)
    is_whole = num_masked == num_ids and num_past < num_ids
    is_newest = num_masked == num_past + num_ids and embeds is None
    if not (is_whole or is_newest):
        raise InvalidRequestError(
            f"a cache of {num_past} tokens does not fit {num_ids} ids under an attention_mask of "
            f"{num_masked}: give all ids, the cache's among them, or the new ones only and a mask "
            "over both"
        )
    sizes = {len(layer.keys) for layer in cache.layers if layer.is_initialized}
    if sizes - {len(input_ids)}:
        raise InvalidRequestError(
            f"a cache of {sizes.pop()} sequences does not fit {len(input_ids)} prompts"
        )


def _check_goes_on(
    model: Any,
    target: LanguageModel,
    input_ids: Tensor,
    model_kwargs: dict[str, Any],
    cache_name: str,
    special: set[str],
    read: Any,
) -> None:
    """Try once whether the model goes on as transformers has it go on."""
    tried = _tried.setdefault(model, set())
    if frozenset(special) in tried:
        return
    if not goes_on_alike(model, target, input_ids, model_kwargs, cache_name, read):
        raise InvalidRequestError(
            f"{', '.join(sorted(special))} cannot be honoured: {model.config.model_type} needs "
            "more of it after the prompt than tokens and a cache"
        )
    tried.add(frozenset(special))


def _rows(ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    if mask is None:
        return ids.tolist()
    if mask.shape != ids.shape:
        raise InvalidRequestError(
            f"attention_mask has shape {tuple(mask.shape)}, ids {tuple(ids.shape)}"
        )
    pairs = zip(ids, mask.to(ids.device), strict=True)
    return [row[keep.bool()].tolist() for row, keep in pairs]
