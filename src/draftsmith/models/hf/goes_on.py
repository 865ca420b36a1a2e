"""Whether a text goes on from a read prompt as `transformers` has it go on, tried by one token."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.hf.read import ReadModel, ReadPrompt

__all__ = ["goes_on_alike"]


def goes_on_alike(
    model: Any,
    inner: LanguageModel,
    input_ids: Tensor,
    model_kwargs: dict[str, Any],
    cache_name: str,
    read: tuple[Sequence[ReadPrompt], Any],
) -> bool:
    """Whether the second token's logits are `transformers`' own, but for numerics.

    They are not where a model wants more after its prompt than tokens, positions and a cache:
    token types, another count of positions, a picture for cross-attention.

    Args:
        model: The object of `transformers` that has read the prompts.
        inner: The same behind our contract.
        input_ids: As they were read.
        model_kwargs: As they were read; nothing in them is changed.
        cache_name: Which of them is the cache.
        read: What `read_prompts` gave.
    """
    prompts, output = read
    tokens = torch.stack([prompt.logits.argmax() for prompt in prompts])
    theirs = _their_step(model, input_ids, model_kwargs, cache_name, output, tokens)
    ours = _our_step(inner, prompts, tokens.tolist())
    spread = float(theirs.max() - theirs.min())
    share = 1e-3 if theirs.dtype == torch.float32 else 5e-2
    return float((ours.float() - theirs.float()).abs().max()) <= share * spread


@torch.no_grad()
def _their_step(
    model: Any,
    input_ids: Tensor,
    model_kwargs: dict[str, Any],
    cache_name: str,
    output: Any,
    tokens: Tensor,
) -> Float[Tensor, "batch vocab"]:
    cache = copy.deepcopy(model_kwargs[cache_name])
    later = model._update_model_kwargs_for_generation(output, dict(model_kwargs))
    ids = torch.cat([input_ids, tokens.unsqueeze(1).to(input_ids.device)], dim=1)
    inputs = model.prepare_inputs_for_generation(
        ids, next_sequence_length=1, **(later | {cache_name: cache})
    )
    return model(**inputs, return_dict=True).logits[:, -1]


def _our_step(
    inner: LanguageModel, prompts: Sequence[ReadPrompt], tokens: list[int]
) -> Float[Tensor, "batch vocab"]:
    trial = ReadModel(inner, prompts)
    cache = trial.open_cache()
    rows = [cache.add() for _ in prompts]
    for row in rows:
        trial.prefill(cache, row, [])
    return trial.forward(cache, Rows(rows, [[0, token] for token in tokens]))[:, 1]
