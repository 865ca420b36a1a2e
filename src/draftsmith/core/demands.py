"""What a model's own files ask of every text: the part of the law that is not the caller's taste.

`generation_config.json` mixes two kinds of settings. Some choose how to draw (temperature, top-p):
they are the caller's. The others `transformers` applies at every position, greedy decoding
included, so they are part of what the model's makers call its output: those are demands. A
request may put its own value in the place of each.
"""

from dataclasses import dataclass, field, replace

from draftsmith.core.values import FrozenDict

__all__ = ["NO_DEMANDS", "Demands"]

TokenSequences = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Demands:
    """Rules of every text, off by default; the fields are those of `SamplingParams`.

    Example:
        >>> Demands(no_repeat_ngram_size=3).is_idle, Demands().is_idle
        (False, True)
    """

    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    sequence_bias: FrozenDict = field(default_factory=FrozenDict)
    """Token sequences to what is added to the logit of their last token."""
    bad_words: TokenSequences = ()
    suppress_token_ids: tuple[int, ...] = ()
    begin_suppress_token_ids: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    exponential_decay_length_penalty: tuple[int, float] | None = None
    min_tokens: int = 0
    min_length: int = 0
    """As `min_tokens`, but the prompt (an encoder-decoder's first token) counts too."""
    stop: tuple[str, ...] = ()
    refused: str = ""
    """Why a text of this model cannot be had exactly: a demand that is not known, or malformed."""

    @property
    def is_idle(self) -> bool:
        """Whether no position's law is touched."""
        return replace(self, stop=(), refused="") == NO_DEMANDS


NO_DEMANDS = Demands()
