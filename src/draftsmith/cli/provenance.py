"""What a JSON answer says of how it came about: enough to get it again."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from draftsmith.cli.runtime import ModelOptions
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine

__all__ = ["machinery", "provenance"]


def provenance(
    engine: "Engine", models: "ModelOptions", params: "SamplingParams"
) -> dict[str, Any]:
    """Models, device, versions, the seed, every parameter, and whether the text is the target's.

    Args:
        engine: What generated.
        models: As they were named.
        params: With its seed, also where that was drawn.
    """
    return {
        **machinery(engine, models),
        "seed": params.seed,
        "exact": params.lossy_lenience == 1,
        "parameters": {one.name: _plain(getattr(params, one.name)) for one in fields(params)},
    }


def machinery(engine: "Engine", models: "ModelOptions") -> dict[str, Any]:
    """What ran, whatever was asked of it."""
    runtime = models.runtime
    return {
        "target": models.target,
        "draft": models.drafted_by,
        "gamma": engine.gamma,
        "device": str(engine.target.device),
        "runtime": {one.name: getattr(runtime, one.name) for one in fields(runtime)},
        "versions": _versions(),
    }


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
    if isinstance(value, Mapping):
        return {_key(key): one for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
