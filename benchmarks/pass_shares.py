"""How much of a plain decoding pass is not a matrix product, by tokens held.

python -m benchmarks.pass_shares
"""

import argparse
from typing import Any

from benchmarks.common import environment, write_result
from benchmarks.summaries import spread
from draftsmith.models.contract import Rows
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.native.cpu import CpuDecoder

HELD = (16, 128, 256, 512, 1024)


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--passes", type=int, default=300)
    options = parser.parse_args()
    model = load_model(options.model, ModelSettings(device="cpu"))
    assert isinstance(model, CpuDecoder)
    rows: list[dict[str, Any]] = []
    for held in HELD:
        rows.append(_measure(model, held, options.passes))
        shares = rows[-1]["outside_products"]
        print(held, f"{shares['median']:.3f} ({shares['p10']:.3f} to {shares['p90']:.3f})")
    document = {"environment": environment(), "settings": vars(options), "rows": rows}
    print(write_result("pass_shares", document))


def _measure(model: CpuDecoder, held: int, passes: int) -> dict[str, Any]:
    cache = model.open_cache()
    row = cache.add()
    model.prefill(cache, row, [100 + i % 1000 for i in range(held)])
    shares: list[float] = []
    attention: list[float] = []
    for number in range(passes + 20):
        model.take_times()
        model.forward(cache, Rows([row], [[5]]))
        cache.rollback(row, held)
        times = model.take_times()
        if number >= 20:  # the first ones warm up
            shares.append(1 - times.products / sum(times))
            attention.append(times.attention / sum(times))
    return {
        "held": held,
        "outside_products": _without_values(spread(shares)),
        "attention": _without_values(spread(attention)),
    }


def _without_values(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "values"}


if __name__ == "__main__":
    main()
