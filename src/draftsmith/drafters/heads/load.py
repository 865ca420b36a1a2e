"""From a folder to a drafter: read, resolved, told, and tried on the target's own text."""

import logging
from pathlib import Path

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.drafter import HeadDrafter
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.layouts import PICKLE, is_head, is_head_config, read_head
from draftsmith.drafters.heads.product import PACKED
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype
from draftsmith.models.reference import SourceKind, resolve
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["head_folder", "load_head", "made_drafter"]

_log = logging.getLogger(__name__)
_FORMATS: dict[Dtype, str | None] = {
    "auto": PACKED,
    "float32": None,
    "bfloat16": "BF16",
    "float16": "F16",
    "int8": "Q8_0",
    "int4": "Q4_1",
}


def head_folder(reference: str) -> Path | None:
    """Where a head lies, if a reference names one; a Hub's is fetched.

    Args:
        reference: As `--draft` takes it.

    Returns:
        The folder; None for a model.

    Raises:
        ModelNotFoundError: If it names nothing.
    """
    source = resolve(reference)
    if source.kind is SourceKind.HUB:
        from draftsmith.models.hf.load import hub_folder

        return hub_folder(source, is_head_config, [PICKLE])
    path = source.path
    return path if path is not None and path.is_dir() and is_head(path) else None


def load_head(
    folder: Path,
    target: LanguageModel,
    words: Tokenizer | None = None,
    dtype: Dtype = "auto",
    branches: int = 1,
) -> HeadDrafter:
    """Load a head for a target, and try it on text that the target writes.

    Args:
        folder: In any layout that `read_head` knows.
        target: A native decoder that hands out its states.
        words: Its tokenizer, for the texts of the trial; None makes do with ids.
        dtype: Of the weights; `auto` is 8 bits on a CPU.
        branches: As `HeadDrafter` takes it.

    Returns:
        A drafter.

    Raises:
        DraftsmithError: It is cut off, of an unknown kind, for another target, or drafts next to
            nothing that the target says; the likeliest reason is named.
    """
    from draftsmith.drafters.heads.trial import try_head

    tables = tables_of(target)
    config, weights = read_head(folder, tables)
    _log.info("head %s: %s", folder, "; ".join(f"{k} {v}" for k, v in config.described().items()))
    drafter = made_drafter(config, weights, target, folder.name, dtype, branches)
    trial = try_head(config, weights, target, words)
    _log.info("head %s: %s", folder, trial.told())
    reason = trial.refusal()
    if reason is not None:
        raise DraftsmithError(f"{folder}: {reason}")
    return drafter


def made_drafter(
    config: HeadConfig,
    weights: HeadWeights,
    target: LanguageModel,
    name: str = "eagle3",
    dtype: Dtype = "auto",
    branches: int = 1,
) -> HeadDrafter:
    """A head as a drafter, untried.

    Args:
        config: Its conventions.
        weights: Its tensors.
        target: What it drafts for.
        name: For messages and tables.
        dtype: As `load_head` takes it.
        branches: As `HeadDrafter` takes it.

    Raises:
        DraftsmithError: It is not for this target.
    """
    head = EagleHead(config, weights, tables_of(target), target.device, _FORMATS[dtype])
    return HeadDrafter(head, name, branches)
