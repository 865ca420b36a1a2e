"""Tiny models with random weights, of every kind that matters, and a tiny tokenizer."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from draftsmith.kernels.cpu.library import set_num_threads
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.load import wrap_model

VOCAB = 96
EOS = 1

# Tiny models gain nothing from threads, and test workers share the cores.
torch.set_num_threads(1)
set_num_threads(1)

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_token_id": 0,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}
_LLAMA = _COMMON | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _LLAMA),
    "qwen2": ("Qwen2", _LLAMA),
    "qwen3": ("Qwen3", _LLAMA | {"head_dim": 8}),
    "mistral-sliding": ("Mistral", _LLAMA | {"sliding_window": 6}),
    "gemma2-sliding": ("Gemma2", _LLAMA | {"head_dim": 8, "sliding_window": 6}),
    "gpt2": ("GPT2", _COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "opt": (
        "OPT",
        _COMMON
        | {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "word_embed_proj_dim": 32,
        },
    ),
    "gpt-neox": (
        "GPTNeoX",
        _COMMON
        | {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        },
    ),
    "bloom-alibi": ("Bloom", _COMMON | {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "t5": (
        "T5",
        _COMMON
        | {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16,
        },
    ),
    "bart": (
        "Bart",
        _COMMON
        | {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 128,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
        },
    ),
    "mamba": ("Mamba", _COMMON | {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}),
}
CAUSAL = tuple(name for name in _CONFIGS if name not in ("t5", "bart", "mamba"))
ENCODER_DECODER = ("t5", "bart")
_LIVELY: dict[str, tuple[int, dict[str, Any]]] = {
    "t5": (2, {"tie_word_embeddings": False}),
    "bart": (8, {}),
    "gemma2-sliding": (8, {}),
}


def raw_model(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A `transformers` model with random weights, sharp enough to have clear favourites."""
    name, options = _CONFIGS[kind]
    config = getattr(transformers, f"{name}Config")(**options | changes)
    is_pair = kind in ENCODER_DECODER
    suffix = {"Bloom": "ForCausalLM", "GPT2": "LMHeadModel"}.get(name, "ForCausalLM")
    kinds = getattr(transformers, f"{name}{'ForConditionalGeneration' if is_pair else suffix}")
    torch.manual_seed(seed)
    model = kinds(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
    return model


def model(kind: str, seed: int = 0, **changes: Any) -> LanguageModel:
    """The same behind our contract."""
    return wrap_model(raw_model(kind, seed, **changes), name=f"tiny-{kind}")


def raw_tokenizer(vocab_size: int = VOCAB + 256) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few lines, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<eos>", "<user>", "<bot>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = ["the quick brown fox jumps over the lazy dog", "def add(a, b):\n    return a + b\n"]
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", bos_token="<pad>"
    )
    fast.chat_template = (
        "{% for message in messages %}<user>{{ message['content'] }}{% endfor %}<bot>"
    )
    return fast


def save_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A folder that `--target` can name: a tiny llama and its tokenizer."""
    tokenizer = raw_tokenizer()
    raw_model("llama", seed, vocab_size=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lively_model(kind: str) -> Any:
    """A `transformers` model whose greedy text goes on changing, and with the prompt too."""
    seed, changes = _LIVELY.get(kind, (3, {}))
    return raw_model(kind, seed, **changes)


def near_twin(model: Any, noise: float = 0.02, seed: int = 9) -> Any:
    """A copy with weights a little off: a draft that is right often, but not always."""
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.ndim > 1:
                parameter += noise * torch.randn(parameter.shape, generator=generator)
    return twin.eval()
