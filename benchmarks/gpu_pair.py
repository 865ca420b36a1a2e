"""A real pair on a GPU over HumanEval: plain, fixed and auto, greedy and sampled; and peers."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import humaneval_prompts
from benchmarks.gpu_models import adapted_from
from draftsmith import Engine, ModelDrafter, PromptLookupDrafter, SamplingParams
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer
from draftsmith.models.native.gpu import GpuDecoder

__all__ = ["pair"]

TARGET, DRAFT = "qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct"
_TOKENS = 192
_PROMPTS = 20
_PEER_PROMPTS, _PEER_TOKENS = 4, 96
_GAMMA = 4
_HEAD_IDS = 32_768
_TURNS = 3


def pair(save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Tokens a second of whole texts, prompts included, every arm in turn.

    Args:
        save: Called with what there is after each part.
    """
    start = time.perf_counter()
    target, whole = (load_model(name, ModelSettings(device="cuda")) for name in (TARGET, DRAFT))
    loaded_s = time.perf_counter() - start
    assert isinstance(target, GpuDecoder)
    assert isinstance(whole, GpuDecoder)
    reduced = GpuDecoder.on_weights(whole.weights, whole.config, DRAFT, _HEAD_IDS)
    tokenizer = load_tokenizer(TARGET)
    prompts = [tokenizer.encode(text) for text in humaneval_prompts(_PROMPTS)]
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "loaded_s": round(loaded_s, 1)}
    for name, sampling in (
        ("temperature 0", {}),
        ("temperature 0.8", {"temperature": 0.8, "top_p": 0.95, "seed": 7}),
    ):
        found[name] = _ours(target, whole, reduced, prompts, sampling)
        save(found)
        print(name, found[name], flush=True)
    found["peer"] = _peer(target, whole, prompts[:_PEER_PROMPTS])
    print("peer", found["peer"], flush=True)
    return found


def _ours(
    target: GpuDecoder,
    draft: GpuDecoder,
    reduced: GpuDecoder,
    prompts: list[list[int]],
    sampling: dict[str, Any],
) -> dict[str, Any]:
    params = SamplingParams(max_tokens=_TOKENS, ignore_eos=True, **sampling)
    drafter = ModelDrafter(draft)
    arms = {
        "plain": Engine(target),
        f"gamma {_GAMMA}": Engine(target, draft=drafter, gamma=_GAMMA),
        f"gamma {_GAMMA}, {_HEAD_IDS} ids": Engine(
            target, draft=ModelDrafter(reduced), gamma=_GAMMA
        ),
        "gamma 6": Engine(target, draft=drafter, gamma=6),
        "auto": Engine(target, draft=drafter, gamma="auto"),
        "prompt lookup, auto": Engine(target, draft=PromptLookupDrafter(), gamma="auto"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    texts: dict[str, Any] = {}
    alphas: dict[str, Any] = {}
    for turn in range(_TURNS + 1):
        for name, engine in arms.items():
            start = time.perf_counter()
            results = [engine.generate([prompt], params)[0] for prompt in prompts]
            torch.cuda.synchronize()
            if turn:  # the first compiles and captures
                speeds[name].append(_TOKENS * len(prompts) / (time.perf_counter() - start))
            texts[name] = [result.token_ids for result in results]
            known = [a for r in results if (a := r.statistics.alpha) is not None]
            rounds = sum(result.statistics.num_rounds for result in results)
            alphas[name] = (statistics.mean(known) if known else None, rounds)
    return {
        name: {
            "tokens_per_s": round(statistics.median(times), 1),
            "of_plain": round(statistics.median(times) / statistics.median(speeds["plain"]), 3),
            "alpha": None if alphas[name][0] is None else round(alphas[name][0], 3),
            "tokens_per_round": round(_TOKENS * len(prompts) / alphas[name][1], 2),
            "same_texts": sum(
                one == other for one, other in zip(texts[name], texts["plain"], strict=True)
            ),
            "texts": len(prompts),
        }
        for name, times in speeds.items()
    }


def _peer(target: GpuDecoder, draft: GpuDecoder, prompts: list[list[int]]) -> dict[str, Any]:
    """`transformers` on the same weights: its plain loop, and its assisted generation."""
    model, assistant = adapted_from(target), adapted_from(draft)
    assistant.generation_config.num_assistant_tokens = _GAMMA
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0
    common = {
        "do_sample": False,
        "max_new_tokens": _PEER_TOKENS,
        "min_new_tokens": _PEER_TOKENS,
        "pad_token_id": 0,
    }
    arms = {"generate": {}, f"assisted, gamma {_GAMMA}": {"assistant_model": assistant}}
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(_TURNS):
        for name, options in arms.items():
            start = time.perf_counter()
            for prompt in prompts:
                ids = torch.tensor([prompt], device="cuda")
                model.generate(ids, attention_mask=torch.ones_like(ids), **common, **options)
            torch.cuda.synchronize()
            if turn:
                seconds = time.perf_counter() - start
                speeds[name].append(_PEER_TOKENS * len(prompts) / seconds)
    return {name: round(statistics.median(times), 1) for name, times in speeds.items()}
