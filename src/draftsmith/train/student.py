"""A new head, and what it learns by.

At every position the head drafts some steps on its own, and each step's law q is held against the
target's p: cross-entropy, which teaches fast while q is far off, and the total variation, which is
the share of drafts that the rejection rule refuses (Leviathan et al., arXiv:2211.17192, theorem
3.5). How much each counts, and how much each place of a draft, is the pupil's own affair.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights, shapes
from draftsmith.models.native.config import DecoderConfig
from draftsmith.train.options import TrainOptions
from draftsmith.train.pupil import Pupil
from draftsmith.train.teacher import Lesson
from draftsmith.train.texts import Text

__all__ = [
    "chosen_ids",
    "first_matrices",
    "loss_of",
    "new_config",
    "new_weights",
    "output_rows",
    "split",
    "trained",
    "usual_boundaries",
]

_MULTIPLE = 16
"""Of the number of drafted ids: the kernels compute so many at once."""


def usual_boundaries(num_layers: int) -> tuple[int, ...]:
    """Where EAGLE-3 looks at a target: low, middle and high.

    Args:
        num_layers: Of the target.

    Returns:
        Boundaries.

    Example:
        >>> usual_boundaries(30), usual_boundaries(2)
        ((2, 15, 27), (0, 1, 2))
    """
    if num_layers < 6:
        return tuple(range(max(0, num_layers - 2), num_layers + 1))
    return 2, num_layers // 2, num_layers - 3


def chosen_ids(
    texts: Sequence[Text], target_vocab: int, wanted: int
) -> Int[Tensor, " draft_vocab"] | None:
    """The ids that the target writes most often, in order; None is all of them.

    Args:
        texts: Of the target's own.
        target_vocab: Its ids.
        wanted: How many; 0 is all. Where fewer occur, the first others fill up.
    """
    if not wanted or wanted >= target_vocab:
        return None
    wanted = -(-wanted // _MULTIPLE) * _MULTIPLE
    counts = Counter(token for text in texts for token in text.tokens[text.num_prompt :])
    ranked = sorted(range(target_vocab), key=lambda token: (-counts[token], token))
    return torch.tensor(sorted(ranked[:wanted]))


def new_config(target: DecoderConfig, name: str, num_ids: int, options: TrainOptions) -> HeadConfig:
    """A head of the target's own widths, by the conventions of EAGLE-3.1.

    Args:
        target: The shape.
        name: Of the target.
        num_ids: That it drafts.
        options: With the number of layers.
    """
    return HeadConfig(
        boundaries=usual_boundaries(target.num_layers),
        target_hidden_size=target.hidden_size,
        target_vocab_size=target.vocab_size,
        hidden_size=target.hidden_size,
        intermediate_size=target.intermediate_size,
        num_layers=options.size.num_layers,
        num_heads=target.num_heads,
        num_kv_heads=target.num_kv_heads,
        head_size=target.head_size,
        vocab_size=num_ids,
        norm_epsilon=target.norm_epsilon,
        context_length=target.context_length,
        feeds_back_normed=True,
        feature_norm="each",
        target=name,
    )


def new_weights(
    config: HeadConfig,
    ids: Int[Tensor, " draft_vocab"] | None,
    tables: TargetTables,
    seed: int,
) -> HeadWeights:
    """Weights to begin with: the target's own output rows, all else small and by chance.

    Args:
        config: The head's.
        ids: That it drafts.
        tables: The target's.
        seed: Of the chance.
    """
    tensors = first_matrices(shapes(config), seed)
    tensors["head"] = output_rows(config.vocab_size, ids, tables)
    return HeadWeights(tensors, ids)


def first_matrices(wanted: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Norms of one and matrices by chance; those that add to the residual are small.

    Args:
        wanted: The shape of each.
        seed: Of the chance.
    """
    chance = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        if len(shape) == 1:
            tensors[name] = torch.ones(shape)
        else:
            tensors[name] = torch.randn(shape, generator=chance) * shape[1] ** -0.5
    # What adds to the residual begins small, so that the feature is heard.
    for name in [name for name in tensors if name.endswith((".output", ".down"))]:
        tensors[name] *= 0.1
    return tensors


def output_rows(
    count: int, ids: Int[Tensor, " draft_vocab"] | None, tables: TargetTables
) -> Float[Tensor, "draft_vocab hidden"]:
    """The target's own output rows, with its final norm's weight, for a head to begin with.

    Args:
        count: Of the ids that are drafted.
        ids: Which; None is all.
        tables: The target's.
    """
    rows = tables.head_rows(list(range(count)) if ids is None else ids.tolist()).cpu()
    rows = rows * tables.final_norm[0].cpu()
    # A stream that is not yet aligned with them must not be sure of anything.
    return rows / rows.square().sum(-1).mean().sqrt()


def loss_of(
    pupil: Pupil,
    lesson: Lesson,
    teacher_rows: Float[Tensor, "draft_vocab hidden"],
    temperature: float,
    chance: random.Random,
) -> Float[Tensor, ""]:
    """The loss of a batch.

    Args:
        pupil: Over weights that want gradients.
        lesson: The batch.
        teacher_rows: The target's output rows of the drafted ids.
        temperature: Of the target's law; 0 counts as 1, of which the likeliest token is the same.
        chance: Decides where it drafts.
    """
    factor = 1.0 / (temperature or 1.0)
    device = lesson.final.device
    total = torch.zeros((), device=device)
    final = lesson.final.flatten(0, 1)
    for drafted in pupil.drafts(lesson, chance):
        # A GPU multiplies float32 fast enough; its bfloat16 would round logits by a tenth.
        with torch.no_grad(), _unrounded(device):
            law = (final[drafted.of_law] @ teacher_rows.T * factor).softmax(-1)
        log_draft = (drafted.logits.float() * factor).log_softmax(-1)
        entropy = -(law * log_draft).sum(-1).mean()
        overlap = torch.minimum(law, log_draft.exp()).sum(-1)
        weight = pupil.emphasis(drafted.place)
        loss = weight.entropy * entropy + weight.variation * (1.0 - overlap.mean())
        if drafted.sure is not None:
            kept = overlap.detach().clamp(0.0, 1.0)
            loss = loss + binary_cross_entropy_with_logits(drafted.sure.float(), kept)
        if drafted.cut is not None:
            loss = drafted.cut.settled(loss)
        total = total + weight.place * drafted.share * loss
    return total


def _unrounded(device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast("cuda", enabled=False) if device.type == "cuda" else nullcontext()


def split(texts: Sequence[Text], share: float, seed: int) -> tuple[list[Text], list[Text]]:
    """Texts to train on, and at least one that is held out.

    Args:
        texts: All, two or more.
        share: Held out.
        seed: Of the choice.
    """
    order = list(range(len(texts)))
    random.Random(f"held out {seed}").shuffle(order)
    count = min(len(texts) - 1, max(1, round(share * len(texts))))
    held = set(order[:count])
    return (
        [text for place, text in enumerate(texts) if place not in held],
        [text for place, text in enumerate(texts) if place in held],
    )


def trained(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that want no gradients.

    Args:
        tensors: Parameters.

    Returns:
        On the host.
    """
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
