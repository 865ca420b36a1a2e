"""How the server runs: where it listens, whom it serves, and what it bears."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from draftsmith.core.values import require
from draftsmith.errors import InvalidRequestError

__all__ = ["Limits", "ServeSettings"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask; beyond it, the answer is 400 (413 for a body's size)."""

    max_body_bytes: int = 4 << 20
    """Of a request's JSON."""
    max_output_tokens: int = 4096
    """The longest text of one choice, and its length where a request asks none."""
    max_choices: int = 16
    """Texts of one request: its prompts times `n`."""
    max_stop: int = 16
    """Stop strings."""
    max_logprobs: int = 20
    """Likeliest tokens beside each."""
    max_bias: int = 1024
    """Entries of `logit_bias`."""
    max_prediction_tokens: int = 32_768

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            require(value >= (item.name == "max_output_tokens"), item.name, "0 or more", value)


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Everything that the server is told beside its models."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    api_keys: tuple[str, ...] = ()
    """Any of them opens the API; none leaves it open."""
    served_model_name: str | None = None
    """What requests call the model; None is its reference."""
    max_waiting: int = 256
    """Texts that may wait for a place in the batch; more are answered 429."""
    request_timeout_s: float = 600.0
    """The longest that a request may take, its wait included."""
    body_timeout_s: float = 20.0
    """The longest that a request's headers, and then its body, may take to arrive."""
    on_sigterm: Literal["finish", "cancel"] = "finish"
    """What becomes of running requests at SIGTERM."""
    grace_s: float = 30.0
    """The longest that they may still take then."""
    metrics_names: Literal["draftsmith", "vllm"] = "draftsmith"
    """Whose prefix the metrics have."""
    log_prompts: bool = False
    """Whether the log shows prompts and texts."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        require(0 <= self.port < 1 << 16, "port", "between 0 and 65535", self.port)
        require(self.max_waiting >= 0, "max_waiting", "0 or more", self.max_waiting)
        for name, value in (
            ("request_timeout", self.request_timeout_s),
            ("body_timeout", self.body_timeout_s),
            ("grace", self.grace_s),
        ):
            require(math.isfinite(value) and value > 0, name, "above 0", value)
        if not all(key.strip() == key != "" and key.isascii() for key in self.api_keys):
            raise InvalidRequestError(
                "api_key must be made of ASCII without spaces around it: give another key"
            )
