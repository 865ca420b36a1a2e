"""What Leviathan, Kalman & Matias print (arXiv:2211.17192v2, ICML 2023): numbers, nothing of ours.

Texts are kept as printed, so that a comparison knows their last digit.
"""

from typing import NamedTuple

__all__ = [
    "ARGMAX_LENIENCE",
    "ARGMAX_LENIENCE_GAMMA",
    "BIGRAM",
    "FIGURE_1",
    "FIGURE_2_GAMMAS",
    "FIGURE_3",
    "FIGURE_4_GAMMAS",
    "LENIENCE_COST_RATIO",
    "ORACLE_GAIN",
    "SAMPLING_LENIENCE",
    "TABLE_1",
    "TABLE_3",
    "TABLE_4",
    "TABLE_5",
    "AlphaRow",
    "ArgmaxLenienceRow",
    "BestGammaRow",
    "BigramClaim",
    "GainRow",
    "LenienceRow",
    "SpeedRow",
    "TraceCount",
    "WalltimeRow",
]


class GainRow(NamedTuple):
    """Table 1: operations and speed at c = c-hat = 0."""

    alpha: str
    gamma: int
    operations: str
    speed: str


class BestGammaRow(NamedTuple):
    """Figure 3: the best gamma at both ends of a curve, read off the plot."""

    cost_ratio: str
    at_half: str
    """alpha = 0.5"""
    at_nine_tenths: str
    """alpha = 0.9"""


class WalltimeRow(NamedTuple):
    """Tables 2 and 4: T5-XXL drafted by a smaller T5, expected and measured."""

    task: str
    draft: str
    temperature: int
    gamma: int
    alpha: str
    cost_ratio: str
    expected: str
    """EXP of Table 4."""
    measured: str
    """The speed of Table 2, which Table 4 calls EMP."""


class AlphaRow(NamedTuple):
    """Table 3: the mean of sum over x of min(p, q) on 10,000 tokens of the target's own."""

    target: str
    draft: str
    argmax: str
    """t = 0"""
    sampling: str
    """t = 1"""


class LenienceRow(NamedTuple):
    """Table 5: alpha of T5-XXL on EnDe under standard sampling, by lenience 1, 0.5, 0.3, 0.1."""

    draft: str
    alphas: tuple[str, str, str, str]


class SpeedRow(NamedTuple):
    """Appendix A.5, text: speed under lenient sampling with T5-small."""

    lenience: str
    speed: str


class ArgmaxLenienceRow(NamedTuple):
    """Appendix A.5, text: alpha and speed under lenient argmax with T5-small."""

    lenience: str
    alpha: str
    speed: str


class BigramClaim(NamedTuple):
    """Section 3.6: what a bigram gives T5-XXL on EnDe."""

    alpha: str
    gamma: int
    speed: str


class TraceCount(NamedTuple):
    """Figure 1: a text of the 97M model, drafted by the 6M one."""

    num_tokens: int
    num_target_runs: int


FIGURE_1 = TraceCount(38, 9)

TABLE_1 = (
    GainRow("0.6", 2, "1.53X", "1.96X"),
    GainRow("0.7", 3, "1.58X", "2.53X"),
    GainRow("0.8", 2, "1.23X", "2.44X"),
    GainRow("0.8", 5, "1.63X", "3.69X"),
    GainRow("0.9", 2, "1.11X", "2.71X"),
    GainRow("0.9", 10, "1.60X", "6.86X"),
)

FIGURE_2_GAMMAS = (1, 3, 5, 7)
"""And a draft without end; the plot prints no numbers."""

FIGURE_3 = (
    BestGammaRow("0.01", "5", "24"),
    BestGammaRow("0.02", "4", "19"),
    BestGammaRow("0.05", "3", "13"),
    BestGammaRow("0.1", "2", "10"),
)

FIGURE_4_GAMMAS = (1, 3, 5, 7, 10)
"""The plot prints no numbers."""

BIGRAM = BigramClaim("0.2", 3, "1.25X")

ORACLE_GAIN = "60%"
"""Section 3.5: "up to ~60%" above a fixed gamma, for no stated range of alpha and c."""

