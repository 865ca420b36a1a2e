"""What Chen et al. (arXiv:2302.01318) print, held against itself: its numbers imply one another."""

from collections.abc import Sequence

from draftsmith.core.inverse import implied_alpha
from draftsmith.core.theory import chen_efficiency, chen_loop_time, expected_tokens
from draftsmith.papers import printed_chen as printed
from draftsmith.papers.comparison import Cell, Claim, Item, Mark, number
from draftsmith.report.figure import Figure, Series
from draftsmith.report.page import Table

__all__ = ["computed", "loop_ms"]

_READ_OFF = 0.05
"""How well a number is read off a plot of this size, as a share."""
_GAMMAS = range(8)
_TARGET_BYTES = 70e9 * 2
"""70 billion weights in bfloat16."""
_BYTES_PER_MS = 16 * 1.2e9
"""16 TPU v4 of 1,200 GB/s each (Google Cloud's table of the v4's memory bandwidth)."""


def computed() -> list[Item]:
    """Every computed item, in the paper's order."""
    return [_speeds(), _implied(), _loop_time(), _panels(), _curves(), _bandwidth()]


def loop_ms(gamma: int) -> float:
    """A loop's milliseconds on the straight line of Figure 1, right."""
    first, last = printed.FIGURE_1_LOOP_MS
    slope = (number(last.ms) - number(first.ms)) / (last.gamma - first.gamma)
    return number(first.ms) + slope * (gamma - first.gamma)


def _speeds() -> Item:
    plain = number(printed.TARGET_MS)
    cells: list[Cell] = []
    for row in printed.TABLE_1:
        label = f"{row.benchmark} {row.method}: {printed.TARGET_MS} / {row.ms_per_token}"
        value = plain / number(row.ms_per_token)
        cell = Cell(label, row.speed, value)
        if cell.ours != row.speed:
            needed = plain / number(row.speed)
            note = f"the paper's slip: {row.speed} would take {needed:.2f} ms a token"
            cell = Cell(label, row.speed, value, note)
        cells.append(cell)
    return Item("Table 1", "speed by the times printed beside it", cells)


def _implied() -> Item:
    gamma = printed.TABLE_1_GAMMA
    rows = [
        [
            f"{row.benchmark} {row.method}",
            f"{_tokens(row):.2f}",
            f"{chen_efficiency(_tokens(row), gamma):.2f}",
            f"{implied_alpha(_tokens(row), gamma):.2f}",
        ]
        for row in printed.TABLE_1
    ]
    remark = (
        f"Not printed: what table 1's times come to with the loop of figure 1 at K = {gamma} "
        f"({loop_ms(gamma):.1f} ms). Alpha takes all positions to be alike."
    )
    columns = ["", "tokens per loop", "efficiency", "alpha"]
    tables = [Table(f"implied at K = {gamma}", columns, rows)]
    return Item("Table 1", "what its times imply", remarks=[remark], tables=tables)


def _tokens(row: printed.ResultRow) -> float:
    """Tokens of a loop, from the time of a token."""
    return loop_ms(printed.TABLE_1_GAMMA) / number(row.ms_per_token)


def _loop_time() -> Item:
    draft, target = number(printed.DRAFT_MS), number(printed.TARGET_MS)
    first, last = printed.FIGURE_1_LOOP_MS
    slope = (number(last.ms) - number(first.ms)) / (last.gamma - first.gamma)
    value = chen_loop_time(last.gamma, draft, target)
    note = (
        f"no slip: the line rises by {slope:.2f} ms a draft, {printed.DRAFT_MS} of them the "
        f"draft's pass; the rest is sampling, which the model leaves out"
    )
    start = chen_loop_time(first.gamma, draft, target)
    cells = [
        Cell(f"K = {first.gamma}", first.ms, start, tolerance=_READ_OFF),
        Cell(f"K = {last.gamma}", last.ms, value, note, _READ_OFF),
    ]
    remark = f"The model is {printed.TARGET_MS} ms and {printed.DRAFT_MS} ms a draft."
    return Item("Figure 1, right", "milliseconds of a loop", cells, remarks=[remark])


def _panels() -> Item:
    texts = {(row.benchmark, row.gamma): number(row.ms) for row in printed.FIGURE_1_TEXT_MS}
    cells = [
        Cell(
            f"{row.benchmark} K = {row.gamma}",
            row.efficiency,
            printed.TEXT_LENGTH
            * loop_ms(row.gamma)
            / texts[row.benchmark, row.gamma]
            / (row.gamma + 1),
            tolerance=_READ_OFF,
        )
        for row in printed.FIGURE_1_YIELD
    ]
    remark = (
        "Ours is the middle panel from the other two: 128 tokens in the left one's time are so "
        "many loops of the right one's. It is 1 at K = 0, so the paper's acceptance rate counts "
        "the emitted token: it is not alpha."
    )
    return Item("Figure 1, middle", "tokens of a loop over K + 1", cells, remarks=[remark])


