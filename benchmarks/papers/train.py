"""Train one model of a pair for some minutes.

    python -m benchmarks.papers.train gpt target --data DATA --out MODELS --minutes 5 --compile

Writes a folder that `transformers` and draftsmith load, with the pair's tokenizer and
`training.json`: settings, tokens per second, and the loss on held-out text as it fell. Models of
one pair see the same batches in the same order; the learning rate follows the clock, so that a
faster machine trains on more of them.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from benchmarks.papers.batches import Batch, PairBatches, TextBatches
from benchmarks.papers.shapes import CONTEXT, PAIRS, count, new_model

_CHECK_EVERY = 10
"""Steps between two looks at the clock: each waits for the device."""
_WARM_UP = 0.03
_LAST_RATE = 0.02
_EVALUATIONS = 6


def main() -> None:
    """Train, evaluate, save."""
    options = _options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(options.seed)
    data = options.data / options.pair
    train = _batches(options, data / "train.u16", device)
    valid = _batches(options, data / "valid.u16", device)
    model = new_model(options.pair, options.name, is_tiny=options.tiny).to(device)
    document = {
        "pair": options.pair,
        "name": options.name,
        "settings": {name: str(value) for name, value in vars(options).items()},
        "weights": count(model),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(document["weights"]), flush=True)
    document |= _train(model, train, valid, options)
    _save(model, data / "tokenizer", options.out / options.pair / options.name, document)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", choices=sorted(PAIRS))
    parser.add_argument(
        "name", choices=sorted({name for names in PAIRS.values() for name in names})
    )
    parser.add_argument("--data", type=Path, required=True, help="what benchmarks.papers.data made")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="compilation not counted")
    parser.add_argument("--batch-tokens", type=int, default=32_768)
    parser.add_argument("--held-out-tokens", type=int, default=262_144, help="per evaluation")
    parser.add_argument("--rate", type=float, help="the highest learning rate")
    parser.add_argument("--compile", action="store_true", help="the decoder-only models' layers")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the scripts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.name not in PAIRS[options.pair]:
        parser.error(f"{options.pair} has the models {', '.join(PAIRS[options.pair])}")
    if options.compile and options.pair != "gpt":
        parser.error("--compile is for gpt: a T5's batches have many shapes")
    # Wider matrices want smaller steps. Common values; no search was made.
    options.rate = options.rate or (1e-3 if options.name == "target" else 2e-3)
    return options


def _batches(
    options: argparse.Namespace, path: Path, device: torch.device
) -> TextBatches | PairBatches:
    if options.pair == "gpt":
        return TextBatches(path, options.batch_tokens, CONTEXT, device)
    return PairBatches(path, options.batch_tokens, device)


def _train(
    model: PreTrainedModel,
    train: TextBatches | PairBatches,
    valid: TextBatches | PairBatches,
    options: argparse.Namespace,
) -> dict[str, Any]:
    optimiser = _optimiser(model, options.rate)
    if options.compile:
        _compile_blocks(model)
    steps = train.epochs(options.seed)
    curve: list[dict[str, float]] = []
    held_out: int = options.held_out_tokens
    model.train()
    for batch, _ in [next(steps) for _ in range(3)]:
        # What compiles, compiles before the clock starts; no weight moves.
        _loss(model, batch).backward()
    optimiser.zero_grad(set_to_none=True)
    start, num_tokens, step, paused, share = time.perf_counter(), 0, 0, 0.0, 0.0
    while share < 1:
        batch, width = next(steps)
        _set_rate(optimiser, options.rate, share)
        loss = _loss(model, batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        num_tokens, step = num_tokens + width, step + 1
        if step % _CHECK_EVERY:
            continue
        seen = loss.item()
        if not math.isfinite(seen):
            raise SystemExit(
                f"training diverged by step {step}: give a --rate below {options.rate}"
            )
        elapsed = time.perf_counter() - start - paused
        share = elapsed / (60 * options.minutes)
        if share >= (len(curve) + 1) / _EVALUATIONS or share >= 1:
            before = time.perf_counter()
            curve.append(
                {
                    "step": step,
                    "tokens": num_tokens,
                    "seconds": round(elapsed, 1),
                    "train_loss": round(seen, 4),
                    "held_out_loss": round(_evaluate(model, valid, held_out), 4),
                    "gradient_norm": round(float(norm), 3),
                    "tokens_per_second": round(num_tokens / elapsed),
                }
            )
            print(json.dumps(curve[-1]), flush=True)
            paused += time.perf_counter() - before
    return {"tokens_per_second": curve[-1]["tokens_per_second"], "curve": curve}


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy per token; on a GPU, bfloat16 products over float32 weights."""
    inputs = {name: tokens for name, tokens in batch.items() if name != "labels"}
    labels = batch["labels"]
    with torch.autocast(labels.device.type, torch.bfloat16, enabled=labels.is_cuda):
        logits = model(**inputs, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


def _compile_blocks(model: PreTrainedModel) -> None:
    """Compile the layers of a decoder-only model, one code for all.

    The whole model as one graph would get an explicit causal mask from transformers, and with it a
    slower attention kernel; layers that are compiled by themselves are handed none.
    """
    for block in model.transformer.h:
        block.compile()


@torch.no_grad()
def _evaluate(model: PreTrainedModel, valid: TextBatches | PairBatches, most: int) -> float:
    model.eval()
    total, count_ = 0.0, 0
    for batch, _ in valid.once(most):
        num_labels = int((batch["labels"] >= 0).sum())
        total += float(_loss(model, batch)) * num_labels
        count_ += num_labels
    model.train()
    return total / count_


def _optimiser(model: PreTrainedModel, rate: float) -> torch.optim.AdamW:
    matrices = [weights for weights in model.parameters() if weights.ndim > 1]
    others = [weights for weights in model.parameters() if weights.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def _set_rate(optimiser: torch.optim.Optimizer, highest: float, share: float) -> None:
    """Up in a line, down in a cosine, by the share of the time that is over."""
    if share < _WARM_UP:
        rate = highest * max(share, 0.05 * _WARM_UP) / _WARM_UP
    else:
        angle = math.pi * min(1.0, (share - _WARM_UP) / (1 - _WARM_UP))
        rate = highest * (_LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(angle)) / 2)
    for group in optimiser.param_groups:
        group["lr"] = rate


def _save(model: PreTrainedModel, tokenizer: Path, folder: Path, document: dict[str, Any]) -> None:
    """In bfloat16: what is measured later is the law of the weights as they are saved."""
    model.to(torch.bfloat16).save_pretrained(str(folder))
    for path in tokenizer.iterdir():
        shutil.copy(path, folder / path.name)
    (folder / "training.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
