"""Structured outputs: the same requests with speculation off, and with forced tokens drafted.

    python -m benchmarks.structured --target qwen2.5-coder-1.5b-instruct

Each request is a text with a JSON schema. Every turn runs all requests in every arm, one by one,
and the order of the arms moves round; ratios are of the same turn. Arms: `off` (gamma 0), `forced`
(no draft: what the schema forces is drafted), and with `--draft` a draft beside the forced tokens.
Texts must be equal in all arms. Writes results/structured.json.
"""

import argparse
import json
import statistics
import time
from typing import Any

from benchmarks.common import environment, write_result
from draftsmith import Engine, SamplingParams, load_engine
from draftsmith.api import load_drafter

_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "occupation": {"type": "string", "maxLength": 40},
        "nationality": {"type": "string", "maxLength": 30},
    },
    "required": ["name", "age", "occupation", "nationality"],
    "additionalProperties": False,
}
_REVIEW = {
    "type": "object",
    "properties": {
        "sentiment": {"enum": ["positive", "neutral", "negative"]},
        "confidence": {"enum": ["low", "medium", "high"]},
        "product_category": {"type": "string", "maxLength": 30},
        "would_recommend": {"type": "boolean"},
        "summary_in_one_sentence": {"type": "string", "maxLength": 120},
    },
    "required": [
        *("sentiment", "confidence", "product_category", "would_recommend"),
        "summary_in_one_sentence",
    ],
    "additionalProperties": False,
}
_ORDER = {
    "type": "object",
    "properties": {
        "customer": {
            "type": "object",
            "properties": {
                "first_name": {"type": "string", "maxLength": 20},
                "last_name": {"type": "string", "maxLength": 20},
            },
            "required": ["first_name", "last_name"],
            "additionalProperties": False,
        },
        "items": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "description": {"type": "string", "maxLength": 30},
                    "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
                },
                "required": ["description", "quantity"],
                "additionalProperties": False,
            },
        },
        "delivery": {"enum": ["standard", "express"]},
    },
    "required": ["customer", "items", "delivery"],
    "additionalProperties": False,
}
_REQUESTS: tuple[tuple[dict[str, Any], str], ...] = (
    (
        _PERSON,
        "Describe the person as JSON: Marie Curie was a Polish-French physicist who died at 66.",
    ),
    (_PERSON, "Describe the person as JSON: Alan Turing, the English mathematician, died at 41."),
    (
        _REVIEW,
        "Classify the review as JSON: The kettle boils fast, but the lid broke within a week.",
    ),
    (_REVIEW, "Classify the review as JSON: Best headphones I ever had, my friends want them too."),
    (_ORDER, "Write the order as JSON: John Smith wants two red pens and a notebook by tomorrow."),
    (_ORDER, "Write the order as JSON: Ana Lopez orders three lamps, no hurry."),
)


def main() -> None:
    """Measure, print a line an arm, write the JSON."""
    arguments = _arguments()
    engines = _engines(arguments)
    prompts = [[{"role": "user", "content": text}] for _, text in _REQUESTS]
    params = [_params(schema, arguments) for schema, _ in _REQUESTS]
    found: dict[str, list[float]] = {name: [] for name in engines}
    texts: dict[str, list[str]] = {}
    counts: dict[str, Any] = {}
    names = list(engines)
    for turn in range(-1, arguments.turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            results = [
                engines[name].generate([prompt], one)[0]
                for prompt, one in zip(prompts, params, strict=True)
            ]
            if turn >= 0:  # the first turn warms up
                found[name].append(time.perf_counter() - began)
            texts[name] = [result.text for result in results]
            counts[name] = sum((r.statistics for r in results[1:]), results[0].statistics)
    document = _document(arguments, found, texts, counts)
    print(write_result("structured", document))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--target", default="smollm2-135m-instruct")
    parser.add_argument("--draft", help="a draft model or prompt-lookup")
    parser.add_argument("--gamma", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--any-whitespace", action="store_true", help="as a server's default is")
    return parser.parse_args()


def _engines(arguments: argparse.Namespace) -> dict[str, Engine]:
    """One target for all arms."""
    off = load_engine(arguments.target, gamma=0)
    engines = {"off": off, "forced": Engine(off.target, off.tokenizer)}
    if arguments.draft is not None:
        draft = load_drafter(arguments.draft, off)
        both = Engine(off.target, off.tokenizer, draft, gamma=arguments.gamma)
        engines["forced and draft"] = both
    return engines


def _params(schema: dict[str, Any], arguments: argparse.Namespace) -> SamplingParams:
    form = {"json": schema, "disable_any_whitespace": not arguments.any_whitespace}
    return SamplingParams(
        structured_outputs=form,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        seed=1,
    )


def _document(
    arguments: argparse.Namespace,
    found: dict[str, list[float]],
    texts: dict[str, list[str]],
    counts: dict[str, Any],
) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    for name, seconds in found.items():
        ratios = [off / own for off, own in zip(found["off"], seconds, strict=True)]
        statistics_ = counts[name]
        arms[name] = {
            "seconds": seconds,
            "speedups": ratios,
            "speedup": statistics.median(ratios),
            "num_tokens": statistics_.num_committed,
            "num_passes": statistics_.num_rounds,
            "tokens_per_pass": statistics_.tokens_per_pass,
        }
        print(
            f"{name}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{statistics_.num_committed} tokens in {statistics_.num_rounds} passes"
        )
    are_equal = all(one == texts["off"] for one in texts.values())
    num_whole = sum(_is_json(text) for text in texts["off"])
    print(f"texts equal: {are_equal}; whole JSON: {num_whole} of {len(_REQUESTS)}")
    return {
        "environment": environment(),
        "settings": vars(arguments),
        "arms": arms,
        "are_texts_equal": are_equal,
        "num_whole": num_whole,
        "texts": texts["off"],
    }


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
