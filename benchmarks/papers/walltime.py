"""Tables 2 and 4: measured speed beside the formula, for every draft and gamma; batch size 1.

    python -m benchmarks.papers.walltime gpt --data DATA --models MODELS \
        --alphas papers_gpt.json --out papers_gpt_walltime.json

Plain decoding and every (draft, gamma) take turns at every prompt and temperature, in an order
that turns too. Each arm's speed-up is plain time per token over its own. Beside it stand three
predictions: Theorem 3.8 with the measured alpha and c, which takes a check of gamma + 1 rows to
cost one plain pass; the same with the measured T(gamma + 1); and that with the tokens per pass as
they were observed, so that only the costs are predicted.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.papers.shapes import PAIRS
from benchmarks.papers.trained import (
    drafts_of,
    held_out_prompts,
    held_out_sources,
    ngram_table,
    write_json,
)
from draftsmith import Engine, ModelDrafter, NgramDrafter, SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.core.theory import expected_tokens, measured_walltime_factor, walltime_factor
from draftsmith.drafters import Drafter, NgramTable
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.load import ModelSettings, load_model

_PLAIN = ("plain", 0)
_WARM_UP = 3
_FILLED = 96
"""Tokens in the cache while passes are timed."""


class Run(NamedTuple):
    """One prompt on one arm."""

    seconds: float
    num_tokens: int
    statistics: SpeculationStatistics


def main() -> None:
    """Measure costs, then run every prompt at every temperature on every arm."""
    options = _options()
    settings = ModelSettings(dtype=options.dtype, device=options.device)
    target = load_model(str(options.models / options.pair / "target"), settings)
    models = {
        name: load_model(str(options.models / options.pair / name), settings)
        for name in options.drafts or drafts_of(options.models, options.pair)
    }
    bigram = ngram_table(options.data, options.pair, "bigram")
    widths = [1, *(gamma + 1 for gamma in options.gammas)]
    costs = measure_costs(target, models, bigram, widths)
    print(json.dumps(costs), flush=True)
    drafters: dict[str, Drafter] = {name: ModelDrafter(model) for name, model in models.items()}
    drafters["bigram"] = NgramDrafter(bigram)
    arms = [_PLAIN, *((name, gamma) for name in drafters for gamma in options.gammas)]
    engines = {
        (name, gamma): Engine(target, None, drafters.get(name), gamma=gamma, prefix_caching=False)
        for name, gamma in arms
    }
    prompts = _prompts(options)
    rows: list[dict[str, Any]] = []
    runs = _run_all(engines, prompts, options)
    for temperature in options.temperatures:
        alphas = _alphas(options.alphas, temperature)
        for name, gamma in arms[1:]:
            row = {"draft": name, "temperature": temperature, "gamma": gamma}
            row |= _summary(runs[temperature], (name, gamma), alphas.get(name), costs)
            rows.append(row)
            print(json.dumps(row), flush=True)
    document = {
        "what": f"speed-up of the {options.pair} pair at batch size 1, beside the formula",
        "settings": {key: str(value) for key, value in vars(options).items()},
        "costs": costs,
        "plain_ms_per_token": {str(row): value for row, value in _plain_times(rows).items()},
        "rows": rows,
    }
    write_json(options.out, document)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", choices=sorted(PAIRS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--alphas", type=Path, help="what benchmarks.papers.alphas wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--drafts", nargs="*", help="all that are trained, if not given")
    parser.add_argument("--gammas", type=int, nargs="+", default=[1, 2, 3, 5, 7, 10])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def measure_costs(
    target: LanguageModel,
    drafts: dict[str, LanguageModel],
    bigram: NgramTable,
    widths: list[int],
    repeats: int = 25,
) -> dict[str, Any]:
    """Milliseconds of the target's pass over each width, and of a draft's pass over one row.

    A bigram's pass is to look its law up; the paper takes that to cost nothing.

    Medians; all kinds take turns, so that a change of the machine's speed meets all of them.
    """
    kinds = {f"target_{width}": _pass(target, width) for width in sorted(set(widths))}
    kinds |= {name: _pass(draft, 1) for name, draft in drafts.items()}
    kinds["bigram"] = lambda: bigram.law(100).log().to(target.device)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(repeats + _WARM_UP):
        for name, run in kinds.items():
            _wait(target.device)
            start = time.perf_counter()
            run()
            _wait(target.device)
            if turn >= _WARM_UP:
                times[name].append(1000 * (time.perf_counter() - start))
    median = {name: statistics.median(values) for name, values in times.items()}
    names = [*drafts, "bigram"]
    return {
        "target_ms": {
            str(width): round(median[f"target_{width}"], 4) for width in sorted(set(widths))
        },
        "draft_ms": {name: round(median[name], 4) for name in names},
        "c": {name: round(median[name] / median["target_1"], 4) for name in names},
    }


def _pass(model: LanguageModel, width: int) -> Callable[[], object]:
    """A pass over some rows behind a filled cache, which is as before when it is over."""
    cache, row = _filled_cache(model)

    def run() -> None:
        model.forward(cache, Rows([row], [[100] * width]))
        cache.rollback(row, _FILLED)

    return run


def _filled_cache(model: LanguageModel) -> tuple[Cache, int]:
    cache = model.open_cache()
    row = cache.add()
    if model.traits.is_encoder_decoder:
        model.encode(cache, row, [100] * 32)
    model.prefill(cache, row, [100] * _FILLED)
    return cache, row


def _prompts(options: argparse.Namespace) -> list[list[int]]:
    if options.pair == "t5":
        return held_out_sources(options.data, options.prompts)
    return held_out_prompts(options.data, options.prompts, 32)


def _run_all(
    engines: dict[tuple[str, int], Engine], prompts: list[list[int]], options: argparse.Namespace
) -> dict[float, dict[tuple[str, int], list[Run]]]:
    """Every prompt at every temperature on every arm."""
    is_fixed_length = options.pair == "gpt"
    arms = list(engines)
    runs: dict[float, dict[tuple[str, int], list[Run]]] = {
        temperature: {arm: [] for arm in arms} for temperature in options.temperatures
    }
    # The first turn is not counted: kernels are loaded for every length that a text comes to.
    for turn, (number, prompt) in enumerate([(0, prompts[0]), *enumerate(prompts)]):
        for temperature in options.temperatures:
            params = SamplingParams(
                temperature=temperature,
                max_tokens=options.new_tokens,
                ignore_eos=is_fixed_length,
                seed=number,
                verifier="rejection",  # the papers' rule
            )
            for arm in _turned(arms, number):
                start = time.perf_counter()
                result = engines[arm].generate(prompt, params)[0]
                seconds = time.perf_counter() - start
                run = Run(seconds, len(result.token_ids), result.statistics)
                if turn > 0:
                    runs[temperature][arm].append(run)
        print(f"{turn}/{len(prompts)}", flush=True)
    return runs


def _turned(arms: list[tuple[str, int]], number: int) -> Iterator[tuple[str, int]]:
    start = number * 7 % len(arms)
    yield from arms[start:]
    yield from arms[:start]


def _summary(
    runs: dict[tuple[str, int], list[Run]],
    arm: tuple[str, int],
    alpha: float | None,
    costs: dict[str, Any],
) -> dict[str, Any]:
    name, gamma = arm
    counts = sum((run.statistics for run in runs[arm]), SpeculationStatistics())
    per_pass = counts.num_committed / counts.num_rounds
    plain, own = _per_token(runs[_PLAIN]), _per_token(runs[arm])
    ratios = sorted(
        (one.seconds / one.num_tokens) / (other.seconds / other.num_tokens)
        for one, other in zip(runs[_PLAIN], runs[arm], strict=True)
    )
    c, target_ms = costs["c"][name], costs["target_ms"]
    check = target_ms[str(gamma + 1)] / target_ms["1"]
    row = {
        "plain_ms_per_token": round(1000 * plain, 4),
        "ms_per_token": round(1000 * own, 4),
        "speed_up": round(plain / own, 3),
        "speed_up_per_prompt": {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(ratios[0], 3),
            "highest": round(ratios[-1], 3),
        },
        "alpha_observed": round(counts.alpha or 0.0, 4),
        "tokens_per_pass": round(per_pass, 3),
        "c": c,
        "check_over_plain_pass": round(check, 3),
        "predicted_from_tokens_per_pass": round(
            measured_walltime_factor(per_pass, gamma, c, check), 3
        ),
    }
    if alpha is not None:
        row |= {
            "alpha": alpha,
            "theorem_3_8": round(walltime_factor(alpha, gamma, c), 3),
            "theorem_3_8_with_check": round(
                measured_walltime_factor(expected_tokens(alpha, gamma), gamma, c, check), 3
            ),
        }
    return row


def _per_token(runs: list[Run]) -> float:
    return sum(run.seconds for run in runs) / sum(run.num_tokens for run in runs)


def _plain_times(rows: list[dict[str, Any]]) -> dict[float, float]:
    return {row["temperature"]: row["plain_ms_per_token"] for row in rows}


def _alphas(path: Path | None, temperature: float) -> dict[str, float]:
    """The overlap alphas at this temperature, of prompts like those that are timed."""
    if path is None:
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {
        row["draft"]: row["alpha"]
        for row in rows
        if row["temperature"] == temperature and not row["prompts"].startswith("none")
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
