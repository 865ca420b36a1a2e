"""The native T5 beside transformers' own, and its rows beside each other, bit for bit."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import MT5Config, MT5ForConditionalGeneration, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels.cpu.library import library, num_threads, set_num_threads
from draftsmith.kernels.matrix import Matrix
from draftsmith.models.contract import Cache, Rows
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.native.checkpoint import open_checkpoint
from draftsmith.models.native.stored import StoredTensor
from draftsmith.models.native.t5 import NativeT5, read_plain_t5, read_t5
from draftsmith.models.native.t5_config import read_t5_config
from draftsmith.models.native.t5_layers import (
    attend_one,
    bias_between,
    gelu,
    relative_bias,
    rms_norm,
)
from draftsmith.models.native.t5_weights import ExactMatrix, FloatMatrix, arrange_t5_weights
from draftsmith.testing import check_model
from tests import tiny

SOURCE = [5, 9, 5, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58]
OTHER = [7, 8, 3]
OUTPUT = [0, 11, 23, 11, 5, 64, 90, 2, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45]
V1_1 = {
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "d_ff": 50,  # no multiple of a vector register
    "d_kv": 6,  # not d_model / num_heads
    "num_decoder_layers": 3,
}


class Pair(NamedTuple):
    """A saved model, and what transformers loads of it."""

    folder: Path
    raw: Any


def save(folder: Path, model: Any) -> Pair:
    model.save_pretrained(folder)
    return Pair(folder, type(model).from_pretrained(folder).eval())


def v1_0(folder: Path) -> Pair:
    return save(folder, tiny.raw_model("t5"))


def v1_1(folder: Path) -> Pair:
    model = tiny.raw_model("t5", **V1_1)
    head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
    model.lm_head.weight = torch.nn.Parameter(head * 0.25)
    return save(folder, model)


def mt5(folder: Path) -> Pair:
    config = tiny.raw_model("t5").config.to_dict()
    options = {k: v for k, v in config.items() if k not in ("model_type", "feed_forward_proj")}
    del options["dense_act_fn"], options["is_gated_act"], options["scale_decoder_outputs"]
    torch.manual_seed(2)
    return save(folder, MT5ForConditionalGeneration(MT5Config(**options)))


KINDS = {"v1.0": v1_0, "v1.1": v1_1, "mt5": mt5}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and test workers share the cores."""
    before = num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


READERS = {"plain": read_plain_t5, "packed": read_t5}
CASES = [("v1.0", "packed"), ("v1.1", "packed"), ("v1.1", "plain"), ("mt5", "plain")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pair, NativeT5]:
    kind, reader = request.param
    saved = KINDS[kind](tmp_path_factory.mktemp("t5"))
    return saved, READERS[reader](saved.folder)


@pytest.fixture
def pair(case: tuple[Pair, NativeT5]) -> Pair:
    return case[0]


@pytest.fixture
def model(case: tuple[Pair, NativeT5]) -> NativeT5:
    return case[1]


@pytest.fixture
def steady(model: NativeT5) -> NativeT5:
    """A model whose rows are promised alike."""
    if library() is None and not isinstance(model.weights.head, FloatMatrix):
        pytest.skip("packed matrices promise it with the compiled kernels only")
    return model


@torch.inference_mode()
def expected(pair: Pair, source: list[int], output: list[int]) -> Tensor:
    """What transformers says after each token."""
    return pair.raw(
        input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([output])
    ).logits[0]


BOUND = 1e-4
"""Of the largest logit; what two float32 programs that sum in other orders may differ by."""


def relative_error(logits: Tensor, wanted: Tensor) -> float:
    return float((logits - wanted).abs().max() / wanted.abs().max())


def opened(model: NativeT5, *sources: list[int]) -> tuple[Cache, list[int]]:
    cache = model.open_cache()
    rows = [cache.add() for _ in sources]
    for row, source in zip(rows, sources, strict=True):
        model.encode(cache, row, source)
    return cache, rows


