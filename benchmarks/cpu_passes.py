"""Single passes: T(M) over M rows, and prompts; ours, llama.cpp's and transformers'."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache, GgufConfig

from benchmarks.common import humaneval_prompts
from benchmarks.llamacpp import Passes, Peer, PeerConfig
from benchmarks.ours import Ours, file_weight_bytes, gguf_path, weight_bytes
from benchmarks.summaries import settle, spread
from draftsmith.models.contract import Rows
from draftsmith.models.hf.arguments import cache_argument

NUM_HELD = 128
OTHER = "llama.cpp, other build"
Pass = Callable[[list[int]], float]


def measure_rows(
    name: str,
    *,
    threads: int,
    repeats: int,
    widths: list[int],
    library: Path | None,
    with_transformers: bool,
) -> dict[str, Any]:
    """T(M) of one model over a cache that holds 128 tokens, the systems in turn."""
    ours, path = Ours(name, None, threads=threads), gguf_path(name)
    ids = _long_text(ours, NUM_HELD + max(widths))
    peer = Passes(path, threads=threads)
    passes: dict[str, Pass] = {
        "ours": _our_pass(ours, ids[:NUM_HELD]),
        "llama.cpp": _peer_pass(peer, ids[:NUM_HELD]),
    }
    other = Passes(path, threads=threads, library=library) if library else None
    if other is not None:
        passes[OTHER] = _peer_pass(other, ids[:NUM_HELD])
    if with_transformers:
        passes["transformers"] = _transformers_pass(path, ids[:NUM_HELD], threads)
    seconds: dict[str, dict[int, list[float]]] = {s: {w: [] for w in widths} for s in passes}
    for number in range(repeats + 2):
        for system, run in passes.items():
            if system == "transformers" and number > max(4, repeats // 2):
                continue
            settle()
            run(ids[NUM_HELD : NUM_HELD + 1])  # wakes its threads
            for width in widths:
                value = run(ids[NUM_HELD : NUM_HELD + width])
                if number >= 2:  # the first two warm up
                    seconds[system][width].append(value)
    for one in (peer, other):
        if one is not None:
            one.close()
    num_bytes = {
        "ours": weight_bytes(ours.model, path),
        "llama.cpp": file_weight_bytes(path),
        OTHER: file_weight_bytes(path),
        "transformers": None,
    }
    return {
        "model": name,
        "num_held": NUM_HELD,
        "systems": {s: _curve(times, num_bytes[s]) for s, times in seconds.items()},
    }


def measure_prompts(
    name: str,
    *,
    threads: int,
    rounds: int,
    lengths: list[int],
    library: Path | None,
    with_transformers: bool,
) -> dict[str, Any]:
    """Prompt tokens per second, the systems in turn; each prompt starts with an empty cache."""
    ours, path = Ours(name, None, threads=threads), gguf_path(name)
    ids = _long_text(ours, max(lengths))
    theirs = _transformers_prompt(path, threads) if with_transformers else None
    speeds: dict[str, dict[int, list[float]]] = {}
    with Peer(path, PeerConfig("plain"), threads=threads) as peer:
        passes: dict[str, Pass] = {"ours": lambda tokens: _our_prompt(ours, tokens)}
        passes["llama.cpp"] = lambda tokens: peer.complete(tokens, max_tokens=1).prompt_s
        other = Passes(path, threads=threads, library=library) if library else None
        if other is not None:
            passes[OTHER] = _peer_prompt(other)
        if theirs is not None:
            passes["transformers"] = theirs
        for run in passes.values():
            run(ids[:64])
        for _ in range(rounds):
            for length in lengths:
                for system, run in passes.items():
                    settle()
                    speed = length / run(ids[:length])
                    speeds.setdefault(system, {}).setdefault(length, []).append(speed)
        if other is not None:
            other.close()
    return {
        "model": name,
        "systems": {
            s: {length: spread(values, 2) for length, values in of.items()}
            for s, of in speeds.items()
        },
        "ours_over_llamacpp": {
            length: spread([a / b for a, b in zip(v, speeds["llama.cpp"][length], strict=True)])
            for length, v in speeds["ours"].items()
        },
    }


def _curve(times: dict[int, list[float]], num_bytes: int | None) -> dict[str, Any]:
    curve: dict[str, Any] = {
        "seconds": {width: spread(values, 6) for width, values in times.items()},
        "weight_bytes_per_pass": num_bytes,
    }
    median = {width: of["median"] for width, of in curve["seconds"].items()}
    curve["over_one_row"] = {w: round(value / median[1], 3) for w, value in median.items()}
    if num_bytes is not None:
        curve["gb_per_s"] = {w: round(num_bytes / v / 1e9, 2) for w, v in median.items()}
    return curve


def _long_text(ours: Ours, length: int) -> list[int]:
    ids = ours.encode("\n\n".join(humaneval_prompts(30)))
    if len(ids) < length:
        raise ValueError(f"the text has {len(ids)} tokens, {length} are needed")
    return ids[:length]


def _our_pass(ours: Ours, held: list[int]) -> Pass:
    cache = ours.model.open_cache()
    row = cache.add()
    ours.model.prefill(cache, row, held)

    def run(tokens: list[int]) -> float:
        start = time.perf_counter()
        ours.model.forward(cache, Rows([row], [tokens]))
        seconds = time.perf_counter() - start
        cache.rollback(row, len(held))
        return seconds

    return run


def _our_prompt(ours: Ours, tokens: list[int]) -> float:
    """A prompt, and the logits after its last token."""
    cache = ours.model.open_cache()
    row = cache.add()
    start = time.perf_counter()
    ours.model.prefill(cache, row, tokens[:-1])
    ours.model.forward(cache, Rows([row], [tokens[-1:]]))
    seconds = time.perf_counter() - start
    cache.remove(row)
    return seconds


def _peer_pass(peer: Passes, held: list[int]) -> Pass:
    peer.forward(held, 0, all_logits=False)

    def run(tokens: list[int]) -> float:
        seconds = peer.forward(tokens, len(held), all_logits=True)
        peer.rollback(len(held))
        return seconds

    return run


def _peer_prompt(peer: Passes) -> Pass:
    def run(tokens: list[int]) -> float:
        seconds = peer.forward(tokens, 0, all_logits=False)
        peer.rollback(0)
        return seconds

    return run


def _transformers_model(path: Path, threads: int) -> Any:
    torch.set_num_threads(threads)
    # Dense: packed blocks are multiplied in float32, and slower.
    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent),
        gguf_file=path.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    return model.eval()


def _transformers_pass(path: Path, held: list[int], threads: int) -> Pass:
    model = _transformers_model(path, threads)
    cache = DynamicCache(config=model.config)
    state = {cache_argument(model, path.name): cache}
    with torch.inference_mode():
        model(torch.tensor([held]), **state)

    def run(tokens: list[int]) -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            model(torch.tensor([tokens]), **state)
            seconds = time.perf_counter() - start
        cache.crop(-len(tokens))
        return seconds

    return run


def _transformers_prompt(path: Path, threads: int) -> Pass:
    model = _transformers_model(path, threads)

    def run(tokens: list[int]) -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            model(torch.tensor([tokens]), logits_to_keep=1)
            return time.perf_counter() - start

    return run
