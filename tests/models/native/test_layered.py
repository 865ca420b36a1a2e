"""Layers on several devices: the bits of one device, and nothing on the way changes place."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from draftsmith import Engine, ModelDrafter, SamplingParams, load_engine
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.contract import Rows
from draftsmith.models.native import layered
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.dense import DenseLayer, DenseWeights
from draftsmith.models.native.layered import layered_decoder, shares
from draftsmith.models.native.read import read_folder
from draftsmith.models.native.torch_cache import TorchCache
from draftsmith.models.native.weights import DecoderWeights
from draftsmith.models.placement import Block, Placement, check_layers_per_device, gpus_for_layers
from draftsmith.testing import check_model
from tests import tiny
from tests.drafters.heads.test_engine import drafter as head_for
from tests.models.native.test_decoder import MODELS, TOKENS, lively
from tests.models.native.test_trees import BUSH

CPU = torch.device("cpu")
FAMILIES = ["llama, tied", "mistral", "qwen2, sliding in one layer", "qwen3", "yarn"]
SPLITS = [(2, 3), (1, 1, 3), (4, 1), (1, 1, 1, 1, 1)]
WHOLE = (5,)


@cache
def read(name: str) -> tuple[DecoderConfig, DecoderWeights]:
    kind, changes = MODELS[name]
    with TemporaryDirectory() as folder:
        lively(kind, **changes, num_hidden_layers=5).save_pretrained(folder)
        return read_folder(Path(folder))


def split(name: str, counts: tuple[int, ...], devices: list[torch.device]) -> TorchDecoder:
    config, weights = read(name)
    placement = Placement.split(counts, devices, config.num_layers, name)
    return TorchDecoder.from_weights(weights, config, name=name, placement=placement)


def on_cpu(name: str, counts: tuple[int, ...]) -> TorchDecoder:
    return split(name, counts, [CPU] * len(counts))


@torch.inference_mode()
def everything(model: TorchDecoder) -> list[Tensor]:
    """All that a decoder hands out, after growth, a tree, a kept path and a rollback."""
    cache, every = model.open_cache(), list(range(model.num_boundaries))
    first, second = cache.add(), cache.add()
    model.extend(cache, first, TOKENS[:9])
    found = [model.forward(cache, Rows([second, first], [TOKENS[:1], TOKENS[9:12]]))[1]]
    cache.rollback(first, 10)
    bush = Rows([first, second], [BUSH.tokens, TOKENS[1:4]], [BUSH.parents, [-1, 0, 1]])
    found += [part[0] for part in model.forward_with_states(cache, bush, every)]
    cache.keep(first, 10, [0, 2, 5])
    model.prefill(cache, second, TOKENS * 5)  # more slots than there were at first
    found.append(model.extend_with_states(cache, first, TOKENS[:3], every[::-1]))
    found.append(model.forward(cache, Rows([second, first], [[7], [8]])))
    texts = torch.tensor([TOKENS[:20], TOKENS[5:25]], device=model.device)
    found.append(model.states_of(texts, every))
    found += [model.embedded([3, 4]), model.head_rows([5]), model.final_norm]
    return [*found, model.head_product(model.embedded([6]))]


def differences(model: TorchDecoder, other: TorchDecoder) -> list[int]:
    """Which of all that they hand out are not the same bits."""
    pairs = enumerate(zip(everything(model), everything(other), strict=True))
    return [number for number, (one, two) in pairs if not torch.equal(one.cpu(), two.cpu())]


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_have_the_bits_of_one_device(name: str) -> None:
    whole = on_cpu(name, WHOLE)
    assert not any(value.isnan().any() for value in everything(whole))
    for counts in SPLITS:
        assert not differences(on_cpu(name, counts), whole), counts


def test_the_contract_is_kept_over_blocks() -> None:
    check_model(on_cpu("qwen2, sliding in one layer", (2, 3)))


def test_what_overflows_in_any_block_is_lost_to_those_who_see_it() -> None:
    config, weights = read("llama, tied")
    for counts in [WHOLE, *SPLITS]:
        devices = [CPU] * len(counts)
        placement = Placement.split(counts, devices, config.num_layers, "llama")
        for number in range(config.num_layers):
            model = TorchDecoder.from_weights(weights, config, placement=placement)
            layer = model._weights.layers[number]
            bent = layer.value._replace(weight=torch.full_like(layer.value.weight, torch.inf))
            with mock.patch.dict(vars(layer), value=bent):
                cache = model.open_cache()
                logits = model.forward(cache, Rows([cache.add()], [TOKENS[:3]]))
            assert bool(logits.isnan().all()), (counts, number)


@pytest.mark.parametrize("gamma", [2, "auto"])
def test_a_trained_head_and_trees_draft_for_blocks_as_for_the_whole(gamma: Any) -> None:
    whole, spread = on_cpu("llama, tied", WHOLE), on_cpu("llama, tied", (1, 1, 3))
    params = SamplingParams(max_tokens=16, temperature=0.9, seed=3, ignore_eos=True)
    wanted = Engine(whole).generate(TOKENS[:9], params)[0].token_ids
    for draft in (head_for(spread), ModelDrafter(whole, branches=2)):
        result = Engine(spread, draft=draft, gamma=gamma).generate(TOKENS[:9], params)[0]
        assert result.token_ids == wanted
        assert result.statistics.num_drafted or gamma == "auto"


# --- places: fake devices, which refuse to be mixed --------------------------------------------


class Strict(TorchDispatchMode):
    """Refuses an index from another device, as a GPU does and a fake device does not."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [one for one in tree_leaves((args, kwargs or {})) if isinstance(one, Tensor)]
        if "aten.index" in str(func) and len({tensor.device for tensor in tensors}) > 1:
            raise RuntimeError(f"{func} mixes devices")
        return func(*args, **kwargs or {})


