"""Which implementation a reference gets, and how its settings are kept."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from draftsmith import Engine, ModelDrafter, SamplingParams, load_engine
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels.cpu import library as cpu
from draftsmith.models import load as module
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.seq2seq import EncoderDecoderModel
from draftsmith.models.load import Dtype, ModelSettings, load_model
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.t5 import NativeT5
from draftsmith.models.reference import resolve
from tests import tiny

needs_library = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")
WIDE = {"hidden_size": 64, "intermediate_size": 96}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    cpu.set_num_threads(1)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("llama"), **WIDE)


def saved(kind: str, tmp_path: Path, **changes: Any) -> str:
    tiny.raw_model(kind, **changes).save_pretrained(tmp_path)
    return f"{tmp_path}/"


def on_cpu(reference: Path | str, **settings: Any) -> LanguageModel:
    return load_model(f"{reference}/", ModelSettings(device="cpu", **settings))


@needs_library
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("qwen3", CpuDecoder),
        ("mistral-sliding", CpuDecoder),
        ("t5", NativeT5),
        ("gpt2", CausalModel),
        ("gemma2-sliding", CausalModel),
        ("bart", EncoderDecoderModel),
    ],
)
def test_our_own_families_run_natively(kind: str, wanted: type, tmp_path: Path) -> None:
    reference = saved(kind, tmp_path)
    model = on_cpu(reference)
    assert isinstance(model, wanted)
    assert model.traits.name == f"{reference}/"


@needs_library
@pytest.mark.parametrize(
    ("dtype", "format"),
    [("auto", "F32"), ("bfloat16", "BF16"), ("float16", "F16"), ("int8", "Q8_0"), ("int4", "Q4_1")],
)
def test_weights_are_held_in_the_type_that_was_asked_for(
    folder: Path, dtype: Dtype, format: str
) -> None:
    model = on_cpu(folder, dtype=dtype)
    assert isinstance(model, CpuDecoder)
    assert model.weights.layers[0].gate.matrix.format == format


@needs_library
def test_a_checkpoint_keeps_the_type_that_it_is_stored_in(tmp_path: Path) -> None:
    tiny.raw_model("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    model = on_cpu(tmp_path)
    assert isinstance(model, CpuDecoder)
    assert model.weights.head.format == "BF16"


def test_without_the_kernels_torch_runs_the_same_decoder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    fast = Engine(on_cpu(folder)).generate([5, 6, 7], params)[0].token_ids
    for name in ("draftsmith.models.load", "draftsmith.kernels.matrix"):
        monkeypatch.setattr(f"{name}.library", lambda: None)
    model = on_cpu(folder)
    assert isinstance(model, TorchDecoder)
    assert Engine(model).generate([5, 6, 7], params)[0].token_ids == fast


def test_the_lack_of_the_kernels_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "find_spec", lambda name: None)
    cpu.library.cache_clear()
    try:
        assert cpu.library() is None
        assert cpu.library() is None
        assert cpu.num_threads() == torch.get_num_threads()
        assert cpu.instruction_set() is None
        assert len(caplog.records) == 1
        assert "without its CPU kernels" in caplog.text
    finally:
        monkeypatch.undo()
        cpu.library.cache_clear()


@needs_library
def test_activations_can_stay_exact(folder: Path) -> None:
    exact = on_cpu(folder, dtype="int8", activations="float32")
    rounded = on_cpu(folder, dtype="int8")
    assert isinstance(exact, CpuDecoder)
    assert isinstance(rounded, CpuDecoder)
    caches = [model.open_cache() for model in (exact, rounded)]
    for cache, model in zip(caches, (exact, rounded), strict=True):
        model.extend(cache, cache.add(), [5, 6, 7])
    assert caches[0].num_bytes() == 2 * caches[1].num_bytes()  # float32 beside float16


@needs_library
def test_the_threads_are_those_that_were_asked_for(folder: Path) -> None:
    on_cpu(folder, threads=3)
    assert cpu.num_threads() == 3 == torch.get_num_threads()


@needs_library
def test_a_draft_computes_part_of_its_head(folder: Path) -> None:
    engine = load_engine(str(folder), str(folder), device="cpu", draft_vocab_size=32)
    assert isinstance(engine.target, CpuDecoder)
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    with_draft = engine.generate("the quick", params)[0].token_ids
    assert (
        with_draft
        == Engine(engine.target, engine.tokenizer).generate("the quick", params)[0].token_ids
    )
    whole = load_engine(str(folder), str(folder), device="cpu", draft_vocab_size=0)
    assert _bytes_per_draft(engine) < _bytes_per_draft(whole)


def _bytes_per_draft(engine: Engine) -> int:
    assert isinstance(engine.draft, ModelDrafter)
    assert isinstance(engine.draft.model, CpuDecoder)
    return engine.draft.model.weight_bytes_per_pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int3"}, "dtype must be one of auto, float32"),
        ({"activations": "int4"}, "activations must be one of int8, float32, got 'int4'"),
        ({"threads": 0}, "threads must be between 1 and 1024, got 0"),
        ({"threads": 5000}, "threads must be between 1 and 1024, got 5000"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    # Past the type checker of the tests, as a user without one would come.
    unchecked = object.__new__(ModelSettings)
    for name, value in (vars(ModelSettings()) | settings).items():
        object.__setattr__(unchecked, name, value)
    with pytest.raises(InvalidRequestError, match=message):
        unchecked.__post_init__()


def test_a_negative_draft_vocabulary_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="draft_vocab_size must be 0 or more, got -1"):
        load_engine(str(folder), device="cpu", draft_vocab_size=-1)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_only_native_decoders_are_quantised(tmp_path: Path, dtype: Dtype) -> None:
    reference = saved("gpt2", tmp_path)
    with pytest.raises(InvalidRequestError, match=f"dtype {dtype} needs a native decoder"):
        on_cpu(reference, dtype=dtype)


def test_a_model_larger_than_memory_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draftsmith.models.native.read.available_memory", lambda: 1000)
    with pytest.raises(ModelFormatError, match="available"):
        on_cpu(folder)


def test_a_hub_model_of_our_families_is_fetched_without_pickles(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(**options: Any) -> str:
        asked.update(options)
        return str(folder)

    monkeypatch.setattr(
        "draftsmith.models.hf.load.hf_hub_download", lambda **_: str(folder / "config.json")
    )
    monkeypatch.setattr("draftsmith.models.hf.load.snapshot_download", snapshot)
    monkeypatch.setattr("draftsmith.models.hf.load.check_reachable", lambda _: None)
    model = load_model("someone/a-llama", ModelSettings(device="cpu"))
    assert model.traits.name == "someone/a-llama"
    assert asked["repo_id"] == "someone/a-llama"
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])
    assert resolve("someone/a-llama").path is None
    assert module.DTYPES[0] == "auto"
