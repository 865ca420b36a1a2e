"""The page of supported models, `docs/models.md`, from what `model_classes` has measured."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from draftsmith.models.native.config import ARCHITECTURES

__all__ = ["models_page"]

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
_HEAD = """# Models

Made by `python -m benchmarks.model_classes_page` of `benchmarks/results/model_classes_*.json`.

## Native

These run on our own decoders, from safetensors or GGUF: `model_type` {native} (SmolLM is
a `llama`) on a CPU and on an NVIDIA GPU, `t5` and `mt5` on a CPU. They know their law by
construction and need no probe. What of a GGUF file is read stands in [gguf.md](gguf.md).

## Through `transformers`

Every other class of `transformers` that generates text runs behind the same contract, on any
device. When a model object is wrapped it is **probed**: three tokens at once, one over a cache, in
a ragged pair, after a rollback, each beside a plain pass. What differs by more than numerics (1e-3
of the logits' spread in float32, 5e-2 in half precision) does not speculate, and its refusal says
why. The verdicts:

- **speculates**: drafts are checked in one pass, in ragged batches;
- **plain only** (`gamma=0`): over the model's own cache, or by reading the whole text again at
  every token where it has none that works here;
- **refused**: one line with its name.

A probe takes six passes over at most two rows of six tokens (of an encoder-decoder: eight of the
decoder, four of the encoder), once a model object, data type and device. Mode, random numbers and
generation config stay as they were, and hooks on the model itself do not see it (hooks on its
layers do). A model on the `meta` device is not probed.

**Length.** `Engine` ends a text at the context that a config states.
`model.generate(custom_generate=...)` goes on beyond it, as `transformers` does, unless the model's
positions come from a table that ends (GPT-2, OPT, BERT, BART ...).

**Frequencies that depend on the length.** LongRoPE (Phi-3 128k, Phi-3.5, Phi-4-mini, MiniCPM3,
PhiMoE): a text's keys are computed again where it outgrows the short factors, no pass crosses that
length, and rows on either side of it share none. That is Phi-3's own `generate`; where
`transformers` does not compute them again (MiniCPM3), our text is that of `use_cache=False`.
Dynamic NTK: beyond the trained length each token is read in a pass of its own, with the frequencies
of its length, as `generate` of a fresh model reads it, so drafts no longer save passes there.
Pictures, embeddings and filled caches are refused with both.

**Where `transformers` has two texts.** {uncached}: `generate` gives other greedy text with its
cache than without, and a plain pass of the model agrees with the one without, so that is ours.
(FSMT is the other way round: handed its encoder's output alone, a pass without a cache has no
causal mask. Ours is the text with the cache, which is a plain pass of the whole model's.) Moshi's
window slides only because its cache drops keys, so it decodes plainly, over that cache.

**Switch Transformers and NLLB-MoE** drop tokens where an expert is full. A pass never holds more
tokens of a text than an expert (`expert_capacity`), so no draft changes a text; a
`moe_eval_capacity_token_fraction` other than 1.0 is refused.

## Tried

Each class is built from its config, tiny and with random weights. Four texts go through it in
ragged pieces with rollbacks, every row of logits beside a plain pass over its prefix (largest
difference allowed: {tolerance:g} of the largest logit), and its greedy text, with random drafts and
without, beside `generate`'s.

| `transformers` | tried | speculate | plain only | refused | wrong | crashed | largest difference |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
_NAMES = {
    "StatefulModel": "its own cache",
    "RecomputedModel": "the whole text again",
    "EncoderDecoderModel": "one token a pass",
}


def main() -> None:
    """Write the page."""
    PAGE.write_text(models_page(), encoding="utf-8")


def models_page() -> str:
    """The page, with the newest version's classes."""
    documents = [json.loads(path.read_bytes()) for path in RESULTS.glob("model_classes_*.json")]
    documents.sort(key=lambda one: [int(part) for part in one["transformers"].split(".")])
    newest = documents[-1]
    tried = [one for one in newest["classes"] if one["verdict"] != "not built"]
    uncached = sorted({one["class_name"] for one in tried if "without" in one["text"]})
    head = _HEAD.format(
        native=", ".join(f"`{name}`" for name in ARCHITECTURES),
        uncached=", ".join(uncached),
        tolerance=newest["tolerance"],
    )
    rows = "".join(_version_row(document) for document in documents)
    return head + rows + "".join(_section(tried, kind) for kind in (False, True)) + _rest(newest)


def _version_row(document: dict[str, Any]) -> str:
    counts = document["counts"]
    tried = [one for one in document["classes"] if one["verdict"] != "not built"]
    worst = max(one["difference"] for one in tried)
    verdicts = ("speculates", "plain only", "refused", "wrong", "crashed")
    numbers = " | ".join(str(counts.get(name, 0)) for name in verdicts)
    return f"| {document['transformers']} | {len(tried)} | {numbers} | {worst:.1e} |\n"


def _section(tried: list[dict[str, Any]], is_encoder_decoder: bool) -> str:
    """What the newest version's decoders, or encoder-decoders, do."""
    kinds = [one for one in tried if one["is_encoder_decoder"] == is_encoder_decoder]
    title = "Encoder-decoders" if is_encoder_decoder else "Decoders"
    fine = sorted(one["model_type"] for one in kinds if one["verdict"] == "speculates")
    text = f"\n### {title}\n\n**Speculate** ({len(fine)}): {', '.join(fine)}.\n\n"
    text += "| plain only, or refused | runs over | because it |\n|---|---|---|\n"
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in kinds:
        if one["verdict"] != "speculates":
            why = one["why"].removeprefix(one["model_type"]).strip().removeprefix("'s")
            why = why.split(" (")[0].strip()
            groups[_NAMES.get(one["runs_as"], "refused"), why].append(one["model_type"])
    for (way, why), names in sorted(groups.items()):
        text += f"| {', '.join(sorted(names))} | {way} | {why} |\n"
    return text


def _rest(document: dict[str, Any]) -> str:
    rest = [one["model_type"] for one in document["classes"] if one["verdict"] == "not built"]
    return (
        "\n### Not tried\n\n"
        "These do not build tiny from their config alone, most of them because they "
        f"read pictures or sound: {', '.join(sorted(set(rest)))}. They are probed like all others "
        "when they are wrapped.\n"
    )


if __name__ == "__main__":
    main()
