"""Tokens a pass of draft trees beside those of chains of as many rows: what is kept, not how fast.

    python -m benchmarks.trees

Counts do not depend on how busy the machine is. Where a seed or temperature 0 promises it, every
text is compared with plain decoding's. The JSON is written after each line.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.common import environment, write_result
from draftsmith import ModelDrafter, SamplingParams, load_engine
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.engine.engine import Engine
from draftsmith.models.load import load_model
from draftsmith.workloads import load_workload

TARGET, DRAFT = "qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct"
HEAD_IDS = 32_768
VERIFIERS = ("coupled", "block", "rejection")


def main() -> None:
    """Every number of branches under every verifier."""
    options = _options()
    engine = load_engine(options.target)
    draft = load_model(options.draft, num_head_ids=HEAD_IDS)
    items = load_workload(options.workload).first(options.prompts).items
    prompts = [item.prompt for item in items]
    lines: list[dict[str, Any]] = []
    for params in _params(options):
        plain = None
        if params.verifier == "coupled":
            plain, _ = _texts(Engine(engine.target, engine.tokenizer), prompts, params)
        for branches in options.branches:
            drafter = ModelDrafter(draft, engine.tokenizer, branches)
            for gamma in options.gammas:
                drafted = Engine(engine.target, engine.tokenizer, drafter, gamma=gamma)
                texts, counts = _texts(drafted, prompts, params)
                line = {
                    "temperature": params.temperature,
                    "verifier": params.verifier,
                    "branches": branches,
                    "gamma": gamma,
                    "num_rounds": counts.num_rounds,
                    "num_drafted": counts.num_drafted,
                    "num_accepted": counts.num_accepted,
                    "tokens_per_pass": counts.tokens_per_pass,
                    "is_plain_text": None if plain is None else texts == plain,
                }
                lines.append(line)
                print(line, flush=True)
                settings = vars(options) | {"environment": environment()}
                write_result(options.name, settings | {"lines": lines})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draft trees beside chains of as many rows.")
    parser.add_argument("--target", default=TARGET)
    parser.add_argument("--draft", default=DRAFT)
    parser.add_argument("--workload", default="chat")
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--name", default="trees", help="of the JSON")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--branches", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--gammas", type=int, nargs="+", default=[8])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.8])
    return parser.parse_args()


def _params(options: argparse.Namespace) -> list[SamplingParams]:
    return [
        SamplingParams(
            temperature=temperature,
            verifier=verifier,
            seed=7,
            max_tokens=options.max_tokens,
            ignore_eos=True,
        )
        for temperature in options.temperatures
        for verifier in (VERIFIERS if temperature else VERIFIERS[:1])
    ]


def _texts(
    engine: Engine, prompts: Sequence[Any], params: SamplingParams
) -> tuple[list[tuple[int, ...]], SpeculationStatistics]:
    """One prompt at a time."""
    results = [engine.generate(prompt, params)[0] for prompt in prompts]
    counts = sum((result.statistics for result in results), SpeculationStatistics())
    return [result.token_ids for result in results], counts


if __name__ == "__main__":
    main()
