"""What is made: a head's conventions and first weights, its pupil, its files and its drafter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_export import write_block
from draftsmith.drafters.heads.block_kind import BlockKind
from draftsmith.drafters.heads.block_plain import PlainBlock
from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.eagle3_kind import Eagle3
from draftsmith.drafters.heads.export import write_speculators
from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.config import DecoderConfig
from draftsmith.train.block_pupil import BlockPupil
from draftsmith.train.block_student import new_block_config, new_block_weights
from draftsmith.train.options import TrainOptions
from draftsmith.train.pupil import EaglePupil, Pupil
from draftsmith.train.student import new_config, new_weights
from draftsmith.train.texts import Text

__all__ = ["Making", "making_of"]


class Making(ABC):
    """A kind of head that is made for a target.

    Args:
        ids: That it drafts; None is all of the target's.
    """

    def __init__(self, ids: Int[Tensor, " draft_vocab"] | None) -> None:
        self.ids = ids

    @property
    @abstractmethod
    def config(self) -> HeadConfig | BlockConfig:
        """Its conventions."""

    @abstractmethod
    def begun(self, tables: TargetTables, seed: int) -> dict[str, Tensor]:
        """Weights to begin with.

        Args:
            tables: The target's.
            seed: Of the chance in them.
        """

    @abstractmethod
    def pupil(self, parameters: Mapping[str, Tensor], tables: TargetTables) -> Pupil:
        """The head as it learns.

        Args:
            parameters: That want gradients.
            tables: The target's, where the parameters are.
        """

    @abstractmethod
    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write its folder, which a draft is loaded from.

        Raises:
            InvalidRequestError: It cannot be written to.
        """

    @abstractmethod
    def drafter(self, tensors: Mapping[str, Tensor], target: LanguageModel) -> Drafter:
        """As it would draft."""

    def _weights(self, tensors: Mapping[str, Tensor]) -> HeadWeights:
        return HeadWeights(dict(tensors), self.ids)


class _Eagle(Making):
    """EAGLE-3."""

    def __init__(self, config: HeadConfig, ids: Tensor | None, num_steps: int) -> None:
        super().__init__(ids)
        self._config, self._num_steps = config, num_steps

    @property
    def config(self) -> HeadConfig:
        return self._config

    def begun(self, tables: TargetTables, seed: int) -> dict[str, Tensor]:
        return new_weights(self._config, self.ids, tables, seed).tensors

    def pupil(self, parameters: Mapping[str, Tensor], tables: TargetTables) -> Pupil:
        return EaglePupil(PlainHead(self._config, parameters), self._num_steps)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        write_speculators(folder, self._config, self._weights(tensors))

    def drafter(self, tensors: Mapping[str, Tensor], target: LanguageModel) -> Drafter:
        return Eagle3(self._config, self._weights(tensors)).made(target)


class _Block(Making):
    """DSpark, or DFlash without its Markov head."""

    def __init__(self, config: BlockConfig, ids: Tensor | None) -> None:
        super().__init__(ids)
        self._config = config

    @property
    def config(self) -> BlockConfig:
        return self._config

    def begun(self, tables: TargetTables, seed: int) -> dict[str, Tensor]:
        return new_block_weights(self._config, self.ids, tables, seed).tensors

    def pupil(self, parameters: Mapping[str, Tensor], tables: TargetTables) -> Pupil:
        mask = tables.embed([self._config.mask_id])[0].clone()
        return BlockPupil(PlainBlock(self._config, parameters), mask)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        write_block(folder, self._config, self._weights(tensors))

    def drafter(self, tensors: Mapping[str, Tensor], target: LanguageModel) -> Drafter:
        return BlockKind(self._config, self._weights(tensors)).made(target)


def making_of(
    options: TrainOptions,
    shape: DecoderConfig,
    tables: TargetTables,
    texts: Sequence[Text],
    ids: Int[Tensor, " draft_vocab"] | None,
) -> Making:
    """What is made by some options.

    Args:
        options: With the kind of head.
        shape: The target's.
        tables: The target's.
        texts: That it learns from.
        ids: That it drafts; None is all of the target's.
    """
    num_ids = tables.vocab_size if ids is None else len(ids)
    if options.kind == "eagle3":
        config = new_config(shape, tables.name, num_ids, options)
        return _Eagle(config, ids, options.num_steps)
    return _Block(new_block_config(shape, tables, num_ids, options, texts), ids)
