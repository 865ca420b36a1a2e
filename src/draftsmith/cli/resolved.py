"""How the models of a run were loaded in the end, where it was left to the program."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from draftsmith.cli.runtime import RuntimeOptions
    from draftsmith.drafters import Drafter
    from draftsmith.engine.engine import Engine
    from draftsmith.models.contract import LanguageModel

__all__ = ["resolved"]

_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def resolved(engine: "Engine", runtime: "RuntimeOptions") -> dict[str, Any]:
    """The options of `RuntimeOptions`, each as it held.

    Args:
        engine: What ran.
        runtime: What was asked for.

    Returns:
        `dtype`: the target's weights, a GGUF's blocks by their own names; `activations`: int8 or
        float32 on our kernels, else null; `threads`: of a CPU, else null; `draft_vocab_size`: ids
        that a draft model on our kernels considers (0: all), else null; `layers_per_device`: a
        list where the target's are spread, else null; `tensor_parallel`: ranks.
    """
    import torch

    from draftsmith.models.native.cpu import CpuDecoder

    target = engine.target
    weights = _weight_type(target)
    is_cpu = target.device.type == "cpu"
    activations = None
    if isinstance(target, CpuDecoder):
        is_float = runtime.activations == "float32" or weights in _FLOATS.values()
        activations = "float32" if is_float else "int8"
    own_threads = getattr(target, "num_threads", None) or torch.get_num_threads()
    return {
        "dtype": weights,
        "device": str(target.device),
        "activations": activations,
        "threads": own_threads if is_cpu else None,
        "draft_vocab_size": _num_draft_ids(engine.draft),
        "layers_per_device": runtime.layers_per_device and list(runtime.layers_per_device),
        "tensor_parallel": target.num_ranks,
    }


def _weight_type(target: "LanguageModel") -> str:
    """Of the matrices; several, as many a GGUF file has them, with commas."""
    from draftsmith.models.native.cpu import CpuDecoder
    from draftsmith.models.native.cpu_structs import projections

    if isinstance(target, CpuDecoder):
        layers = [one.matrix for layer in target.weights.layers for one in projections(layer)]
        formats = {matrix.format for matrix in (*layers, target.weights.head)}
        return ",".join(sorted(_FLOATS.get(one, one) for one in formats))
    weights: Any = getattr(target, "weights", None)
    if weights is not None:  # T5's
        found = getattr(weights.head, "format", None) or str(weights.head.dtype)
        return _FLOATS.get(found, found.removeprefix("torch."))
    model: Any = getattr(target, "model", target)
    return str(model.dtype).removeprefix("torch.")


def _num_draft_ids(draft: "Drafter | None") -> int | None:
    from draftsmith.drafters import ModelDrafter, TranslatedDrafter

    if (
        not isinstance(draft, ModelDrafter | TranslatedDrafter)
        or not draft.model.has_reducible_head
    ):
        return None
    return draft.model.num_head_ids or 0
