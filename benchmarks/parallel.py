"""Decoding over several GPUs of one host: exchanges, passes, Chen et al.'s setting, a real pair.

    python -m benchmarks.parallel                  # writes results/parallel.json after each part
    python -m benchmarks.parallel --parts pair     # the real pair alone
    python -m benchmarks.parallel --resume         # goes on where the JSON ends
    python -m benchmarks.parallel --parts pair --device cpu --texts 3 --tokens 16 --name cpu_ranks

Weights are random but in the part `pair`. The target is Llama 3 70B's shape with 40 of its 80
layers; drafts have a twelfth of its parameters, in Chen et al.'s proportions (8 wide layers) or as
many thin ones. Acceptance is MADE UP there: a coin of 0.8 says whether a drafted token is right.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from benchmarks.common import RESULTS, environment, humaneval_prompts, write_result
from benchmarks.gpu_models import SHAPES, random_weights
from benchmarks.parallel_models import CHEN, Coins, Device, Exchanges, Timer, random_on_rank
from draftsmith import Engine, ModelDrafter, PromptLookupDrafter, SamplingParams
from draftsmith.core.laws import History, SamplingLaw
from draftsmith.core.noise import NoiseKeys, exponentials
from draftsmith.models.contract import Rows
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.load import load_tokenizer
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_parallel import load_on_ranks, placement_of, runner_on_ranks
from draftsmith.models.native.gpu_runner import GpuRunner
from draftsmith.models.reference import local_path, resolve
from draftsmith.parallel.group import Group
from draftsmith.parallel.processes import start_group

_ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 16)
_PROMPT = list(range(100, 356))
_ALPHA = 0.8
_DRAFTS = (("wide", "cut", range(1, 8)), ("deep", "cut", (1, 2, 4, 6)), ("wide", "whole", (4,)))
_TURNS = 3
_PAIR = "qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct"
_SAMPLED = {"temperature": 0.8, "top_p": 0.95, "seed": 7}


def main() -> None:
    """Measure what is asked for; the JSON is written after each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--parts", nargs="+", default=list(_ALL), choices=_ALL)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--texts", type=int, default=12, help="of the real pair")
    parser.add_argument("--tokens", type=int, default=128, help="of each of these")
    parser.add_argument("--resume", action="store_true", help="leave out what the JSON has")
    parser.add_argument("--name", default="parallel", help="of the JSON")
    options = parser.parse_args()
    path = Path(RESULTS) / f"{options.name}.json"
    kept = json.loads(path.read_text()) if options.resume and path.exists() else {}
    found: dict[str, Any] = {name: kept[name] for name in _ALL if name in kept}
    alone = one_gpu() if "passes" in options.parts and "passes" not in found else {}
    group = start_group(options.ranks, torch.device(options.device))
    is_cuda = options.device == "cuda"

    def save() -> None:
        cards = {"ranks": options.ranks, "gpus": torch.cuda.get_device_name() if is_cuda else None}
        write_result(options.name, {"environment": environment(), **cards, **found})

    for name in options.parts:
        if name not in found:
            if name == "pair":
                found[name] = pair(group, options.texts, options.tokens)
            else:
                found[name] = _PARTS[name](group, alone)
            print(name, json.dumps(found[name]), flush=True)
            save()


def make(group: Group, name: str, placement: str = "cut") -> GpuDecoder:
    """A model of random weights, over the ranks or whole on each."""
    assert group.orders is not None
    runner = runner_on_ranks(group.orders, random_on_rank, name, placement)
    return GpuDecoder(runner, CHEN[name], name)


def times(group: Group, runner: GpuRunner) -> dict[int, float]:
    """Milliseconds of a captured pass over some rows behind 300 tokens: the slowest rank's."""
    assert group.orders is not None
    timer = group.orders.make(Timer, runner)
    return {rows: round(max(group.orders.ask(timer, "milliseconds", rows)), 4) for rows in _ROWS}


@torch.inference_mode()
def one_gpu() -> dict[str, Any]:
    """The 8B shape on one GPU, before there is a group."""
    config = SHAPES["8B"]
    runner = GpuRunner(random_weights(config), config)
    copy = Device().copy_gbps()
    timer = Timer(runner)
    found = {rows: round(timer.milliseconds(rows), 4) for rows in _ROWS}
    del timer, runner
    torch.cuda.empty_cache()
    return {"ms": found, "copy_gb_per_s": round(copy, 1)}


def exchanges(group: Group, alone: dict[str, Any]) -> dict[str, Any]:
    """Microseconds of an exchange in a graph of many, and of the libraries' own sums."""
    del alone
    assert group.orders is not None
    ranks = group.orders.make(Exchanges)
    kinds = ("sum, norm and residual", "logits of 128,256", "NCCL", "one-shot", "two-shot")
    return {
        kind: {
            rows: round(max(group.orders.ask(ranks, "microseconds", kind, rows)), 2)
            for rows in (1, 5, 8, 16, 64)
        }
        for kind in kinds
    }


