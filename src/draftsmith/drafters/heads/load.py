"""From a folder to a drafter: read, resolved, told, and tried on the target's own text."""

import logging
from pathlib import Path

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.heads.kinds import KINDS, is_head, is_head_config, read_head
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.errors import DraftsmithError, InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype
from draftsmith.models.reference import SourceKind, resolve
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["head_folder", "load_head"]

_log = logging.getLogger(__name__)


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

        return hub_folder(source, is_head_config, [name for one in KINDS for name in one.pickles])
    path = source.path
    return path if path is not None and path.is_dir() and is_head(path) else None


def load_head(
    folder: Path,
    target: LanguageModel,
    words: Tokenizer | None = None,
    dtype: Dtype = "auto",
    branches: int = 1,
) -> Drafter:
    """Load a head for a target, and try it on text that the target writes.

    Args:
        folder: Of a kind and in a layout that `read_head` knows.
        target: A native decoder that hands out its states.
        words: Its tokenizer, for the texts of the trial; None makes do with ids.
        dtype: Of the weights; `auto` is 8 bits on a CPU.
        branches: Guesses for each position of a draft, at most.

    Returns:
        A drafter.

    Raises:
        DraftsmithError: It is cut off, of an unknown kind, for another target, or drafts next to
            nothing that the target says; the likeliest reason is named.
    """
    from draftsmith.drafters.heads.trial import try_head

    tables = tables_of(target)
    head = read_head(folder, tables)
    _log.info("head %s: %s", folder, "; ".join(f"{k} {v}" for k, v in head.described().items()))
    is_on_gpu = target.device.type != "cpu" or target.can_be_captured
    if is_on_gpu and not head.drafts_on_gpus:
        raise InvalidRequestError(
            f"{folder} is a head of a kind that drafts on a CPU, and {target.traits.name} runs on "
            f"{target.device}: give --device cpu, or another draft"
        )
    drafter = head.made(target, folder.name, dtype, branches)
    trial = try_head(head, target, words)
    _log.info("head %s: %s", folder, trial.told())
    reason = trial.refusal()
    if reason is not None:
        raise DraftsmithError(f"{folder}: {reason}")
    return drafter
