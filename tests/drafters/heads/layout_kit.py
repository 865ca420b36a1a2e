"""One head of every layout as files, and what a reader makes of its config.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from draftsmith.drafters.heads.kinds import read_head
from tests.drafters.heads import (
    kit,
    medusa_kit,
    parallel_kit,
    test_block_layouts,
    test_layouts,
    test_medusa,
    test_parallel,
)

__all__ = ["LAYOUTS", "altered", "parts", "read_as"]


def _eagle(name: str) -> Callable[[Path], None]:
    def written(folder: Path) -> None:
        write, changes = test_layouts.LAYOUTS[name]
        config = kit.config("reduced", **changes)
        write(folder, config, kit.weights(config))

    return written


def _block(name: str) -> Callable[[Path], None]:
    return lambda folder: test_block_layouts.whole(folder, name)


def _parallel(name: str) -> Callable[[Path], None]:
    def written(folder: Path) -> None:
        config = parallel_kit.config("four-layers")
        weights, mask = kit.weights(config), parallel_kit.mask(config)
        keys = test_parallel.layout(name, config, mask)
        test_parallel.write(folder, keys, test_parallel.tensors_of(config, weights, mask))

    return written


def _medusa(name: str) -> Callable[[Path], None]:
    def written(folder: Path) -> None:
        write, variant, _ = test_medusa.LAYOUTS[name]
        config = medusa_kit.config(variant)
        write(folder, config, medusa_kit.weights(config))

    return written


LAYOUTS: dict[str, Callable[[Path], None]] = {
    **{f"eagle3-{one}": _eagle(one) for one in ("SafeAI", "SpecForge", "ModelOpt", "speculators")},
    **{
        f"block-{one}": _block(one)
        for one in ("z-lab", "SpecForge", "DeepSpec", "speculators", "speculators-dspark")
    },
    **{f"p-eagle-{one}": _parallel(one) for one in ("vllm", "speculators")},
    **{f"medusa-{one}": _medusa(one) for one in ("safetensors", "vllm", "speculators")},
}
"""Each writes its folder."""


def read_as(folder: Path, keys: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """What a head comes to with this config.json, every convention of it.

    Raises:
        DraftsmithError: As reading does.
    """
    (folder / "config.json").write_text(json.dumps(keys))
    head = read_head(folder, medusa_kit.target())
    return repr(getattr(head, "config", None)), head.described()


def parts(keys: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every object within a config.json, the whole first, as the keys that lead there."""
    found = [path]
    for key, value in keys.items():
        if isinstance(value, dict):
            found += parts(value, (*path, key))
    return found


def altered(keys: dict[str, Any], path: tuple[str, ...], key: str, value: object) -> dict[str, Any]:
    """The same with one key of one part set; the part is made where it is missing."""
    if not path:
        return {**keys, key: value}
    first, *others = path
    within = keys.get(first)
    part: dict[str, Any] = within if isinstance(within, dict) else {}
    return {**keys, first: altered(part, tuple(others), key, value)}
