"""Tiny models of `transformers` with random weights, and tokenizers of words, for probes."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

__all__ = ["new_toy_cache", "toy_model", "toy_tokenizer"]

_SPREAD = 0.25
"""Of the weights: wide enough for clear favourites."""


def toy_model(vocab_size: int, seed: int) -> Any:
    """A Llama of two layers that never ends a text by itself.

    Args:
        vocab_size: How many ids.
        seed: Of the weights.
    """
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, _SPREAD, generator=generator)
    model.generation_config = GenerationConfig(pad_token_id=0, bos_token_id=1, eos_token_id=None)
    return model.eval()


def toy_tokenizer(words: Sequence[str]) -> Any:
    """A tokenizer of `transformers` whose ids are the places of these words."""
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=words[0]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=words[0], pad_token=words[0])


def new_toy_cache(model: Any) -> Any:
    """An empty cache of `transformers` for a toy model."""
    return DynamicCache(config=model.config)
