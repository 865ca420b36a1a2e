"""Our reading of GGUF files beside llama.cpp's: family x tensor format x scaling.

Every point is a tiny random model. Its logits after each of 81 tokens come from our CPU path
(float32 activations and cache) and from the torch path (as on a GPU, here on the CPU), and
must be those of llama.cpp to 1e-3 of the largest |logit|, with the same argmax on 97 % of the
positions; or the file is refused, by name. llama.cpp reads the same weights dequantised to float32,
with its cache in float32 and plain attention, since its products of quantised weights round the
activations to 8 bits; what that rounding comes to is in the result as `peer_rounding`. Every point
is tried once more with one tensor left out, the plain ones with each in turn: it must be refused.

    python -m benchmarks.gguf_grid [--quick]
"""

import argparse
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import environment, write_result
from benchmarks.gguf_models import FAMILIES, FORMATS, NUM_IDS, write_model
from benchmarks.gguf_peer import PeerLogits, PeerRefused
from benchmarks.llamacpp import REQUIREMENT
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.native.decoder import TorchDecoder

TOLERANCE, LEAST_SAME = 1e-3, 0.97
TOKENS = [1] + [3 + (7 * i * i + 5 * i) % (NUM_IDS - 3) for i in range(80)]
_PEER_CONTEXT = 256
SAMPLED_IDS = (3, 70, 150, 280)


@dataclass(frozen=True)
class Scaling:
    """What a file says about positions, or what else it says."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    """Tensors of rotary factors, from 1 to so much."""


_LONG = {"rope_factors_short": 2.0, "rope_factors_long": 8.0}
_LONG_KEYS = {"rope.scaling.original_context_length": 256, "context_length": 1024}
_YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
}
_LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
SCALINGS: dict[str, Scaling] = {
    "none": Scaling(),
    "linear": Scaling(_LINEAR),
    "linear, untyped": Scaling({"rope.scaling.factor": 4.0}),
    "scale_linear": Scaling({"rope.scale_linear": 4.0}),
    "typed none": Scaling({"rope.scaling.type": "none"}),
    "typed none, factor": Scaling({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}),
    "linear, attn_factor": Scaling(_LINEAR | {"rope.scaling.attn_factor": 1.3}),
    "yarn": Scaling(_YARN),
    "yarn, no original length": Scaling({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}),
    "yarn, finetuned, attn_factor": Scaling(
        _YARN | {"rope.scaling.finetuned": True, "rope.scaling.attn_factor": 0.8}
    ),
    "yarn, betas": Scaling(
        _YARN | {"rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0}
    ),
    "yarn, ext_factor": Scaling(_YARN | {"rope.scaling.yarn_ext_factor": 0.5}),
    "yarn, log_multiplier": Scaling(_YARN | {"rope.scaling.yarn_log_multiplier": 0.1}),
    "rope_freqs": Scaling({}, {"rope_freqs": 8.0}),
    "rope_freqs, linear": Scaling(_LINEAR, {"rope_freqs": 8.0}),
    "rope_freqs, yarn": Scaling(_YARN, {"rope_freqs": 8.0}),
    "longrope": Scaling(
        _LONG_KEYS | {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": 1.2}, _LONG
    ),
    "longrope, untyped": Scaling(_LONG_KEYS, _LONG),
    "longrope, no factors": Scaling(_LONG_KEYS | {"rope.scaling.type": "longrope"}),
    "dynamic": Scaling({"rope.scaling.type": "dynamic", "rope.scaling.factor": 4.0}),
    "freq_base": Scaling({"rope.freq_base": 500_000.0}),
    "no freq_base": Scaling({"rope.freq_base": None}),
    "freq_base_swa": Scaling({"rope.freq_base_swa": 500.0}),
    "dimension_count": Scaling({"rope.dimension_count": 32}),
    "sliding_window": Scaling({"attention.sliding_window": 128}),
    "sliding_window_pattern": Scaling({"attention.sliding_window_pattern": 3}),
    "attention.scale": Scaling({"attention.scale": 0.05}),
    "logit_scale": Scaling({"logit_scale": 2.0}),
    "residual_scale": Scaling({"residual_scale": 0.5}),
    "embedding_scale": Scaling({"embedding_scale": 2.0}),
    "attn_logit_softcapping": Scaling({"attn_logit_softcapping": 3.0}),
    "final_logit_softcapping": Scaling({"final_logit_softcapping": 5.0}),
    "key_length": Scaling({"attention.key_length": 32}),
    "head_count_kv, one a layer": Scaling({"attention.head_count_kv": [2, 4]}),
    "unknown key": Scaling({"some.new_key": 1}),
}


_IN_ALL_FORMATS = ("none", "linear", "yarn", "rope_freqs", "longrope, untyped")


def main() -> None:
    """Try all points, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="float32 and IQ4_NL alone")
    formats = ("F32", "IQ4_NL") if parser.parse_args().quick else FORMATS
    torch.set_num_threads(1)
    rows, samples = [], {}
    with PeerLogits() as peer, tempfile.TemporaryDirectory() as folder:
        grid = _Grid(peer, Path(folder))
        for family, format, scaling in _points(formats):
            row, sample = grid.point(family, format, scaling)
            rows.append(row)
            if sample:
                samples[f"{family}, {format}, {scaling}"] = sample
            print({k: v for k, v in row.items() if k != "left_out"}, flush=True)
    counts = Counter(row["outcome"] for row in rows)
    left_out = Counter(outcome for row in rows for outcome in row["left_out"].values())
    document = {
        "environment": environment(),
        "peer": REQUIREMENT,
        "gguf": version("gguf"),
        "tolerance": TOLERANCE,
        "least_same_argmax": LEAST_SAME,
        "num_tokens": len(TOKENS),
        "counts": dict(counts),
        "one_tensor_left_out": dict(left_out),
        "by_family": _by_family(rows),
        "points": rows,
        "sampled_ids": list(SAMPLED_IDS),
        "peer_logits_of_last_token": samples,
    }
    print(write_result("gguf_grid", document), document["counts"], document["one_tensor_left_out"])


