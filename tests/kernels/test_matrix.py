"""Packed matrices: the file's numbers, bit for bit, and products beside torch's."""

from itertools import product
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels import matrix as module
from draftsmith.kernels.cpu import library as cpu
from draftsmith.kernels.matrix import FORMATS, Matrix
from draftsmith.kernels.quantise import QUANTISABLE, floats_from_blocks
from tests.kernels.blocks import random_blocks

needs_library = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")
SETS = cpu.instruction_sets()
QUANTISED = [name for name, block in FORMATS.items() if block.num_weights > 1]
OUTPUTS, INPUTS = 37, 512  # three tiles, the last one partial


def made(format: str, num_outputs: int = OUTPUTS, num_inputs: int = INPUTS) -> Matrix:
    raw = random_blocks(format, num_outputs, num_inputs)
    return Matrix.pack(raw, format, num_outputs, num_inputs)


def rounded(inputs: Tensor) -> Tensor:
    """The plain twin of the activations' rounding: 8 bits in groups of 16."""
    groups = inputs.unflatten(-1, (-1, 16))
    step = groups.abs().amax(-1, keepdim=True) / 127
    codes = torch.where(step > 0, (groups * (1 / step)).round(), 0.0)
    return (codes * step).flatten(-2)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs).norm() / theirs.norm())


@needs_library
@pytest.mark.parametrize(("isa", "format"), [*product(SETS, FORMATS)])
def test_the_weights_are_the_files_bit_for_bit(isa: str, format: str) -> None:
    cpu.set_instruction_set(isa)
    raw = random_blocks(format, OUTPUTS, INPUTS)
    theirs = floats_from_blocks(raw, format, OUTPUTS, INPUTS)
    ours = Matrix.pack(raw, format, OUTPUTS, INPUTS).dequantise()
    assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


@needs_library
@pytest.mark.parametrize("format", FORMATS)
def test_packing_takes_at_most_five_percent_more(format: str) -> None:
    raw = random_blocks(format, 64, INPUTS)
    assert Matrix.pack(raw, format, 64, INPUTS).num_bytes <= 1.05 * raw.nbytes


@needs_library
@pytest.mark.parametrize(("isa", "format"), [*product(SETS, FORMATS)])
def test_products_are_those_of_torch(isa: str, format: str) -> None:
    cpu.set_instruction_set(isa)
    weights = made(format)
    inputs = torch.randn(19, INPUTS, generator=torch.Generator().manual_seed(1))
    dense = weights.dequantise().double()
    exact = inputs.double() @ dense.T
    assert relative(weights.multiply(inputs, exact_activations=True), exact) < 2e-6
    expected = rounded(inputs).double() @ dense.T if format in QUANTISED else exact
    # A quotient on the edge of two codes may be rounded either way.
    assert relative(weights.multiply(inputs), expected) < (2e-4 if format in QUANTISED else 2e-6)


@needs_library
@pytest.mark.parametrize(("isa", "format", "exact"), [*product(SETS, FORMATS, (False, True))])
def test_a_rows_outputs_have_the_same_bits_in_any_company(
    isa: str, format: str, exact: bool
) -> None:
    cpu.set_instruction_set(isa)
    weights = made(format, 35, 256)
    inputs = torch.randn(35, 256, generator=torch.Generator().manual_seed(2))
    alone = [weights.multiply(row.unsqueeze(0), exact_activations=exact) for row in inputs[:17]]
    for rows in (*range(1, 18), 33, 35):
        together = weights.multiply(inputs[:rows], exact_activations=exact)
        assert torch.equal(together[:17], torch.cat(alone)[: min(rows, 17)]), rows


@needs_library
def test_threads_do_not_change_a_bit() -> None:
    weights, inputs = made("Q4_K", 200), torch.randn(3, INPUTS)
    one = weights.multiply(inputs)
    for threads in (2, 3, 5):
        with cpu.using_threads(threads):
            assert torch.equal(weights.multiply(inputs), one)


