"""A head of every kind with random weights, for a small target."""

from collections.abc import Callable

from draftsmith.drafters import Drafter
from draftsmith.drafters.heads import HeadDrafter
from draftsmith.drafters.heads.block import BlockHead
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.medusa import MedusaDrafter, MedusaHeads
from draftsmith.drafters.heads.parallel import ParallelDrafter
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.models.contract import LanguageModel
from tests.drafters.heads import block_kit, kit, medusa_kit, parallel_kit

__all__ = ["MADE"]


def _eagle3(model: LanguageModel, branches: int) -> HeadDrafter:
    tables = tables_of(model)
    config = kit.config(
        boundaries=(0, 1, 2),
        target_hidden_size=tables.hidden_size,
        hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        vocab_size=tables.vocab_size,
    )
    head = EagleHead(config, kit.weights(config), tables, model.device, None)
    return HeadDrafter(head, "head", branches)


def _medusa(model: LanguageModel, branches: int) -> MedusaDrafter:
    tables = tables_of(model)
    config = medusa_kit.config(
        num_heads=5,
        hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        vocab_size=tables.vocab_size,
    )
    heads = MedusaHeads(config, medusa_kit.weights(config), tables, model.device, None)
    return MedusaDrafter(heads, "heads", branches)


def _parallel(model: LanguageModel, branches: int) -> ParallelDrafter:
    tables = tables_of(model)
    config = parallel_kit.config(
        "four-layers",
        boundaries=(0, 1, 2),
        target_hidden_size=tables.hidden_size,
        hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        vocab_size=tables.vocab_size,
    )
    head = EagleHead(config, kit.weights(config), tables, model.device, None)
    # The tests of the law have a target of three ids.
    mask = parallel_kit.mask(config, min(9, tables.vocab_size - 1))
    return ParallelDrafter(head, mask, "head", branches)


def _block(model: LanguageModel, branches: int) -> BlockDrafter:
    tables = tables_of(model)
    config = block_kit.config(
        "dspark-sure",
        boundaries=(0, 1, 2),
        target_hidden_size=tables.hidden_size,
        hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        vocab_size=tables.vocab_size,
        mask_id=min(9, tables.vocab_size - 1),
    )
    head = BlockHead(config, block_kit.weights(config), tables, model.device, None)
    return BlockDrafter(head, "block", branches)


MADE: dict[str, Callable[[LanguageModel, int], Drafter]] = {
    "dspark": _block,
    "eagle3": _eagle3,
    "medusa": _medusa,
    "p-eagle": _parallel,
}
"""From a target and the guesses for each position at most."""
