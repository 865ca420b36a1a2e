"""One engine as it is served: what every route has at hand."""

import hashlib
import time
from dataclasses import dataclass, field

from draftsmith import __version__
from draftsmith.engine.engine import Engine
from draftsmith.serve.answers.tokens import TokenTexts
from draftsmith.serve.errors import ApiError
from draftsmith.serve.metrics import Metrics
from draftsmith.serve.settings import ServeSettings
from draftsmith.serve.worker import Worker

__all__ = ["Service"]


@dataclass
class Service:
    """An engine, the thread that runs it, and how it is served."""

    engine: Engine
    settings: ServeSettings
    started_at: int = field(default_factory=lambda: int(time.time()))
    """Unix time."""
    worker: Worker = field(init=False)
    texts: TokenTexts = field(init=False)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.worker = Worker(self.engine, self.settings.max_waiting)
        self.texts = TokenTexts(self.engine.tokenizer)
        self.metrics = Metrics(self.worker, self.model, self.settings.metrics_names)

    @property
    def model(self) -> str:
        """What requests call the model."""
        return self.settings.served_model_name or self.engine.target.traits.name

    @property
    def fingerprint(self) -> str:
        """The same for the same model under the same version of ours."""
        target = self.engine.target
        parts = (self.model, __version__, type(target).__name__, str(target.device))
        return "fp_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def check_model(self, name: str | None) -> None:
        """Refuse a request for another model.

        Raises:
            ApiError: 404.
        """
        if name is not None and name != self.model:
            raise ApiError(
                404,
                f"the model {name!r} is not served here: ask for {self.model!r}",
                param="model",
                code="model_not_found",
            )

    def timeout_s(self, asked: float | None) -> float:
        """How long a request may take."""
        most = self.settings.request_timeout_s
        return most if asked is None else min(asked, most)
