"""Options that several commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Group, Parameter, Token

from draftsmith.cli.progress import loading
from draftsmith.core.params import Gamma, SamplingParams, check_gamma
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.drafters import Drafter
    from draftsmith.engine.engine import Engine

__all__ = [
    "DEFAULT_RUNTIME",
    "DEFAULT_TARGET",
    "MODELS",
    "OUTPUT",
    "PROMPT",
    "SAMPLING",
    "STOPPING",
    "Flag",
    "GammaChoice",
    "GammaChoices",
    "ModelOptions",
    "RuntimeOptions",
    "SamplingOptions",
    "SeveralDrafts",
    "Target",
    "Whole",
    "Wholes",
    "listed",
]

DEFAULT_TARGET = "smollm2-135m-instruct"

# The sections of --help, in order.
PROMPT = Group("Prompt", sort_key=1)
OUTPUT = Group("Output", sort_key=2)
MODELS = Group("Models", sort_key=3)
STOPPING = Group("Stopping", sort_key=4)
SAMPLING = Group("Sampling", sort_key=5)


def _whole(kind: object, tokens: Sequence[Token]) -> int | tuple[int, ...]:
    """Read whole numbers; cyclopts alone would cut 4.5 down to 4."""
    numbers = tuple(_number(token.value) for token in tokens)
    return numbers if kind == tuple[int, ...] else numbers[0]


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise ValueError(f"must be a whole number, got {value!r}") from error


def listed(values: Sequence[object]) -> str:
    """How --help shows several values."""
    return ", ".join(map(str, values))


def _gamma(kind: object, tokens: Sequence[Token]) -> Gamma | tuple[Gamma, ...]:
    """Read whole numbers, or auto."""
    values: tuple[Gamma, ...] = tuple(
        "auto" if token.value == "auto" else _number(token.value) for token in tokens
    )
    return values[0] if kind == Gamma else values


Whole: TypeAlias = Annotated[int, Parameter(converter=_whole)]
"""A whole number."""
GammaChoice: TypeAlias = Annotated[Gamma, Parameter(converter=_gamma, show_choices=False)]
"""A draft length, or auto."""
GammaChoices: TypeAlias = Annotated[
    tuple[Gamma, ...],
    Parameter(negative="", converter=_gamma, show_choices=False, show_default=listed),
]
Wholes: TypeAlias = Annotated[
    tuple[int, ...], Parameter(negative="", converter=_whole, show_default=listed)
]
"""Several whole numbers."""
Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option without a value, off unless it is given."""
_DRAFT = Parameter(alias=["--draft-model", "--assistant-model", "-md"])
Target: TypeAlias = Annotated[str, Parameter(alias=["--model", "-m"])]
"""What generates."""
SeveralDrafts: TypeAlias = Annotated[
    tuple[str, ...], _DRAFT, Parameter(negative="", show_default=listed)
]
"""What guesses, each in its turn."""
_Strings: TypeAlias = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
_Ids: TypeAlias = Annotated[
    tuple[int, ...], Parameter(negative="", show_default=False, converter=_whole)
]


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How models run.

    Parameters
    ----------
    dtype
        Of the weights; auto keeps what the file holds on a CPU and is bfloat16 on a GPU. int8
        and int4 round a float checkpoint on a CPU, which makes it a different model.
    device
        A torch device; auto is the GPU if there is one.
    activations
        Of products with quantised weights on a CPU: int8 rounds them, float32 keeps them.
    threads
        Of the CPU kernels; by default the physical cores.
    draft_vocab_size
        Ids that a draft model on a CPU considers, beside those of the text so far; 0 is all.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto"
    device: str = "auto"
    activations: Literal["int8", "float32"] = "int8"
    threads: Annotated[Whole | None, Parameter(alias="-t")] = None
    draft_vocab_size: Whole = 32_768

    def load_target(self, target: str, draft: str | None, gamma: Gamma) -> "Engine":
        """Load an engine, showing how a fetch gets on.

        Raises:
            DraftsmithError: What can be refused at a glance, before torch is even imported.
        """
        from draftsmith.models.reference import resolve

        check_gamma(gamma)
        resolve(target)
        from draftsmith.api import load_engine

        with loading(target) as on_progress:
            return load_engine(
                target,
                None if draft == "none" else draft,
                gamma=gamma,
                dtype=self.dtype,
                device=self.device,
                activations=self.activations,
                threads=self.threads,
                draft_vocab_size=self.draft_vocab_size,
                on_progress=on_progress,
            )

    def load_drafter(self, draft: str, engine: "Engine") -> "Drafter":
        """Load one more draft for a target that is loaded."""
        from draftsmith.api import load_drafter

        with loading(draft) as on_progress:
            return load_drafter(
                draft,
                engine,
                dtype=self.dtype,
                device=self.device,
                activations=self.activations,
                threads=self.threads,
                draft_vocab_size=self.draft_vocab_size,
                on_progress=on_progress,
            )


