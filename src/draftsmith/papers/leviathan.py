"""Everything in Leviathan et al. (arXiv:2211.17192) that can be computed from what they print."""

from collections.abc import Callable, Sequence

from draftsmith.core import theory
from draftsmith.core.inverse import best_walltime_range, walltime_range
from draftsmith.papers import leviathan_figures as figures
from draftsmith.papers import printed_leviathan as printed
from draftsmith.papers.comparison import Cell, Claim, Item, last_digit, number
from draftsmith.report.page import Table

__all__ = ["computed"]

_GRID = [step / 25 for step in range(1, 25)]
"""Values of alpha and c at which statements are tried."""
_LONGEST = 32
"""Of the drafts tried where none should pay."""
_ROUNDING = 1e-12


def computed() -> list[Item]:
    """Every computed item, in the paper's order."""
    return [
        _equation_1(),
        _corollary_3_9(),
        _figure_3(),
        _table_1(),
        _figure_4(),
        _oracle(),
        _bigram(),
        _table_4(),
        _tables_agree(),
        _sampling_lenience(),
        _argmax_lenience(),
    ]


def _equation_1() -> Item:
    remark = (
        "The plot prints no numbers; its end points, by equation 1, are the curves below. "
        "A draft without end yields 1 / (1 - alpha)."
    )
    return Item(
        "Figure 2",
        "tokens per target run",
        remarks=[remark],
        tables=[figures.grid_2()],
        figures=[figures.figure_2()],
    )


def _corollary_3_9() -> Item:
    pairs = [(alpha, c) for alpha in _GRID for c in _GRID]
    paying = [pair for pair in pairs if pair[0] > pair[1]]
    hopeless = [pair for pair in pairs if pair[0] <= pair[1]]
    claims = [
        Claim(
            "alpha > c: some gamma gains at least (1 + alpha) / (1 + c)", *_tally(paying, _gains)
        ),
        Claim("gamma = 1 gains exactly that", *_tally(pairs, _is_the_factor_of_one)),
        Claim("the converse: alpha <= c, and no gamma gains", *_tally(hopeless, _never_gains)),
    ]
    remark = "The paper states the first; the converse follows from theorem 3.8."
    return Item("Corollary 3.9", "when speculation pays", claims=claims, remarks=[remark])


def _tally(
    points: Sequence[tuple[float, float]], holds: Callable[[float, float], bool]
) -> tuple[int, int]:
    return len(points), sum(holds(*point) for point in points)


def _gains(alpha: float, cost_ratio: float) -> bool:
    best = theory.optimal_gamma(alpha, cost_ratio, max_gamma=_LONGEST)
    factor = theory.walltime_factor(alpha, best, cost_ratio)
    return factor > 1 and factor >= theory.guaranteed_factor(alpha, cost_ratio) - _ROUNDING


def _is_the_factor_of_one(alpha: float, cost_ratio: float) -> bool:
    bound = theory.guaranteed_factor(alpha, cost_ratio)
    return abs(theory.walltime_factor(alpha, 1, cost_ratio) - bound) <= _ROUNDING


def _never_gains(alpha: float, cost_ratio: float) -> bool:
    factors = (theory.walltime_factor(alpha, g, cost_ratio) for g in range(1, _LONGEST + 1))
    return max(factors) <= 1 + _ROUNDING


def _figure_3() -> Item:
    cells = [
        Cell(
            f"c = {row.cost_ratio}, alpha = {alpha}",
            gamma,
            theory.optimal_gamma(alpha, number(row.cost_ratio)),
        )
        for row in printed.FIGURE_3
        for alpha, gamma in ((0.5, row.at_half), (0.9, row.at_nine_tenths))
    ]
    remark = "Theirs are read off the plot, where gamma is a whole number; the grid is ours."
    return Item(
        "Figure 3",
        "the best gamma",
        cells,
        remarks=[remark],
        tables=[figures.grid_3()],
        figures=[figures.figure_3()],
    )


def _table_1() -> Item:
    cells: list[Cell] = []
    for row in printed.TABLE_1:
        label, alpha = f"alpha = {row.alpha}, gamma = {row.gamma}", number(row.alpha)
        operations = theory.operations_factor(alpha, row.gamma, 0.0)
        speed = theory.walltime_factor(alpha, row.gamma, 0.0)
        cells.append(Cell(f"{label}: operations", row.operations, operations))
        cells.append(Cell(f"{label}: speed", row.speed, speed))
    return Item("Table 1", "operations and speed at c = c-hat = 0", cells)


def _figure_4() -> Item:
    remark = (
        "The plot prints no numbers. Its points at (0.7, 3), (0.8, 5) and (0.9, 10) are rows of "
        "table 1."
    )
    title = "speed and operations by alpha at c = c-hat = 0"
    return Item(
        "Figure 4", title, remarks=[remark], tables=figures.grids_4(), figures=figures.figures_4()
    )


def _oracle() -> Item:
    costs = [number(row.cost_ratio) for row in printed.FIGURE_3]

    def most(last: int) -> float:
        alphas = [step / 100 for step in range(50, last + 1)]
        return 100 * max(theory.oracle_gain(a, c, max_gamma=1000) for a in alphas for c in costs)

    remark = (
        f'The paper says "up to ~{printed.ORACLE_GAIN}" above the best fixed gamma and gives no '
        f"range, so there is nothing to compare: with the costs of figure 3 it is {most(90):.0f}% "
        f"for alpha to 0.9, {most(95):.0f}% to 0.95 and {most(99):.0f}% to 0.99."
    )
    return Item("Section 3.5", "what an oracle for gamma adds", remarks=[remark])