def alone(model: NativeT5, source: list[int], output: list[int]) -> Tensor:
    """One token at a time, nothing else in the pass."""
    cache, (row,) = opened(model, source)
    return torch.cat([model.forward(cache, Rows([row], [[token]]))[0] for token in output])


# --- beside transformers ----------------------------------------------------------------------


def test_one_pass_says_what_transformers_says(pair: Pair, model: NativeT5) -> None:
    wanted = expected(pair, SOURCE, OUTPUT)
    cache, (row,) = opened(model, SOURCE)
    logits = model.forward(cache, Rows([row], [OUTPUT]))[0]
    assert logits.dtype == torch.float32
    assert relative_error(logits, wanted) <= BOUND
    assert relative_error(logits.roll(1, 0), wanted) > 0.1, "all rows are alike: nothing was shown"
    assert relative_error(expected(pair, OTHER, OUTPUT), wanted) > 0.1, "the source is ignored"


def test_token_by_token_says_what_transformers_says(pair: Pair, model: NativeT5) -> None:
    wanted = expected(pair, SOURCE, OUTPUT)
    assert relative_error(alone(model, SOURCE, OUTPUT), wanted) <= BOUND


def test_a_ragged_batch_says_what_transformers_says(pair: Pair, model: NativeT5) -> None:
    cache, rows = opened(model, SOURCE, OTHER)
    model.extend(cache, rows[0], OUTPUT[:7])
    logits = model.forward(cache, Rows([rows[1], rows[0]], [OUTPUT[:4], OUTPUT[7:9]]))
    assert relative_error(logits[0], expected(pair, OTHER, OUTPUT[:4])) <= BOUND
    assert relative_error(logits[1, :2], expected(pair, SOURCE, OUTPUT[:9])[7:]) <= BOUND


def test_what_is_rolled_back_leaves_no_trace(pair: Pair, model: NativeT5) -> None:
    cache, (row,) = opened(model, SOURCE)
    model.forward(cache, Rows([row], [[*OUTPUT[:5], 80, 81, 82]]))
    cache.rollback(row, 5)
    logits = model.forward(cache, Rows([row], [OUTPUT[5:]]))[0]
    assert relative_error(logits, expected(pair, SOURCE, OUTPUT)[5:]) <= BOUND


def test_a_rolled_back_row_has_the_bits_of_one_that_never_was(steady: NativeT5) -> None:
    cache, (row,) = opened(steady, SOURCE)
    steady.forward(cache, Rows([row], [[*OUTPUT[:5], 80, 81, 82]]))
    cache.rollback(row, 5)
    logits = steady.forward(cache, Rows([row], [OUTPUT[5:]]))[0]
    assert torch.equal(logits, alone(steady, SOURCE, OUTPUT)[5:])


def test_outputs_and_sources_beyond_the_last_distance(pair: Pair, model: NativeT5) -> None:
    source, output = [*SOURCE, *SOURCE], [*OUTPUT, *OUTPUT]  # the last distance is 16
    cache, (row,) = opened(model, source)
    logits = model.forward(cache, Rows([row], [output]))[0]
    assert relative_error(logits, expected(pair, source, output)) <= BOUND


