"""Keys, sizes, and bodies that never come."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

import pytest

from draftsmith.serve.settings import Limits, ServeSettings
from tests.serve import live
from tests.serve.live import Live


def _socket(server: Live) -> socket.socket:
    parts = urlsplit(server.address)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def test_any_of_the_keys_opens_the_api() -> None:
    settings = ServeSettings(port=0, api_keys=("first", "second"))
    with live.serving(live.engine(), settings) as server:
        assert server.chat(max_tokens=2).status == 200
        for key, status in (("second", 200), ("third", 401), ("", 401), ("firs", 401)):
            server.key = key
            assert server.chat(max_tokens=2).status == status
        server.key = None
        answer = server.chat(max_tokens=2)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert server.call("GET", "/v1/models", None, Authorization="Basic first").status == 401
        for path in ("/health", "/ready", "/version"):
            assert server.get(path).status == 200
        for path in ("/metrics", "/v1/models", "/openapi.json"):
            assert server.get(path).status == 401


def test_a_body_that_is_too_large_is_413_told_or_not() -> None:
    settings = ServeSettings(port=0, limits=Limits(max_body_bytes=1000))
    with live.serving(live.engine(), settings) as server:
        answer = server.complete("x" * 2000)
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        with contextlib.closing(_socket(server)) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + b"1f41\r\n" + b"x" * 8001 + b"\r\n"
            )
            assert client.recv(100).startswith(b"HTTP/1.1 413")
        assert server.complete("the", max_tokens=2).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/comple",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n",
        b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"prompt":',
    ],
)
def test_a_request_that_never_comes_to_its_end_is_hung_up_on(sent: bytes) -> None:
    settings = ServeSettings(port=0, body_timeout_s=0.2)
    with live.serving(live.engine(), settings) as server:
        with contextlib.closing(_socket(server)) as client:
            client.sendall(sent)
            received = b"".join(iter(lambda: client.recv(1000), b""))
            assert received == b"" or received.startswith(b"HTTP/1.1 408")
        assert server.complete("the", max_tokens=2).status == 200


def test_every_answer_has_an_id(server: Live) -> None:
    ids = {server.get("/health").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_an_answer_on_a_kept_connection_does_not_wait_for_an_acknowledgement(server: Live) -> None:
    # Nagle's algorithm holds an answer's last segment back until the client's system, 40 ms later,
    # has acknowledged the one before; the quickest of some shows it, however busy the machine is.
    seconds: list[float] = []
    with contextlib.closing(server.connect()) as connection:
        for _ in range(40):
            start = time.perf_counter()
            server.send(connection, "POST", "/tokenize", {"prompt": "fox"})
            assert connection.getresponse().read()
            seconds.append(time.perf_counter() - start)
    # A connection's first ones are acknowledged at once.
    assert min(seconds[20:]) < 0.03, seconds
