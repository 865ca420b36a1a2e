"""Same seed, same text: every drafter, every gamma, alone and in a batch, at temperature 0.8.

python -m benchmarks.seeded
"""

import argparse
from typing import Any

from benchmarks.common import environment, humaneval_prompts, write_result
from draftsmith import (
    Drafter,
    Engine,
    ModelDrafter,
    NgramDrafter,
    NgramTable,
    PromptLookupDrafter,
    RandomDrafter,
    SamplingParams,
    SpeculativeDrafter,
    load_engine,
)


def main() -> None:
    """Compare every configuration's tokens with plain decoding's."""
    options = _options()
    loaded = load_engine(options.target, options.draft, dtype=options.dtype)
    assert loaded.tokenizer is not None
    prompts = [loaded.tokenizer.encode(text) for text in humaneval_prompts(5)]
    params = SamplingParams(max_tokens=options.new_tokens, temperature=0.8, seed=7)
    plain = [_tokens(loaded, None, 0, [prompt], params)[0] for prompt in prompts]
    rows = []
    for name, draft in _drafters(loaded, plain).items():
        for gamma in (1, 4, 8):
            same = _tokens(loaded, draft, gamma, prompts[:1], params) == plain[:1]
            rows.append({"draft": name, "gamma": gamma, "batch": 1, "is_same": same})
            print(rows[-1], flush=True)
        same = _tokens(loaded, draft, 4, prompts, params) == plain
        rows.append({"draft": name, "gamma": 4, "batch": 5, "is_same": same})
        print(rows[-1], flush=True)
    document: dict[str, Any] = {
        "what": "seed 7, temperature 0.8: tokens equal to plain decoding's",
        "environment": environment(),
        "settings": vars(options),
        "all_same": all(row["is_same"] for row in rows),
        "rows": rows,
    }
    print(write_result("seeded", document), document["all_same"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--draft", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--new-tokens", type=int, default=24)
    return parser.parse_args()


def _drafters(loaded: Engine, texts: list[list[int]]) -> dict[str, Drafter]:
    assert isinstance(loaded.draft, ModelDrafter)
    vocab_size = loaded.target.traits.vocab_size
    # The bigram learns from what the target says: from the other prompts' outputs.
    table = NgramTable.from_tokens(texts[1:], vocab_size)
    return {
        "model": loaded.draft,
        "prompt-lookup": PromptLookupDrafter(),
        "bigram": NgramDrafter(table),
        "random": RandomDrafter(vocab_size),
        "model over prompt-lookup": SpeculativeDrafter(loaded.draft.model, PromptLookupDrafter()),
    }


def _tokens(
    loaded: Engine,
    draft: Drafter | None,
    gamma: int,
    prompts: list[list[int]],
    params: SamplingParams,
) -> list[list[int]]:
    engine = Engine(loaded.target, loaded.tokenizer, draft, gamma=gamma)
    return [list(result.token_ids) for result in engine.generate(prompts, params)]


if __name__ == "__main__":
    main()