@pytest.mark.parametrize("is_bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 16), (4, 3), (7, 20)])
def test_every_distance_has_the_bucket_of_transformers(
    num_buckets: int, max_distance: int, is_bidirectional: bool
) -> None:
    table = torch.arange(num_buckets, dtype=torch.float32).unsqueeze(1)
    bias = relative_bias(table, max_distance, is_bidirectional=is_bidirectional)
    distances = torch.arange(-300, 301 if is_bidirectional else 1)
    buckets = T5Attention._relative_position_bucket(
        distances, is_bidirectional, num_buckets, max_distance
    )
    found = bias_between(bias, range(300, 301), len(distances))
    assert found.flatten().tolist() == buckets.tolist()


def test_traits_are_those_of_the_files(pair: Pair, model: NativeT5) -> None:
    traits = model.traits
    assert traits.vocab_size == tiny.VOCAB
    assert traits.eos_token_ids == (tiny.EOS,)
    assert traits.decoder_start_token_id == 0
    assert traits.is_encoder_decoder
    assert traits.context_length is None
    assert traits.name == pair.folder.name


def test_the_native_t5_keeps_the_contract(model: NativeT5) -> None:
    # Without the kernels torch multiplies, whose sums depend on the number of rows.
    check_model(model, tolerance=1e-6 if library() is not None else 1e-5)


# --- bit for bit ------------------------------------------------------------------------------


@pytest.mark.parametrize("num_rows", range(1, 9))
def test_a_pass_over_many_tokens_has_the_bits_of_one_at_a_time(
    steady: NativeT5, num_rows: int
) -> None:
    cache, (row,) = opened(steady, SOURCE)
    chunks = [OUTPUT[i : i + num_rows] for i in range(0, len(OUTPUT), num_rows)]
    logits = torch.cat([steady.forward(cache, Rows([row], [chunk]))[0] for chunk in chunks])
    assert torch.equal(logits, alone(steady, SOURCE, OUTPUT))


def test_a_batch_of_three_has_the_bits_of_each_alone(steady: NativeT5) -> None:
    sources, outputs = [SOURCE, OTHER, SOURCE[3:9]], [OUTPUT, OUTPUT[:9], OUTPUT[2:7]]
    cache, rows = opened(steady, *sources)
    steady.extend(cache, rows[0], OUTPUT[:3])
    logits = steady.forward(cache, Rows(rows, [outputs[0][3:], *outputs[1:]]))
    for line, source, output, start in zip(logits, sources, outputs, (3, 0, 0), strict=True):
        own = line[: len(output) - start]
        assert torch.equal(own, alone(steady, source, output)[start:])


def test_tokens_that_lie_between_cache_lines_have_the_bits_of_each_alone(tmp_path: Path) -> None:
    odd = tiny.raw_model("t5", num_heads=3, d_kv=7, d_model=33, d_ff=35)
    model = read_plain_t5(save(tmp_path, odd).folder)
    source = [token % tiny.VOCAB for token in range(350)]  # a width at which alignment tells
    cache, (row,) = opened(model, source)
    logits = model.forward(cache, Rows([row], [OUTPUT]))[0]
    assert torch.equal(logits, alone(model, source, OUTPUT))


@pytest.mark.parametrize("num_keys", [44, 350])
def test_attention_has_the_same_bits_wherever_the_query_lies(num_keys: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (
        torch.randn(12, *shape, generator=generator)
        for shape in ((64,), (num_keys, 64), (num_keys, 64))
    )
    query /= 8  # flat scores, so that every key counts
    wanted = attend_one(query, keys, values, None)
    for offset in range(1, 17):
        moved = torch.empty(query.numel() + offset)[offset:].view(12, 64)
        moved.copy_(query)
        roomy = torch.cat([keys, keys[:, :offset]], dim=1)[:, :num_keys]
        assert torch.equal(attend_one(moved, roomy, values, None), wanted)


@pytest.mark.parametrize("width", [32, 50, 512, 1000, 2816])
def test_norms_and_activations_have_the_bits_of_one_row_at_a_time(width: int) -> None:
    rows = torch.randn(40, width, generator=torch.Generator().manual_seed(width)) * 3
    weight = torch.rand(width, generator=torch.Generator().manual_seed(1))
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        gelu,
        lambda states: rms_norm(states, weight, 1e-6),
    )
    for function in functions:
        one_by_one = torch.cat([function(row.clone()) for row in rows.split(1)])
        for num_rows in range(1, 41):
            assert torch.equal(function(rows[:num_rows]), one_by_one[:num_rows])


# --- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_are_kept_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    tiny.raw_model("t5").to(dtype).save_pretrained(tmp_path)
    raw = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    wanted = expected(Pair(tmp_path, raw.eval()), SOURCE, OUTPUT)
    model = read_t5(tmp_path)
    assert isinstance(model.weights.head, Matrix)
    assert model.weights.head.format == {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    assert relative_error(alone(model, SOURCE, OUTPUT), wanted) <= BOUND
    assert relative_error(alone(read_plain_t5(tmp_path), SOURCE, OUTPUT), wanted) <= BOUND


def test_another_format_is_another_model_nearby(tmp_path: Path) -> None:
    pair = v1_0(tmp_path)
    model = read_t5(tmp_path, "Q8_0")
    logits = alone(model, SOURCE, OUTPUT)
    assert 0 < relative_error(logits, expected(pair, SOURCE, OUTPUT)) < 0.2
    if library() is not None:
        cache, (row,) = opened(model, SOURCE)
        assert torch.equal(model.forward(cache, Rows([row], [OUTPUT]))[0], logits)


@pytest.mark.skipif(library() is None, reason="without the kernels nothing is rounded")
@pytest.mark.parametrize("format", ["Q8_0", "Q4_1"])
def test_activations_can_stay_exact(tmp_path: Path, format: str) -> None:
    v1_0(tmp_path)

    def load(stored: StoredTensor) -> FloatMatrix:
        return FloatMatrix(Matrix.from_float(stored.tensor(), format, stored.name).dequantise())

    config, place = read_t5_config(tmp_path), torch.device("cpu")
    weights = arrange_t5_weights(open_checkpoint(tmp_path), config, load, place)
    wanted = alone(NativeT5(config, weights, "twin", place), SOURCE, OUTPUT)
    exact = alone(read_t5(tmp_path, format, exact_activations=True), SOURCE, OUTPUT)
    rounded = alone(read_t5(tmp_path, format), SOURCE, OUTPUT)
    assert relative_error(exact, wanted) <= BOUND < relative_error(rounded, wanted)
    settings = ModelSettings("int8", "cpu", "float32")
    loaded = load_model(f"{tmp_path}/", settings)
    assert isinstance(loaded, NativeT5)
    assert isinstance(loaded.weights.head, ExactMatrix)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    v1_0(tmp_path)
    with pytest.raises(ModelFormatError, match=r"shared\.weight has format Q9: supported are F32"):
        read_t5(tmp_path, "Q9")


# --- other files ----------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file({k: v.clone() for k, v in weights.items()}, folder / "model.safetensors")


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "lm_head.weight"])
def test_a_tied_embedding_may_have_another_name(tmp_path: Path, name: str) -> None:
    pair = v1_0(tmp_path)
    rewrite(tmp_path, lambda weights: weights.update({name: weights.pop("shared.weight")}))
    assert (
        relative_error(
            alone(read_plain_t5(pair.folder), SOURCE, OUTPUT), expected(pair, SOURCE, OUTPUT)
        )
        <= BOUND
    )


