"""Which request an answer belongs to, and what it is to tell."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from draftsmith.serve.answers.tokens import TokenTexts

__all__ = ["About"]


@dataclass(frozen=True, kw_only=True)
class About:
    """What every object of one answer has in common."""

    prefix: str
    """Of the answer's id."""
    separator: str = "-"
    model: str
    fingerprint: str
    texts: TokenTexts
    has_logprobs: bool = False
    has_origins: bool = False
    has_usage: bool = False
    """Whether a stream ends with what was used: then every chunk has the field."""
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.prefix}{self.separator}{secrets.token_hex(12)}")

    @property
    def tells_tokens(self) -> bool:
        """Whether single tokens are told of."""
        return self.has_logprobs or self.has_origins

    def head(self, kind: str) -> dict[str, Any]:
        """What an object begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