def passes(group: Group, alone: dict[str, Any]) -> dict[str, Any]:
    """T(M) of each shape; what one row's pass moves, as a share of all GPUs' copy bandwidth."""
    assert group.orders is not None
    device = group.orders.make(Device)
    copies = group.orders.ask(device, "copy_gbps")
    found: dict[str, Any] = {"copy_gb_per_s": [round(one, 1) for one in copies], "one GPU": alone}
    for name in CHEN:
        model = make(group, name)
        ms = times(group, model.runner)
        moved = model.weights.num_bytes_per_pass / ms[1] / 1e6
        found[name] = {
            "ms": ms,
            "share_of_copy": round(moved / min(copies), 4),
            "t5_over_t1": round(ms[5] / ms[1], 3),
            "t8_over_t1": round(ms[8] / ms[1], 3),
            "t16_over_t1": round(ms[16] / ms[1], 3),
        }
        if name == "8B" and alone:
            found[name]["over_one_gpu"] = round(alone["ms"][1] / ms[1], 3)
        print(name, found[name], flush=True)
        del model
        torch.cuda.empty_cache()
    return found


def chen(group: Group, alone: dict[str, Any]) -> dict[str, Any]:
    """Whole texts of the 70B shape over drafts of 0 to 7 tokens; acceptance is made up."""
    del alone
    assert group.orders is not None
    target = make(group, "target")
    found: dict[str, Any] = {"acceptance": f"made up: a coin of {_ALPHA}"}
    found["target_ms"] = times(group, target.runner)
    coins = group.orders.make(Coins, _ALPHA)
    plain = _speed(Engine(target), 384)
    found["plain"] = plain
    for name, placement, gammas in _DRAFTS:
        draft = make(group, name, placement)
        rows: dict[str, Any] = {}
        for gamma in gammas:
            row = _speed(Engine(target, draft=ModelDrafter(draft), gamma=gamma), 384)
            row["speedup"] = round(row["tokens_per_s"] / plain["tokens_per_s"], 3)
            # The coins of so many rounds fall a little better or worse than they should.
            mean = (1 - _ALPHA ** (gamma + 1)) / (1 - _ALPHA)
            row["speedup_at_mean_luck"] = round(
                row["rounds_per_s"] * mean / plain["tokens_per_s"], 3
            )
            check = found["target_ms"].get(gamma + 1)
            row["t_check_over_t1"] = check and round(check / found["target_ms"][1], 3)
            rows[str(gamma)] = row
        ms = times(group, draft.runner)[1]
        found[f"{name}, {placement}"] = {"draft_ms_per_token": ms, "by_gamma": rows}
        print(name, placement, found[f"{name}, {placement}"], flush=True)
        del draft
        torch.cuda.empty_cache()
    coins.put_away()
    return found


def _speed(engine: Engine, num_tokens: int) -> dict[str, Any]:
    """Tokens a second of some texts, behind the first few tokens of each; the first captures."""
    whole = SamplingParams(max_tokens=num_tokens + 16, ignore_eos=True)
    few = SamplingParams(max_tokens=16, ignore_eos=True)
    seconds, rounds = 0.0, 0
    for turn in range(_TURNS + 1):
        for params, sign in ((whole, 1), (few, -1)):
            start = time.perf_counter()
            result = engine.generate([_PROMPT], params)[0]
            if turn:
                seconds += sign * (time.perf_counter() - start)
                rounds += sign * result.statistics.num_rounds
    return {
        "tokens_per_s": round(_TURNS * num_tokens / seconds, 1),
        "tokens_per_round": round(_TURNS * num_tokens / rounds, 3),
        "rounds_per_s": round(rounds / seconds, 2),
    }


def pair(group: Group, num_texts: int, num_tokens: int) -> dict[str, Any]:
    """The real pair: texts with and without a draft, beside one device's, and tokens a second."""
    dtype = torch.bfloat16 if group.device.type == "cuda" else torch.float32
    tokenizer = load_tokenizer(_PAIR[0])
    prompts = [tokenizer.encode(text) for text in humaneval_prompts(num_texts)]
    asked = {
        kind: SamplingParams(max_tokens=num_tokens, ignore_eos=True, **sampling)
        for kind, sampling in (("greedy", {}), ("seeded", _SAMPLED))
    }
    single = _one_device(group.device, dtype)
    alone = {kind: _run(Engine(single), prompts, params) for kind, params in asked.items()}
    if group.device.type == "cpu":
        del single  # the host's memory is for all
    target, draft = (
        load_on_ranks(_file(name), name, dtype, group, placement)
        for name, placement in zip(_PAIR, ("cut", None), strict=True)
    )
    engines = {
        "plain": Engine(target),
        "gamma 4": Engine(target, draft=ModelDrafter(draft), gamma=4),
        "auto": Engine(target, draft=ModelDrafter(draft), gamma="auto"),
        "prompt lookup": Engine(target, draft=PromptLookupDrafter(), gamma=4),
    }
    found: dict[str, Any] = {"draft": placement_of(draft)}
    plain: dict[str, list[tuple[int, ...]]] = {}
    for kind, params in asked.items():
        runs = {name: _run(engine, prompts, params) for name, engine in engines.items()}
        runs["one device"] = alone[kind]
        plain[kind] = runs["plain"].texts
        found[kind] = {
            "texts": len(prompts),
            "tokens_per_s": {name: run.tokens_per_s for name, run in runs.items()},
            "equal_to_plain": {
                name: sum(a == b for a, b in zip(run.texts, plain[kind], strict=True))
                for name, run in runs.items()
            },
        }
        print(kind, found[kind], flush=True)
    differing = {
        (kind, place): (one, other)
        for kind in asked
        for place, (one, other) in enumerate(zip(alone[kind].texts, plain[kind], strict=True))
        if one != other
    }
    if differing:
        single = _one_device(group.device, dtype)
        found["differences_from_one_device"] = [
            {
                "kind": kind,
                "text": place,
                **_difference(single, target, prompts[place], asked[kind], *texts),
            }
            for (kind, place), texts in differing.items()
        ]
    return found