DEFAULT_RUNTIME = RuntimeOptions()


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which models run, and how.

    Parameters
    ----------
    target
        A catalogue name (see `draftsmith models list`), `org/name` on the Hub, a folder, or a
        `.gguf` file.
    draft
        What guesses: the same for a draft model, or `prompt-lookup`, `random`, `unigram:FILE`,
        `bigram:FILE`, `none`.
    gamma
        Drafted tokens per round, 0 to 32; 0 is plain decoding, auto is what pays.
    """

    target: Target = DEFAULT_TARGET
    draft: Annotated[str, _DRAFT] = "prompt-lookup"
    gamma: Annotated[
        GammaChoice,
        Parameter(alias=["--num-speculative-tokens", "--num-assistant-tokens", "--draft-max"]),
    ] = 4
    runtime: RuntimeOptions = DEFAULT_RUNTIME

    def load(self) -> "Engine":
        """Load the engine, showing how a fetch gets on."""
        return self.runtime.load_target(self.target, self.draft, self.gamma)


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample and when to stop.

    Parameters
    ----------
    temperature
        0 is greedy decoding.
    top_k
        Keep this many of the likeliest tokens; 0 keeps all.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass; 1 keeps all.
    min_p
        Drop tokens less likely than this share of the likeliest; 0 drops none.
    repetition_penalty
        Above 1 discourages tokens of the prompt and the output.
    presence_penalty
        Subtracted from the logits of tokens in the output.
    frequency_penalty
        Subtracted once for each time that a token occurs in the output.
    logit_bias
        ID=VALUE, added to the logit of a token id; may be repeated.
    ban_token
        An id that never occurs; may be repeated.
    allow_token
        If given, only these ids may occur; may be repeated.
    seed
        Fixes the text, with speculation on or off; without one, each run draws its own.
    verifier
        How drafts are checked; by default coupled with a seed or at temperature 0, else block.
    draft_temperature
        The draft's own temperature; by default the target's. The text stays exact.
    draft_top_k
        The draft's own top-k; by default the target's.
    draft_top_p
        The draft's own top-p; by default the target's.
    lossy_lenience
        Below 1, keeps drafts that the exact check rejects, so that the text is NOT the target's
        any more; no token gets more than 1/this times its probability.
    max_tokens
        The longest output; by default 256, and in a chat 1024.
    min_tokens
        No end before this many tokens.
    stop
        A string that ends the output, and is cut off; may be repeated.
    stop_token
        An id that ends the output; may be repeated.
    ignore_eos
        Go on past the model's end-of-sequence ids.
    """

    temperature: Annotated[float, Parameter(alias="--temp")] = 0.0
    top_k: Whole = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: Annotated[float, Parameter(alias="--repeat-penalty")] = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: _Strings = ()
    ban_token: Annotated[_Ids, Parameter(alias="--banned-token-ids")] = ()
    allow_token: Annotated[_Ids, Parameter(alias="--allowed-token-ids")] = ()
    seed: Annotated[Whole | None, Parameter(alias="-s")] = None
    verifier: Literal["rejection", "block", "coupled"] | None = None
    draft_temperature: float | None = None
    draft_top_k: Whole | None = None
    draft_top_p: float | None = None
    lossy_lenience: float = 1.0
    max_tokens: Annotated[
        Whole | None, Parameter(alias=["--max-new-tokens", "--n-predict", "-n"], group=STOPPING)
    ] = None
    min_tokens: Annotated[Whole, Parameter(group=STOPPING)] = 0
    stop: Annotated[_Strings, Parameter(group=STOPPING)] = ()
    stop_token: Annotated[_Ids, Parameter(alias="--stop-token-ids", group=STOPPING)] = ()
    ignore_eos: Annotated[Flag, Parameter(group=STOPPING)] = False

    def params(
        self, *, max_tokens: int = 256, n: int = 1, logprobs: int | None = None
    ) -> SamplingParams:
        """The same as `SamplingParams`.

        Args:
            max_tokens: The command's default.
            n: Samples to draw.
            logprobs: Alternatives to report; None reports no log-probabilities.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=_biases(self.logit_bias),
            banned_token_ids=self.ban_token,
            allowed_token_ids=self.allow_token or None,
            max_tokens=max_tokens if self.max_tokens is None else self.max_tokens,
            min_tokens=self.min_tokens,
            stop=self.stop,
            stop_token_ids=self.stop_token,
            ignore_eos=self.ignore_eos,
            seed=self.seed,
            verifier=self.verifier,
            draft_temperature=self.draft_temperature,
            draft_top_k=self.draft_top_k,
            draft_top_p=self.draft_top_p,
            lossy_lenience=self.lossy_lenience,
            n=n,
            logprobs=logprobs,
        )


def _biases(pairs: tuple[str, ...]) -> dict[int, float]:
    biases: dict[int, float] = {}
    for pair in pairs:
        token, _, value = pair.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError as error:
            raise InvalidRequestError(
                f"--logit-bias must be ID=VALUE, such as 42=-1.5, got {pair!r}"
            ) from error
    return biases
