"""A training of a tiny head, from prompts to a folder that a draft is loaded from."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from draftsmith.api import load_engine
from draftsmith.core.params import SamplingParams
from draftsmith.drafters.heads import HeadWeights, export, trial
from draftsmith.drafters.heads.eagle3_kind import Eagle3
from draftsmith.drafters.heads.layouts import read_eagle3
from draftsmith.drafters.heads.load import load_head
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.models import saved
from draftsmith.train import Outcome, TrainOptions, train_head
from draftsmith.train.heldout import Costs, foretold, no_dearer_than_wider
from draftsmith.train.run import Report
from tests.train.kit import prompts, save_easy_target

SMALL = TrainOptions(
    num_tokens=400,
    max_length=24,
    temperature=0.7,
    vocab_size=0,
    batch_tokens=128,
    max_epochs=2,
    held_out=0.2,
    trials_per_epoch=2,
)
GOOD = replace(
    SMALL,
    num_tokens=4000,
    max_length=48,
    temperature=0.4,
    vocab_size=64,
    batch_tokens=512,
    max_epochs=10,
    trials_per_epoch=1,
    learning_rate=1e-2,
    held_out=0.05,
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_easy_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def engine(target: Path) -> Engine:
    return load_engine(str(target))


class Killed(Exception):
    """What ends a process in the middle of a step."""


def killer(after: int) -> Callable[[Report], None]:
    left = [after]

    def told(report: Report) -> None:
        if report.stage == "training" and report.trial is None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    return told


def tensors(folder: Path, engine: Engine) -> dict[str, torch.Tensor]:
    return read_eagle3(folder, tables_of(engine.target))[1].tensors


@pytest.fixture(scope="module")
def trained(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return train_head(engine, prompts(90), tmp_path_factory.mktemp("trained"), GOOD)


def test_a_trained_head_drafts_what_it_said_it_would(
    engine: Engine, target: Path, trained: Outcome
) -> None:
    assert trained.acceptance.greedy[0] > 0.35
    assert trained.config.vocab_size == 64
    params = SamplingParams(max_tokens=48, ignore_eos=True)
    plain = engine.generate(prompts(20), params)
    drafting = load_engine(str(target), str(trained.folder), gamma=2)
    drafted = drafting.generate(prompts(20), params)
    assert [one.text for one in drafted] == [one.text for one in plain]
    kept = sum(one.completions[0].statistics.num_accepted for one in drafted)
    asked = sum(one.completions[0].statistics.num_drafted for one in drafted)
    assert kept / asked > 0.25


def test_a_recipe_lies_beside_it(trained: Outcome) -> None:
    recipe = json.loads((trained.folder / "recipe.json").read_text())
    assert recipe["options"]["num_tokens"] == GOOD.num_tokens
    assert recipe["tokens"] > 1000
    assert recipe["acceptance"]["greedy"] == list(trained.acceptance.greedy)
    assert len(recipe["trials"]) >= 3


def test_a_head_that_is_read_wrongly_is_refused_with_the_reason(
    engine: Engine, trained: Outcome, tmp_path: Path
) -> None:
    config = json.loads((trained.folder / "config.json").read_text()) | {"norm_output": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(
        (trained.folder / "model.safetensors").read_bytes()
    )
    cause = r"with norm_output true it would be right in [0-9]+ % of its third tokens"
    with pytest.raises(DraftsmithError, match=cause) as refusal:
        load_head(tmp_path, engine.target, engine.tokenizer)
    assert "\n" not in str(refusal.value)


def test_states_of_the_wrong_layer_are_named(
    engine: Engine, trained: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at targets whose layers do more than this one's: there only one reading works."""
    config, weights = read_eagle3(trained.folder, tables_of(engine.target))

    def right_at_one(one: Eagle3, *rest: object) -> list[float]:
        return [0.6, 0.5, 0.4] if one.boundaries == (1, 2) else [0.05, 0.01, 0.0]

    monkeypatch.setattr(trial, "rates_of", right_at_one)
    tried = trial.try_head(Eagle3(replace(config, boundaries=(0, 1)), weights), engine.target)
    refusal = tried.refusal()
    assert refusal is not None
    assert "with states behind layers 1, 2 it would be right in 60 % of its first" in refusal


