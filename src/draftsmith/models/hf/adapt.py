"""The ways to run a model of `transformers`, and the choice among them."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from draftsmith.errors import ModelFormatError
from draftsmith.models.contract import LanguageModel, ModelTraits
from draftsmith.models.hf.arguments import accepted_arguments
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.probe import Candidate, first_that_holds
from draftsmith.models.hf.recomputed import RecomputedModel, plain_pass
from draftsmith.models.hf.seq2seq import EncoderDecoderModel, EncoderOutput
from draftsmith.models.hf.stateful import StatefulModel

__all__ = ["adapted", "plain_logits"]


def adapted(model: Any, traits: ModelTraits) -> LanguageModel:
    """The best way to run a model that a probe shows to be right.

    Args:
        model: A model of `transformers`.
        traits: What its config and its cache say.

    Raises:
        ModelFormatError: If there is none.
    """
    if "mems" in accepted_arguments(model):
        raise ModelFormatError(
            f"{traits.name} carries memories from pass to pass that are not known here (XLNet): "
            "not supported"
        )
    candidates = _ragged(model, traits) if traits.can_rollback else []
    if not traits.is_encoder_decoder:
        candidates.append(Candidate(partial(StatefulModel, model), False, is_lenient=True))
        of_its_own = partial(StatefulModel, model, makes_its_own=True)
        candidates.append(Candidate(of_its_own, False, is_lenient=True))
    elif candidates:
        candidates.append(Candidate(partial(EncoderDecoderModel, model), False))
    candidates.append(Candidate(partial(RecomputedModel, model), False))
    return first_that_holds(model, traits, candidates, partial(plain_logits, model))


def _ragged(model: Any, traits: ModelTraits) -> list[Candidate]:
    """Ways over a cache that can roll back."""
    if traits.is_encoder_decoder:
        return [Candidate(partial(EncoderDecoderModel, model), True)]
    careful = partial(CausalModel, model, is_careful=True)
    return [Candidate(partial(CausalModel, model), True), Candidate(careful, True)]


@torch.inference_mode()
def plain_logits(model: Any, tokens: Sequence[int], source: Sequence[int]) -> Tensor:
    """Logits of a text after its source, if it has one, in passes without a cache."""
    if not source:
        return plain_pass(model, tokens)
    ids = torch.tensor([list(source)], device=model.device)
    output = model.get_encoder()(input_ids=ids, attention_mask=torch.ones_like(ids))
    states = EncoderOutput(last_hidden_state=output.last_hidden_state)
    return plain_pass(model, tokens, states)
