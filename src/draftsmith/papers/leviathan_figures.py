"""Figures 2, 3 and 4 of Leviathan et al. (arXiv:2211.17192), from the formulas."""

import math
from collections.abc import Callable, Sequence

from draftsmith.core import theory
from draftsmith.papers import printed_leviathan as printed
from draftsmith.papers.comparison import number
from draftsmith.report.figure import Figure, Series
from draftsmith.report.page import Table

__all__ = ["figure_2", "figure_3", "figures_4", "grid_2", "grid_3", "grids_4"]

_ALPHAS = [0.5 + step / 50 for step in range(21)]
"""0.5 … 0.9, the plots' own range."""
_COLUMNS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Where the points are written out."""
_GAMMAS_2: list[tuple[str, float]] = [
    *((f"gamma {gamma}", float(gamma)) for gamma in printed.FIGURE_2_GAMMAS),
    ("no end", math.inf),
]


def _speed(alpha: float, gamma: int) -> float:
    return theory.walltime_factor(alpha, gamma, 0.0)


def _operations(alpha: float, gamma: int) -> float:
    return theory.operations_factor(alpha, gamma, 0.0)


_FACTORS: dict[str, Callable[[float, int], float]] = {"speed": _speed, "operations": _operations}


def figure_2() -> Figure:
    """Tokens that a target run yields, by alpha, for several gammas."""
    return Figure(
        title="Figure 2: tokens per target run",
        x_label="alpha",
        y_label="tokens",
        series=[Series(label, _ALPHAS, _tokens(gamma, _ALPHAS)) for label, gamma in _GAMMAS_2],
        caption="(1 - alpha^(gamma+1)) / (1 - alpha), equation 1.",
    )


def grid_2() -> Table:
    """Points of figure 2."""
    return _grid(
        "tokens per target run, by alpha",
        [(label, [f"{y:.2f}" for y in _tokens(gamma, _COLUMNS)]) for label, gamma in _GAMMAS_2],
    )


def figure_3() -> Figure:
    """The best gamma by alpha, for several cost ratios."""
    return Figure(
        title="Figure 3: the best gamma",
        x_label="alpha",
        y_label="gamma",
        series=[
            Series(f"c = {row.cost_ratio}", _ALPHAS, _best(row.cost_ratio, _ALPHAS))
            for row in printed.FIGURE_3
        ],
        caption="The whole number with the largest factor of theorem 3.8.",
    )


def grid_3() -> Table:
    """Points of figure 3."""
    return _grid(
        "the best gamma, by alpha",
        [
            (f"c = {row.cost_ratio}", [str(y) for y in _best(row.cost_ratio, _COLUMNS)])
            for row in printed.FIGURE_3
        ],
    )


def figures_4() -> list[Figure]:
    """Speed, then operations, by alpha, for several gammas, with a draft that costs nothing."""
    theorems = {"speed": "3.8", "operations": "3.11"}
    return [
        Figure(
            title=f"Figure 4: {name}",
            x_label="alpha",
            y_label="times plain decoding",
            series=[
                Series(f"gamma {gamma}", _ALPHAS, [factor(alpha, gamma) for alpha in _ALPHAS])
                for gamma in printed.FIGURE_4_GAMMAS
            ],
            caption=f"The factor of theorem {theorems[name]} at c = c-hat = 0.",
            reference=1.0,
        )
        for name, factor in _FACTORS.items()
    ]


def grids_4() -> list[Table]:
    """Points of figure 4: speed, then operations."""
    return [_grid(f"{name}, by alpha", _gains(factor)) for name, factor in _FACTORS.items()]


def _gains(factor: Callable[[float, int], float]) -> list[tuple[str, list[str]]]:
    return [
        (f"gamma {gamma}", [f"{factor(alpha, gamma):.2f}X" for alpha in _COLUMNS])
        for gamma in printed.FIGURE_4_GAMMAS
    ]


def _tokens(gamma: float, alphas: Sequence[float]) -> list[float]:
    length = gamma if gamma == math.inf else int(gamma)
    return [theory.expected_tokens(alpha, length) for alpha in alphas]


def _best(cost_ratio: str, alphas: Sequence[float]) -> list[int]:
    return [theory.optimal_gamma(alpha, number(cost_ratio)) for alpha in alphas]


def _grid(caption: str, rows: Sequence[tuple[str, list[str]]]) -> Table:
    columns = ["", *(f"{alpha:g}" for alpha in _COLUMNS)]
    return Table(caption, columns, [[label, *values] for label, values in rows])
