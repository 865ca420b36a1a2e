"""Figure 1: which tokens were drafted and kept, rejected, or the target's own, round by round.

    python -m benchmarks.papers.trace --data DATA --models MODELS --out papers_trace.json

Greedy continuations of held-out text by the decoder-only pair. A line is one run of the target:
kept tokens as they are, a rejected one in brackets, and what the target put in its place (or added
behind a draft that was kept whole) after an arrow.
"""

import argparse
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.papers.trained import held_out_prompts, write_json
from draftsmith import load_engine
from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.result import Origin, TokenTrace


def main() -> None:
    """Trace some prompts, print them as lines, write the JSON."""
    options = _options()
    folder = options.models / "gpt"
    engine = load_engine(
        str(folder / "target"), str(folder / options.draft), gamma=options.gamma,
        device=options.device,
    )  # fmt: skip
    params = SamplingParams(max_tokens=options.new_tokens, temperature=options.temperature, seed=0)
    texts: list[dict[str, Any]] = []
    for prompt in held_out_prompts(options.data, options.prompts, options.prompt_tokens):
        result = engine.generate(prompt, params)[0]
        completion = result.completions[0]
        rounds = [
            _round(engine, list(traces))
            for _, traces in groupby(completion.trace, key=lambda trace: trace.round)
        ]
        texts.append(
            {
                "prompt": _text(engine, prompt),
                "num_tokens": len(completion.token_ids),
                "target_runs": completion.statistics.num_rounds,
                "rounds": rounds,
            }
        )
        print(_lines(texts[-1]), flush=True)
    write_json(
        options.out,
        {
            "what": "greedy traces of the decoder-only pair, as Figure 1 of Leviathan et al.",
            "settings": {name: str(value) for name, value in vars(options).items()},
            "texts": texts,
        },
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draft", default="draft")
    parser.add_argument("--gamma", type=int, default=7)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=38)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def _round(engine: Engine, traces: list[TokenTrace]) -> dict[str, Any]:
    """One run of the target; the last token of a cut text may have been a kept one."""
    own = [trace for trace in traces if trace.origin is not Origin.KEPT]
    rejected = own[0].rejected if own else None
    return {
        "kept": [_text(engine, [t.token_id]) for t in traces if t.origin is Origin.KEPT],
        "rejected": None if rejected is None else _text(engine, [rejected]),
        "emitted": _text(engine, [own[0].token_id]) if own else None,
    }


def _text(engine: Engine, tokens: list[int]) -> str:
    assert engine.tokenizer is not None
    return engine.tokenizer.decode(tokens)


def _lines(text: dict[str, Any]) -> str:
    lines = [f"{text['prompt']} … ({text['num_tokens']} tokens, {text['target_runs']} target runs)"]
    for one in text["rounds"]:
        rejected = f" [{one['rejected']}]" if one["rejected"] is not None else ""
        emitted = f" → {one['emitted']}" if one["emitted"] is not None else ""
        lines.append(f"  {' '.join(one['kept'])}{rejected}{emitted}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