def there(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple):  # a projection
        return type(value)(*(there(part, device) for part in value))
    return None if value is None else value.to(device)


def elsewhere(model: TorchDecoder) -> TorchDecoder:
    """The same on devices without numbers, one a block."""
    places = [torch.device("meta", number) for number, _ in enumerate(model.placement.blocks)]
    pairs = zip(places, model.placement.blocks, strict=True)
    blocks = tuple(Block(place, block.layers) for place, block in pairs)
    held = model._weights
    weights = DenseWeights(
        embedding=there(held.embedding, places[0]),
        head=there(held.head, places[-1]),
        final_norm=there(held.final_norm, places[-1]),
        layers=tuple(
            DenseLayer(**{p: there(v, block.device) for p, v in vars(held.layers[number]).items()})
            for block in blocks
            for number in block.layers
        ),
    )
    return TorchDecoder(model.config, weights, "elsewhere", Placement(blocks))


@contextmanager
def fake_devices() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), Strict():
        yield


@pytest.mark.parametrize("name", ["llama, tied", "qwen2, sliding in one layer"])
def test_all_that_a_block_needs_is_beside_it(name: str) -> None:
    model = on_cpu(name, (1, 1, 3))
    with fake_devices():
        found = everything(elsewhere(model))
    assert {value.device for value in found} == {torch.device("meta", 2)}


# --- planted faults -----------------------------------------------------------------------------


def test_a_block_that_is_skipped_is_noticed() -> None:
    whole, spread = on_cpu("llama, tied", WHOLE), on_cpu("llama, tied", (1, 1, 3))
    first, _, last = spread.placement.blocks
    spread.placement = Placement((first, last))
    caches = [whole.open_cache(), whole.open_cache()]
    pairs = zip((whole, spread), caches, strict=True)
    one, two = (model.forward(cache, Rows([cache.add()], [TOKENS[:9]])) for model, cache in pairs)
    assert not torch.equal(one, two)


def test_a_cache_beside_the_wrong_block_is_noticed() -> None:
    plain = on_cpu("llama, tied", (2, 3))
    with fake_devices():
        model = elsewhere(plain)
        one, two = model.placement.blocks
        wrong = Placement((Block(two.device, one.layers), Block(one.device, two.layers)))
        model.open_cache = lambda: TorchCache(model.config, wrong, model.dtype)
        with pytest.raises(RuntimeError, match=r"same device|mixes"):
            everything(model)


