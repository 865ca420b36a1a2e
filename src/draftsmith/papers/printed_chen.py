"""What Chen et al. print (arXiv:2302.01318v1): numbers, nothing of ours. K is our gamma."""

from typing import NamedTuple

__all__ = [
    "DRAFT_MS",
    "FIGURE_1_LOOP_MS",
    "FIGURE_1_TEXT_MS",
    "FIGURE_1_YIELD",
    "TABLE_1",
    "TABLE_1_GAMMA",
    "TARGET_MS",
    "TEXT_LENGTH",
    "LoopRow",
    "ResultRow",
    "TextRow",
    "YieldRow",
]


class ResultRow(NamedTuple):
    """Table 1: one sampling method on one benchmark, plain (ArS) and speculative (SpS)."""

    benchmark: str
    method: str
    plain_score: str
    score: str
    ms_per_token: str
    speed: str


class TextRow(NamedTuple):
    """Figure 1, left: milliseconds for a text of 128 tokens, read off the plot."""

    benchmark: str
    gamma: int
    ms: str


class YieldRow(NamedTuple):
    """Figure 1, middle: tokens of a loop over gamma + 1, read off the plot."""

    benchmark: str
    gamma: int
    efficiency: str


class LoopRow(NamedTuple):
    """Figure 1, right: milliseconds of a loop, read off the plot."""

    gamma: int
    ms: str


TARGET_MS = "14.1"
"""Of a token of Chinchilla 70B on 16 TPU v4; section 6."""
DRAFT_MS = "1.8"
"""Of a token of the 4B draft on the same."""

TABLE_1_GAMMA = 4

TABLE_1 = (
    ResultRow("XSum", "nucleus", "0.112", "0.114", "7.52", "1.92x"),
    ResultRow("XSum", "greedy", "0.157", "0.156", "7.00", "2.01x"),
    ResultRow("HumanEval", "nucleus", "45.1%", "47.0%", "5.73", "2.46x"),
)

TEXT_LENGTH = 128
"""Tokens of a text of Figure 1, left."""

FIGURE_1_TEXT_MS = (
    TextRow("HumanEval", 0, "1800"),
    TextRow("HumanEval", 1, "1100"),
    TextRow("HumanEval", 2, "870"),
    TextRow("HumanEval", 7, "690"),
    TextRow("XSum", 0, "1800"),
    TextRow("XSum", 1, "1200"),
    TextRow("XSum", 3, "930"),
    TextRow("XSum", 7, "1000"),
)
"""HumanEval at 7 lies between 675 and 700; XSum at 3 is its minimum."""

FIGURE_1_YIELD = (
    YieldRow("HumanEval", 0, "1.0"),
    YieldRow("HumanEval", 7, "0.68"),
    YieldRow("XSum", 0, "1.0"),
    YieldRow("XSum", 7, "0.45"),
)

FIGURE_1_LOOP_MS = (LoopRow(0, "14.1"), LoopRow(7, "28.6"))
"""A nearly straight line between them."""