def _points(formats: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Every scaling in two formats, some of them in all."""
    for family in FAMILIES:
        for format, scaling in itertools.product(formats, SCALINGS):
            if format in ("F32", "IQ4_NL") or scaling in _IN_ALL_FORMATS:
                yield family, format, scaling


def write_point(path: Path, family: str, format: str, scaling: str, **options: Any) -> list[str]:
    """Write the model of one point; options as `write_model` takes them. Returns the names."""
    extra = SCALINGS[scaling]
    tensors = {
        f"{name}.weight": np.linspace(1.0, most, _num_angles(family, extra))
        for name, most in extra.factors.items()
    }
    return write_model(path, FAMILIES[family], format, extra.metadata, tensors, **options)


def _by_family(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    names = {row["family"] for row in rows}
    return {
        name: dict(Counter(row["outcome"] for row in rows if row["family"] == name))
        for name in sorted(names)
    }


class _Grid:
    """Tries points, in files of one folder."""

    def __init__(self, peer: PeerLogits, folder: Path) -> None:
        self._peer, self._folder = peer, folder
        self._plain: dict[str, np.ndarray] = {}
        self._turn = 0

    def point(self, family: str, format: str, scaling: str) -> tuple[dict[str, Any], list[float]]:
        """One row of the result, and some of llama.cpp's logits."""
        path, floats = self._folder / "model.gguf", self._folder / "floats.gguf"
        names = write_point(path, family, format, scaling)
        write_point(floats, family, format, scaling, as_floats=True)
        row: dict[str, Any] = {"family": family, "format": format, "scaling": scaling}
        theirs, why = self._theirs(floats)
        if theirs is not None and scaling == "none" and format == "F32":
            self._plain[family] = theirs
        try:
            ours = self._ours(path)
        except DraftsmithError as error:
            detail = str(error).replace(f"{path}: ", "")
            return row | {"outcome": "refused", "why": detail, "peer": why, "left_out": {}}, []
        row["decoder"] = ours.pop("decoder")
        if theirs is None:
            row |= {"outcome": "different", "why": f"llama.cpp refuses it: {why}"}
        else:
            row |= self._compared(ours, theirs)
            row["peer_rounding"] = self._peer_rounding(path, theirs)
            if format == "F32" and family in self._plain:
                row["effect"] = _distance(theirs, self._plain[family])
        # The plain models lose each of their tensors, the others one, in turn.
        names = [name for name in names if not _is_optional(name)]
        if scaling != "none" or format != "F32":
            self._turn += 1
            names = [names[self._turn % len(names)]]
        row["left_out"] = self._left_out(path, names, family, format, scaling)
        sample = [] if theirs is None else [float(theirs[-1, id]) for id in SAMPLED_IDS]
        return row, sample if format in ("F32", "IQ4_NL") else []

    def _theirs(self, path: Path) -> tuple[np.ndarray | None, str]:
        try:
            return self._peer.logits(path, TOKENS, _PEER_CONTEXT), "read"
        except PeerRefused as error:
            return None, str(error)

    def _ours(self, path: Path) -> dict[str, Any]:
        model = load_model(str(path), ModelSettings(activations="float32", device="cpu"))
        config, weights = read_gguf(path)
        return {
            "decoder": type(model).__name__,
            "cpu": _logits(model),
            "torch": _logits(TorchDecoder.from_weights(weights, config)),
        }

    def _compared(self, ours: dict[str, np.ndarray], theirs: np.ndarray) -> dict[str, Any]:
        errors = {name: _distance(logits, theirs) for name, logits in ours.items()}
        best = theirs.argmax(1)
        same = {name: float((logits.argmax(1) == best).mean()) for name, logits in ours.items()}
        is_equal = max(errors.values()) <= TOLERANCE and min(same.values()) >= LEAST_SAME
        return {
            "outcome": "equal" if is_equal else "different",
            "error": errors,
            "same_argmax": same,
        }

    def _peer_rounding(self, path: Path, exact: np.ndarray) -> float | None:
        rounded, _ = self._theirs(path)
        return None if rounded is None else _distance(rounded, exact)

    def _left_out(
        self, path: Path, names: list[str], family: str, format: str, scaling: str
    ) -> dict[str, str]:
        """What becomes of the file without one of its tensors, for each of them."""
        outcomes = {}
        for name in names:
            write_point(path, family, format, scaling, without=name)
            try:
                read_gguf(path)
                outcomes[name] = "read"
            except DraftsmithError as error:
                outcomes[name] = "refused" if name in str(error) else "refused, not by name"
        return outcomes


def _is_optional(name: str) -> bool:
    """Whether a file without it means another model, and nothing in it says that it is missing.

    A head that is tied, no factors, and no biases (the first layer's tell of all).
    """
    is_bias = name.startswith("blk.0.") and name.endswith(".bias")
    return is_bias or name in ("output.weight", "rope_freqs.weight")


def _num_angles(family: str, scaling: Scaling) -> int:
    model = FAMILIES[family]
    stated = scaling.metadata.get("rope.dimension_count")
    return (stated or model.metadata.get("rope.dimension_count", model.head_size)) // 2


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(f"{np.abs(one - other).max() / np.abs(other).max():.3g}")


def _logits(model: LanguageModel) -> np.ndarray:
    cache = model.open_cache()
    return model.forward(cache, Rows([cache.add()], [TOKENS]))[0].float().numpy()


if __name__ == "__main__":
    main()
