"""What is made: a draft's conventions and first weights, its pupil, its files and its drafter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.given import DraftLoading, as_drafter
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
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.saved import save_folder
from draftsmith.models.settings import ModelSettings
from draftsmith.models.tokenizer import Tokenizer
from draftsmith.train.block_pupil import BlockPupil
from draftsmith.train.block_student import new_block_config, new_block_weights
from draftsmith.train.distilled_pupil import DistilledPupil
from draftsmith.train.distilled_student import (
    DistilledConfig,
    new_distilled_config,
    new_distilled_weights,
    whole,
)
from draftsmith.train.options import DraftKind, TrainOptions
from draftsmith.train.pupil import EaglePupil, Pupil
from draftsmith.train.student import chosen_ids, new_config, new_weights, usual_boundaries
from draftsmith.train.texts import Text

__all__ = ["DraftConfig", "Making", "boundaries_of", "distilled", "head_of"]

DraftConfig: TypeAlias = HeadConfig | BlockConfig | DistilledConfig
"""What a kind of draft is told by."""


class Making(ABC):
    """A kind of draft that is made for a target.

    Args:
        ids: That it drafts; None is all of the target's.
    """

    def __init__(self, ids: Int[Tensor, " draft_vocab"] | None) -> None:
        self.ids = ids

    @property
    @abstractmethod
    def config(self) -> DraftConfig:
        """Its conventions."""

    @abstractmethod
    def begun(self, target: LanguageModel, tables: TargetTables, seed: int) -> dict[str, Tensor]:
        """Weights to begin with.

        Args:
            target: That it is made for.
            tables: The target's.
            seed: Of the chance in them.
        """

    @abstractmethod
    def pupil(
        self,
        parameters: Mapping[str, Tensor],
        tables: TargetTables,
        rows: Float[Tensor, "draft_vocab hidden"],
    ) -> Pupil:
        """The draft as it learns.

        Args:
            parameters: That want gradients.
            tables: The target's, where the parameters are.
            rows: Of the target's output matrix, those of the drafted ids.
        """

    @abstractmethod
    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write its folder, which a draft is loaded from.

        Raises:
            InvalidRequestError: It cannot be written to.
        """

    @abstractmethod
    def drafter(
        self, folder: Path, tensors: Mapping[str, Tensor], target: LanguageModel
    ) -> Drafter:
        """As it would draft.

        Args:
            folder: Where it was written.
            tensors: Its weights.
            target: That it drafts for.
        """

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

    def begun(self, target: LanguageModel, tables: TargetTables, seed: int) -> dict[str, Tensor]:
        return new_weights(self._config, self.ids, tables, seed).tensors

    def pupil(self, parameters: Mapping[str, Tensor], tables: TargetTables, rows: Tensor) -> Pupil:
        return EaglePupil(PlainHead(self._config, parameters), self._num_steps)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        write_speculators(folder, self._config, self._weights(tensors))

    def drafter(
        self, folder: Path, tensors: Mapping[str, Tensor], target: LanguageModel
    ) -> Drafter:
        return Eagle3(self._config, self._weights(tensors)).made(target)


class _Block(Making):
    """DSpark, or DFlash without its Markov head."""

    def __init__(self, config: BlockConfig, ids: Tensor | None) -> None:
        super().__init__(ids)
        self._config = config

    @property
    def config(self) -> BlockConfig:
        return self._config

    def begun(self, target: LanguageModel, tables: TargetTables, seed: int) -> dict[str, Tensor]:
        return new_block_weights(self._config, self.ids, tables, seed).tensors

    def pupil(self, parameters: Mapping[str, Tensor], tables: TargetTables, rows: Tensor) -> Pupil:
        mask = tables.embed([self._config.mask_id])[0].clone()
        return BlockPupil(PlainBlock(self._config, parameters), mask)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        write_block(folder, self._config, self._weights(tensors))

    def drafter(
        self, folder: Path, tensors: Mapping[str, Tensor], target: LanguageModel
    ) -> Drafter:
        return BlockKind(self._config, self._weights(tensors)).made(target)


class _Distilled(Making):
    """A small model of the target's kind.

    Args:
        config: Its conventions.
        tables: The target's, of which it has copies.
        words: The files of the target's tokenizer.
        num_steps: Of a draft that it is tried in.
    """

    def __init__(
        self,
        config: DistilledConfig,
        tables: TargetTables,
        words: Mapping[str, str],
        num_steps: int,
    ) -> None:
        super().__init__(None)
        self._config, self._tables, self._num_steps = config, tables, num_steps
        self._files = config.as_json(), words

    @property
    def config(self) -> DistilledConfig:
        return self._config

    def begun(self, target: LanguageModel, tables: TargetTables, seed: int) -> dict[str, Tensor]:
        return new_distilled_weights(self._config, target, tables)

    def pupil(self, parameters: Mapping[str, Tensor], tables: TargetTables, rows: Tensor) -> Pupil:
        return DistilledPupil(self._config.shape, parameters, rows, self._num_steps)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        config, words = self._files
        save_folder(folder, config, whole(self._config, tensors, self._tables), words)

    def drafter(
        self, folder: Path, tensors: Mapping[str, Tensor], target: LanguageModel
    ) -> Drafter:
        loading = DraftLoading(ModelSettings(device=str(target.device)), None, None)
        return as_drafter(str(folder), str(folder), target, None, None, loading)


def boundaries_of(kind: DraftKind, num_layers: int) -> tuple[int, ...]:
    """Where a kind looks at a target.

    Args:
        kind: Of draft.
        num_layers: Of the target.
    """
    return () if kind == "distilled" else usual_boundaries(num_layers)


def distilled(
    options: TrainOptions, shape: DecoderConfig, tables: TargetTables, words: Tokenizer | None
) -> Making:
    """A small model of the target's kind, which needs no text to be told of.

    Args:
        options: With its number of layers.
        shape: The target's.
        tables: The target's.
        words: The target's tokenizer.

    Raises:
        InvalidRequestError: It cannot be made for this target: it says why.
    """
    if words is None:
        raise InvalidRequestError(
            f"{tables.name} has no tokenizer, which a draft has a copy of: load it with one"
        )
    config = new_distilled_config(shape, tables.name, options.size.num_layers)
    return _Distilled(config, tables, words.as_files(), options.size.num_steps)


def head_of(
    options: TrainOptions, shape: DecoderConfig, tables: TargetTables, texts: Sequence[Text]
) -> Making:
    """A head, which drafts the ids that its texts have.

    Args:
        options: With the kind of head.
        shape: The target's.
        tables: The target's.
        texts: That it learns from.
    """
    ids = chosen_ids(texts, tables.vocab_size, options.size.vocab_size)
    num_ids = tables.vocab_size if ids is None else len(ids)
    if options.kind == "eagle3":
        config = new_config(shape, tables.name, num_ids, options)
        return _Eagle(config, ids, options.size.num_steps)
    return _Block(new_block_config(shape, tables, num_ids, options, texts), ids)
