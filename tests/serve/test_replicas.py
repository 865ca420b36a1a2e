"""Several engines behind one address: the door, and two replicas of which one is killed."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import psutil
import pytest
from starlette.types import Message, Scope

from draftsmith.serve.app import create_app
from draftsmith.serve.replicas.beginning import beginning_of
from draftsmith.serve.replicas.forwarding import Forward, ReplicaLostError, ReplicasFullError
from draftsmith.serve.replicas.inside import Inside
from draftsmith.serve.settings import ServeSettings
from tests.serve import gated, live
from tests.serve.live import Client
from tests.tiny import save_checkpoint

_SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/v1/completions",
    "raw_path": b"/v1/completions",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json"), (b"host", b"x")],
    "client": ("127.0.0.1", 1),
}
_BODY: dict[str, Any] = {"prompt": "the quick", "max_tokens": 12, "seed": 1}
_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}


def _told(forward: Forward, body: dict[str, Any]) -> tuple[int, bytes]:
    """What a client is answered."""
    sent: list[Message] = []
    came = iter([{"type": "http.request", "body": json.dumps(body).encode()}])

    async def receive() -> Message:
        if (message := next(came, None)) is not None:
            return message
        return await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(forward(_SCOPE, receive, send))
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


def test_requests_that_begin_alike_have_one_key() -> None:
    def key(**body: Any) -> str | None:
        return beginning_of(json.dumps(body).encode())

    system = {"role": "system", "content": "You are terse. " * 60}
    first, second = ([system, {"role": "user", "content": text}] for text in ("a", "b"))
    assert key(messages=first, seed=1) == key(messages=second, temperature=0.5)
    assert key(prompt="a") != key(prompt="b")
    assert key(prompt=[1, 2]) != key(prompt=[1, 3])
    assert key(input="a") != key(input="a", instructions="b")
    for odd in (b"", b"{", b"[]", b"7", b"{}", b"[" * 100_000, b'{"prompt": ""}'):
        assert beginning_of(odd) is None


def test_an_engine_without_a_socket_answers_as_one_with_it() -> None:
    with live.serving(live.engine()) as server:
        expected = server.post("/v1/completions", **_BODY).texts

    async def ask() -> list[Message]:
        inside = Inside(create_app(live.engine(), ServeSettings()))
        await inside.start()
        body = json.dumps(_BODY).encode()
        return [message async for message in inside.messages(_SCOPE, body)]

    start, *parts = asyncio.run(ask())
    assert start["status"] == 200
    body = json.loads(b"".join(part["body"] for part in parts))
    assert [one["text"] for one in body["choices"]] == expected


def test_a_request_whose_engine_is_lost_before_it_began_goes_to_another() -> None:
    tries: list[str | None] = []

    async def ask(key: str | None, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
        tries.append(key)
        yield _START
        if len(tries) < 3:
            raise ReplicaLostError
        yield {"type": "http.response.body", "body": b"data: [DONE]\n\n"}

    assert _told(Forward(ask, 3), _BODY) == (200, b"data: [DONE]\n\n")
    assert len(tries) == 3
    tries.clear()
    status, body = _told(Forward(ask, 2), _BODY)
    assert (status, json.loads(body)["error"]["code"]) == (503, "replica_lost")


def test_a_stream_whose_engine_is_lost_amid_it_ends_with_an_error() -> None:
    async def ask(key: str | None, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
        yield _START
        yield {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
        raise ReplicaLostError

    status, body = _told(Forward(ask), _BODY)
    assert status == 200
    assert body.startswith(b"data: 1\n\n")
    assert json.loads(body.split(b"data: ")[2])["error"]["code"] == "replica_lost"


def test_where_all_are_full_the_client_is_told_to_come_again() -> None:
    async def ask(key: str | None, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
        if scope["method"] == "POST":
            raise ReplicasFullError
        yield _START

    status, body = _told(Forward(ask), _BODY)
    assert (status, json.loads(body)["error"]["code"]) == (429, "queue_full")


@pytest.fixture(scope="module")
def replicated(
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[tuple[Client, "subprocess.Popen[str]"]]:
    """One engine with four places, as `draftsmith serve` starts it, and by load a second one."""
    folder = tmp_path_factory.mktemp("replicated")
    checkpoint = save_checkpoint(folder / "tiny", max_position_embeddings=8192)
    command = [sys.executable, "-m", "draftsmith", "serve", "-m", str(checkpoint), "--port", "0"]
    command += ["--replicas", "2", "--min-replicas", "1", "--threads", "1", "--grace", "2"]
    command += ["--max-batch-size", "4"]
    # Another's cluster, which is let alone.
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if "/v1 after" in line:
                break
        found = re.search(r"ready at (http://\S+)/v1", told)
        assert found is not None, told
        try:
            client = Client(found[1])
            _scale(client, process)
            yield client, process
        finally:
            engines = _engines(process)
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()
            assert process.returncode == 0
            assert not any(one.is_running() for one in engines)


def _scale(client: Client, process: "subprocess.Popen[str]") -> None:
    """Ask more than one engine bears, until there is a second one that answers."""
    assert len(_engines(process)) == 1
    body = {"max_tokens": 400, "ignore_eos": True}
    end = time.monotonic() + 90
    with ThreadPoolExecutor(8) as pool:
        while len(_engines(process)) < 2 and time.monotonic() < end:
            asked = [pool.submit(client.complete, **body) for _ in range(8)]
            assert all(one.result().status == 200 for one in asked)
    assert len(_engines(process)) == 2
    # Each is told of by one or the other, as soon as both answer.
    gated.until(lambda: len({client.get("/stats").body["num_tokens"] for _ in range(20)}) == 2)


def _engines(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes that hold an engine."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [one for one in children if any("ServeReplica:draftsmith:Replica" in word
                                           for word in one.cmdline())]  # fmt: skip


def _replicated(test: Callable[..., None]) -> Callable[..., None]:
    """One server for all of them, which takes a while to start."""
    test = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")(test)
    return pytest.mark.slow(pytest.mark.xdist_group("replicas")(test))


@_replicated
def test_prompts_that_begin_alike_are_read_by_one_engine(
    replicated: tuple[Client, "subprocess.Popen[str]"],
) -> None:
    client, _ = replicated
    for number in range(8):
        prompt = [number + 3] * 200
        told = [client.complete(prompt, max_tokens=2, seed=seed).body["usage"] for seed in range(3)]
        cached = [one["prompt_tokens_details"]["cached_tokens"] for one in told]
        # Of another engine, the second one would know as little as the first.
        assert min(cached[1:]) >= 128, cached


@_replicated
def test_clients_that_go_away_free_their_places(
    replicated: tuple[Client, "subprocess.Popen[str]"],
) -> None:
    client, _ = replicated
    body = {"max_tokens": 4000, "ignore_eos": True}
    with contextlib.ExitStack() as stack:
        for number in range(8):
            asked = body | {"prompt": f"{number} goes away"}
            response = stack.enter_context(client.streaming("/v1/completions", **asked))
            assert next(live.events(response))["choices"]
    # Each is told of by one engine or the other.
    gated.until(lambda: not any(client.get("/stats").body["num_running"] for _ in range(8)))


@_replicated
def test_a_replica_that_is_killed_under_load_takes_no_other_s_text_with_it(
    replicated: tuple[Client, "subprocess.Popen[str]"],
) -> None:
    client, process = replicated
    references = [_text(client, number) for number in range(8)]
    assert len(_engines(process)) == 2
    is_over = False

    def ask(number: int) -> list[str]:
        found: list[str] = []
        while not is_over:
            text = _text(client, number)
            assert text in (references[number], "replica_lost"), text
            found.append(text)
        return found

    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(ask, number) for number in range(8)]
        time.sleep(2)
        killed = _engines(process)[0]
        killed.send_signal(signal.SIGKILL)
        time.sleep(8)
        is_over = True
        answers = [text for one in held for text in one.result()]
    assert answers.count("replica_lost") <= 4, "more than the lost engine's places"
    assert len(answers) > 16
    # Ray starts another in its place.
    end = time.monotonic() + 60
    while len(_engines(process)) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    assert killed.pid not in {one.pid for one in _engines(process)}
    assert len(_engines(process)) == 2
    assert _text(client, 0) == references[0]


def _text(client: Client, number: int) -> str:
    """A stream's text, or the code of the error that it ended with."""
    body = {"prompt": f"the {number}", "max_tokens": 60, "ignore_eos": True, "seed": number}
    chunks = client.stream("/v1/completions", **body)
    if chunks[-1] != "[DONE]":
        return chunks[-1]["error"]["code"]
    return live.text_of(chunks)
