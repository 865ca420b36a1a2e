"""How models are loaded: options of models beside drafts that are none."""

import pytest

from draftsmith.cli.runtime import RuntimeOptions
from draftsmith.drafters import ModelDrafter
from draftsmith.errors import InvalidRequestError


def test_options_of_models_are_for_the_models_of_several_drafts(tiny: str, draft: str) -> None:
    runtime = RuntimeOptions(dtype="float32", threads=1, draft_vocab_size=10)
    engine = RuntimeOptions(dtype="float32", threads=1).load_target(tiny, None, 0)
    found = runtime.load_drafters([draft, "prompt-lookup", "free", draft], engine)
    assert list(found) == [draft, "prompt-lookup", "free"]
    model = found[draft]
    assert isinstance(model, ModelDrafter)
    assert model.model.num_head_ids == 10


def test_an_option_of_draft_models_without_any_is_refused(tiny: str) -> None:
    engine = RuntimeOptions().load_target(tiny, None, 0)
    runtime = RuntimeOptions(draft_vocab_size=10)
    with pytest.raises(InvalidRequestError, match="draft_vocab_size=10 is for a draft model"):
        runtime.load_drafters(["prompt-lookup"], engine)
