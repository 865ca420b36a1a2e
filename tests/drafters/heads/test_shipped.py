"""Heads that come with the package: what lies there, and that each drafts for its target."""

import importlib.util
import json
from pathlib import Path

import pytest

from draftsmith import Engine, SamplingParams, load_engine
from draftsmith.drafters.heads import HeadDrafter
from draftsmith.drafters.heads.described import described_head
from draftsmith.drafters.heads.kinds import is_head
from draftsmith.drafters.heads.load import head_folder, load_head
from draftsmith.errors import DraftsmithError, InvalidRequestError, ModelNotFoundError
from draftsmith.models.catalogue import CATALOGUE, near_names
from draftsmith.models.reference import resolve
from draftsmith.models.shipped import SHIPPED
from tests.models.native.test_cpu import fast

NAME = "smollm2-135m-instruct-head"
ROOT = Path(__file__).parents[3]
MODES = {
    "greedy": SamplingParams(max_tokens=24, ignore_eos=True),
    "seeded": SamplingParams(max_tokens=24, temperature=0.8, seed=5, ignore_eos=True),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_name_leads_to_a_small_head_for_a_model_of_the_catalogue(name: str) -> None:
    head = SHIPPED[name]
    assert head_folder(name) == head.folder
    assert is_head(head.folder)
    assert head.num_bytes <= 12e6
    assert head.target in CATALOGUE
    assert name not in CATALOGUE


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_says_what_its_recipe_says(name: str) -> None:
    spec = importlib.util.spec_from_file_location("ship_head", ROOT / "scripts" / "ship_head.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    head = SHIPPED[name]
    recipe = json.loads((head.folder / "recipe.json").read_bytes())
    assert (head.folder / "README.md").read_text() == script.card(head, recipe)
    assert recipe["target"] == head.target


def test_a_name_that_is_nearly_a_heads_is_answered_with_it() -> None:
    assert near_names("smollm2-135m-instruct-hed")[0] == NAME
    assert NAME not in near_names("smollm2-135m-instrct")
    with pytest.raises(ModelNotFoundError, match=f"did you mean {NAME}"):
        resolve("smollm2-135m-instruct-hed")


def test_a_head_is_refused_for_another_target() -> None:
    with pytest.raises(DraftsmithError) as caught:
        load_head(SHIPPED[NAME].folder, fast("llama"))
    assert "\n" not in str(caught.value)
    assert "give a head that was trained for llama" in str(caught.value)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(SHIPPED[NAME].target, NAME, gamma=4, device="cpu", threads=1)


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_what_a_heads_files_leave_to_its_target_is_taken_from_it(tmp_path: Path) -> None:
    head = SHIPPED[NAME]
    config = json.loads((head.folder / "config.json").read_bytes())
    del config["eagle_aux_hidden_state_layer_ids"], config["target_hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(head.folder / "model.safetensors")
    with pytest.raises(InvalidRequestError, match="give --target"):
        described_head(tmp_path)
    document = described_head(tmp_path, head.target)
    assert document is not None
    assert document["kind"] == "EAGLE-3"
    assert document["boundaries"] == "2, 15, 27"
    assert document["width"] == "576 (target 576)"


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
@pytest.mark.parametrize("mode", MODES)
def test_the_text_is_that_of_plain_decoding_in_fewer_passes(engine: Engine, mode: str) -> None:
    assert isinstance(engine.draft, HeadDrafter)
    assert engine.draft.name == NAME
    prompt, params = "def fibonacci(n):\n    ", MODES[mode]
    [plain] = Engine(engine.target, engine.tokenizer, gamma=0).generate([prompt], params)
    [drafted] = engine.generate([prompt], params)
    assert drafted.token_ids == plain.token_ids
    assert drafted.statistics.num_rounds < 0.75 * plain.statistics.num_rounds
