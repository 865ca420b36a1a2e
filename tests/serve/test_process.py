"""`draftsmith serve` as a process: ready, signals, its options from a file."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serve.gated import until
from tests.serve.live import Client, events
from tests.tiny import save_checkpoint

_PATH = "/v1/completions"
_BODY: dict[str, Any] = {"prompt": "the quick", "max_tokens": 3000, "ignore_eos": True, "seed": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served")
    return str(save_checkpoint(folder / "tiny", max_position_embeddings=8192))


@contextlib.contextmanager
def _process(
    *arguments: str, **environment: str
) -> Generator[tuple[Client, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "draftsmith", "serve", "--port", "0", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "is ready at" in line:
                break
        found = re.search(r"ready at (http://\S+)/v1 after ([\d.]+) s", lines[-1])
        assert found is not None, "".join(lines)
        reader = threading.Thread(target=lines.extend, args=(process.stderr,))
        reader.start()
        try:
            yield Client(found[1]), process
        finally:
            process.kill()
            reader.join()


@pytest.mark.long
def test_sigterm_lets_a_stream_finish_and_ends_with_0(checkpoint: str) -> None:
    with _process("-m", checkpoint) as (client, process):
        with client.streaming(_PATH, **(_BODY | {"max_tokens": 300})) as response:
            stream = events(response)
            assert next(stream)["choices"]
            process.send_signal(signal.SIGTERM)
            assert list(stream)[-1] == "[DONE]"
        assert process.wait(60) == 0


@pytest.mark.long
def test_sigterm_cancels_where_that_was_asked_for(checkpoint: str) -> None:
    with _process("-m", checkpoint, "--on-sigterm", "cancel") as (client, process):
        with client.streaming(_PATH, **_BODY) as response:
            stream = events(response)
            assert next(stream)["choices"]
            process.send_signal(signal.SIGTERM)
            assert list(stream)[-1]["error"]["code"] == "stopping"
        assert process.wait(60) == 0


@pytest.mark.long
def test_sigterm_under_load_answers_everybody(checkpoint: str) -> None:
    options = ("--grace", "0.5", "--max-batch-size", "4")
    with _process("-m", checkpoint, *options) as (client, process), ThreadPoolExecutor(12) as pool:
        started = threading.Semaphore(0)

        def ask(number: int) -> Any:
            with client.streaming(_PATH, **(_BODY | {"seed": number})) as response:
                stream = events(response)
                next(stream)
                started.release()
                return list(stream)[-1]

        held = [pool.submit(ask, number) for number in range(12)]
        for _ in held:
            assert started.acquire(timeout=60)
        process.send_signal(signal.SIGTERM)
        ends = [one.result() for one in held]
        assert all(end == "[DONE]" or end["error"]["code"] == "stopping" for end in ends)
        assert process.wait(60) == 0


def test_options_come_from_a_file_from_the_environment_and_from_the_line(
    checkpoint: str, tmp_path: Path
) -> None:
    config, log = tmp_path / "serve.toml", tmp_path / "log"
    config.write_text(
        f'target = "{checkpoint}"\ndraft = "none"\nserved-model-name = "filed"\n'
        f'max_batch_size = 2\nlog-file = "{log}"\nthreads = 1\n'
    )
    keys = {"DRAFTSMITH_API_KEY": "one, two"}
    with _process("--config", str(config), "--served-model-name", "typed", **keys) as (client, _):
        assert client.get("/v1/models").status == 401
        for client.key in ("one", "two"):
            assert client.get("/v1/models").body["data"][0]["id"] == "typed"
        # A line is written when its answer has been sent, and the process is about to be killed.
        until(lambda: log.read_text().count('"event": "request"') == 3)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [401, 200, 200]


@pytest.mark.long
def test_a_full_disk_for_the_log_stops_no_request(checkpoint: str) -> None:
    with _process("-m", checkpoint, "--log-file", "/dev/full") as (client, process):
        for _ in range(3):
            assert client.post(_PATH, **(_BODY | {"max_tokens": 5})).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.long
def test_a_model_file_that_is_replaced_changes_no_text(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "served", max_position_embeddings=8192)
    other = save_checkpoint(tmp_path / "other", seed=1, max_position_embeddings=8192)
    body = _BODY | {"max_tokens": 40}
    with _process("-m", str(folder)) as (client, _):
        expected = client.post(_PATH, **body).texts
        (other / "model.safetensors").replace(folder / "model.safetensors")
        assert client.post(_PATH, **body).texts == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [("prot = 1", "prot"), ("port = ", "TOML"), ('port = "x"', "port"), ("config = 'a'", "config")],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(text)
    command = [sys.executable, "-m", "draftsmith", "serve", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


@pytest.mark.long
def test_a_port_that_is_taken_is_refused(checkpoint: str) -> None:
    with _process("-m", checkpoint) as (client, _):
        port = str(urlsplit(client.address).port)
        command = [sys.executable, "-m", "draftsmith", "serve", "-m", checkpoint, "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "listened on" in done.stderr
