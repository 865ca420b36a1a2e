"""What a run of the command line came to."""

import json
from typing import Any, NamedTuple, Protocol

__all__ = ["Cli", "Outcome"]


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str

    def document(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert self.stdout.endswith("\n")
        assert self.stdout.count("\n") == 1
        return json.loads(self.stdout)

    def refusal(self) -> str:
        """The one line of a refusal."""
        assert self.status == 2, self
        assert self.stderr.startswith("draftsmith: error: "), self
        assert self.stderr.count("\n") == 1, self
        assert self.stderr.endswith("\n"), self
        return self.stderr


class Cli(Protocol):
    def __call__(self, *arguments: str, stdin: str | bytes = b"") -> Outcome: ...
