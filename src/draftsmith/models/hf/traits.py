"""What a model of `transformers` says of itself, before anything is run."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from draftsmith.core.values import is_whole
from draftsmith.errors import ModelFormatError
from draftsmith.models.contract import ModelTraits
from draftsmith.models.hf.positions import context_length, position_limit, source_length

__all__ = ["traits_of"]

_SLIDES_BY_ITS_CACHE = {"moshi"}
"""Families whose attention looks at all that it is given: only their own cache makes it slide."""


def traits_of(model: Any, name: str) -> ModelTraits:
    """What the engine must know of a model of `transformers`.

    Raises:
        ModelFormatError: If it cannot generate, or not exactly.
    """
    config = model.config.get_text_config(decoder=True)
    reason = _why_no_rollback(model)
    start: Any = model.generation_config.decoder_start_token_id
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    if model.config.is_encoder_decoder and start is None:
        raise ModelFormatError(f"{name} has no decoder_start_token_id: set it in its config")
    if model.config.is_encoder_decoder and not (is_whole(start) and 0 <= start < config.vocab_size):
        raise ModelFormatError(
            f"{name}: decoder_start_token_id must be below the vocab_size of {config.vocab_size}, "
            f"got {start!r:.60}: set it in its config"
        )
    return ModelTraits(
        name=name,
        vocab_size=int(config.vocab_size),
        eos_token_ids=_eos_token_ids(model),
        context_length=context_length(config),
        position_limit=position_limit(model),
        source_length=source_length(config) if model.config.is_encoder_decoder else None,
        is_encoder_decoder=bool(model.config.is_encoder_decoder),
        decoder_start_token_id=start if model.config.is_encoder_decoder else None,
        can_rollback=not reason,
        why_no_rollback=reason,
    )


def _why_no_rollback(model: Any) -> str:
    """Why the model's state cannot forget tokens; empty if it can."""
    if getattr(model, "_is_stateful", False):
        return f"{model.config.model_type} keeps a recurrent state"
    if model.config.is_encoder_decoder:
        return _why_rows_mix(model.config)
    if model.config.model_type in _SLIDES_BY_ITS_CACHE:
        return f"{model.config.model_type}'s window is what its cache has not dropped yet"
    layers = DynamicCache(config=model.config).layers
    # Sliding layers are plain here: our cache drops nothing, and the mask does the sliding.
    known = (DynamicLayer, DynamicSlidingWindowLayer)
    odd = [type(layer).__name__ for layer in layers if type(layer) not in known]
    return f"{model.config.model_type} has a {odd[0]}" if odd else ""


def _why_rows_mix(config: Any) -> str:
    """Why a text depends on its neighbours, for an encoder-decoder; empty if it does not."""
    share = getattr(config, "moe_eval_capacity_token_fraction", 1.0)
    if share == 1.0:
        return ""
    raise ModelFormatError(
        f"{config.model_type} drops tokens where others of a pass fill an expert "
        f"(moe_eval_capacity_token_fraction {share}): set it to 1.0 in its config"
    )


def _eos_token_ids(model: Any) -> tuple[int, ...]:
    ids = model.generation_config.eos_token_id
    if ids is None:
        ids = getattr(model.config, "eos_token_id", None)
    if ids is None:
        return ()
    # -1 stands for none.
    return tuple(one for one in ([ids] if isinstance(ids, int) else ids) if one >= 0)
