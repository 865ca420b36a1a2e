"""Options that several commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from draftsmith.core.params import SamplingParams
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine

__all__ = ["DEFAULT_TARGET", "ModelOptions", "SamplingOptions", "read_prompt"]

DEFAULT_TARGET = "smollm2-135m-instruct"


@Parameter(name="*")
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
        Drafted tokens per round, 0 to 32; 0 is plain decoding.
    dtype
        Of the weights; auto is float32 on a CPU and bfloat16 on a GPU.
    device
        A torch device; auto is the GPU if there is one.
    """

    target: Annotated[str, Parameter(alias=["--model", "-m"])] = DEFAULT_TARGET
    draft: Annotated[str, Parameter(alias=["--draft-model", "-md"])] = "prompt-lookup"
    gamma: Annotated[int, Parameter(alias=["--num-speculative-tokens", "--draft-max"])] = 4
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"

    def load(self) -> "Engine":
        """Load the engine, showing how a fetch gets on."""
        from draftsmith.api import load_engine
        from draftsmith.cli.progress import pull_progress

        with pull_progress() as on_progress:
            return load_engine(
                self.target,
                None if self.draft == "none" else self.draft,
                gamma=self.gamma,
                dtype=self.dtype,
                device=self.device,
                on_progress=on_progress,
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample and when to stop.

    Parameters
    ----------
    temperature
        0 is greedy.
    top_k
        Keep this many of the likeliest tokens; 0 keeps all.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass.
    min_p
        Drop tokens less likely than this share of the likeliest.
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
    max_tokens
        The longest output.
    min_tokens
        No end before this many tokens.
    stop
        A string that ends the output, and is cut off; may be repeated.
    stop_token
        An id that ends the output; may be repeated.
    ignore_eos
        Go on past the model's end-of-sequence ids.
    seed
        Fixes the text, with speculation on or off.
    verifier
        How drafts are checked; by default coupled with a seed, block without.
    """

    temperature: Annotated[float, Parameter(alias="--temp")] = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: Annotated[float, Parameter(alias="--repeat-penalty")] = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    ban_token: Annotated[tuple[int, ...], Parameter(negative="")] = ()
    allow_token: Annotated[tuple[int, ...], Parameter(negative="")] = ()
    max_tokens: Annotated[int, Parameter(alias=["--max-new-tokens", "--n-predict"])] = 256
    min_tokens: int = 0
    stop: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    stop_token: Annotated[tuple[int, ...], Parameter(negative="")] = ()
    ignore_eos: Annotated[bool, Parameter(negative="")] = False
    seed: int | None = None
    verifier: Literal["rejection", "block", "coupled"] | None = None

    def params(self, n: int = 1, logprobs: int | None = None) -> SamplingParams:
        """The same as `SamplingParams`."""
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
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            stop=self.stop,
            stop_token_ids=self.stop_token,
            ignore_eos=self.ignore_eos,
            seed=self.seed,
            verifier=self.verifier,
            n=n,
            logprobs=logprobs,
        )


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from the command line, from a file, or from standard input."""
    import sys

    if (prompt is None) == (file is None):
        raise InvalidRequestError("give a prompt, or --file FILE (- is standard input), not both")
    if file is None:
        return prompt or ""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"prompt file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"prompt file {file} is not UTF-8 text") from error


def _biases(pairs: tuple[str, ...]) -> dict[int, float]:
    biases: dict[int, float] = {}
    for pair in pairs:
        token, _, value = pair.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError as error:
            raise InvalidRequestError(f"logit_bias must be ID=VALUE, got {pair!r}") from error
    return biases
