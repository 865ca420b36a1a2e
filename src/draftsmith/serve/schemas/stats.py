"""The answer of `/stats`."""

from typing import Literal

from draftsmith.serve.schemas.common import Answer

__all__ = ["Cache", "Ledger", "Stats"]


class Cache(Answer):
    """Keys and values of the target."""

    num_held: int
    """Tokens that there is memory for in the rows of texts."""
    num_kept: int
    """Tokens of beginnings that are kept of texts that have ended."""
    limit: int | None
    """The most that both may be; null where nobody says."""
    num_prompt_tokens: int
    """Of all prompts so far."""
    num_recalled: int
    """Of these, the ones that another text had in common."""
    num_preemptions: int
    """How often a text had to let go of its rows, to read them again later."""


class Ledger(Answer):
    """Seconds, as gamma auto counts them."""

    spent_s: float
    """On all rounds."""
    plain_s: float
    """What plain decoding would have taken for the same tokens."""


class Stats(Answer):
    """Counts since the server was started, and what it holds now."""

    model: str
    draft: str | None
    gamma: int | Literal["auto"]
    num_running: int
    """Texts in the batch."""
    num_waiting: int
    """Texts that wait for a place in it."""
    max_batch_size: int
    max_waiting: int
    num_tokens: int
    """Generated."""
    num_rounds: int
    """Of all texts, those of plain decoding included."""
    rounds_by_gamma: list[int]
    """Entry g counts the rounds that drafted g tokens."""
    drafted_per_position: list[int]
    """Entry i counts the rounds that drafted position i; so do the next two."""
    tested_per_position: list[int]
    accepted_per_position: list[int]
    cache: Cache
    ledger: Ledger | None
    """Null where gamma is not auto."""