def test_a_head_that_knows_nothing_of_the_target_is_refused(
    engine: Engine, trained: Outcome, tmp_path: Path
) -> None:
    config, weights = read_eagle3(trained.folder, tables_of(engine.target))
    noise = {name: torch.randn(one.shape) for name, one in weights.tensors.items()}
    export.write_speculators(tmp_path, config, HeadWeights(noise, weights.ids))
    with pytest.raises(DraftsmithError, match="20 % is the least: no other reading"):
        load_head(tmp_path, engine.target, engine.tokenizer)


def test_after_a_kill_it_ends_with_the_same_bits(engine: Engine, tmp_path: Path) -> None:
    whole = train_head(engine, prompts(), tmp_path / "whole", SMALL)
    for after in (2, 1):
        with pytest.raises(Killed):
            train_head(engine, prompts(), tmp_path / "killed", SMALL, killer(after))
    # A line of text that was half written is written again.
    texts = tmp_path / "killed" / "training" / "texts.jsonl"
    lines = texts.read_text().splitlines(keepends=True)
    texts.write_text("".join(lines[:-2]) + lines[-2][:9])
    resumed = train_head(engine, prompts(), tmp_path / "killed", SMALL)
    assert resumed.acceptance == whole.acceptance
    assert resumed.num_steps == whole.num_steps
    one, other = (tensors(tmp_path / name, engine) for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_products_in_bfloat16_learn_nearly_the_same(engine: Engine, tmp_path: Path) -> None:
    whole = train_head(engine, prompts(), tmp_path / "whole", SMALL)
    half = train_head(engine, prompts(), tmp_path / "half", replace(SMALL, precision="bfloat16"))
    assert half.acceptance.sampled[0] == pytest.approx(whole.acceptance.sampled[0], abs=0.02)
    assert half.acceptance != whole.acceptance


def test_another_training_s_folder_is_refused(engine: Engine, tmp_path: Path) -> None:
    train_head(engine, prompts(), tmp_path, SMALL)
    for changes, message in (
        ({"seed": 1}, "with seed=0, and 1 is asked for"),
        ({"max_epochs": 3}, "with max_epochs=2, and 3 is asked for"),
    ):
        with pytest.raises(DraftsmithError, match=message):
            train_head(engine, prompts(), tmp_path, replace(SMALL, **changes))
    (tmp_path / "training" / "state.pt").write_bytes(b"half of one")
    with pytest.raises(DraftsmithError, match=r"state\.pt is no checkpoint .* remove it"):
        train_head(engine, prompts(), tmp_path, SMALL)


def test_a_disk_that_fills_leaves_the_last_checkpoint_whole(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train_head(engine, prompts(), tmp_path, SMALL, killer(2))
    before = (tmp_path / "training" / "state.pt").read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(DraftsmithError, match=r"No space left on device.*make room"):
            train_head(engine, prompts(), tmp_path, SMALL)
    assert (tmp_path / "training" / "state.pt").read_bytes() == before
    assert not list(tmp_path.rglob("*.new"))
    monkeypatch.setattr(saved, "save_tensors", full)
    with pytest.raises(DraftsmithError, match="No space left on device"):
        train_head(engine, prompts(), tmp_path / "another", SMALL)


def test_prompts_that_get_no_answer_are_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(DraftsmithError, match="cannot answer a prompt"):
        train_head(engine, [[10**6], [5]], tmp_path, SMALL)


@cache
def costs() -> Costs:
    return Costs(10.0, [10.0, 11.0, 12.0, 13.0], [0.5, 1.0, 1.5])


def test_the_best_length_is_foretold() -> None:
    assert foretold([0.9, 0.9], costs()).gamma == 3
    assert foretold([0.05, 0.05], costs()).gamma == 1
    assert foretold([0.9, 0.9], costs()).tokens_per_pass == pytest.approx(1 + 0.9 + 0.81 + 0.729)


def test_a_pass_that_other_work_delayed_foretells_no_gain() -> None:
    rates, delayed = [0.24], [20.0, 11.0, 12.0]
    checks = no_dearer_than_wider(delayed)
    assert checks == [11.0, 11.0, 12.0]
    found = foretold(rates, Costs(checks[0], checks, [1.0]))
    assert found.speed_up < found.tokens_per_pass


@pytest.mark.parametrize(
    "changes", [{"num_tokens": 0}, {"held_out": 0.9}, {"max_length": 4}, {"temperature": -1.0}]
)
def test_options_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(DraftsmithError, match=next(iter(changes))):
        replace(SMALL, **changes)
