"""A server on a free port of this machine, and a client of the standard library."""

import atexit
import contextlib
import http.client
import json
import shutil
import tempfile
import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from draftsmith.core.gamma import Gamma
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import load_model
from draftsmith.serve.app import create_app
from draftsmith.serve.server import Server
from draftsmith.serve.service import Service
from draftsmith.serve.settings import ServeSettings
from tests import tiny
from tests.engine import kit

MODEL = "tiny"
CONTEXT = 512


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def error(self) -> dict[str, Any]:
        return self.body["error"]

    @property
    def texts(self) -> list[str]:
        """Of all choices."""
        return [
            one["message"]["content"] if "message" in one else one["text"]
            for one in self.body["choices"]
        ]


class Client:
    """Talks to a server at an address such as `http://127.0.0.1:8000`."""

    def __init__(self, address: str, key: str | None = None) -> None:
        self.address = address
        self.key = key

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        assert parts.hostname is not None
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request and its whole answer; `body` is JSON, or bytes as they are."""
        connection = self.connect()
        with contextlib.closing(connection):
            self.send(connection, method, path, body, **headers)
            return _answer(connection.getresponse())

    def post(self, path: str, **body: Any) -> Answer:
        return self.call("POST", path, body)

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def chat(self, text: str = "the quick brown", /, **body: Any) -> Answer:
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", messages=messages, **body)

    def complete(self, prompt: Any = "the quick brown", /, **body: Any) -> Answer:
        return self.post("/v1/completions", prompt=prompt, **body)

    def stream(self, path: str, **body: Any) -> list[Any]:
        """The data of every event of a stream, `[DONE]` as it stands."""
        with self.streaming(path, **body) as response:
            assert response.status == 200, response.read()
            assert (response.getheader("content-type") or "").startswith("text/event-stream")
            return list(events(response))

    @contextlib.contextmanager
    def streaming(self, path: str, **body: Any) -> Generator[http.client.HTTPResponse]:
        """A stream that has begun; it is left when the block is."""
        connection = self.connect()
        with contextlib.closing(connection):
            self.send(connection, "POST", path, body | {"stream": True})
            with contextlib.closing(connection.getresponse()) as response:
                yield response

    def send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any = None,
        **headers: str,
    ) -> None:
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, headers)


class Live(Client):
    """A server that runs in this process."""

    def __init__(self, address: str, service: Service, server: Server, key: str | None) -> None:
        super().__init__(address, key)
        self.service = service
        self.server = server


def _answer(response: http.client.HTTPResponse) -> Answer:
    text = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    is_json = headers.get("content-type", "").startswith("application/json")
    return Answer(response.status, headers, json.loads(text) if is_json else text.decode())


def events(response: http.client.HTTPResponse) -> Iterator[Any]:
    """The data of events as they come."""
    for line in response:
        if line.startswith(b"data: "):
            data = line[6:].strip().decode()
            yield data if data == "[DONE]" else json.loads(data)


def text_of(chunks: list[Any], choice: int = 0) -> str:
    """What a stream's chunks say of one choice, put together."""
    found = [one for chunk in chunks if chunk != "[DONE]" for one in chunk["choices"]]
    mine = [one for one in found if one["index"] == choice]
    return "".join(
        one["delta"].get("content", "") if "delta" in one else one["text"] for one in mine
    )


@cache
def _raw() -> Any:
    size = len(kit.text_tokenizer().token_strings())
    return tiny.raw_model("llama", 3, vocab_size=size, max_position_embeddings=CONTEXT)


def _native(model: Any, name: str) -> LanguageModel:
    """On our own kernels."""
    folder = Path(tempfile.mkdtemp()) / name
    atexit.register(shutil.rmtree, folder.parent)
    model.save_pretrained(folder)
    found = load_model(str(folder))
    found.traits = replace(found.traits, name=name)
    return found


@cache
def target() -> LanguageModel:
    """A llama that speaks all ids of the tokenizer."""
    return _native(_raw(), MODEL)


@cache
def _twin() -> LanguageModel:
    return _native(tiny.near_twin(_raw()), "near-tiny")


def model_draft() -> Drafter:
    """A draft model that is right often."""
    return ModelDrafter(_twin())


def engine(
    draft: Drafter | None = None, gamma: Gamma | None = None, max_batch_size: int = 8
) -> Engine:
    """A fresh engine of the tiny model; by default prompt lookup drafts."""
    drafter = PromptLookupDrafter(min_ngram=1) if draft is None and gamma != 0 else draft
    return Engine(
        target(), kit.text_tokenizer(), drafter, gamma=gamma, max_batch_size=max_batch_size
    )


@contextlib.contextmanager
def serving(served: Engine, settings: ServeSettings | None = None) -> Generator[Live]:
    """Serve an engine in a thread of this process."""
    settings = settings or ServeSettings(port=0)
    app = create_app(served, settings)
    ready = threading.Event()
    addresses: list[str] = []

    def tell(address: str) -> None:
        addresses.append(address)
        ready.set()

    server = Server(app, tell)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(60)
        keys = settings.api_keys
        yield Live(addresses[0], app.state.service, server, keys[0] if keys else None)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
