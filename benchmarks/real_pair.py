"""Greedy decoding of HumanEval on a real pair: same text, and how much sooner.

Four arms in one run, in turn for every prompt: `transformers` plain and assisted, ours plain and
speculative. All four run the same weights in the same process.

    python -m benchmarks.real_pair --dtype float32
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import environment, humaneval_prompts, write_result
from draftsmith import Engine, ModelDrafter, SamplingParams, load_engine
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.core.theory import measured_walltime_factor
from draftsmith.models.contract import LanguageModel, Rows

ARMS = ("transformers", "transformers-assisted", "plain", "speculative")


def main() -> None:
    """Run every prompt through every arm; write `results/real_pair_DTYPE.json`."""
    options = _options()
    engine = load_engine(options.target, options.draft, gamma=options.gamma, dtype=options.dtype)
    assert isinstance(engine.draft, ModelDrafter)
    prompts = humaneval_prompts(options.prompts)
    arms = _arms(engine, options)
    _warm_up(engine, arms, prompts[0])
    records = []
    for index, prompt in enumerate(prompts):
        records.append(_run_prompt(engine, arms, index, prompt))
        print(f"{index + 1:3}/{len(prompts)} {_line(records[-1])}", flush=True)
    document = {
        "what": "greedy HumanEval, one prompt at a time",
        "environment": environment(),
        "settings": vars(options),
        "summary": _summary(engine, records, options),
        "prompts": records,
    }
    print(write_result(f"real_pair_{options.dtype}", document))
    print(document["summary"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--draft", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--gamma", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=64)
    return parser.parse_args()


def _arms(engine: Engine, options: argparse.Namespace) -> dict[str, Callable[[list[int]], Any]]:
    """Each arm: prompt ids to (output ids, statistics)."""
    params = SamplingParams(max_tokens=options.new_tokens)
    plain_engine = Engine(engine.target, engine.tokenizer, gamma=0)
    target, assistant = engine.target.model, engine.draft.model.model
    # The same gamma for both; transformers' own stopping rule (confidence 0.4) stays on.
    assistant.generation_config.num_assistant_tokens = options.gamma
    assistant.generation_config.num_assistant_tokens_schedule = "constant"

    def theirs(ids: list[int], **more: Any) -> tuple[list[int], None]:
        inputs = torch.tensor([ids], device=engine.target.device)
        output = target.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=options.new_tokens,
            do_sample=False,
            pad_token_id=0,
            **more,
        )
        return output[0, len(ids) :].tolist(), None

    def ours(which: Engine, ids: list[int]) -> tuple[list[int], SpeculationStatistics]:
        result = which.generate(ids, params)[0]
        return list(result.token_ids), result.statistics

    return {
        "transformers": theirs,
        "transformers-assisted": lambda ids: theirs(ids, assistant_model=assistant),
        "plain": lambda ids: ours(plain_engine, ids),
        "speculative": lambda ids: ours(engine, ids),
    }


def _warm_up(engine: Engine, arms: dict[str, Callable[[list[int]], Any]], prompt: str) -> None:
    assert engine.tokenizer is not None
    for arm in arms.values():
        arm(engine.tokenizer.encode(prompt)[:16])


def _run_prompt(
    engine: Engine, arms: dict[str, Callable[[list[int]], Any]], index: int, prompt: str
) -> dict[str, Any]:
    assert engine.tokenizer is not None
    ids = engine.tokenizer.encode(prompt)
    seconds: dict[str, float] = {}
    outputs: dict[str, list[int]] = {}
    counts = SpeculationStatistics()
    # The order turns, so that no arm always runs on a warm or a tired machine.
    for name in [*ARMS[index % 4 :], *ARMS[: index % 4]]:
        start = time.perf_counter()
        outputs[name], statistics_ = arms[name](ids)
        seconds[name] = time.perf_counter() - start
        counts = statistics_ if name == "speculative" else counts
    reference = outputs["transformers"]
    return {
        "index": index,
        "num_prompt_tokens": len(ids),
        "num_tokens": len(reference),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "same_as_transformers": {name: outputs[name] == reference for name in ARMS[1:]},
        "differences": [
            {"arm": name, **_attribute(engine.target, ids, reference, outputs[name])}
            for name in ARMS[1:]
            if outputs[name] != reference
        ],
        "statistics": counts.to_dict(),
    }


def _attribute(
    model: LanguageModel, prompt: list[int], one: list[int], other: list[int]
) -> dict[str, Any]:
    """Is the first difference numerics? Top-2 margin against the measured error of the logits."""
    pairs = zip(one, other, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    prefix = [*prompt, *one[:first]]
    rows = {}
    for width in (1, 5, len(prefix)):
        cache = model.open_cache()
        row = cache.add()
        model.prefill(cache, row, prefix[:-width])
        rows[width] = model.forward(cache, Rows([row], [prefix[-width:]]))[0, -1].float()
    error = max(float((rows[1] - line).abs().max()) for line in rows.values())
    top = rows[1].topk(2).values
    margin = float(top[0] - top[1])
    return {
        "position": first,
        "top_2_margin": round(margin, 5),
        "logit_error": round(error, 5),
        "is_numerics": margin < error,
    }


def _summary(
    engine: Engine, records: list[dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    speeds = {
        name: [record["num_tokens"] / record["seconds"][name] for record in records]
        for name in ARMS
    }

    def ratios(one: str, other: str) -> dict[str, float]:
        values = sorted(a / b for a, b in zip(speeds[one], speeds[other], strict=True))
        median = statistics.median(values)
        return {
            "median": round(median, 3),
            "p10": round(values[len(values) // 10], 3),
            "p90": round(values[-1 - len(values) // 10], 3),
        }

    drafted, tested, accepted, rounds, committed = (
        sum(record["statistics"][key] for record in records)
        for key in ("num_drafted", "num_tested", "num_accepted", "num_rounds", "num_committed")
    )
    costs = _costs(engine, options.gamma)
    num_bytes = sum(p.numel() * p.element_size() for p in engine.target.model.parameters())
    plain_speed = statistics.median(speeds["plain"])
    return {
        "tokens_per_second": {n: round(statistics.median(v), 3) for n, v in speeds.items()},
        "speculative_over_plain": ratios("speculative", "plain"),
        "speculative_over_transformers": ratios("speculative", "transformers"),
        "speculative_over_assisted": ratios("speculative", "transformers-assisted"),
        "plain_over_transformers": ratios("plain", "transformers"),
        "alpha": round(accepted / tested, 4),
        "draft_yield": round(accepted / drafted, 4),
        "tokens_per_pass": round(committed / rounds, 4),
        "costs_in_plain_passes": {key: round(value, 3) for key, value in costs.items()},
        "predicted_speculative_over_plain": round(
            measured_walltime_factor(
                committed / rounds, options.gamma, costs["draft_pass"], costs["check"]
            ),
            3,
        ),
        "plain_weight_bandwidth_gb_s": round(plain_speed * num_bytes / 1e9, 2),
        "num_same": {
            name: sum(record["same_as_transformers"][name] for record in records)
            for name in ARMS[1:]
        },
        "num_prompts": len(records),
    }


def _costs(engine: Engine, gamma: int) -> dict[str, float]:
    """T(gamma + 1) and a draft pass, in plain passes of the target; medians, interleaved."""
    draft = engine.draft.model
    passes = {
        "plain": (engine.target, 1),
        "check": (engine.target, gamma + 1),
        "draft_pass": (draft, 1),
    }
    times: dict[str, list[float]] = {name: [] for name in passes}
    caches = {name: _filled(model) for name, (model, _) in passes.items()}
    for _ in range(7):
        for name, (model, width) in passes.items():
            cache, row, length = caches[name]
            start = time.perf_counter()
            model.forward(cache, Rows([row], [[100] * width]))
            times[name].append(time.perf_counter() - start)
            cache.rollback(row, length)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {name: median[name] / median["plain"] for name in ("check", "draft_pass")}


def _filled(model: LanguageModel, length: int = 160) -> tuple[Any, int, int]:
    cache = model.open_cache()
    row = cache.add()
    model.prefill(cache, row, [100] * length)
    return cache, row, length


def _line(record: dict[str, Any]) -> str:
    speeds = " ".join(f"{n} {record['num_tokens'] / s:.2f}" for n, s in record["seconds"].items())
    same = all(record["same_as_transformers"].values())
    return f"tok/s: {speeds} · {'same text' if same else record['differences']}"


if __name__ == "__main__":
    main()
