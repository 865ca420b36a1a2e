"""What a JSON answer says of how it came about: enough to get it again."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

from draftsmith.cli.resolved import resolved
from draftsmith.core.structured import StructuredOutputs

if TYPE_CHECKING:
    from draftsmith.cli.runtime import ModelOptions
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine

__all__ = ["longest_output", "machinery", "provenance"]


def provenance(
    engine: "Engine", models: "ModelOptions", params: "SamplingParams", num_prompt_tokens: int
) -> dict[str, Any]:
    """Models, device, versions, the seed, every parameter, and whether the text is the target's.

    Args:
        engine: What generated.
        models: As they were named.
        params: With its seed, also where that was drawn.
        num_prompt_tokens: What the prompt takes of the context.
    """
    params = replace(params, max_tokens=longest_output(engine, params, num_prompt_tokens))
    return {
        **machinery(engine, models),
        "seed": params.seed,
        "exact": params.lossy_lenience == 1,
        "parameters": {one.name: _plain(getattr(params, one.name)) for one in fields(params)},
    }


def machinery(engine: "Engine", models: "ModelOptions") -> dict[str, Any]:
    """What ran, whatever was asked of it."""
    return {
        "target": models.target,
        "draft": models.drafted_by,
        "gamma": engine.gamma,
        "branches": 1 if engine.draft is None else engine.draft.branches,
        "device": str(engine.target.device),
        "runtime": resolved(engine, models.runtime),
        "versions": _versions(),
    }


def longest_output(engine: "Engine", params: "SamplingParams", num_prompt_tokens: int) -> int:
    """`max_tokens` as it held: where none was asked for, the default or what the context leaves."""
    traits, longest = engine.target.traits, params.longest_output
    if params.max_tokens is not None or traits.context_length is None:
        return longest
    num_before = 1 if traits.is_encoder_decoder else num_prompt_tokens
    return min(longest, traits.context_length - num_before)


def _versions() -> dict[str, str]:
    """Of what took part; transformers only where a model or a tokenizer ran through it."""
    from draftsmith import __version__

    used = {name: sys.modules.get(name) for name in ("torch", "transformers")}
    found = {name: str(module.__version__) for name, module in used.items() if module is not None}
    return {"draftsmith": __version__, "python": platform.python_version(), **found}


def _key(key: object) -> str:
    """As the option that gives it is typed: an id, or several with commas."""
    return ",".join(map(str, cast(tuple[object, ...], key))) if isinstance(key, tuple) else str(key)


def _plain(value: object) -> Any:  # noqa: ANN401 - what JSON takes
    if isinstance(value, StructuredOutputs):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {_key(key): one for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