@needs_library
@pytest.mark.parametrize("format", QUANTISED)
def test_extreme_activations_neither_overflow_nor_vanish(format: str) -> None:
    weights = made(format)
    inputs = torch.zeros(4, INPUTS)
    inputs[1] = 1e-41  # subnormal
    inputs[2, ::2], inputs[2, 1::2] = 1e30, -1e30
    inputs[3] = torch.nan
    outputs = weights.multiply(inputs)
    assert not outputs[0].any()
    assert bool(outputs[:3].isfinite().all())
    assert bool(outputs[3].isnan().all())
    expected = rounded(inputs[2:3]).double() @ weights.dequantise().double().T
    assert relative(outputs[2:3], expected) < 1e-3


@needs_library
@pytest.mark.parametrize(("isa", "format"), [*product(SETS, QUANTISED)])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_nan_in_its_own_row_and_nowhere_else(
    isa: str, format: str, poison: float
) -> None:
    cpu.set_instruction_set(isa)
    weights = made(format)
    inputs = torch.randn(33, INPUTS, generator=torch.Generator().manual_seed(3))
    clean = weights.multiply(inputs)
    for row in range(33):
        inputs[row, (31 * row) % INPUTS] = poison  # every place of a half group, by and by
    outputs = weights.multiply(inputs)
    assert bool(outputs.isnan().all())
    inputs[1::2] = torch.randn(33, INPUTS, generator=torch.Generator().manual_seed(3))[1::2]
    for num_rows in (1, 2, 5, 8, 13, 17, 33):
        outputs = weights.multiply(inputs[:num_rows])
        assert bool(outputs[::2].isnan().all())
        assert torch.equal(outputs[1::2], clean[1:num_rows:2])


