"""A small OpenAI-compatible server around our own engine, honest or broken, for tests."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.models.contract import Cache, LanguageModel, Rows
from tests.engine.kit import text_model, text_tokenizer
from tests.wrapped import Wrapped


class Sharp(Wrapped):
    """A model with clear favourites."""

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        return 4 * self.inner.forward(cache, batch)


@cache
def sharp_model() -> LanguageModel:
    return Sharp(text_model())


class Api(BaseHTTPRequestHandler):
    """Completions with log-probabilities; `server` holds what is odd about it."""

    server: "Server"

    def do_GET(self) -> None:
        self.answer(200, {"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        if self.server.reply is not None:
            self.answer(*self.server.reply)
        elif self.server.is_strict and "min_p" in body:
            self.answer(400, {"error": "unknown field min_p"})
        else:
            with self.server.lock:
                self.answer(200, self.complete(body))

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        params = SamplingParams(
            temperature=body["temperature"],
            seed=body["seed"],
            max_tokens=body["max_tokens"],
            verifier="rejection",
            logprobs=body.get("logprobs"),
            ignore_eos=True,
        )
        (one,) = self.server.engine.generate(body["prompt"], params)[0].completions
        names = text_tokenizer().token_strings()
        return {
            "choices": [
                {
                    "text": one.text,
                    "logprobs": None
                    if body.get("logprobs") is None or self.server.is_mute
                    else {
                        "tokens": [names[token.token_id] for token in one.trace],
                        "token_logprobs": [token.logprob for token in one.trace],
                        "top_logprobs": [
                            {names[top.token_id]: top.logprob for top in token.top_logprobs}
                            for token in one.trace
                        ],
                    },
                }
            ]
        }

    def answer(self, status: int, document: Any) -> None:
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Api)
        draft = ModelDrafter(text_model())
        self.engine = Engine(sharp_model(), text_tokenizer(), draft, gamma=2)
        self.lock = Lock()
        self.requests: list[dict[str, Any]] = []
        self.reply: tuple[int, Any] | None = None
        """What every request gets, in the place of a completion."""
        self.is_strict = False
        self.is_mute = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
