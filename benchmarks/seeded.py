"""Same seed, same text: every format, drafter and gamma, alone and batched, beside plain decoding.

    python -m benchmarks.seeded            # SmolLM2 in every format, and the Qwen pair as stored
    python -m benchmarks.seeded --only Q4_1 qwen
    python -m benchmarks.seeded --resume   # goes on where the JSON of the same options ends

20 problems of HumanEval, greedy and at temperature 0.8; the JSON is written after each line.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, environment, humaneval_prompts, write_result
from draftsmith import (
    Drafter,
    ModelDrafter,
    NgramDrafter,
    NgramTable,
    PromptLookupDrafter,
    RandomDrafter,
    SamplingParams,
    SpeculativeDrafter,
)
from draftsmith.audit.equality import generated
from draftsmith.kernels.matrix import Matrix
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

SMALL, TARGET, DRAFT = (
    "smollm2-135m-instruct",
    "qwen2.5-coder-1.5b-instruct",
    "qwen2.5-coder-0.5b-instruct",
)
FORMATS = ("F32", "BF16", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
GAMMAS = (1, 4, 8)
DRAFTERS = ("model", "prompt-lookup", "bigram", "random", "model over prompt-lookup")
BATCH = 5
HEAD_IDS = 16_384


def main() -> None:
    """Compare every configuration's tokens with plain decoding's."""
    options = _options()
    prompts_text = humaneval_prompts(options.prompts)
    settings = {name: value for name, value in vars(options).items() if name != "resume"}
    settings |= {"seed": 7, "batch": BATCH}
    rows = _rows_of(settings) if options.resume else []
    for name, target, draft, tokenizer_name in _pairs(options.only):
        tokenizer = load_tokenizer(tokenizer_name)
        prompts = [tokenizer.encode(text) for text in prompts_text]
        for temperature in options.temperatures:
            params = SamplingParams(
                max_tokens=options.new_tokens, temperature=temperature, seed=7, ignore_eos=True
            )
            of_this = {"weights": name, "temperature": temperature}
            done = [row for row in rows if row.items() >= of_this.items()]
            known = {(row["draft"], row["gamma"], row["batch"]) for row in done}
            if len(known) == len(_configurations()):
                continue
            plain, _ = generated(target, None, 0, prompts, params)
            for row in _compare(target, draft, prompts, plain, params, known):
                rows.append({**of_this, **row})
                print(rows[-1], flush=True)
                _write(settings, rows)
    print(len(rows), all(row["num_same"] == row["num_texts"] for row in rows))


def _rows_of(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What the JSON has, if it is of the same options."""
    path = Path(RESULTS) / "seeded.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return document["rows"] if document.get("settings") == settings else []


def _write(settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    document: dict[str, Any] = {
        "what": "tokens equal to plain decoding's, alone and in batches",
        "environment": environment(),
        "settings": settings,
        "all_same": all(row["num_same"] == row["num_texts"] for row in rows),
        "num_texts": sum(row["num_texts"] for row in rows),
        "rows": rows,
    }
    write_result("seeded", document)


def _configurations() -> list[tuple[str, int, int]]:
    """Drafter, gamma and batch size of every comparison."""
    sizes = [(gamma, batch) for gamma in GAMMAS for batch in ((1, BATCH) if gamma == 4 else (1,))]
    return [(name, gamma, batch) for name in DRAFTERS for gamma, batch in sizes]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="formats of SmolLM2, or qwen")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--resume", action="store_true", help="leave out what the JSON has")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    return parser.parse_args()


def _pairs(only: list[str]) -> Iterator[tuple[str, LanguageModel, LanguageModel, str]]:
    """(what the weights are, target, draft, whose tokenizer)."""
    settings = ModelSettings(device="cpu")
    small = load_model(SMALL, settings)
    assert isinstance(small, CpuDecoder)
    # The target itself with a reduced head: a draft that is mostly right.
    for format in ("as stored", *FORMATS):
        if only and format not in only:
            continue
        weights = small.weights if format == "as stored" else _converted(small.weights, format)
        target = CpuDecoder(weights, small.config, SMALL)
        draft = CpuDecoder(weights, small.config, SMALL, num_head_ids=HEAD_IDS)
        yield f"{SMALL}, {format}", target, draft, SMALL
    if only and "qwen" not in only:
        return
    draft = load_model(DRAFT, settings, num_head_ids=HEAD_IDS)
    yield f"{TARGET}, as stored", load_model(TARGET, settings), draft, TARGET
    exact = replace(settings, activations="float32")
    yield f"{DRAFT}, as stored, float32 activations", load_model(DRAFT, exact), draft, DRAFT


def _converted(weights: DecoderWeights, format: str) -> DecoderWeights:
    """The same shape with every matrix in another format: perhaps a different model."""

    def matrix(one: Matrix) -> Matrix:
        return Matrix.from_float(one.dequantise(), format)

    def layer(one: LayerWeights) -> LayerWeights:
        projections = {
            name: replace(value, matrix=matrix(value.matrix))
            for name, value in vars(one).items()
            if isinstance(value, Projection)
        }
        return replace(one, **projections)

    embedding = matrix(weights.embedding)
    is_tied = weights.head is weights.embedding
    return replace(
        weights,
        embedding=embedding,
        layers=tuple(map(layer, weights.layers)),
        head=embedding if is_tied else matrix(weights.head),
    )


def _compare(
    target: LanguageModel,
    draft: LanguageModel,
    prompts: list[list[int]],
    plain: list[tuple[int, ...]],
    params: SamplingParams,
    known: set[tuple[str, int, int]],
) -> Iterator[dict[str, Any]]:
    vocab_size = target.traits.vocab_size
    # The bigram learns from what the target says.
    table = NgramTable.from_tokens(plain, vocab_size)
    drafters: dict[str, Drafter] = {
        "model": ModelDrafter(draft),
        "prompt-lookup": PromptLookupDrafter(),
        "bigram": NgramDrafter(table),
        "random": RandomDrafter(vocab_size),
        "model over prompt-lookup": SpeculativeDrafter(draft, PromptLookupDrafter()),
    }
    assert tuple(drafters) == DRAFTERS
    for name, gamma, batch in _configurations():
        if (name, gamma, batch) in known:
            continue
        start = time.perf_counter()
        texts, _ = generated(target, drafters[name], gamma, prompts, params, batch)
        yield {
            "draft": name,
            "gamma": gamma,
            "batch": batch,
            "num_texts": len(texts),
            "num_same": sum(a == b for a, b in zip(texts, plain, strict=True)),
            "seconds": round(time.perf_counter() - start, 1),
        }


if __name__ == "__main__":
    main()
