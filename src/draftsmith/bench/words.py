"""Numbers in words, the same in the terminal and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["broken_arms", "cell_name", "interval", "number", "same_text", "verdict"]

_NONE = "-"
_MOST_SENTENCES = 4
"""With more cells than this, the verdict is on all of them together."""


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    return _NONE if value is None else f"{value:.{digits}f}"


def interval(found: Mapping[str, Any] | None, digits: int = 2, *, key: str = "median") -> str:
    """Such as `1.52 (1.40 to 1.61)`."""
    if found is None:
        return _NONE
    middle = number(found[key], digits)
    if found.get("low") is None:
        return middle
    return f"{middle} ({number(found['low'], digits)} to {number(found['high'], digits)})"


def same_text(arm: Mapping[str, Any]) -> str:
    """Whether the arm's texts are plain decoding's; a dash where nothing could differ."""
    if arm["is_identical"] is None or arm["draft"] is None:
        return _NONE
    if arm["is_identical"]:
        return "yes" if _is_tried(arm) else "nothing drafted"
    count = len(arm["differences"])
    return f"NO ({count})" if arm["is_promised_identical"] else f"no ({count}), as expected"


def cell_name(cell: Mapping[str, Any]) -> str:
    """Such as `chat, temperature 0.8, batch 4`."""
    return f"{cell['workload']}, temperature {cell['temperature']:g}, batch {cell['batch_size']}"


def verdict(document: Mapping[str, Any]) -> str:
    """What came out, in a few sentences."""
    cells = document["cells"]
    said = [_overall(cells)] if len(cells) > _MOST_SENTENCES else list(map(_verdict_of, cells))
    said = [one for one in said if one]
    arms = [arm for cell in document["cells"] for arm in cell["arms"]]
    broken = broken_arms(document)
    if broken:
        count = "1 arm" if len(broken) == 1 else f"{len(broken)} arms"
        said.append(f"{count} gave another text than plain decoding, and should not.")
    elif any(_is_tried(arm) and arm["is_identical"] for arm in arms):
        said.append("Every text that must be plain decoding's is, token for token.")
    idle = [arm for arm in arms if arm["draft"] is not None and arm["is_identical"] is not None]
    idle = [arm["name"] for arm in idle if not _is_tried(arm)]
    if idle:
        said.append(f"Nothing was drafted by {'; '.join(dict.fromkeys(idle))}.")
    if not document["is_complete"]:
        said.append("The run was not finished: these are the numbers up to there.")
    return " ".join(said) or "Nothing was measured."


def broken_arms(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The arms whose texts must be plain decoding's, and are not."""
    arms = [arm for cell in document["cells"] for arm in cell["arms"]]
    return [arm for arm in arms if arm["is_identical"] is False and arm["is_promised_identical"]]


def _is_tried(arm: Mapping[str, Any]) -> bool:
    """Whether the arm drafted at all: else its texts are plain decoding's without saying much."""
    return arm["draft"] is not None and bool(arm["statistics"]["num_drafted"])


def _overall(cells: Sequence[Mapping[str, Any]]) -> str:
    """One sentence for many cells."""
    best = [(cell, arm) for cell in cells if (arm := _best(cell)) is not None]
    if not best:
        return ""
    cell, arm = max(best, key=lambda pair: pair[1]["speedup"]["decode"]["median"])
    num_won = sum(arm["speedup"]["decode"]["median"] > 1 for _, arm in best)
    found = interval(arm["speedup"]["decode"])
    return (
        f"The fastest arm beats plain decoding in {num_won} of {len(best)} cells; most in "
        f"{cell_name(cell)}: {arm['name']}, {found} times plain decoding."
    )


def _best(cell: Mapping[str, Any]) -> Mapping[str, Any] | None:
    ranked = [
        arm for arm in cell["arms"][1:] if _is_tried(arm) and arm["speedup"]["decode"] is not None
    ]
    return max(ranked, key=lambda arm: arm["speedup"]["decode"]["median"], default=None)


def _verdict_of(cell: Mapping[str, Any]) -> str:
    best = _best(cell)
    if best is None:
        return ""
    found = best["speedup"]["decode"]
    if found["median"] <= 1:
        return f"{cell_name(cell)}: nothing beats plain decoding."
    said = f"{cell_name(cell)}: fastest is {best['name']}, {interval(found)} times plain decoding"
    is_sure = found["low"] is None or found["low"] > 1
    return f"{said}." if is_sure else f"{said}, which may be chance."