TABLE_4 = (
    WalltimeRow("EnDe", "T5-small", 0, 7, "0.75", "0.02", "3.2", "3.4X"),
    WalltimeRow("EnDe", "T5-base", 0, 7, "0.80", "0.04", "3.3", "2.8X"),
    WalltimeRow("EnDe", "T5-large", 0, 7, "0.82", "0.11", "2.5", "1.7X"),
    WalltimeRow("EnDe", "T5-small", 1, 7, "0.62", "0.02", "2.3", "2.6X"),
    WalltimeRow("EnDe", "T5-base", 1, 5, "0.68", "0.04", "2.4", "2.4X"),
    WalltimeRow("EnDe", "T5-large", 1, 3, "0.71", "0.11", "2.0", "1.4X"),
    WalltimeRow("CNNDM", "T5-small", 0, 5, "0.65", "0.02", "2.4", "3.1X"),
    WalltimeRow("CNNDM", "T5-base", 0, 5, "0.73", "0.04", "2.6", "3.0X"),
    WalltimeRow("CNNDM", "T5-large", 0, 3, "0.74", "0.11", "2.0", "2.2X"),
    WalltimeRow("CNNDM", "T5-small", 1, 5, "0.53", "0.02", "1.9", "2.3X"),
    WalltimeRow("CNNDM", "T5-base", 1, 3, "0.55", "0.04", "1.8", "2.2X"),
    WalltimeRow("CNNDM", "T5-large", 1, 3, "0.56", "0.11", "1.6", "1.7X"),
)

TABLE_3 = (
    AlphaRow("GPT-like 97M", "unigram", "0.03", "0.03"),
    AlphaRow("GPT-like 97M", "bigram", "0.05", "0.05"),
    AlphaRow("GPT-like 97M", "GPT-like 6M", "0.88", "0.89"),
    AlphaRow("T5-XXL EnDe", "unigram", "0.08", "0.07"),
    AlphaRow("T5-XXL EnDe", "bigram", "0.20", "0.19"),
    AlphaRow("T5-XXL EnDe", "T5-small", "0.75", "0.62"),
    AlphaRow("T5-XXL EnDe", "T5-base", "0.80", "0.68"),
    AlphaRow("T5-XXL EnDe", "T5-large", "0.82", "0.71"),
    AlphaRow("T5-XXL CNNDM", "unigram", "0.13", "0.08"),
    AlphaRow("T5-XXL CNNDM", "bigram", "0.23", "0.16"),
    AlphaRow("T5-XXL CNNDM", "T5-small", "0.65", "0.53"),
    AlphaRow("T5-XXL CNNDM", "T5-base", "0.73", "0.55"),
    AlphaRow("T5-XXL CNNDM", "T5-large", "0.74", "0.56"),
    AlphaRow("LaMDA 137B", "LaMDA 100M", "0.61", "0.57"),
    AlphaRow("LaMDA 137B", "LaMDA 2B", "0.71", "0.71"),
    AlphaRow("LaMDA 137B", "LaMDA 8B", "0.75", "0.74"),
)

TABLE_5 = (
    LenienceRow("unigram", ("0.07", "0.10", "0.11", "0.16")),
    LenienceRow("bigram", ("0.19", "0.23", "0.25", "0.32")),
    LenienceRow("T5-small", ("0.62", "0.71", "0.76", "0.84")),
    LenienceRow("T5-base", ("0.68", "0.80", "0.83", "0.90")),
)

LENIENCE_COST_RATIO = "0.015"
"""c of T5-small in appendix A.5."""

SAMPLING_LENIENCE = (
    SpeedRow("1", "2.5X"),
    SpeedRow("0.5", "3.1X"),
    SpeedRow("0.3", "3.6X"),
    SpeedRow("0.1", "5X"),
)

ARGMAX_LENIENCE_GAMMA = 8

ARGMAX_LENIENCE = (
    ArgmaxLenienceRow("1", "0.75", "3.3X"),
    ArgmaxLenienceRow("0.5", "0.75", "3.3X"),
    ArgmaxLenienceRow("0.3", "0.80", "3.9X"),
    ArgmaxLenienceRow("0.1", "0.87", "4.9X"),
)