@pytest.mark.parametrize("format", FORMATS)
def test_without_the_library_torch_multiplies(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, inputs = made(format), torch.randn(3, INPUTS)
    weights, rows = fast.dequantise(), fast.rows([5, 0])
    exact = fast.multiply(inputs, exact_activations=True).double()
    monkeypatch.setattr(module, "library", lambda: None)
    slow = made(format)
    assert torch.equal(slow.dequantise(), weights)
    assert torch.equal(slow.rows([5, 0]), rows)
    assert relative(slow.multiply(inputs), exact) < 2e-6


@pytest.mark.parametrize("format", FORMATS)
def test_rows_left_in_their_file_are_the_same(format: str, tmp_path: Path) -> None:
    raw = random_blocks(format, OUTPUTS, INPUTS)
    (tmp_path / "weights").write_bytes(b"odd" + raw.tobytes() + b"more")
    mapped = Matrix.in_file(tmp_path / "weights", 3, format, OUTPUTS, INPUTS)
    theirs = floats_from_blocks(raw, format, OUTPUTS, INPUTS)
    assert torch.equal(mapped.dequantise().view(torch.int32), theirs.view(torch.int32))
    assert torch.equal(mapped.rows([36, 0]), theirs[[36, 0]])


@pytest.mark.parametrize("format", QUANTISED)
def test_a_corrupt_block_is_found_although_it_stays_in_the_file(
    format: str, tmp_path: Path
) -> None:
    raw = random_blocks(format, 20, 256).reshape(-1, FORMATS[format].num_bytes)
    at = 208 if format == "Q6_K" else 0
    raw[13, at : at + 2] = np.array([np.float16(np.nan)]).view(np.uint8)
    (tmp_path / "weights").write_bytes(raw.tobytes())
    with pytest.raises(ModelFormatError, match=r"blk\.0 is corrupt: block 13"):
        Matrix.in_file(tmp_path / "weights", 0, format, 20, 256, "blk.0")


@pytest.mark.parametrize("format", ["F16", "Q8_0", "Q4_K"])
def test_packing_in_parts_is_packing_at_once(format: str) -> None:
    raw = random_blocks(format, OUTPUTS, INPUTS).reshape(OUTPUTS, -1)
    at_once = Matrix.pack(raw.reshape(-1), format, OUTPUTS, INPUTS)
    parts = [raw[:16].reshape(-1), raw[16:32].reshape(-1), raw[32:].reshape(-1)]
    in_parts = Matrix.pack_parts(parts, format, OUTPUTS, INPUTS)
    assert torch.equal(in_parts.dequantise(), at_once.dequantise())


@needs_library
def test_parts_that_are_short_or_too_many_or_split_a_tile_are_named() -> None:
    raw = random_blocks("Q8_0", OUTPUTS, INPUTS).reshape(OUTPUTS, -1)
    short, split = [raw[:32].reshape(-1)], [raw[:20].reshape(-1), raw[20:].reshape(-1)]
    twice, one_more = [raw[:32].reshape(-1)] * 2, [raw.reshape(-1), raw[:16].reshape(-1)]
    for parts in (short, split, twice, one_more):
        with pytest.raises(ModelFormatError, match="fetch the file again"):
            Matrix.pack_parts(parts, "Q8_0", OUTPUTS, INPUTS)


def test_the_same_whole_again_is_refused_before_it_is_written() -> None:
    raw = np.zeros(16 * 32 * 4, np.uint8)
    with pytest.raises(
        ModelFormatError, match=r"has 4096 bytes where \[16, 32\] in F32 takes 2048"
    ):
        Matrix.pack_parts([raw, raw], "F32", 16, 32)


@pytest.mark.parametrize("wrong", [-1, OUTPUTS, 10**9, -(2**40)])
def test_rows_that_there_are_not_are_refused(wrong: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"row {wrong} is asked of a matrix with 37"):
        made("Q8_0").rows([0, wrong, 5])


@pytest.mark.parametrize("format", ["F32", "F16", "BF16"])
def test_float_weights_are_packed_as_they_are(format: str) -> None:
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[format]
    weights = torch.randn(18, 7)
    assert torch.equal(Matrix.from_float(weights, format).dequantise(), weights.to(dtype).float())


@pytest.mark.parametrize("format", QUANTISABLE)
def test_rounded_weights_are_those_of_the_gguf_package(format: str) -> None:
    weights = torch.randn(18, 64)
    kind = gguf.GGMLQuantizationType[format]
    theirs = gguf.dequantize(gguf.quantize(weights.numpy(), kind), kind)
    assert np.array_equal(Matrix.from_float(weights, format).dequantise().numpy(), theirs)


@pytest.mark.parametrize("format", QUANTISED)
@pytest.mark.parametrize("poison", [np.float16(np.inf), np.float16(np.nan)])
def test_a_corrupt_block_is_an_error_that_names_the_tensor(format: str, poison: np.float16) -> None:
    raw = random_blocks(format, 20, 256).reshape(-1, FORMATS[format].num_bytes)
    at = 208 if format == "Q6_K" else 0
    raw[13, at : at + 2] = np.array([poison]).view(np.uint8)
    with pytest.raises(ModelFormatError, match=r"blk\.0 is corrupt"):
        Matrix.pack(raw.reshape(-1), format, 20, 256, "blk.0")


@pytest.mark.parametrize(
    ("format", "size", "inputs", "message"),
    [
        ("IQ4_XS", 136, 256, "format IQ4_XS: supported are F32"),
        ("Q4_K", 143, 256, "has 143 bytes"),
        ("Q4_K", 144, 250, "not a multiple of Q4_K's 256"),
    ],
)
def test_what_cannot_be_packed_is_named(format: str, size: int, inputs: int, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        Matrix.pack(np.zeros(size, np.uint8), format, 1, inputs)


@pytest.mark.parametrize("format", ["Q5_K", "Q6_K"])
def test_only_some_formats_can_be_rounded_to(format: str) -> None:
    with pytest.raises(ModelFormatError, match="rounded to Q8_0, Q4_0"):
        Matrix.from_float(torch.randn(2, 256), format)


def test_weights_that_are_not_numbers_are_not_rounded() -> None:
    with pytest.raises(ModelFormatError, match="not finite"):
        Matrix.from_float(torch.full((2, 32), torch.nan), "Q8_0")


def test_the_formats_are_in_the_order_of_the_sources() -> None:
    """Both sides count from 0."""
    source = cpu.Path(module.__file__).parent / "cpu" / "source" / "types.h"
    names = source.read_text().split("enum DsFormat : int32_t {")[1].split("}")[0]
    listed = [name.strip().removeprefix("k") for name in names.split(",")]
    assert listed == [*FORMATS, "NumFormats"]
