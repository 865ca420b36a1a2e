"""Tiny whole checkpoints that `fuzz_loads` damages: GGUF files and folders of safetensors."""

from pathlib import Path

import torch
from tests import tiny
from tests.models.gguf.files import write_gguf
from tests.models.gguf.vocabularies import BYTE, BYTES, CONTROL, NORMAL, UNKNOWN, write

from benchmarks.gguf_models import FAMILIES, write_model
from draftsmith.models.gguf.alphabet import BYTES as LETTERS

__all__ = ["write_folders", "write_ggufs"]

_FOLDERS = ("llama", "qwen3", "mistral-sliding", "t5", "gpt2", "gemma2-sliding", "bart")
_PIECES = ["▁a", "▁the", "b", "c", "▁"]


def write_ggufs(place: Path) -> list[Path]:
    """Whole models of several families and formats, and both kinds of vocabularies."""
    place.mkdir(parents=True)
    for kind in ("llama", "qwen2", "qwen3"):
        write_gguf(place / f"{kind}.gguf", tiny.raw_model(kind))
    for family, format in (("phi3", "Q8_0"), ("gemma3", "Q4_0"), ("granite", "Q4_K")):
        write_model(place / f"{family}.gguf", FAMILIES[family], format)
    pieces = ["<unk>", "<s>", "</s>", *BYTES, *_PIECES]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(_PIECES)]
    scores = [-float(number) for number in range(len(pieces))]
    write(place / "pieces.gguf", pieces, types, scores=scores, bos_token_id=1, eos_token_id=2)
    tokens = [*LETTERS, "ab", "abc", "<end>"]
    write(
        place / "pairs.gguf",
        tokens,
        [*[NORMAL] * (len(tokens) - 1), CONTROL],
        merges=["a b", "ab c"],
        pre="gpt-2",
        eos_token_id=len(tokens) - 1,
        chat_template="{% for turn in messages %}{{ turn['content'] }}{% endfor %}",
    )
    return sorted(place.glob("*.gguf"))


def write_folders(place: Path) -> list[Path]:
    """Models that our decoders run and some that the adapter does, each with a tokenizer."""
    tokenizer = tiny.raw_tokenizer()
    for kind in _FOLDERS:
        model = tiny.raw_model(kind, vocab_size=len(tokenizer))
        model.save_pretrained(place / kind)
        tokenizer.save_pretrained(place / kind)
    scaled = tiny.raw_model(
        "qwen2",
        vocab_size=len(tokenizer),
        rope_parameters={"rope_type": "yarn", "factor": 2.0, "rope_theta": 1000.0},
    )
    scaled.to(torch.bfloat16).save_pretrained(place / "sharded", max_shard_size="40KB")
    tokenizer.save_pretrained(place / "sharded")
    return sorted(path for path in place.iterdir() if path.is_dir())