def _bigram() -> Item:
    claim = printed.BIGRAM
    speed = theory.expected_tokens(number(claim.alpha), claim.gamma)
    cell = Cell(f"alpha = {claim.alpha}, gamma = {claim.gamma}", claim.speed, speed)
    remark = "The formula at a measured alpha, with a draft that costs nothing; not a timing."
    return Item("Section 3.6", "a bigram as the draft of T5-XXL", [cell], remarks=[remark])


def _table_4() -> Item:
    remark = (
        "EXP is theorem 3.8 at the printed alpha and c. Where ours differs, the paper's own inputs "
        "are rounded more coarsely than its result. EMP is a timing on a TPU, not computed here."
    )
    cells = [_expected(row) for row in printed.TABLE_4]
    return Item(
        "Table 4", "expected speed of T5-XXL (EXP)", cells, remarks=[remark], tables=[_gammas()]
    )


def _gammas() -> Table:
    """Which gamma the formula would have taken."""
    rows: list[list[str]] = []
    for row in printed.TABLE_4:
        alpha, cost = number(row.alpha), number(row.cost_ratio)
        best = theory.optimal_gamma(alpha, cost)
        speed = theory.walltime_factor(alpha, best, cost)
        label = f"{row.task} {row.draft} t = {row.temperature}"
        rows.append([label, str(row.gamma), str(best), row.expected, f"{speed:.1f}"])
    columns = ["", "their gamma", "best gamma", "EXP", "EXP at the best"]
    return Table("their gammas are not the formula's best", columns, rows)


def _expected(row: printed.WalltimeRow) -> Cell:
    alpha, cost = number(row.alpha), number(row.cost_ratio)
    value = theory.walltime_factor(alpha, row.gamma, cost)
    cell = Cell(
        f"{row.task} {row.draft} t = {row.temperature}, gamma = {row.gamma}", row.expected, value
    )
    if cell.ours == row.expected:
        return cell
    slack = {"alpha_slack": last_digit(row.alpha), "cost_slack": last_digit(row.cost_ratio)}
    low, high = walltime_range(alpha, row.gamma, cost, **slack)
    half = last_digit(row.expected)
    is_rounding = low < number(row.expected) + half and high >= number(row.expected) - half
    reason = "which covers it" if is_rounding else "which does not cover it"
    note = (
        f"the paper's slip: alpha {row.alpha} and c {row.cost_ratio} give {value:.3f}; with them "
        f"known to their last digit only, {low:.2f} to {high:.2f}, {reason}"
    )
    return Cell(cell.label, cell.printed, value, note)


def _tables_agree() -> Item:
    alphas = {(row.target, row.draft): row for row in printed.TABLE_3}
    pairs: list[tuple[str, str]] = []
    for row in printed.TABLE_4:
        there = alphas[f"T5-XXL {row.task}", row.draft]
        pairs.append((row.alpha, there.sampling if row.temperature else there.argmax))
    ende = ((row.alphas[0], alphas["T5-XXL EnDe", row.draft]) for row in printed.TABLE_5)
    pairs += [(alpha, there.sampling) for alpha, there in ende]
    num_equal = sum(one == other for one, other in pairs)
    claim = Claim("an alpha that is printed twice is the same", len(pairs), num_equal)
    return Item("Tables 3, 4, 5", "alphas that are printed twice", claims=[claim])


def _sampling_lenience() -> Item:
    alphas = next(row.alphas for row in printed.TABLE_5 if row.draft == "T5-small")
    rows = zip(printed.SAMPLING_LENIENCE, alphas, strict=True)
    remark = (
        "No gamma is printed, so ours is the best of all. The speeds cannot be derived from the "
        "printed alpha and c: three exceed what any gamma gives, even with both inputs off by half "
        "of their last digit; the fourth is printed without a decimal."
    )
    cells = [_sampled(row, alpha) for row, alpha in rows]
    return Item("Appendix A.5", "speed under lenient sampling, T5-small", cells, remarks=[remark])


def _sampled(row: printed.SpeedRow, printed_alpha: str) -> Cell:
    alpha, cost = number(printed_alpha), number(printed.LENIENCE_COST_RATIO)
    gamma = theory.optimal_gamma(alpha, cost)
    value = theory.walltime_factor(alpha, gamma, cost)
    slack = (last_digit(printed_alpha), last_digit(printed.LENIENCE_COST_RATIO))
    most = best_walltime_range(alpha, cost, alpha_slack=slack[0], cost_slack=slack[1]).high
    note = f"gamma {gamma} gives {value:.2f}; at most {most:.2f} with rounded inputs"
    if most < number(row.speed) - last_digit(row.speed):
        note = f"the paper's slip, not derivable: {note}"
    return Cell(f"l = {row.lenience}, alpha = {printed_alpha}", row.speed, value, note)


def _argmax_lenience() -> Item:
    gamma, cost = printed.ARGMAX_LENIENCE_GAMMA, number(printed.LENIENCE_COST_RATIO)
    cells = [
        Cell(
            f"l = {row.lenience}, alpha = {row.alpha}, gamma = {gamma}",
            row.speed,
            theory.walltime_factor(number(row.alpha), gamma, cost),
        )
        for row in printed.ARGMAX_LENIENCE
    ]
    remark = (
        "The test is printed as p(x) <= l max(p), a slip: l = 1 would keep every draft, yet its "
        "alpha is that of strict argmax. We keep a draft where p(x) >= l max(p)."
    )
    return Item("Appendix A.5", "speed under lenient argmax, T5-small", cells, remarks=[remark])