# --- what is refused, and loading ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((2, 2), "layers_per_device=2,2 are 4 layers, and llama, tied has 5"),
        ((3, 3), "are 6 layers"),
        ((1, 1, 3), "layers_per_device=1,1,3 names 3 devices, and there are 2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(given: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        layered_decoder(*read("llama, tied"), given, [CPU, CPU], torch.float32, "llama, tied")


def test_each_device_is_asked_for_its_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights = read("llama, tied")
    layer, table = weights.layers[0].num_weights, config.vocab_size * config.hidden_size
    places = [torch.device("cuda", number) for number in range(3)]
    of = Placement.split((1, 1, 3), places, 5, "")
    assert list(shares(weights, of, torch.bfloat16).values()) == [
        2 * (layer + table),
        2 * layer,
        2 * (3 * layer + table),  # a copy of the tied table
    ]
    whole = shares(weights, Placement.split((2, 3), [CPU, CPU], 5, ""), torch.float32)
    assert whole == {CPU: 4 * weights.num_weights}
    free = {places[0]: 1 << 40, places[1]: 2 * layer - 1, places[2]: None}
    monkeypatch.setattr(layered, "free_memory", free.get)
    with pytest.raises(ModelFormatError, match=r"its layers on cuda:1 need 0\.0 GB"):
        layered_decoder(config, weights, (1, 1, 3), places, torch.bfloat16, "llama")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tiny.save_checkpoint(tmp_path, num_hidden_layers=5))


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draftsmith.models.load.gpus_for_layers", lambda device: (CPU, CPU))


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize("seed", [None, 3])
def test_a_split_target_writes_the_text_of_a_whole_one(
    folder: str, seed: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    params = SamplingParams(max_tokens=16, temperature=0.0 if seed is None else 0.9, seed=seed)
    texts = {
        load_engine(folder, draft, gamma=3 if draft else None, layers_per_device=counts)
        .generate("the quick", params)[0]
        .token_ids
        for draft, counts in itertools.product((None, folder), ([5], [2, 3]))
    }
    assert len(texts) == 1
    said = [record.message for record in caplog.records if "tensor parallelism" in record.message]
    assert len(said) == 4, "once a load"


@pytest.mark.usefixtures("two_cpus")
def test_the_draft_is_whole_beside_the_last_layers(folder: str) -> None:
    engine = load_engine(folder, folder, gamma=2, layers_per_device=(1, 4))
    assert isinstance(engine.target, TorchDecoder)
    assert [len(block.layers) for block in engine.target.placement.blocks] == [1, 4]
    (drafter,) = [engine.draft]
    assert isinstance(drafter, ModelDrafter)
    assert not hasattr(drafter.model, "placement")


@pytest.mark.parametrize("given", [(), (0, 5), (5, -1), "2,3", 5, (2.0, 3), (True, 4)])
def test_what_are_no_numbers_of_layers_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError, match="layers_per_device must be a number of layers"):
        check_layers_per_device(given)


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is no GPU")
def test_without_gpus_there_is_nothing_to_spread_over(folder: str) -> None:
    for device in ("auto", "cpu"):
        with pytest.raises(InvalidRequestError, match="layers_per_device is for the memories of"):
            load_engine(folder, device=device, layers_per_device=(2, 3))
    with pytest.raises(InvalidRequestError, match="and there is none here"):
        gpus_for_layers("cuda")


def test_one_gpu_by_name_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="leave device out"):
        gpus_for_layers("cuda:1")


@pytest.mark.usefixtures("two_cpus")
def test_options_of_whole_models_are_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = (torch.device("cuda", 0), torch.device("cuda", 1))
    monkeypatch.setattr("draftsmith.models.load.gpus_for_layers", lambda device: gpus)
    with pytest.raises(InvalidRequestError, match="threads=2 are of a CPU"):
        load_engine(folder, threads=2, layers_per_device=(2, 3))
    with pytest.raises(InvalidRequestError, match="activations='int8' needs"):
        load_engine(folder, activations="int8", layers_per_device=(2, 3))
    with pytest.raises(InvalidRequestError, match="dtype int8 needs"):
        load_engine(folder, dtype="int8", layers_per_device=(2, 3))
    with pytest.raises(InvalidRequestError, match="is for one process, and parallel=2 is several"):
        load_engine(folder, parallel=2, layers_per_device=(2, 3))
    with pytest.raises(InvalidRequestError, match="for models that are loaded by name"):
        load_engine(tiny.raw_model("llama"), folder, layers_per_device=(2, 3))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", FAMILIES)
def test_two_gpus_have_the_bits_of_one(name: str) -> None:
    gpus = [torch.device("cuda", number) for number in range(2)]
    whole, spread = split(name, WHOLE, gpus), split(name, (2, 3), gpus)
    assert not differences(spread, whole)
    for seed in (None, 3):
        params = SamplingParams(max_tokens=16, temperature=0.0 if seed is None else 0.9, seed=seed)
        texts = [
            Engine(model).generate(TOKENS[:9], params)[0].token_ids for model in (whole, spread)
        ]
        assert texts[0] == texts[1]
