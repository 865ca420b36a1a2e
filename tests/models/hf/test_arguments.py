"""What models take, by the names of every version of transformers."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import warnings

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.errors import ModelFormatError
from draftsmith.models.hf.arguments import cache_argument
from tests import tiny


class Newest:
    def forward(self, input_ids, cache=None, **kwargs): ...


class OfItsOwnCode:
    def forward(self, input_ids, past_key_values=None, use_cache=None): ...


class OldRecurrent:
    def forward(self, input_ids, cache_params=None): ...


class Translating:
    """Takes both while it is renamed."""

    def forward(self, input_ids, past_key_values=None, cache=None): ...


class Compiled:
    _orig_mod = Newest()

    def forward(self, *args, **kwargs): ...


class Adapted:
    def get_base_model(self):
        return OfItsOwnCode()

    def forward(self, *args, **kwargs): ...


class NoCache:
    def forward(self, input_ids): ...


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Newest(), "cache"),
        (OfItsOwnCode(), "past_key_values"),
        (OldRecurrent(), "cache_params"),
        (Translating(), "cache"),
        (Compiled(), "cache"),
        (Adapted(), "past_key_values"),
    ],
)
def test_the_cache_is_found_by_each_of_its_names(model: object, name: str) -> None:
    assert cache_argument(model, "tiny") == name


def test_a_model_without_a_cache_is_named() -> None:
    with pytest.raises(ModelFormatError, match="tiny-plain has no cache"):
        cache_argument(NoCache(), "tiny-plain")


@pytest.mark.parametrize("kind", ["gpt2", "mamba", "bart"])
def test_no_warning_of_a_renamed_argument_reaches_a_user(kind: str) -> None:
    engine = Engine(tiny.model(kind))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        engine.generate([5, 6], SamplingParams(max_tokens=2))
    assert not seen