def test_an_embedding_saved_twice_is_held_once(tmp_path: Path) -> None:
    pair = v1_0(tmp_path)
    rewrite(tmp_path, lambda weights: weights.update({"lm_head.weight": weights["shared.weight"]}))
    weights = read_plain_t5(pair.folder).weights
    assert weights.head is weights.embedding


def test_embeddings_that_differ_are_refused(tmp_path: Path) -> None:
    pair = v1_0(tmp_path)
    name = "decoder.embed_tokens.weight"
    rewrite(tmp_path, lambda weights: weights.update({name: weights["shared.weight"] * 2}))
    with pytest.raises(ModelFormatError, match=r"'decoder\.embed_tokens\.weight' that differs"):
        _ = read_plain_t5(pair.folder)


def test_a_row_without_a_source_is_refused(model: NativeT5) -> None:
    cache = model.open_cache()
    row = cache.add()
    with pytest.raises(InvalidRequestError, match="row 0 has no source; call encode first"):
        model.forward(cache, Rows([row], [[0]]))
    with pytest.raises(InvalidRequestError, match="the source has 0 tokens"):
        model.encode(cache, row, [])
    with pytest.raises(InvalidRequestError, match="row 5 is not open"):
        model.encode(cache, 5, [3])
    with pytest.raises(InvalidRequestError, match="holds 0 tokens and cannot be rolled back to 1"):
        cache.rollback(row, 1)
