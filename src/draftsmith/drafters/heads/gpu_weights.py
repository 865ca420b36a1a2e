"""A head's weights as the kernels of a GPU want them: neighbours in one matrix, one dtype."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.weights import HeadWeights, layer_name
from draftsmith.models.native.gpu_weights import GpuLayer, GpuWeights

__all__ = ["GpuHeadWeights"]


@dataclass(frozen=True)
class GpuHeadWeights:
    """All of them, in the target's dtype; norms by themselves are `[groups, width]`."""

    fc: Float[Tensor, "width states"]
    feature_norm: Float[Tensor, "groups some_width"] | None
    """Of what goes into `fc`: one over all boundaries, or one for each; None is none."""
    embedding: Float[Tensor, "target_vocab width"]
    embedding_norm: Float[Tensor, "1 width"]
    hidden_norm: Float[Tensor, "1 width"]
    layers: tuple[GpuLayer, ...]
    final_norm: Float[Tensor, "1 width"]
    head: Float[Tensor, "ids width"]
    ids: Int[Tensor, " ids"] | None
    """Of each drafted id the target's; None where the two vocabularies are one."""

    @property
    def norm(self) -> Float[Tensor, " width"]:
        """The final one, as a vector."""
        return self.final_norm[0]

    @classmethod
    def of(cls, config: HeadConfig, weights: HeadWeights, target: GpuWeights) -> "GpuHeadWeights":
        """A head's weights beside those of its target.

        Args:
            config: The head's.
            weights: Of its files, checked.
            target: Lends its tables, where the head has none of its own.
        """
        like = target.embedding

        def placed(*names: str) -> Tensor:
            """Matrices under each other, or vectors as rows."""
            parts = [weights.tensors[name] for name in names]
            joined = torch.cat(parts) if parts[0].dim() > 1 else torch.stack(parts)
            return joined.to(like.device, like.dtype).contiguous()

        states = range(len(config.boundaries))
        norms = {"none": (), "joint": ("input_norm",), "each": [f"fc_norm.{i}" for i in states]}
        of_feature = norms[config.feature_norm]

        def layer(number: int) -> GpuLayer:
            def named(*parts: str) -> Tensor:
                return placed(*(layer_name(number, part) for part in parts))

            heads = None
            if config.normalises_heads:
                heads = named("query_norm")[0], named("key_norm")[0]
            return GpuLayer(
                attention_norm=named("input_norm")[0],
                inputs=named("query", "key", "value"),
                inputs_bias=None,
                head_norms=heads,
                output=named("output"),
                output_bias=None,
                feed_forward_norm=named("post_norm")[0],
                gate_and_up=named("gate", "up"),
                gate_and_up_bias=None,
                down=named("down"),
                down_bias=None,
            )

        return cls(
            fc=placed("fc"),
            feature_norm=placed(*of_feature) if of_feature else None,
            embedding=placed("embedding") if config.has_embedding else target.embedding,
            embedding_norm=placed(layer_name(0, "input_norm")),
            hidden_norm=placed(layer_name(0, "hidden_norm")),
            layers=tuple(layer(number) for number in range(config.num_layers)),
            final_norm=placed("norm"),
            head=placed("head") if config.has_head else target.head,
            ids=None if weights.ids is None else weights.ids.to(like.device),
        )
