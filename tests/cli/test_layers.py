"""`--layers-per-device`: what is handed on from a line or a file, and what is refused."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from draftsmith.cli.runtime import ModelOptions, RuntimeOptions
from draftsmith.drafters import ModelDrafter
from draftsmith.models.native.decoder import TorchDecoder
from tests.cli.outcome import Cli

CPU = torch.device("cpu")


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus(device: str) -> tuple[torch.device, torch.device]:
        assert device == "auto"
        return CPU, CPU

    monkeypatch.setattr("draftsmith.models.load.gpus_for_layers", gpus)


@pytest.mark.usefixtures("two_cpus")
def test_a_text_is_the_same_and_its_record_says_how_it_was_made(
    cli: Cli, tiny: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = ("generate", "the quick", "-m", tiny, "-n", "8", "--draft", "none", "--json")
    whole, halves = cli(*line), cli(*line, "--layers-per-device", "1,1")
    assert halves.document()["token_ids"] == whole.document()["token_ids"]
    assert halves.document()["runtime"]["layers_per_device"] == [1, 1]
    assert whole.document()["runtime"]["layers_per_device"] is None
    assert caplog.text.count("tensor parallelism, where it is possible, is the fast way") == 1


@pytest.mark.usefixtures("two_cpus")
def test_one_more_draft_is_loaded_whole(tiny: str, draft: str) -> None:
    runtime = RuntimeOptions(layers_per_device=(1, 1))
    engine = runtime.load_target(tiny, None, 0)
    assert isinstance(engine.target, TorchDecoder)
    assert len(engine.target.placement.blocks) == 2
    drafter = runtime.load_drafters([draft], engine)[draft]
    assert isinstance(drafter, ModelDrafter)
    assert drafter.model.device == engine.target.device


@pytest.mark.parametrize("written", ["[20, 20]", '"20,20"'])
def test_a_servers_file_may_say_it(
    cli: Cli, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    found: list[Any] = []

    def load(models: ModelOptions, *_: object) -> None:
        found.append(models.runtime.layers_per_device)
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelOptions, "load", load)
    file = tmp_path / "serve.toml"
    file.write_text(f'target = "{tiny}"\nlayers-per-device = {written}\n', encoding="utf-8")
    cli("serve", "--config", str(file))
    assert found == [(20, 20)]


def test_every_replica_has_as_many_gpus_as_there_are_numbers(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    loaded: list[RuntimeOptions] = []
    monkeypatch.setattr(ModelOptions, "load", lambda self, *_: loaded.append(self.runtime))  # pyright: ignore[reportUnknownLambdaType]
    found: dict[str, Any] = {}

    def serve_replicas(make: Any, settings: object, replicas: dict[str, Any], tell: object) -> None:
        make()
        found.update(replicas)

    module: Any = SimpleNamespace(Replicas=dict, serve_replicas=serve_replicas)
    monkeypatch.setitem(sys.modules, "draftsmith.serve.replicas.cluster", module)
    monkeypatch.setattr("draftsmith.cli.serve._check_installed", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType]
    line = ("serve", "-m", tiny, "--replicas", "2", "--draft", "none")
    assert cli(*line, "--layers-per-device", "1,1").status == 0
    assert found["num_gpus"] == 2.0
    assert cli(*line).status == 0
    assert found["num_gpus"] == 1.0
    # A model on a GPU takes no threads.
    assert [one.threads for one in loaded] == [None, None]


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("generate hi", "2,x", "for --layers-per-device: must be a whole number, got 'x'"),
        ("generate hi", "2,,3", "for --layers-per-device: must be a whole number, got ''"),
        ("generate hi", "0,5", "--layers-per-device must be a number of layers for each device"),
        ("generate hi", "1,1 -tp 2", "is for one process, and -tp 2 is several"),
        ("generate hi", "1,1 --device cpu", "several GPUs, and device is 'cpu': leave it out"),
        ("certify", "1,1 --transformers", "--transformers runs them by itself: leave one out"),
        ("certify", "1,1 --url http://127.0.0.1:1", "is for --target, and there is none: name it"),
    ],
)
def test_what_cannot_be_is_refused(cli: Cli, command: str, given: str, said: str) -> None:
    assert said in cli(*command.split(), "--layers-per-device", *given.split()).refusal()


@pytest.mark.usefixtures("two_cpus")
def test_numbers_of_another_model_are_refused(cli: Cli, tiny: str) -> None:
    told = cli("generate", "hi", "-m", tiny, "--layers-per-device", "2,3").refusal()
    assert "--layers-per-device 2,3 are 5 layers, and" in told
    assert "has 2: give numbers that sum up to 2" in told
    told = cli("generate", "hi", "-m", tiny, "--layers-per-device", "1,1,1").refusal()
    assert "--layers-per-device 1,1,1 names 3 devices, and there are 2" in told
