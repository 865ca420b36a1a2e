"""Gamma auto over rounds that are graphs, on a device whose time is made up."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import pytest
import torch

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine import scheduler
from draftsmith.engine.engine import Engine
from draftsmith.engine.rounds import graphed
from draftsmith.engine.rounds import step as round_step
from draftsmith.engine.rounds.graphed import GraphedRounds
from draftsmith.engine.rounds.graphs import RoundGraphs
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_runner import GpuRunner
from draftsmith.models.native.gpu_weights import GpuWeights
from tests.models.native.test_decoder import TOKENS
from tests.models.native.test_gpu import fast_and_plain

PASS_S = {"target": 1.63e-3, "draft": 0.78e-3}
RUN_S: "WeakKeyDictionary[GpuRunner, float]" = WeakKeyDictionary()
"""Of a pass of each model that was made here."""
CAPTURE_S = 0.3
NUM_TOKENS = 70
PARAMS = SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True)


@dataclass
class Device:
    """A host and a device: what is launched runs behind what was launched before."""

    now: float = 0.0
    """The host's clock; nothing moves it but waiting."""
    end: float = 0.0
    """When the device will have done what it was given."""
    captured_s: float = 0.0
    """Time that capturing took."""

    def perf_counter(self) -> float:
        return self.now

    def add(self, seconds: float) -> None:
        self.end = max(self.end, self.now) + seconds

    def wait(self, end: float) -> None:
        self.now = max(self.now, end)


class Event:
    """Stands for a CUDA event at the end of what was launched so far."""

    def __init__(self, device: Device) -> None:
        self._device, self._end = device, device.end

    def synchronize(self) -> None:
        self._device.wait(self._end)


@pytest.fixture(name="device")
def _device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    for module in (scheduler, graphed, round_step):
        monkeypatch.setattr(module, "clock", device)
    run, launch, captured = GpuRunner.run, GraphedRounds._launch, RoundGraphs._captured
    launch_once, shapes = GpuRunner.launch_once, set()

    def timed(self, inputs, *args, **options):
        rows = inputs.tokens.numel()
        device.add(RUN_S[self] * (1 if rows <= 16 else rows / 16))
        return run(self, inputs, *args, **options)

    def launched_once(self, numbers, shape, with_logits):
        """As on a GPU, the first pass of every shape is captured by whoever asks for it."""
        if (self, shape) not in shapes:
            shapes.add((self, shape))
            capture()
            self.captured_s += CAPTURE_S
        return launch_once(self, numbers, shape, with_logits)

    def capture():
        device.wait(device.end)
        device.now += CAPTURE_S
        device.captured_s += CAPTURE_S

    def launched(self, *args, **options):
        flight = launch(self, *args, **options)
        return flight._replace(is_there=Event(device))

    def capturing(self, kind):
        device.wait(device.end)
        found = captured(self, kind)
        capture()
        return found

    def now(self):
        device.wait(device.end)
        return device.now

    def share(self, kind):
        drafting = kind.gamma * PASS_S["draft"]
        return drafting / (drafting + PASS_S["target"])

    monkeypatch.setattr(GpuRunner, "run", timed)
    monkeypatch.setattr(GpuRunner, "launch_once", launched_once)
    monkeypatch.setattr(GraphedRounds, "_launch", launched)
    monkeypatch.setattr(GraphedRounds, "_now", now)
    monkeypatch.setattr(RoundGraphs, "_captured", capturing)
    monkeypatch.setattr(RoundGraphs, "draft_share", share)
    return device


@pytest.fixture(name="target", scope="module")
def _target() -> GpuDecoder:
    plain = fast_and_plain("qwen3, biases, tied")[0]
    return made(plain.weights, plain, "target")


def like(target: GpuDecoder, noise: float) -> GpuDecoder:
    other = torch.randn(target.weights.head.shape, generator=torch.Generator().manual_seed(2))
    head = target.weights.head + noise * other.to(target.device)
    return made(replace(target.weights, head=head), target, "draft")


def made(weights: GpuWeights, model: GpuDecoder, name: str) -> GpuDecoder:
    found = GpuDecoder.on_weights(weights, model.config, name)
    RUN_S[found.runner] = PASS_S[name]
    return found


def seconds_a_token(device: Device, engine: Engine, num_texts: int) -> list[float]:
    """Of every text, capturing left out; each has a prompt of its own."""
    found: list[float] = []
    for number in range(num_texts):
        start = device.now - device.captured_s
        engine.generate([TOKENS[number : number + 12]], PARAMS)
        device.wait(device.end)
        seconds = device.now - device.captured_s - start
        found.append(seconds / NUM_TOKENS)
    assert device.captured_s <= 60 * CAPTURE_S
    device.captured_s = 0.0
    return found


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_draft_that_pays_is_used(device: Device, target: GpuDecoder, noise: float) -> None:
    draft = like(target, noise)
    for model in (target, draft):
        model.can_be_captured = True
    fixed = seconds_a_token(device, Engine(target, draft=ModelDrafter(draft), gamma=4), 6)
    plain = seconds_a_token(device, Engine(target), 6)
    gain = sum(plain[2:]) / sum(fixed[2:])
    auto = seconds_a_token(device, Engine(target, draft=ModelDrafter(draft), gamma="auto"), 12)
    assert gain > 1.1
    assert sum(plain[2:]) / 4 / (sum(auto[4:]) / 8) > 0.9 * gain


@pytest.mark.long
def test_a_hopeless_draft_costs_next_to_nothing(device: Device, target: GpuDecoder) -> None:
    draft = like(target, 50.0)
    for model in (target, draft):
        model.can_be_captured = True
    plain = seconds_a_token(device, Engine(target), 12)
    engine = Engine(target, draft=ModelDrafter(draft), gamma="auto")
    auto = seconds_a_token(device, engine, 12)
    # From the 200th token on.
    assert sum(auto[3:]) <= 1.03 * sum(plain[3:])
    ledger = engine.controller.ledger
    assert ledger is not None
    assert 0 < ledger.num_plain_rounds < ledger.num_rounds
