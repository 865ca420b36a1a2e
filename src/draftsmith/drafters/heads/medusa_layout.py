"""Published Medusa heads: the layouts of FasterDecoding, vLLM and speculators.

FasterDecoding/Medusa keeps `{head}.{block}.linear` and `{head}.{blocks}.weight` in
`medusa_lm_head.pt`; text-generation-inference reads the same names from safetensors, and leaves the
output matrix to the target where there is none. vLLM and speculators have
`blocks.{head}.layers.{block}` and `lm_heads.{head}`. Sizes are those of the tensors; what a
config.json says of them must agree.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.files import read_config, read_tensors
from draftsmith.drafters.heads.keys import architectures_of, check_speculators, verifier_of
from draftsmith.drafters.heads.medusa_config import (
    MedusaConfig,
    Outputs,
    bias_name,
    block_name,
    output_name,
)
from draftsmith.drafters.heads.names import drafted_ids
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.config import size_option

__all__ = ["MEDUSA_FILES", "claims_medusa", "read_medusa"]

MEDUSA_FILES: Final = ("medusa_lm_head.safetensors", "medusa_lm_head.pt")
_BLOCK = re.compile(r"([0-9]+)\.([0-9]+)\.linear\.(weight|bias)")
_OUTPUT = re.compile(r"([0-9]+)\.([0-9]+)\.weight")
_VLLM_BLOCK = re.compile(r"blocks\.([0-9]+)\.layers\.([0-9]+)\.(weight|bias)")
_VLLM_OUTPUT = re.compile(r"lm_heads\.([0-9]+)\.weight")
_PREFIXES = ("medusa_heads.", "medusa_head.", "model.")
_IDS = ("token_map", "d2t", "t2d")
_VOCABULARIES = ("vocab_size", "medusa_vocab_size")
_READ: Final = frozenset(
    (
        "base_model_name_or_path",
        "draft_vocab_size",
        "hidden_size",
        "medusa_fc_bias",
        "medusa_hidden_size",
        "medusa_num_heads",
        "medusa_num_layers",
        "medusa_vocab_size",
        "num_heads",
        "num_hidden_layers",
        "original_lm_head",
        "speculators_config",
        "speculators_model_type",
        "truncated_vocab_size",
        "vocab_size",
    )
)
_ONLY: Final[dict[str, tuple[object, ...]]] = {
    "hidden_act": ("silu", None),
    "logit_scale": (1.0, None),
    "version": ("1", "2", 1, 2, None),
}
"""Keys that may be there with these values alone."""
_WITHOUT_EFFECT: Final = frozenset(
    (
        "_name_or_path",
        "architectures",
        "auto_map",
        "dtype",
        "has_no_defaults_at_init",
        "head_weight_decay",
        "max_paths",
        "max_seq_len",
        "model_type",
        "num_unfreezed_layers",
        "speculators_version",
        "topk",
        "torch_dtype",
        "transformers_version",
    )
)


def claims_medusa(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of Medusa heads alone, not of a model that holds some.

    Example:
        >>> claims_medusa({"medusa_num_heads": 5, "medusa_num_layers": 1})
        True
        >>> claims_medusa({"medusa_num_heads": 5, "architectures": ["LlamaForCausalLM"]})
        False
    """
    if "medusa" in (config.get("model_type"), config.get("speculators_model_type")):
        return True
    if config.get("num_attention_heads") is not None:
        return False  # Medusa heads have no attention: it is a whole model's
    names = architectures_of(config)
    return any("Medusa" in name for name in names) or ("medusa_num_heads" in config and not names)


def read_medusa(folder: Path, target: TargetTables | None) -> tuple[MedusaConfig, HeadWeights]:
    """Read Medusa heads.

    Args:
        folder: With a config.json and the weights.
        target: Whose vocabulary fills in what the files leave to it; None reads heads that leave
            nothing to it.

    Returns:
        Their conventions and their weights, checked against each other.

    Raises:
        ModelFormatError: They are cut off, contradict themselves, or say something that is not
            known here.
        InvalidRequestError: The target is None, and the files leave something to it.
    """
    with named_after(folder):
        config = read_config(folder)
        _check_keys(config)
        stored = read_tensors(folder, MEDUSA_FILES)
        tensors, layout = _our_names(stored)
        if "speculators_model_type" in config:
            layout = "speculators"
        resolved, ids = _resolve(config, tensors, stored, target, layout, folder)
        weights = HeadWeights(tensors, ids)
        resolved.check(weights)
    return resolved, weights