class _Run(NamedTuple):
    texts: list[tuple[int, ...]]
    tokens_per_s: float
    """Behind the first text, which compiles and captures."""


def _run(engine: Engine, prompts: list[list[int]], params: SamplingParams) -> _Run:
    texts: list[tuple[int, ...]] = []
    seconds = 0.0
    for place, prompt in enumerate(prompts):
        start = time.perf_counter()
        texts.append(engine.generate([prompt], params)[0].token_ids)
        seconds += (time.perf_counter() - start) * (place > 0)
    return _Run(texts, round(sum(map(len, texts[1:])) / seconds, 2))


def _one_device(device: torch.device, dtype: torch.dtype) -> GpuDecoder:
    config, weights = read_gguf(_file(_PAIR[0]))
    return GpuDecoder.from_weights(weights, config, device, dtype)


def _file(name: str) -> Path:
    path = local_path(resolve(name))
    assert path is not None
    return path


@torch.inference_mode()
def _difference(
    single: Any,
    target: Any,
    prompt: list[int],
    params: SamplingParams,
    one: tuple[int, ...],
    other: tuple[int, ...],
) -> dict[str, Any]:
    """Where a text over ranks leaves one device's, and by how little it was decided there.

    A greedy token is decided by logits. A seeded one is the first to arrive of those that top-p
    keeps: by logits / temperature - log(its exponential), or by which tokens are kept.
    """
    at = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    tokens = [*prompt, *one[:at]]
    pair, rows = [one[at], other[at]], []
    for model in (single, target):
        cache = model.open_cache()
        row = cache.add()
        model.prefill(cache, row, tokens[:-1])
        rows.append(model.forward(cache, Rows([row], [tokens[-1:]]))[0, 0].float().cpu())
        cache.remove(row)
    found: dict[str, Any] = {
        "position": at,
        "tokens": pair,
        "largest_error_of_logits": round(float((rows[0] - rows[1]).abs().max()), 4),
        "error_between_the_tokens": round(
            float(((rows[0] - rows[1])[pair[0]] - (rows[0] - rows[1])[pair[1]]).abs()), 4
        ),
    }
    if params.is_greedy:
        margins = [row[pair[0]] - row[pair[1]] for row in rows]
        decided = [int(row.argmax()) for row in rows]
    else:
        assert params.seed is not None
        nothing = torch.empty(0, dtype=torch.long)
        law, keys = SamplingLaw(params, ()), NoiseKeys(*torch.tensor([[params.seed], [0]]))
        laws = [law(row[None], History(nothing, nothing), nothing)[0] for row in rows]
        noise = exponentials(keys, torch.tensor([len(tokens)]), rows[0].numel())[0]
        decided = [int((noise / one_law).argmin()) for one_law in laws]
        found["is_kept_by_top_p"] = [
            [bool(one_law[token] > 0) for token in pair] for one_law in laws
        ]
        found["mass_of_likelier_tokens"] = [
            [_mass_before(row, params, t) for t in pair] for row in rows
        ]
        scores = [row / params.temperature - noise.log() for row in rows]
        margins = [params.temperature * (score[pair[0]] - score[pair[1]]) for score in scores]
    return {
        **found,
        "is_decided_so_again": decided == pair,
        "margins_in_logits": [round(float(margin), 4) for margin in margins],
    }


def _mass_before(row: torch.Tensor, params: SamplingParams, token: int) -> float:
    """What top-p has counted when it comes to a token."""
    probs = (row / params.temperature).double().softmax(0)
    return round(float(probs[probs > probs[token]].sum()), 5)


_PARTS: dict[str, Callable[[Group, dict[str, Any]], dict[str, Any]]] = {
    "exchanges": exchanges,
    "passes": passes,
    "chen": chen,
}
_ALL = (*_PARTS, "pair")

if __name__ == "__main__":
    main()
    if dist.is_initialized():
        torch.cuda.synchronize()
