"""A client of an OpenAI-compatible server: completions with log-probabilities, over HTTP."""

import http.client
import json
import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from draftsmith.errors import InvalidRequestError, RemoteError

__all__ = ["Answer", "Client", "Position"]

_TIMEOUT_S = 120
_LONGEST_GIST = 160
_NO_CUTS = {"top_k": 0, "min_p": 0.0}
"""What vLLM, SGLang and llama.cpp take for no cut-off; the OpenAI API does not know them."""


class Position(NamedTuple):
    """One generated token, as the server reports it."""

    token: str
    logprob: float
    top: Mapping[str, float]
    """Log-probabilities of the likeliest tokens."""


class Answer(NamedTuple):
    """One generated text."""

    text: str
    positions: tuple[Position, ...]
    """Empty where the server reports no log-probabilities."""


@dataclass
class Client:
    """Completions of one server and model.

    Args:
        url: Where the API lies, such as `http://localhost:8000/v1`.
        model: The name that the server knows it by; None asks the server for its first.

    Raises:
        InvalidRequestError: If the URL is none.
    """

    url: str
    model: str | None = None
    takes_cuts: bool = field(default=True, init=False)
    """Whether it takes options beyond OpenAI's; found out by the first refusal."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidRequestError(
                f"url must be such as http://localhost:8000/v1, got {self.url!r}"
            )
        self.url = self.url.rstrip("/")

    def connect(self) -> str:
        """Find the server and name its model.

        Raises:
            RemoteError: If it does not answer, or not as it should.
        """
        listed = self._call("/models", None)
        names = [str(one.get("id")) for one in _list_of(listed, "data", f"{self.url}/models")]
        if self.model is None:
            if not names:
                raise RemoteError(f"{self.url}/models lists no model: give --model")
            self.model = names[0]
        return self.model

    def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        num_logprobs: int | None = None,
    ) -> Answer:
        """Generate once from a text.

        Raises:
            RemoteError: If the server does not answer, or not as it should.
        """
        request: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": 1.0,
            "seed": seed,
        }
        if num_logprobs is not None:
            request["logprobs"] = num_logprobs
        answer = self._tolerant("/completions", request)
        choices = _list_of(answer, "choices", f"{self.url}/completions")
        if not choices or not isinstance(choices[0].get("text"), str):
            raise RemoteError(f"{self.url}/completions gave no text: {_gist(json.dumps(answer))}")
        return Answer(choices[0]["text"], _positions(choices[0].get("logprobs")))

    def _tolerant(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Ask for no cut-offs by every name; without the names that the server refuses."""
        if self.takes_cuts:
            try:
                return self._call(path, request | _NO_CUTS)
            except _RefusedError as error:
                if error.status not in (400, 422):
                    raise
                self.takes_cuts = False
        return self._call(path, request)

    def _call(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        where = self.url + path
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(where, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                text = response.read().decode("utf-8", errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", errors="replace")
            raise _RefusedError(
                f"{where} answered {error.code}: {_gist(text) or error.reason}", error.code
            ) from error
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error) or type(error).__name__
            raise RemoteError(f"{where} does not answer ({why}): is the server running?") from error
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise RemoteError(f"{where} answered no JSON: {_gist(text)!r}") from error
        if not isinstance(answer, dict):
            raise RemoteError(f"{where} answered no JSON object: {_gist(text)}")
        return answer


class _RefusedError(RemoteError):
    """An HTTP status of 400 or more."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _positions(logprobs: Any) -> tuple[Position, ...]:  # noqa: ANN401 - any JSON value
    """Both shapes: parallel lists of the completions API, or the chat API's list of objects."""
    if not isinstance(logprobs, dict):
        return ()
    if isinstance(logprobs.get("content"), list):
        return tuple(
            Position(
                one["token"],
                float(one["logprob"]),
                _merged(one.get("top_logprobs") or ()),
            )
            for one in logprobs["content"]
        )
    tokens, chosen = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(chosen, list):
        return ()
    tops = logprobs.get("top_logprobs") or [{}] * len(tokens)
    return tuple(
        Position(str(token), float(logprob), dict(top or {}))
        for token, logprob, top in zip(tokens, chosen, tops, strict=False)
    )


def _merged(tops: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """By name; tokens that share one (bytes of a character) count as one token."""
    merged: dict[str, float] = {}
    for top in tops:
        share = math.exp(merged.get(top["token"], -math.inf)) + math.exp(float(top["logprob"]))
        merged[top["token"]] = math.log(share) if share else -math.inf
    return merged


def _list_of(answer: dict[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    found = answer.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RemoteError(f"{where} answered without {name!r}: {_gist(json.dumps(answer))}")
    return found


def _gist(text: str) -> str:
    """The beginning of an answer, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_GIST else f"{line[: _LONGEST_GIST - 1]}…"
