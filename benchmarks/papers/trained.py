"""What the measurements share: trained folders, prompts of held-out text, and where results go."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from benchmarks.common import environment
from benchmarks.papers.packed import read_documents, read_pairs
from benchmarks.papers.shapes import PAIRS
from benchmarks.papers.vocabulary import GPT_IDS, VOCABULARY
from draftsmith.drafters import NgramTable

__all__ = [
    "drafts_of",
    "held_out_prompts",
    "held_out_sources",
    "load_trained",
    "ngram_table",
    "write_json",
]

_ORDERS = {"unigram": 1, "bigram": 2}
_SHORTEST_SOURCE = 12
"""Tokens: one-word labels of buttons are no sentences."""


def load_trained(models: Path, pair: str, name: str, device: torch.device) -> PreTrainedModel:
    """A trained model in float32: the exact law of its saved weights."""
    kind = AutoModelForCausalLM if pair == "gpt" else AutoModelForSeq2SeqLM
    folder = str(models / pair / name)
    model: Any = kind.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    return model.to(device).eval()


def drafts_of(models: Path, pair: str) -> list[str]:
    """The trained drafts of a pair that are there."""
    return [name for name in PAIRS[pair][1:] if (models / pair / name / "config.json").exists()]


def held_out_prompts(data: Path, count: int, num_tokens: int) -> list[list[int]]:
    """How some held-out documents begin, `[CLS]` first."""
    documents = read_documents(data / "gpt" / "valid.u16")
    long = [document for document in documents if len(document) > 2 * num_tokens]
    return [document[:num_tokens].tolist() for document in long[:count]]


def held_out_sources(data: Path, count: int) -> list[list[int]]:
    """Some held-out English sentences, each with its `</s>`."""
    sources, _ = read_pairs(data / "t5" / "valid.u16")
    long = [source.tolist() for source in sources if len(source) >= _SHORTEST_SOURCE]
    return long[:count]


def ngram_table(data: Path, pair: str, name: str) -> NgramTable:
    """The unigram or bigram table of the training text (for T5: of the German side).

    It is counted once and kept beside the data. Smoothing: one pseudo-count after every token,
    spread as the unigram is.
    """
    path = data / pair / f"{name}.npz"
    if not path.exists():
        texts = _training_texts(data, pair, is_bigram=name == "bigram")
        part = path.with_suffix(".part")
        NgramTable.from_tokens(texts, VOCABULARY, _ORDERS[name]).save(part)
        part.rename(path)
    return NgramTable.load(path)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a result with its environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**document, "environment": environment()}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


def _training_texts(data: Path, pair: str, is_bigram: bool) -> Sequence[list[int]]:
    if pair == "gpt":
        # What begins a document is given, never generated: a unigram must not draw it.
        first = 0 if is_bigram else 1
        documents = read_documents(data / "gpt" / "train.u16")
        assert documents[0][0] == GPT_IDS["[CLS]"]
        return [document[first:].tolist() for document in documents]
    _, targets = read_pairs(data / "t5" / "train.u16")
    start = [0] if is_bigram else []
    return [start + target.tolist() for target in targets]