def _curves() -> Item:
    """Table 1 alone, through equation 1, against the left panel."""
    alphas = _alphas()
    cells = [_predicted(row, alphas[row.benchmark]) for row in printed.FIGURE_1_TEXT_MS]
    best = {
        name: min(_GAMMAS, key=lambda gamma, alpha=alpha: _text_ms(alpha, gamma))
        for name, alpha in alphas.items()
    }
    remark = (
        f"Ours takes the alpha that table 1 implies at K = {printed.TABLE_1_GAMMA} to hold at "
        f"every K and position. The optimum is then K = {best['XSum']} for XSum, where the paper "
        f"has 3, and {best['HumanEval']} for HumanEval, whose curve is flat from 6 to 7."
    )
    return Item(
        "Figure 1, left",
        f"milliseconds for {printed.TEXT_LENGTH} tokens",
        cells,
        remarks=[remark],
        figures=_figures(alphas),
    )


def _predicted(row: printed.TextRow, alpha: float) -> Cell:
    label, value = (
        f"{row.benchmark} K = {row.gamma}, alpha = {alpha:.2f}",
        _text_ms(alpha, row.gamma),
    )
    cell = Cell(label, row.ms, value, tolerance=_READ_OFF)
    if cell.mark is Mark.SAME:
        return cell
    share = value / number(row.ms) - 1
    note = f"no slip: {share:+.1%}, since positions are not alike, as equation 1 has them"
    return Cell(label, row.ms, value, note, _READ_OFF)


def _alphas() -> dict[str, float]:
    """Of nucleus sampling, by benchmark."""
    return {
        row.benchmark: implied_alpha(_tokens(row), printed.TABLE_1_GAMMA)
        for row in printed.TABLE_1
        if row.method == "nucleus"
    }


def _text_ms(alpha: float, gamma: int) -> float:
    return printed.TEXT_LENGTH * loop_ms(gamma) / expected_tokens(alpha, gamma)


def _figures(alphas: dict[str, float]) -> Sequence[Figure]:
    gammas = list(_GAMMAS)
    left: list[Series] = []
    middle: list[Series] = []
    for name, alpha in alphas.items():
        times = [_text_ms(alpha, gamma) for gamma in gammas]
        shares = [chen_efficiency(expected_tokens(alpha, gamma), gamma) for gamma in gammas]
        left += [
            Series(f"{name}, from table 1", gammas, times),
            Series(f"{name}, read off", *_read_off(name, texts=True), style="points"),
        ]
        middle += [
            Series(f"{name}, from table 1", gammas, shares),
            Series(f"{name}, read off", *_read_off(name, texts=False), style="points"),
        ]
    draft, target = number(printed.DRAFT_MS), number(printed.TARGET_MS)
    model = [chen_loop_time(gamma, draft, target) for gamma in gammas]
    ends = printed.FIGURE_1_LOOP_MS
    right = [
        Series(f"{printed.TARGET_MS} + {printed.DRAFT_MS} K", gammas, model),
        Series("read off", [e.gamma for e in ends], [number(e.ms) for e in ends], style="points"),
    ]
    return [
        Figure("Figure 1, left", "K", f"ms for {printed.TEXT_LENGTH} tokens", left),
        Figure("Figure 1, middle", "K", "tokens of a loop / (K + 1)", middle),
        Figure("Figure 1, right", "K", "ms of a loop", right),
    ]


def _read_off(benchmark: str, *, texts: bool) -> tuple[list[int], list[float]]:
    points = (
        [(row.benchmark, row.gamma, row.ms) for row in printed.FIGURE_1_TEXT_MS]
        if texts
        else [(row.benchmark, row.gamma, row.efficiency) for row in printed.FIGURE_1_YIELD]
    )
    own = [(gamma, number(value)) for name, gamma, value in points if name == benchmark]
    return [gamma for gamma, _ in own], [value for _, value in own]


def _bandwidth() -> Item:
    """Section 6.1: which speeds are beyond what plain decoding could ever reach."""
    bound = _TARGET_BYTES / _BYTES_PER_MS
    beyond = {("XSum", "greedy"), ("HumanEval", "nucleus")}
    rows = printed.TABLE_1
    held = [
        (number(row.ms_per_token) < bound) == ((row.benchmark, row.method) in beyond)
        for row in rows
    ]
    claim = Claim(
        "HumanEval and greedy XSum, and they alone, beat the memory's bandwidth",
        len(held),
        sum(held),
    )
    remark = (
        f"Reading 70 billion bfloat16 weights once takes {bound:.1f} ms on 16 TPU v4 of 1,200 GB/s "
        "each; that figure is Google's, not the paper's."
    )
    return Item("Section 6.1", "the bound of plain decoding", claims=[claim], remarks=[remark])
