"""The options that commands share: each name, its short forms and its kind, in one place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Group, Parameter, Token

from draftsmith.core.gamma import Gamma

__all__ = [
    "BEAMS",
    "FORM",
    "LIMITS",
    "MESSAGES",
    "MODELS",
    "OUTPUT",
    "PROMPT",
    "SAMPLING",
    "SERVING",
    "STOPPING",
    "Branches",
    "BranchesChoices",
    "Counts",
    "FilePath",
    "FilePaths",
    "Flag",
    "GammaChoice",
    "GammaChoices",
    "Html",
    "Ids",
    "JsonFile",
    "JsonOutput",
    "MaxTokens",
    "NumPrompts",
    "NumSamples",
    "Plots",
    "Real",
    "Reals",
    "Seed",
    "SeveralDrafts",
    "SingleDraft",
    "StreamPath",
    "Strings",
    "System",
    "Target",
    "Temperature",
    "Temperatures",
    "TextPrompt",
    "VerifierName",
    "Whole",
    "Wholes",
    "listed",
]

# The sections of --help, in order.
PROMPT = Group("Prompt", sort_key=1)
OUTPUT = Group("Output", sort_key=2)
MODELS = Group("Models", sort_key=3)
STOPPING = Group("Stopping", sort_key=4)
SAMPLING = Group("Sampling", sort_key=5)
FORM = Group("Structured output", sort_key=6)
BEAMS = Group("Beam search", sort_key=7)
SERVING = Group("Serving", sort_key=7)
LIMITS = Group("Limits of a request", sort_key=8)
MESSAGES = Group("Messages", sort_key=9)


def _whole(kind: object, tokens: Sequence[Token]) -> int | tuple[int, ...]:
    """Read whole numbers; cyclopts alone would cut 4.5 down to 4."""
    numbers = tuple(_number(token.value) for token in tokens)
    return numbers if kind == tuple[int, ...] else numbers[0]


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise ValueError(f"must be a whole number, got {value!r}") from error


def _counts(kind: object, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Read whole numbers that stand with commas, or apart as a file's list has them."""
    return tuple(_number(part) for token in tokens for part in token.value.split(","))


def _real(kind: object, tokens: Sequence[Token]) -> float | tuple[float, ...]:
    """Read numbers; a refusal says what was wanted."""
    numbers = tuple(_fraction(token.value) for token in tokens)
    return numbers if kind == tuple[float, ...] else numbers[0]


