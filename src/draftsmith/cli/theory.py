"""`draftsmith theory`: what the papers' formulas say of a draft."""

from typing import Annotated

from cyclopts import Parameter

from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import GammaChoice, JsonOutput, Real
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.core import theory as law

__all__ = ["theory"]


def theory(
    *,
    alpha: Real,
    gamma: GammaChoice | None = None,
    cost_ratio: Annotated[Real, Parameter(alias="-c")] = 0.0,
    operations_ratio: Real = 0.0,
    json_output: JsonOutput = False,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Expected tokens and gain of speculation, by the closed forms of Leviathan et al.

    They assume one acceptance rate at every position; a benchmark reports what it measured.

    Parameters
    ----------
    alpha
        Acceptance rate, 0 to 1.
    gamma
        Drafted tokens per round; auto, the default, is the best for these costs.
    cost_ratio
        c: time of a draft pass over time of a target pass.
    operations_ratio
        c-hat: arithmetic of a draft pass over that of a target pass.
    json_output
        Print one object; an infinite factor is null.
    """
    messages.apply()
    best = law.optimal_gamma(alpha, cost_ratio)
    gamma = best if gamma is None or gamma == "auto" else gamma
    values: dict[str, float | int | bool] = {
        "alpha": alpha,
        "gamma": gamma,
        "cost_ratio": cost_ratio,
        "operations_ratio": operations_ratio,
        "expected_tokens": law.expected_tokens(alpha, gamma),
        "walltime_factor": law.walltime_factor(alpha, gamma, cost_ratio),
        "operations_factor": law.operations_factor(alpha, gamma, operations_ratio),
        "memory_factor": law.memory_factor(alpha, gamma),
        "optimal_gamma": best,
        "optimal_walltime_factor": law.walltime_factor(alpha, best, cost_ratio),
        "does_pay": law.does_pay(alpha, cost_ratio),
        "guaranteed_factor": law.guaranteed_factor(alpha, cost_ratio),
        "oracle_factor": law.oracle_factor(alpha, cost_ratio),
    }
    if json_output:
        write_json(values)
        return
    for name, value in values.items():
        write_text(f"{name:<24}{_shown(value)}\n")


def _shown(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
