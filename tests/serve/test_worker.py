"""Places in the batch: who gets one, who waits, who is turned away, and who gives his back."""

import contextlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from draftsmith.engine.engine import Engine
from draftsmith.serve.settings import ServeSettings
from tests.engine import kit
from tests.serve import live
from tests.serve.gated import Gated, until
from tests.serve.live import Live

_PATH = "/v1/completions"


@contextlib.contextmanager
def _gated(max_batch_size: int = 8, max_waiting: int = 8) -> Generator[tuple[Live, Gated]]:
    model = Gated()
    engine = Engine(model, kit.text_tokenizer(), max_batch_size=max_batch_size)
    with live.serving(engine, ServeSettings(port=0, max_waiting=max_waiting)) as server:
        try:
            yield server, model
        finally:
            model.gate.set()


def test_a_full_queue_is_429_with_the_time_to_come_again() -> None:
    with _gated(max_batch_size=1, max_waiting=1) as (server, model), ThreadPoolExecutor(2) as pool:
        model.gate.clear()
        held = [pool.submit(server.complete, seed=n) for n in range(2)]
        until(lambda: server.service.worker.num_held == 2)
        answer = server.complete()
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        assert answer.error["type"] == "rate_limit_error"
        assert int(answer.headers["retry-after"]) >= 1
        model.gate.set()
        assert [one.result().status for one in held] == [200, 200]
        assert server.complete(seed=0).texts == held[0].result().texts


def test_more_texts_than_there_can_ever_be_are_no_matter_of_waiting() -> None:
    with _gated(max_batch_size=1, max_waiting=1) as (server, _):
        answer = server.complete(n=3)
        assert (answer.status, answer.error["param"]) == (400, "n")


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_goes_away_frees_its_place_within_one_round(is_streamed: bool) -> None:
    with _gated() as (server, model):
        scheduler, worker = server.service.engine.scheduler, server.service.worker
        model.closes_after = 2
        connection = server.connect()
        body = {"prompt": "the", "max_tokens": 400, "ignore_eos": True, "stream": is_streamed}
        server.send(connection, "POST", _PATH, body)
        until(lambda: not model.gate.is_set())
        connection.close()
        until(lambda: worker.num_held == 0)
        num_passes = model.num_passes
        model.gate.set()
        until(lambda: scheduler.num_held == 0)
        assert model.num_passes <= num_passes + 1
        assert server.complete().status == 200


def test_a_deadline_ends_a_request() -> None:
    with _gated() as (server, model):
        model.closes_after = 3
        answer = server.complete(max_tokens=400, ignore_eos=True, timeout=1)
        assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
        assert answer.headers["x-should-retry"] == "false"
        model.gate.set()
        until(lambda: server.service.engine.scheduler.num_held == 0)


def test_a_deadline_ends_a_stream_with_an_error_in_it() -> None:
    with _gated() as (server, model):
        model.closes_after = 3
        chunks = server.stream(_PATH, prompt="the", max_tokens=400, ignore_eos=True, timeout=1)
        assert chunks[-1]["error"]["code"] == "deadline_exceeded"
        assert "[DONE]" not in chunks


def test_a_request_may_wait_and_then_has_its_own_text() -> None:
    with _gated(max_batch_size=1) as (server, model), ThreadPoolExecutor(5) as pool:
        expected = [server.complete(seed=n).texts for n in range(5)]
        model.gate.clear()
        held = [pool.submit(server.complete, seed=n) for n in range(5)]
        until(lambda: server.service.worker.num_held == 5)
        model.gate.set()
        assert [one.result().texts for one in held] == expected


def test_a_server_that_ends_tells_those_whom_it_cuts_off() -> None:
    settings = ServeSettings(port=0, on_sigterm="cancel")
    model = Gated()
    engine = Engine(model, kit.text_tokenizer())
    with ThreadPoolExecutor(2) as pool, live.serving(engine, settings) as server:
        model.closes_after = 3
        body = {"prompt": "the", "max_tokens": 400, "ignore_eos": True}
        stream = pool.submit(server.stream, _PATH, **body)
        whole = pool.submit(server.post, _PATH, **body)
        until(lambda: not model.gate.is_set() and server.service.worker.num_held == 2)
        server.server.should_exit = True
        assert stream.result()[-1]["error"]["code"] == "stopping"
        assert whole.result().status == 503
        model.gate.set()


def test_a_server_that_ends_lets_requests_finish() -> None:
    model = Gated()
    engine = Engine(model, kit.text_tokenizer())
    with ThreadPoolExecutor(1) as pool, live.serving(engine) as server:
        expected = server.complete(seed=1).texts
        model.gate.clear()
        held = pool.submit(server.complete, seed=1)
        until(lambda: server.service.worker.num_held == 1)
        server.server.should_exit = True
        until(lambda: server.service.worker.is_refusing)
        model.gate.set()
        assert held.result().texts == expected
