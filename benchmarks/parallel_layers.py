"""A decoder's layers on two GPUs beside the same on one: are texts equal, and what does it cost?

    python -m benchmarks.parallel_layers --target 1.5b.gguf --draft 0.5b.gguf --layers 14,14
    python -m benchmarks.parallel_layers --dtypes bfloat16 --turns 1         # a minute or two

Three ways to run the target: `blocks` (its layers over the GPUs), `one device` (the same decoder,
not spread) and, on GPUs, `kernels` (our own, on one GPU). Each decodes greedily and from a seed,
plainly and with the draft, in turns; the JSON is written after each law of each data type.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.common import environment, humaneval_prompts, write_result
from draftsmith import Engine, ModelDrafter, SamplingParams
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer

_LAWS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "seeded": {"temperature": 0.8, "top_p": 0.95, "seed": 7},
}
_BLOCKS, _ONE, _KERNELS = "blocks", "one device", "kernels"
_GAMMA = 4

Text = tuple[int, ...]


def main() -> None:
    """Measure what is asked for."""
    options = _options()
    found: dict[str, Any] = {"environment": environment(), "asked": _asked(options)}
    with _devices(options.devices):
        for dtype in options.dtypes:
            part = found[dtype] = dict[str, Any]()
            measure(options, dtype, part, lambda: write_result(options.name, found))
            torch.cuda.empty_cache()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--target", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--draft", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--layers", default="14,14", help="numbers of layers on each device")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=2, help="times that each way is timed")
    parser.add_argument("--name", default="parallel_layers", help="of the JSON")
    parser.add_argument("--devices", nargs="+", help=argparse.SUPPRESS)  # to try it without GPUs
    return parser.parse_args()


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(one) for one in range(torch.cuda.device_count())]
    files = {"target": Path(options.target).name, "draft": Path(options.draft).name}
    return {**vars(options), **files, "gpus": gpus, "gamma": _GAMMA}


@contextmanager
def _devices(names: list[str] | None) -> Generator[None]:
    """Take these devices for the GPUs."""
    if names is None:
        yield
        return
    places = tuple(torch.device(name) for name in names)
    with mock.patch("draftsmith.models.load.gpus_for_layers", return_value=places):
        yield


def measure(
    options: argparse.Namespace, dtype: Any, found: dict[str, Any], save: Callable[[], object]
) -> None:
    """Fill in all ways in one data type, and save after each law."""
    tokenizer = load_tokenizer(options.target)
    prompts = [tokenizer.encode(text) for text in humaneval_prompts(options.texts)]
    targets = dict(_targets(options, dtype))
    engines: dict[tuple[str, str], Engine] = {}
    drafts = {
        place: ModelDrafter(load_model(options.draft, ModelSettings(dtype, device=str(place))))
        for place in {target.device for target in targets.values()}
    }
    for way, target in targets.items():
        engines[way, "plain"] = Engine(target)
        engines[way, "drafted"] = Engine(target, draft=drafts[target.device], gamma=_GAMMA)
    found["runs_as"] = {way: type(one).__name__ for way, one in targets.items()}
    if options.devices is None:
        places = range(torch.cuda.device_count())
        found["allocated_bytes"] = [torch.cuda.memory_allocated(place) for place in places]
    for law, sampling in _LAWS.items():
        params = SamplingParams(max_tokens=options.tokens, ignore_eos=True, **sampling)
        found[law] = _in_turns(engines, prompts, params, options.turns)
        print(dtype, law, json.dumps(found[law]), flush=True)
        save()


def _targets(options: argparse.Namespace, dtype: Any) -> Iterator[tuple[str, LanguageModel]]:
    layers = [int(count) for count in options.layers.split(",")]
    for way, counts in ((_BLOCKS, layers), (_ONE, [sum(layers)])):
        yield way, load_model(options.target, ModelSettings(dtype, layers_per_device=counts))
    if options.devices is None:
        yield _KERNELS, load_model(options.target, ModelSettings(dtype, device="cuda:0"))


def _in_turns(
    engines: dict[tuple[str, str], Engine],
    prompts: list[list[int]],
    params: SamplingParams,
    turns: int,
) -> dict[str, Any]:
    """Tokens a second, the median turn's, and which texts are equal; the first turn is thrown away.

    Texts are written one by one: a batch of one is what a model that fits nowhere is used for.
    """
    texts: dict[tuple[str, str], list[Text]] = {}
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
    others = 0
    for turn in range(turns + 1):
        for key, engine in engines.items():
            start = time.perf_counter()
            found = [engine.generate([one], params)[0].token_ids for one in prompts]
            seconds = time.perf_counter() - start
            others += texts.setdefault(key, found) != found
            if turn:
                speeds[key].append(sum(map(len, found)) / seconds)
    return {
        "tokens_per_s": {
            " ".join(key): {"median": round(statistics.median(each), 2), "all": _rounded(each)}
            for key, each in speeds.items()
        },
        "texts": len(prompts),
        "turns_with_other_texts": others,
        "equal": {
            f"{_BLOCKS} and {_ONE}, {how}": _equal(texts[_BLOCKS, how], texts[_ONE, how])
            for how in ("plain", "drafted")
        }
        | {
            f"{way}, plain and drafted": _equal(texts[way, "plain"], texts[way, "drafted"])
            for way in dict.fromkeys(way for way, _ in engines)
        },
    }


def _equal(some: list[Text], others: list[Text]) -> dict[str, Any]:
    """How many texts are equal, and where each of the others leaves its twin."""
    pairs = list(zip(some, others, strict=True))
    places = {
        text: next(place for place, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
        for text, (one, two) in enumerate(pairs)
        if one != two
    }
    return {"count": len(pairs) - len(places), "first_differences": places}


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 2) for value in values]


if __name__ == "__main__":
    main()