def _check_keys(config: Mapping[str, object]) -> None:
    for key, value in config.items():
        if key in _ONLY:
            if value not in _ONLY[key]:
                raise ModelFormatError(
                    f"{key} is {value!r:.60}: of Medusa heads, only {_ONLY[key][0]!r} is known "
                    "there"
                )
        elif key not in _READ | _WITHOUT_EFFECT:
            raise ModelFormatError(
                f"config.json has the key {key} ({value!r:.60}), which no Medusa heads are known "
                "to have: take it out if it changes nothing"
            )
    check_speculators(config)


# --- tensors -------------------------------------------------------------------------------------


def _our_names(stored: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The weights by our names, and the layout that the names are of."""
    found: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if _without_prefix(name) in plain:
            raise ModelFormatError(
                f"it holds tensor {_without_prefix(name)!r} twice, with a prefix and without: "
                "fetch it again"
            )
        plain[_without_prefix(name)] = tensor
    is_vllm = any(name.startswith("blocks.") for name in plain)
    blocks = [match for name in plain if (match := _BLOCK.fullmatch(name))]
    last = max((int(match[2]) for match in blocks), default=-1) + 1
    for name, tensor in plain.items():
        if name in _IDS:
            continue
        ours = _vllm_name(name) if is_vllm else _reference_name(name, last)
        if ours is None or ours in found:
            raise ModelFormatError(
                f"it holds tensor {name!r}, which no Medusa heads are known to have: fetch it again"
            )
        found[ours] = tensor
    return found, "vLLM" if is_vllm else "FasterDecoding"


def _without_prefix(name: str) -> str:
    prefix = next((one for one in _PREFIXES if name.startswith(one)), "")
    return name.removeprefix(prefix)


def _reference_name(name: str, last: int) -> str | None:
    if block := _BLOCK.fullmatch(name):
        head, number = int(block[1]), int(block[2])
        return block_name(head, number) if block[3] == "weight" else bias_name(head, number)
    output = _OUTPUT.fullmatch(name)
    # Behind the blocks, by its number.
    return output_name(int(output[1])) if output and int(output[2]) == last else None


def _vllm_name(name: str) -> str | None:
    if name == "lm_head.weight":
        return output_name(None)
    if block := _VLLM_BLOCK.fullmatch(name):
        head, number = int(block[1]), int(block[2])
        return block_name(head, number) if block[3] == "weight" else bias_name(head, number)
    output = _VLLM_OUTPUT.fullmatch(name)
    return output_name(int(output[1])) if output else None


# --- conventions ---------------------------------------------------------------------------------


def _resolve(
    config: Mapping[str, object],
    tensors: dict[str, Tensor],
    stored: Mapping[str, Tensor],
    target: TargetTables | None,
    layout: str,
    folder: Path,
) -> tuple[MedusaConfig, Int[Tensor, " draft_vocab"] | None]:
    blocks = [name.split(".") for name in tensors if ".blocks." in name]
    if block_name(0, 0) not in tensors:
        raise ModelFormatError(
            "it holds no first block of a Medusa head: the file is cut off, or of another kind"
        )
    num_heads = 1 + max(int(parts[1]) for parts in blocks)
    num_blocks = 1 + max(int(parts[3]) for parts in blocks)
    if num_heads * num_blocks > len(blocks):
        raise ModelFormatError(
            f"it holds {len(blocks)} tensors of blocks, and names {num_heads} heads of "
            f"{num_blocks}: the file is cut off, or of another kind"
        )
    if tensors[block_name(0, 0)].ndim != 2:
        raise ModelFormatError(
            f"its first block is of shape {list(tensors[block_name(0, 0)].shape)}, and a matrix "
            "is wanted: fetch it again"
        )
    _check_count(config, ("medusa_num_heads", "num_heads"), num_heads, "heads")
    _check_count(config, ("medusa_num_layers", "num_hidden_layers"), num_blocks, "blocks a head")
    width = tensors[block_name(0, 0)].shape[-1]
    _check_count(config, ("hidden_size", "medusa_hidden_size"), width, "numbers a state")
    has_bias = any(parts[-1] == "bias" for parts in blocks)
    _check_flag(config, "medusa_fc_bias", has_bias, "biases")
    outputs = _outputs(config, tensors)
    vocab = _target_vocab(config, tensors, stored, target, outputs)
    ids = _ids(stored, vocab, folder)
    for name in [name for name in tensors if name.endswith("output")]:
        # vLLM's files may hold all rows; its reader takes those that are drafted.
        if ids is not None and len(tensors[name]) == vocab:
            tensors[name] = tensors[name][ids]
    size = vocab if ids is None else len(ids)
    if outputs == "target's" and ids is not None:
        raise ModelFormatError(
            f"it drafts {size} of {vocab} ids through the target's output matrix, which is not "
            "known here: save the heads with an output matrix of their own"
        )
    for key in ("truncated_vocab_size", "draft_vocab_size"):
        told = size_option(config, key, 0, least=0)
        if told not in (0, size):
            raise ModelFormatError(
                f"{key} is {told}, and {size} ids are drafted by the tensors: fetch it again"
            )
    return MedusaConfig(
        num_heads=num_heads,
        num_blocks=num_blocks,
        hidden_size=width,
        target_vocab_size=vocab,
        vocab_size=size,
        has_bias=has_bias,
        outputs=outputs,
        boundary=None if target is None else target.num_layers,
        layout=layout,
        target=_for(config),
    ), ids


def _check_count(
    config: Mapping[str, object], keys: tuple[str, ...], found: int, what: str
) -> None:
    for key in keys:
        told = found if config.get(key) is None else size_option(config, key)
        if told != found:
            more = (
                " (the reference reads 5 whatever this key says)"
                if key == "medusa_num_heads"
                else ""
            )
            raise ModelFormatError(
                f"{key} is {told}, and the tensors are those of {found} {what}{more}: write "
                f"{found} into config.json, or fetch the files again"
            )


def _check_flag(config: Mapping[str, object], key: str, found: bool, what: str) -> None:
    value = config.get(key)
    if value is not None and value is not found:
        raise ModelFormatError(
            f"{key} is {value!r:.60}, and the tensors have {'' if found else 'no '}{what}: "
            f"write {str(found).lower()} into config.json, or fetch the files again"
        )


def _outputs(config: Mapping[str, object], tensors: dict[str, Tensor]) -> Outputs:
    each = [name for name in tensors if name.endswith(".output")]
    is_shared = config.get("original_lm_head", False)
    if not isinstance(is_shared, bool):
        raise ModelFormatError(f"original_lm_head is {is_shared!r:.60}; it must be true or false")
    if is_shared and each == [output_name(0)]:
        # vLLM takes the first head's matrix for that of all.
        tensors[output_name(None)] = tensors.pop(output_name(0))
    elif is_shared and each:
        raise ModelFormatError(
            f"original_lm_head is True, and the tensors have {len(each)} output matrices: write "
            "false into config.json, or fetch the files again"
        )
    if each and not is_shared:
        return "each"
    return "one" if output_name(None) in tensors else "target's"


def _target_vocab(
    config: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    target: TargetTables | None,
    outputs: Outputs,
) -> int:
    told = {key: size_option(config, key, 0, least=0) for key in _VOCABULARIES}
    sizes = {size for size in told.values() if size}
    if len(sizes) > 1:
        raise ModelFormatError(f"config.json says two things of the target's ids: {told}")
    if sizes:
        return sizes.pop()
    is_reduced = any(_without_prefix(name) in _IDS for name in stored)
    if outputs != "target's" and not is_reduced:
        return len(tensors[output_name(0 if outputs == "each" else None)])
    if target is None:
        raise InvalidRequestError(
            "the heads' files leave the vocabulary to their target: give --target, too"
        )
    return target.vocab_size


def _ids(
    stored: Mapping[str, Tensor], vocab: int, folder: Path
) -> Int[Tensor, " draft_vocab"] | None:
    named = {_without_prefix(name): tensor for name, tensor in stored.items()}
    if "d2t" in named and "token_map" in named:
        raise ModelFormatError(
            "it says twice which ids are drafted, d2t and token_map: take one out"
        )
    if "d2t" in named:
        if named["d2t"].ndim != 1 or not len(named["d2t"]):
            raise ModelFormatError(
                f"d2t of {list(named['d2t'].shape)} is no list of ids: fetch it again"
            )
        return drafted_ids(named, len(named["d2t"]), vocab, folder)
    ids = named.get("token_map")
    if ids is None:
        return None
    ids = ids.long()
    is_list = ids.ndim == 1 and len(ids) > 0
    if not is_list or int(ids.min()) < 0 or int(ids.max()) >= vocab or len(ids.unique()) < len(ids):
        raise ModelFormatError(
            f"token_map of {list(ids.shape)} is no list of distinct ids of the target's {vocab}: "
            "it is another target's, or fetch it again"
        )
    is_all = len(ids) == vocab and torch.equal(ids, torch.arange(vocab))
    return None if is_all else ids


def _for(config: Mapping[str, object]) -> str | None:
    name = config.get("base_model_name_or_path")
    return str(name) if name else verifier_of(config)
