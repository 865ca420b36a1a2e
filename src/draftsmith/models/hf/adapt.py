"""The ways to run a model of `transformers`, and the choice among them."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from functools import partial
from typing import Any

from draftsmith.errors import ModelFormatError
from draftsmith.models.contract import LanguageModel, ModelTraits
from draftsmith.models.hf.arguments import accepted_arguments
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.dynamic_ntk import DynamicNtkModel
from draftsmith.models.hf.long_rope import LongRopeModel
from draftsmith.models.hf.probe import Candidate, first_that_holds
from draftsmith.models.hf.recomputed import RecomputedModel, plain_pass
from draftsmith.models.hf.rotary_laws import LengthLaw, length_law
from draftsmith.models.hf.seq2seq import EncoderDecoderModel
from draftsmith.models.hf.stateful import StatefulModel

__all__ = ["adapted"]


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
    ways = _pair_ways(model, traits) if traits.is_encoder_decoder else _decoder_ways(model, traits)
    # Right for every model that runs at all: nothing is kept from step to step.
    ways.append(Candidate(partial(RecomputedModel, model), False))
    return first_that_holds(model, traits, ways, partial(plain_pass, model))


def _decoder_ways(model: Any, traits: ModelTraits) -> list[Candidate]:
    """Ways to run a decoder-only model over its cache, the best first."""
    law = length_law(model)
    ways: list[Candidate] = []
    if traits.can_rollback:
        ways = [
            Candidate(partial(_ragged, model, law, is_careful=is_careful), True)
            for is_careful in (False, True)
        ]
    if law is None:
        # A state is never computed again, so its keys could not change with the length.
        for makes_its_own in (False, True):
            make = partial(StatefulModel, model, makes_its_own=makes_its_own)
            ways.append(Candidate(make, False, is_lenient=True))
    return ways


def _ragged(
    model: Any, law: LengthLaw | None, traits: ModelTraits, *, is_careful: bool
) -> LanguageModel:
    """Ragged batches, each row read as its length wants it."""
    inner = CausalModel(model, traits, is_careful=is_careful)
    if law is None:
        return inner
    if law.is_dynamic:
        return DynamicNtkModel(model, inner, law.last_length)
    return LongRopeModel(inner, law.last_length)


def _pair_ways(model: Any, traits: ModelTraits) -> list[Candidate]:
    """Ways to run an encoder-decoder over its caches, the best first."""
    if not traits.can_rollback:
        return []
    make = partial(EncoderDecoderModel, model)
    return [Candidate(make, True), Candidate(make, False)]
