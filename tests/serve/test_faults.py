"""What clients and models do to a server: it goes on, leaks nothing, and others' texts stay."""

import contextlib
import json
import os
import random
import socket
import struct
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from draftsmith.engine.engine import Engine
from draftsmith.errors import ParallelError
from draftsmith.serve.settings import Limits, ServeSettings
from tests.engine import kit
from tests.serve import live
from tests.serve.gated import until
from tests.serve.live import Live

_PATH = "/v1/completions"
_BODY: dict[str, Any] = {"prompt": "the quick brown", "seed": 2, "max_tokens": 60}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def _connect(server: Live) -> socket.socket:
    parts = urlsplit(server.address)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def _request(body: dict[str, Any] | bytes) -> bytes:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST {_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(sent)}\r\n\r\n"
    )
    return head.encode() + sent


def _is_at_rest(server: Live) -> bool:
    engine = server.service.engine
    is_idle = server.service.worker.num_held == engine.scheduler.num_held == 0
    return is_idle and engine.cache_statistics().num_held == 0


@contextlib.contextmanager
def _unharmed(server: Live) -> Generator[None]:
    """The text of somebody else before and after, and nothing left in the engine's hands."""
    expected = server.post(_PATH, **_BODY).texts
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(server.post, _PATH, **(_BODY | {"max_tokens": 200}))
        yield
        assert beside.result().status == 200
    until(lambda: _is_at_rest(server))
    assert server.post(_PATH, **_BODY).texts == expected


def _vanish(server: Live, number: int) -> None:
    """A client that is killed in mid-stream: its kernel resets the connection."""
    client = _connect(server)
    with contextlib.closing(client):
        body = _BODY | {"stream": True, "max_tokens": 400, "ignore_eos": True, "seed": number}
        client.sendall(_request(body))
        assert client.recv(400).startswith(b"HTTP/1.1 200")
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_200_clients_that_are_killed_in_mid_stream_leave_nothing_behind() -> None:
    with live.serving(live.engine(gamma=3)) as server:
        for number in range(60):
            _vanish(server, number)
        until(lambda: _is_at_rest(server))
        before = _resident_bytes()
        with _unharmed(server):
            for number in range(200):
                _vanish(server, number)
        grown = _resident_bytes() - before
        assert grown < 24 << 20, f"{grown >> 20} MiB more than before"


@pytest.mark.long
def test_slow_readers_hold_nobody_up_and_get_all_of_their_text() -> None:
    with live.serving(live.engine(gamma=3)) as server, contextlib.ExitStack() as stack:
        long = _BODY | {"max_tokens": 400, "ignore_eos": True}
        expected = server.post(_PATH, **long).texts[0]
        # A megabyte for each: more than sockets hold.
        much = long | {"n": 4, "logprobs": 20, "stream": True}
        slow = [stack.enter_context(contextlib.closing(_connect(server))) for _ in range(3)]
        for client in slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.sendall(_request(much))
        with _unharmed(server):
            pass
        for client in slow:
            received = b""
            while b"data: [DONE]" not in received[-99:]:
                received += client.recv(1 << 16)
            lines = [line for line in received.splitlines() if line.startswith(b"data: {")]
            events = [json.loads(line[6:]) for line in lines]
            assert live.text_of(events) == expected
            assert len(received) > 900_000


def _malformed(rng: random.Random) -> bytes:
    """A good body with some bytes changed, cut off, or doubled."""
    good = _BODY | {"n": 2, "logit_bias": {"5": 1}, "max_tokens": 2}
    body = bytearray(json.dumps(good).encode())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(body))
        kind = rng.randrange(4)
        if kind == 0:
            body[place] = rng.randrange(256)
        elif kind == 1:
            del body[place : place + rng.randint(1, 12)]
        elif kind == 2:
            body[place:place] = body[max(0, place - 9) : place]
        else:
            body[place:place] = rng.choice([b"{", b"[", b'"', b"\\u", b"1e999", b"NaN", b"\0"])
        if not body:
            break
    return bytes(body)


@pytest.mark.slow
def test_10_000_malformed_bodies_are_answered_one_by_one() -> None:
    rng = random.Random(1)
    with live.serving(live.engine(gamma=3)) as server:
        with _unharmed(server), contextlib.closing(server.connect()) as connection:
            statuses: dict[int, int] = {}
            for _ in range(10_000):
                server.send(connection, "POST", _PATH, _malformed(rng))
                response = connection.getresponse()
                error = json.loads(response.read()).get("error")
                assert (response.status == 200) == (error is None)
                statuses[response.status] = statuses.get(response.status, 0) + 1
        assert set(statuses) <= {200, 400, 404}, statuses
        assert statuses[400] > 6000


def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    most = 1 << 20
    settings = ServeSettings(port=0, limits=Limits(max_body_bytes=most))
    with live.serving(live.engine(gamma=3), settings) as server, _unharmed(server):
        body = json.dumps(_BODY | {"user": ""}).encode()
        filled = body.replace(b'"user": ""', b'"user": "' + b"x" * (most - len(body)) + b'"')
        assert len(filled) == most
        assert server.call("POST", _PATH, filled).status == 200
        assert server.call("POST", _PATH, filled + b" ").status == 413
        long = json.dumps({"prompt": "the " * 200_000}).encode()
        answer = server.call("POST", _PATH, long)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