def _fraction(value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(f"must be a number, got {value!r}") from error


def _gamma(kind: object, tokens: Sequence[Token]) -> Gamma | tuple[Gamma, ...]:
    """Read whole numbers, or auto."""
    values: tuple[Gamma, ...] = tuple(_draft_length(token.value) for token in tokens)
    return values if kind == tuple[Gamma, ...] else values[0]


def _draft_length(value: str) -> Gamma:
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except ValueError as error:
        raise ValueError(f"must be a whole number or auto, got {value!r}") from error


def _path(kind: object, tokens: Sequence[Token]) -> Path | tuple[Path, ...]:
    """Read paths; an empty one would be the folder that one stands in."""
    paths = tuple(_place(token.value) for token in tokens)
    return paths if kind == tuple[Path, ...] else paths[0]


def _place(value: str) -> Path:
    if not value or "\0" in value:
        raise ValueError(f"must be a path, got {value!r}")
    return Path(value)


def listed(values: Sequence[object]) -> str:
    """How --help shows several values."""
    return ", ".join(map(str, values))


_SEVERAL = Parameter(negative="", show_default=listed)
_SEVERAL_OR_NONE = Parameter(negative="", show_default=False)

Whole: TypeAlias = Annotated[int, Parameter(converter=_whole)]
"""A whole number."""
Wholes: TypeAlias = Annotated[tuple[int, ...], Parameter(converter=_whole), _SEVERAL]
"""Several whole numbers."""
Counts: TypeAlias = Annotated[
    tuple[int, ...], Parameter(converter=_counts, negative="", show_default=False)
]
"""Several whole numbers in one word, with commas."""
Real: TypeAlias = Annotated[float, Parameter(converter=_real)]
"""A number."""
Reals: TypeAlias = Annotated[tuple[float, ...], Parameter(converter=_real), _SEVERAL]
"""Several numbers."""
Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option without a value, off unless it is given."""
Strings: TypeAlias = Annotated[tuple[str, ...], _SEVERAL_OR_NONE]
"""Several texts."""
Ids: TypeAlias = Annotated[tuple[int, ...], Parameter(converter=_whole), _SEVERAL_OR_NONE]
"""Several token ids."""

FilePath: TypeAlias = Annotated[Path, Parameter(converter=_path)]
"""A file or a folder."""
FilePaths: TypeAlias = Annotated[tuple[Path, ...], Parameter(converter=_path), _SEVERAL_OR_NONE]
"""Several files."""
StreamPath: TypeAlias = Annotated[Path, Parameter(converter=_path, allow_leading_hyphen=True)]
"""A file, or - for standard input; without the hyphen allowed, it would be taken for an option."""

_TARGET = Parameter(name="--target", alias=["--model", "-m"], group=MODELS)
_DRAFT = Parameter(
    name="--draft", alias=["--draft-model", "--assistant-model", "-md"], group=MODELS
)
_GAMMA = Parameter(
    name="--gamma",
    alias=["--num-speculative-tokens", "--num-assistant-tokens", "--draft-max"],
    converter=_gamma,
    show_choices=False,
)
_TEMPERATURE = Parameter(name="--temperature", alias="--temp")

_BRANCHES = Parameter(name="--branches", alias="--speculative-eagle-topk")

Target: TypeAlias = Annotated[str, _TARGET]
"""What generates."""
SingleDraft: TypeAlias = Annotated[str, _DRAFT]
"""What guesses."""
SeveralDrafts: TypeAlias = Annotated[tuple[str, ...], _DRAFT, _SEVERAL]
"""What guesses, each in its turn."""
GammaChoice: TypeAlias = Annotated[Gamma, _GAMMA]
"""A draft length, or auto."""
GammaChoices: TypeAlias = Annotated[tuple[Gamma, ...], _GAMMA, _SEVERAL]
"""Several of them."""
Branches: TypeAlias = Annotated[Whole, _BRANCHES]
"""Guesses for each position of a draft."""
BranchesChoices: TypeAlias = Annotated[Wholes, _BRANCHES]
"""Several of them."""
Temperature: TypeAlias = Annotated[float, Parameter(converter=_real), _TEMPERATURE]
"""Of the law that is sampled."""
Temperatures: TypeAlias = Annotated[
    tuple[float, ...], Parameter(converter=_real), _TEMPERATURE, _SEVERAL
]
"""Several of them."""
Seed: TypeAlias = Annotated[int, Parameter(name="--seed", alias="-s", converter=_whole)]
"""Of all random numbers."""
MaxTokens: TypeAlias = Annotated[
    int,
    Parameter(
        name="--max-tokens",
        alias=["--max-new-tokens", "--n-predict", "-n"],
        converter=_whole,
        group=STOPPING,
    ),
]
"""The longest output."""
NumSamples: TypeAlias = Annotated[
    int,
    Parameter(name="--num-samples", alias="--num-return-sequences", converter=_whole),
]
"""Samples of each prompt."""
NumPrompts: TypeAlias = Annotated[int, Parameter(name="--num-prompts", converter=_whole)]
"""The first so many prompts of a workload."""
VerifierName: TypeAlias = Literal["rejection", "block", "coupled"]
"""How drafts are checked."""
TextPrompt: TypeAlias = Annotated[str, Parameter(name="--prompt", alias="-p")]
"""A text to go on from."""
System: TypeAlias = Annotated[
    str, Parameter(name="--system", alias="--system-prompt", group=PROMPT)
]
"""The system's turn."""
JsonOutput: TypeAlias = Annotated[Flag, Parameter(name="--json", group=OUTPUT)]
"""JSON on stdout, in every command; a file is --json-file."""
JsonFile: TypeAlias = Annotated[FilePath, Parameter(name="--json-file", group=OUTPUT)]
"""Where the same JSON is written to."""
Html: TypeAlias = Annotated[FilePath, Parameter(name="--html", group=OUTPUT)]
"""A page."""
Plots: TypeAlias = Annotated[FilePath, Parameter(name="--plots", group=OUTPUT)]
"""A folder of plots."""
