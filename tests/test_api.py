"""The shortest way in: what load_engine takes, and what holds where nothing is said."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import copy
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import draftsmith
from draftsmith import Engine, ModelDrafter, PromptLookupDrafter, SamplingParams, load_engine
from draftsmith.api import load_drafter
from draftsmith.drafters import NgramTable
from draftsmith.errors import InvalidRequestError, VocabularyMismatchError
from draftsmith.models.hf.load import wrap_model, wrap_tokenizer
from tests import tiny
from tests.models.test_tokenizer import word_pieces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("api") / "llama", seed=3)


def loaded() -> tuple[Any, Any]:
    tokenizer = tiny.raw_tokenizer()
    return tiny.raw_model("llama", 3, vocab_size=len(tokenizer)), tokenizer


# --- what load_engine takes -------------------------------------------------------------------


def test_every_way_to_name_a_model_gives_its_text(folder: Path) -> None:
    model, tokenizer = loaded()
    plain = Engine(wrap_model(model), wrap_tokenizer(tokenizer)).generate("the fox", max_tokens=6)
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((str(folder),), {}),
        ((folder,), {}),
        ((model,), {"tokenizer": tokenizer}),
        ((model,), {"tokenizer": folder}),
        ((wrap_model(model),), {"tokenizer": wrap_tokenizer(tokenizer)}),
        ((model, model), {"tokenizer": tokenizer}),
        ((model, model), {"tokenizer": tokenizer, "draft_tokenizer": tokenizer}),
        ((folder, folder), {}),
        ((folder, model), {}),
        ((model, folder), {"tokenizer": tokenizer}),
        ((folder, PromptLookupDrafter()), {}),
        ((folder, "prompt-lookup"), {}),
        ((model, wrap_model(model)), {"tokenizer": tokenizer, "gamma": "auto"}),
    ]
    for arguments, options in ways:
        engine = load_engine(*arguments, **options)
        assert (engine.gamma != 0) == (len(arguments) == 2)
        assert engine.generate("the fox", max_tokens=6)[0].text == plain[0].text, arguments


def test_a_path_without_a_folder_before_it_is_a_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_engine(Path(folder.name)).generate([5], max_tokens=1)


def test_a_draft_model_may_be_loaded_beside_an_engine_in_every_form(folder: Path) -> None:
    engine = load_engine(folder)
    model, _ = loaded()
    for draft in (folder, str(folder), model, wrap_model(model), PromptLookupDrafter(), "random"):
        drafter = load_drafter(draft, engine)
        found = Engine(engine.target, engine.tokenizer, drafter).generate([5, 6], max_tokens=4)
        assert found[0].token_ids == engine.generate([5, 6], max_tokens=4)[0].token_ids


def test_gamma_is_4_with_a_draft_and_0_without(folder: Path) -> None:
    assert load_engine(folder).gamma == 0
    assert load_engine(folder, "prompt-lookup").gamma == 4
    assert load_engine(folder, "prompt-lookup", gamma=0).draft is None
    assert Engine(wrap_model(loaded()[0])).gamma == 0


def test_a_draft_of_another_vocabulary_is_refused_wherever_the_pair_meets(
    folder: Path, tmp_path: Path
) -> None:
    model, tokenizer = loaded()
    other = tiny.raw_model("llama", vocab_size=90)
    with pytest.raises(VocabularyMismatchError, match="90 ids"):
        load_engine(model, other, tokenizer=tokenizer)
    with pytest.raises(VocabularyMismatchError, match="90 ids"):
        Engine(wrap_model(model), draft=ModelDrafter(wrap_model(other)))
    with pytest.raises(VocabularyMismatchError, match="another tokenizer"):
        load_engine(model, model, tokenizer=tokenizer, draft_tokenizer=word_pieces())
    words, drafter = wrap_tokenizer(tokenizer), ModelDrafter(wrap_model(model), word_pieces())
    with pytest.raises(VocabularyMismatchError, match="another tokenizer"):
        Engine(wrap_model(model), words, drafter)
    table = NgramTable.from_tokens([[1, 2, 3]], 90)
    table.save(tmp_path / "table.npz")
    with pytest.raises(VocabularyMismatchError, match="table of 90 ids"):
        load_engine(folder, f"bigram:{tmp_path / 'table.npz'}")


def test_max_tokens_fills_the_context_unless_it_is_too_much(folder: Path) -> None:
    engine = load_engine(folder)
    options: dict[str, Any] = {"ignore_eos": True}
    whole = engine.generate([5] * 28, **options)[0]
    assert (len(whole.token_ids), whole.finish_reason) == (100, "length")
    same = engine.generate([5] * 28, max_tokens=100, **options)[0]
    assert same.token_ids == whole.token_ids
    with pytest.raises(InvalidRequestError, match=r"max_tokens must be at most 100.*got 101"):
        engine.generate([5] * 28, max_tokens=101, **options)
    results = engine.generate([[5], [5] * 100], max_tokens=64)
    assert [one.finish_reason for one in results] == ["length", "error"]


def test_options_are_keywords_of_every_way_to_generate(folder: Path) -> None:
    engine = load_engine(folder)
    params = SamplingParams(max_tokens=5, temperature=0.9, seed=7)
    expected = engine.generate([5, 6], params)[0]
    options: dict[str, Any] = {"max_tokens": 5, "temperature": 0.9, "seed": 7}
    assert engine.generate([5, 6], **options)[0].text == expected.text
    assert "".join(event.text for event in engine.stream([5, 6], **options)) == expected.text
    run = engine.start([5, 6], **options)
    assert list(run)
    assert run.results()[0].text == expected.text
    assert draftsmith.generate([5, 6], target=folder, **options).text == expected.text


def test_the_package_lists_its_names() -> None:
    listed = {name for name in dir(draftsmith) if not name.startswith("__")}
    assert listed == set(draftsmith.__all__), "helpers that the package imports are not its own"
    assert "__version__" in dir(draftsmith)
    for name in draftsmith.__all__:
        assert getattr(draftsmith, name) is not None


# --- parameters as values ---------------------------------------------------------------------

PARAMS = SamplingParams(
    temperature=0.5,
    logit_bias={3: 1.0},
    sequence_bias={(1, 2): -1.0},
    bad_words=["word", [1, 2]],
    stop=["a", "b"],
    stop_token_ids=(4,),
    seed=2**63,
)


def test_parameters_pickle_copy_hash_and_turn_into_a_dict() -> None:
    for twin in (pickle.loads(pickle.dumps(PARAMS)), copy.deepcopy(PARAMS), copy.copy(PARAMS)):
        assert twin == PARAMS
        assert hash(twin) == hash(PARAMS)
    assert SamplingParams.from_options(**asdict(PARAMS)) == PARAMS
    assert json.loads(json.dumps(asdict(SamplingParams(logit_bias={3: 1.0}))))["max_tokens"] is None


def test_scalars_of_numpy_and_torch_are_numbers_and_lists_are_copied() -> None:
    stop, ids = ["a"], [3, 4]
    options: dict[str, Any] = {
        "temperature": np.float32(0.5),
        "top_p": torch.tensor(0.5),
        "top_k": np.int64(5),
        "max_tokens": torch.tensor(7),
        "seed": np.uint64(2**64 - 1),
        "stop": stop,
        "stop_token_ids": ids,
        "banned_token_ids": np.array([1, 2]),
        "allowed_token_ids": torch.tensor([8, 9]),
        "logit_bias": {np.int64(3): np.float64(1.5)},
        "ignore_eos": np.True_,
    }
    params = SamplingParams.from_options(**options)
    stop.append("b")
    ids.append(5)
    assert params == SamplingParams(
        temperature=0.5,
        top_p=0.5,
        top_k=5,
        max_tokens=7,
        seed=2**64 - 1,
        stop=("a",),
        stop_token_ids=(3, 4),
        banned_token_ids=(1, 2),
        allowed_token_ids=(8, 9),
        logit_bias={3: 1.5},
        ignore_eos=True,
    )
    assert type(params.max_tokens) is type(params.seed) is int
    assert type(params.temperature) is float
    json.dumps(asdict(params))


def test_an_ending_id_that_no_vocabulary_has_bans_nothing() -> None:
    model, _ = loaded()
    model.generation_config.eos_token_id = -1
    plain = Engine(wrap_model(loaded()[0])).generate([5], max_tokens=4, ignore_eos=True)[0]
    found = Engine(wrap_model(model)).generate([5], max_tokens=4, min_tokens=4)[0]
    assert found.token_ids == plain.token_ids