@pytest.mark.long
def test_64_long_requests_share_pages_for_a_few() -> None:
    engine = Engine(live.target(), kit.text_tokenizer(), max_batch_size=64, cache_tokens=1024)
    bodies = [_BODY | {"seed": n, "max_tokens": 150, "ignore_eos": True} for n in range(64)]
    with live.serving(live.engine(gamma=0)) as plain:
        some = [plain.post(_PATH, **body).texts for body in bodies[::8]]
    with live.serving(engine) as server, _unharmed(server), ThreadPoolExecutor(64) as pool:
        held = [pool.submit(server.post, _PATH, **body) for body in bodies]
        answers = [one.result() for one in held]
        assert [one.status for one in answers] == [200] * 64
        assert [one.texts for one in answers[::8]] == some
        assert engine.cache_statistics().num_preemptions > 0


def test_nan_in_one_texts_logits_ends_that_one() -> None:
    bad = 70
    engine = Engine(kit.Poisoned(live.target(), bad, torch.nan, None), kit.text_tokenizer())
    spared = _BODY | {"logit_bias": {str(bad): -100}}
    with live.serving(live.engine(gamma=0)) as plain:
        expected = plain.post(_PATH, **spared).texts
    with live.serving(engine) as server, ThreadPoolExecutor(4) as pool:
        others = [pool.submit(server.post, _PATH, **spared) for _ in range(3)]
        answer = server.post(_PATH, **(_BODY | {"logit_bias": {str(bad): 100}}))
        assert (answer.status, answer.error["code"]) == (500, "engine_error")
        assert "NaN" in answer.error["message"]
        chunks = server.stream(_PATH, **(_BODY | {"logit_bias": {str(bad): 100}}))
        assert "NaN" in chunks[-1]["error"]["message"]
        assert [one.result().texts for one in others] == [expected] * 3
        until(lambda: _is_at_rest(server))


def test_100_clients_that_never_finish_their_request_are_hung_up_on() -> None:
    settings = ServeSettings(port=0, body_timeout_s=1.0)
    with live.serving(live.engine(gamma=3), settings) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(_connect(server))) for _ in range(100)]
        whole = _request(_BODY)
        for number, client in enumerate(clients):
            client.sendall(whole[: 10 + number * (len(whole) - 11) // 100])
        with _unharmed(server):
            pass
        for client in clients:
            received = b"".join(iter(lambda client=client: client.recv(1000), b""))
            assert received == b"" or received.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "form",
    [
        {"json": {"$ref": "#"}},
        {"json": json.loads('{"items":' * 300 + "{}" + "}" * 300)},
        {"regex": "(((a*)*)*)*b" * 20},
        {"grammar": "start: start start"},
        {"grammar": 'start: "a" start | "a" start "b" | '},
        {"regex": "a{1,100000}" * 50},
    ],
)
def test_a_hostile_form_ends_nothing_but_itself(server: Live, form: dict[str, Any]) -> None:
    with _unharmed(server):
        answer = server.chat(structured_outputs=form, max_tokens=20, timeout=30)
        assert answer.status in (200, 400, 500), answer.body


def test_a_step_that_raises_again_and_again_ends_the_newest_request_only() -> None:
    class Failing(kit.Wrapped):
        def forward(self, cache: Any, batch: Any) -> Any:
            if any(60 in tokens for tokens in batch.tokens):
                raise MemoryError("no room for 60")
            return self.inner.forward(cache, batch)

    engine = Engine(Failing(live.target()), kit.text_tokenizer())
    spared = _BODY | {"logit_bias": {"60": -100}, "max_tokens": 300, "ignore_eos": True}
    with live.serving(live.engine(gamma=0)) as plain:
        expected = plain.post(_PATH, **spared).texts
    with live.serving(engine) as server, ThreadPoolExecutor(1) as pool:
        other = pool.submit(server.post, _PATH, **spared)
        until(lambda: server.service.worker.num_running == 1)
        answer = server.post(_PATH, prompt=[5, 60])
        assert answer.status == 500
        assert "no room for 60" in answer.error["message"]
        assert other.result().texts == expected


def test_when_the_processes_of_a_model_are_gone_the_server_says_so_and_is_not_well() -> None:
    class Gone(kit.Wrapped):
        def forward(self, cache: Any, batch: Any) -> Any:
            if any(60 in tokens for tokens in batch.tokens):
                raise ParallelError("rank 1 of 2 ended: load the model again")
            return self.inner.forward(cache, batch)

    engine = Engine(Gone(live.target()), kit.text_tokenizer())
    running = _BODY | {"logit_bias": {"60": -100}, "max_tokens": 400, "ignore_eos": True}
    with live.serving(engine) as server, ThreadPoolExecutor(1) as pool:
        other = pool.submit(server.post, _PATH, **running)
        until(lambda: server.service.worker.num_running == 1)
        answers = [server.post(_PATH, prompt=[5, 60]), other.result()]
        until(lambda: not server.service.worker.is_alive)
        assert [one.status for one in answers] == [500, 500]
        assert all("rank 1 of 2 ended" in one.error["message"] for one in answers)
        assert [server.get(path).status for path in ("/health", "/ready")] == [503, 503]
        assert server.post(_PATH, **_BODY).status == 503
