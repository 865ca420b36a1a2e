"""Layers of a model of transformers on several devices, by accelerate's hooks."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from draftsmith import Engine, SamplingParams, load_engine
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.contract import Rows
from draftsmith.models.hf import load, spread
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.hf.spread import module_places, spread_options
from draftsmith.models.hf.traits import traits_of
from tests import tiny
from tests.models.native.test_layered import fake_devices

CPU = torch.device("cpu")
FAKES = [torch.device("meta", number) for number in range(2)]
GPUS = [torch.device("cuda", number) for number in range(3)]
LAYERS = {"bloom-alibi": "n_layer", "gpt2": "n_layer"}
FAMILIES = [*tiny.CAUSAL, "mamba"]


def five(kind: str, **changes: Any) -> Any:
    """A tiny model of five layers."""
    return tiny.raw_model(kind, **{LAYERS.get(kind, "num_hidden_layers"): 5}, **changes)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_weight_has_a_place_and_the_ends_are_where_they_belong(kind: str) -> None:
    model = five(kind)
    places = module_places(model, (2, 1, 2), GPUS, kind)
    for name, _ in [*model.named_parameters(), *model.named_buffers()]:
        held = [path for path in places if name.startswith(f"{path}.")]
        assert len(held) == 1, (name, held)
    layers = [places[path] for path in places if path.split(".")[-1].isdigit()]
    assert layers == [GPUS[0], GPUS[0], GPUS[1], GPUS[2], GPUS[2]]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {module: name for name, module in model.named_modules()}
    assert places[names[embedding]] == GPUS[0]
    is_tied = head.weight is embedding.weight
    assert places[names[head]] == (GPUS[0] if is_tied else GPUS[2])


@torch.inference_mode()
def ragged(model: Any) -> list[Tensor]:
    """Logits of two rows in pieces, one of them rolled back on the way, the other one longer."""
    cache = model.open_cache()
    first, second = cache.add(), cache.add()
    model.extend(cache, first, list(range(3, 12)))
    found = [model.forward(cache, Rows([second, first], [[5], [7, 8, 9]]))]
    cache.rollback(first, 10)
    found.append(model.forward(cache, Rows([first, second], [[4, 5], [6, 7, 8, 9]])))
    found.append(model.forward(cache, Rows([second], [[3]])))
    return found


def dispatched(model: Any, places: dict[str, torch.device], **options: Any) -> Any:
    """What `from_pretrained` does with a map, and without files."""
    accelerate = pytest.importorskip("accelerate")
    skipped = model._skip_keys_device_placement
    main = next(iter(places.values()))
    return accelerate.dispatch_model(model, places, main, skip_keys=skipped, **options)


@pytest.mark.parametrize("kind", tiny.CAUSAL)
def test_a_ragged_pass_finds_everything_beside_each_layer(kind: str) -> None:
    model = tiny.raw_model(kind)
    places = module_places(model, (1, 1), FAKES, kind)
    traits = traits_of(model, kind)
    with fake_devices(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data pointers: a fake has none
        fake = dispatched(model, places)
        assert {weight.device for weight in fake.parameters()} == set(FAKES)
        found = [
            logits
            for is_careful in (False, True)
            for logits in ragged(CausalModel(fake, traits, is_careful=is_careful))
        ]
    assert {logits.device for logits in found} == {FAKES[0]}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom-alibi", "mamba"])
def test_the_hooks_change_no_bit_and_pass_the_probe(kind: str) -> None:
    plain = wrap_model(five(kind), kind)
    model = five(kind)
    places = module_places(model, (2, 1, 2), [CPU] * 3, kind)
    hooked = wrap_model(dispatched(model, places, force_hooks=True), kind)
    assert type(hooked) is type(plain)
    assert hooked.traits == plain.traits
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    one, two = (Engine(each).generate([5, 6, 7], params)[0].token_ids for each in (plain, hooked))
    assert one == two


# --- loading -------------------------------------------------------------------------------------


def saved(kind: str, folder: Path) -> str:
    words = tiny.raw_tokenizer()
    words.save_pretrained(folder)
    five(kind, vocab_size=len(words)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return saved("gpt2", tmp_path)


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draftsmith.models.load.gpus_for_layers", lambda device: (CPU, CPU))


@pytest.mark.usefixtures("two_cpus")
def test_what_only_transformers_runs_is_spread_by_the_same_option(folder: str) -> None:
    pytest.importorskip("accelerate")
    with mock.patch.object(load, "spread_options", wraps=spread_options) as asked:
        engine = load_engine(folder, layers_per_device=(2, 3))
    assert asked.call_args.args[3:5] == ((2, 3), (CPU, CPU))
    assert isinstance(engine.target, CausalModel)
    params = SamplingParams(max_tokens=8)
    expected = load_engine(folder, device="cpu")
    texts = [one.generate([5, 6, 7], params)[0].token_ids for one in (engine, expected)]
    assert texts[0] == texts[1]
    with pytest.raises(InvalidRequestError, match=r"are 4 layers, and .* has 5"):
        load_engine(folder, layers_per_device=(2, 2))


@pytest.mark.usefixtures("two_cpus")
def test_without_accelerate_the_remedy_is_said(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequestError, match=r"needs accelerate: pip install 'draftsmith\[la"):
        load_engine(folder, layers_per_device=(2, 3))


def test_what_cannot_be_split_is_refused_by_name() -> None:
    model = five("llama")
    model._no_split_modules = None
    with pytest.raises(InvalidRequestError, match="LlamaForCausalLM has no lists of modules"):
        module_places(model, (2, 3), GPUS, "odd")
    for kind in tiny.ENCODER_DECODER:
        with pytest.raises(InvalidRequestError, match=f"cannot split {kind}: .* is an encoder-dec"):
            module_places(tiny.raw_model(kind), (1, 1), GPUS, kind)
    model = five("llama")
    model.model.scale = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(InvalidRequestError, match="LlamaModel has weights beside its layers"):
        module_places(model, (2, 3), GPUS, "odd")


def test_each_device_is_asked_for_its_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model = five("gpt2")
    held = {"layer": model.transformer.h[0], "table": model.transformer.wte}
    layer, table = (sum(p.numel() for p in one.parameters()) for one in held.values())
    free = {GPUS[0]: 1 << 40, GPUS[1]: 2 * 3 * layer + 1000}
    monkeypatch.setattr(spread, "free_memory", free.get)
    asked = (AutoModelForCausalLM, model.config, torch.bfloat16, (2, 3), GPUS[:2], "gpt2")
    found = spread_options(*asked)["device_map"]
    # The head is tied to the embedding, and stays with it.
    assert {path: number for path, number in found.items() if "h." not in path} == {
        "transformer.wte": 0,
        "transformer.wpe": 0,
        "transformer.drop": 0,
        "transformer.ln_f": 1,
        "lm_head": 0,
    }
    free[GPUS[1]] = 2 * 3 * layer - 1
    with pytest.raises(ModelFormatError, match="its layers on cuda:1 need"):
        spread_options(*asked)
    free[GPUS[1]], free[GPUS[0]] = 1 << 40, 2 * (2 * layer + table)
    with pytest.raises(ModelFormatError, match="its layers on cuda:0 need"):
        spread_options(*asked)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("kind", ["gpt2", "gemma2-sliding", "bloom-alibi"])
def test_two_gpus_write_the_text_of_one(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    folder = saved(kind, tmp_path)
    whole = load_engine(folder, device="cuda:0", dtype="float32")
    halves = load_engine(folder, folder, gamma=3, dtype="float32", layers_per_device=(2, 3))
    for seed in (None, 3):
        params = SamplingParams(max_tokens=16, temperature=0.0 if seed is None else 0.9, seed=seed)
        prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
        one, two = (
            [result.token_ids for result in engine.generate(prompts, params)]
            for engine in (whole, halves)
        )
        assert one == two
