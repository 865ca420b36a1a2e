"""A training of a tiny model that drafts, from prompts to a folder that any engine loads."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from draftsmith.api import load_drafter, load_engine
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.model import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.models import saved
from draftsmith.models.contract import Rows
from draftsmith.models.load import load_model, load_reader
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.read import read_folder
from draftsmith.train import Outcome, TrainOptions, distilled_pupil, train_head
from draftsmith.train.distilled_pupil import DistilledPupil
from draftsmith.train.distilled_student import (
    DistilledConfig,
    evenly,
    new_distilled_config,
    new_distilled_weights,
)
from draftsmith.train.heldout import Tally, acceptance
from draftsmith.train.run import Report
from draftsmith.train.student import loss_of
from draftsmith.train.teacher import Lesson, Teacher
from draftsmith.train.texts import Text
from tests.kernels.gpu.device import DEVICE
from tests.train.kit import check_is_as_foretold, prompts, save_easy_target
from tests.train.test_on_a_device import elsewhere
from tests.train.test_run import Killed, killer

SMALL = TrainOptions(
    kind="distilled",
    num_tokens=400,
    max_length=24,
    temperature=0.7,
    num_layers=1,
    batch_tokens=128,
    max_epochs=2,
    held_out=0.2,
    trials_per_epoch=2,
)
GOOD = replace(
    SMALL, num_tokens=3000, max_length=48, temperature=0.4, batch_tokens=512, learning_rate=1e-2
)
TEXTS = [Text([3, 9, 4, 30, 8, 21, 5, 6, 7], 4), Text([5, 7, 1, 2, 11, 40], 2)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_easy_target(tmp_path_factory.mktemp("target"), num_hidden_layers=3)


@pytest.fixture(scope="module")
def engine(target: Path) -> Engine:
    return load_engine(str(target))


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return []


@pytest.fixture(scope="module")
def trained(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, reports: list[Report]
) -> Outcome:
    options = replace(GOOD, max_epochs=4, trials_per_epoch=1)
    folder = tmp_path_factory.mktemp("trained")
    return train_head(engine, prompts(90), folder, options, reports.append)


def test_acceptance_rises_and_is_what_it_drafts(
    engine: Engine, trained: Outcome, reports: list[Report]
) -> None:
    trials = [one.trial for one in reports if one.trial is not None]
    # From 64 ids, of which one in 64 is right by chance.
    assert trained.acceptance.greedy[0] > 0.35
    assert trained.acceptance.sampled[0] > trials[0].sampled[0] + 0.03
    drafter = load_drafter(str(trained.folder), engine)
    assert isinstance(drafter, ModelDrafter)
    assert drafter.tokenizer is engine.tokenizer
    drafting = Engine(engine.target, engine.tokenizer, drafter, gamma=3)
    check_is_as_foretold(drafting, engine, trained.acceptance)


def test_a_recipe_lies_beside_it(trained: Outcome) -> None:
    recipe = json.loads((trained.folder / "recipe.json").read_text())
    assert recipe["options"]["kind"] == "distilled"
    assert recipe["options"]["vocab_size"] == 0
    assert recipe["conventions"]["layers"] == "1 of 3, begun as 0"
    assert len(recipe["acceptance"]["greedy"]) == 5
    assert recipe["foretold"]["greedy"]["tokens_per_pass"] > 1
    assert recipe["costs"]["drafts_s"][1] == 2 * recipe["costs"]["drafts_s"][0]


def test_after_a_kill_it_ends_with_the_same_bits(engine: Engine, tmp_path: Path) -> None:
    whole = train_head(engine, prompts(), tmp_path / "whole", SMALL)
    for after in (2, 1):
        with pytest.raises(Killed):
            train_head(engine, prompts(), tmp_path / "killed", SMALL, killer(after))
    resumed = train_head(engine, prompts(), tmp_path / "killed", SMALL)
    assert resumed.acceptance == whole.acceptance
    assert resumed.num_steps == whole.num_steps
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = train_head(engine, prompts(), tmp_path / "again", replace(SMALL, seed=1))
    assert again.acceptance != whole.acceptance


def test_a_disk_that_fills_is_told_of_in_one_line(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved, "save_tensors", full)
    with pytest.raises(DraftsmithError, match="No space left on device") as refusal:
        train_head(engine, prompts(), tmp_path, SMALL)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.rglob("*.new"))
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        ("mistral-sliding", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
        ("qwen3", {"rope_theta": 5e5}),
    ],
)
def test_what_is_written_runs_in_transformers_as_it_does_here(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    target = save_easy_target(
        tmp_path / "target", kind=kind, share=1.0, num_hidden_layers=4, **changes
    )
    engine = load_engine(str(target))
    options = replace(SMALL, num_tokens=60, num_layers=3, max_epochs=1)
    train_head(engine, prompts(8), tmp_path / "draft", options)
    ours = load_model(str(tmp_path / "draft"))
    tokens = [5, 9, 33, 4, 12, 60, 7, 8, 41, 3]
    cache = ours.open_cache()
    logits = ours.forward(cache, Rows([cache.add()], [tokens]))[0]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "draft", dtype=torch.float32)
    with torch.no_grad():
        wanted = theirs(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-3)
    read, shape = read_folder(tmp_path / "draft")[0], read_folder(target)[0]
    assert read.num_layers == 3
    for name in ("windows", "biases", "is_tied", "eos_token_ids", "context_length"):
        wanted = getattr(shape, name)
        if name == "windows":
            wanted = tuple(wanted[number] for number in (0, 1, 3))
        assert getattr(read, name) == wanted
    assert engine.tokenizer is not None
    words = AutoTokenizer.from_pretrained(tmp_path / "draft")
    assert words("the quick fox").input_ids == engine.tokenizer.encode("the quick fox")
    assert words.chat_template


def pupil_of(target: Path, num_layers: int) -> tuple[DistilledPupil, Teacher, dict]:
    reader = load_reader(str(target), torch.device("cpu"))
    tables = tables_of(reader)
    config = new_distilled_config(reader.config, tables.name, num_layers)
    tensors = new_distilled_weights(config, reader, tables)
    parameters = {name: one.clone().requires_grad_() for name, one in tensors.items()}
    rows = tables.head_rows(range(tables.vocab_size)).clone()
    return (
        DistilledPupil(config.shape, parameters, rows, 4),
        Teacher(reader, tables, ()),
        parameters,
    )


class Shifted(DistilledPupil):
    """With the bug that what is foretold is one token further on."""

    def drafts(self, lesson: Lesson, chance: Random | None):
        for drafted in super().drafts(lesson, chance):
            yield drafted._replace(of_law=(drafted.of_law + 1).clamp(max=lesson.is_own.numel() - 1))


def test_with_all_layers_it_begins_as_the_target_and_a_shift_by_one_shows(target: Path) -> None:
    pupil, teacher, _ = pupil_of(target, 3)
    found = acceptance(pupil, teacher, TEXTS, None, 0.7)
    assert found.greedy == [1.0] * 4
    assert found.sampled == pytest.approx([1.0] * 4, abs=1e-4)
    assert found.num_tokens == 9
    pupil.__class__ = Shifted
    assert acceptance(pupil, teacher, TEXTS, None, 0.7).greedy[0] < 0.6


def test_a_token_is_tested_where_all_before_it_in_the_draft_were_kept() -> None:
    """As drafts of 3 from every token of texts of 5 and 2, spelled out."""
    chances = [[0.9, 0.5, 0.2, 0.7, 1.0], [0.3, 0.8]]
    kept, is_own = torch.zeros(2, 7), torch.zeros(2, 7, dtype=torch.bool)
    for line, first in ((0, 2), (1, 1)):
        kept[line, first : first + len(chances[line])] = torch.tensor(chances[line])
        is_own[line, first : first + len(chances[line])] = True
    tally = Tally(3, torch.device("cpu"))
    tally.add_along(kept, is_own)
    tested, right = [0.0] * 3, [0.0] * 3
    for text in chances:
        for start in range(len(text)):
            chance = 1.0
            for place, one in enumerate(text[start : start + 3]):
                tested[place] += chance
                chance *= one
                right[place] += chance
    wanted = [one / other for one, other in zip(right, tested, strict=True)]
    assert tally.rates == pytest.approx(wanted)
    assert tally.num_first == 7


def test_in_parts_a_step_has_the_gradient_of_the_whole(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients(most: int) -> tuple[float, list[torch.Tensor]]:
        monkeypatch.setattr(distilled_pupil, "_MOST_LOGITS", most)
        pupil, teacher, parameters = pupil_of(target, 2)
        rows = teacher.tables.head_rows(range(teacher.tables.vocab_size)).clone()
        loss = loss_of(pupil, teacher.lesson(TEXTS), rows, 0.8, Random(0))
        loss.backward()
        return loss.item(), [one.grad for one in parameters.values()]

    def plainly() -> tuple[float, list[torch.Tensor]]:
        pupil, teacher, parameters = pupil_of(target, 2)
        lesson, tables = teacher.lesson(TEXTS), teacher.tables
        total, count = torch.zeros(()), 0
        for line, text in enumerate(TEXTS):
            stream = pupil._decoder.streams_of(lesson.embedded[line : line + 1, :-1], (2,))[0, :, 0]
            norm = parameters["model.norm.weight"]
            logits = tables.logits(torch.nn.functional.rms_norm(stream, norm.shape, norm, 1e-6))
            for row in range(text.num_prompt - 1, len(text.tokens) - 1):
                law = (tables.logits(lesson.final[line, row][None])[0] / 0.8).softmax(-1)
                drafted = (logits[row] / 0.8).log_softmax(-1)
                refused = 1 - torch.minimum(law, drafted.exp()).sum()
                total, count = total + refused - (law * drafted).sum(), count + 1
        (total / count).backward()
        return (total / count).item(), [one.grad for one in parameters.values()]

    loss, wanted = plainly()
    for most in (1 << 24, 700):
        found, grads = gradients(most)
        assert found == pytest.approx(loss, rel=1e-4)
        for one, other in zip(grads, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_no_step_mixes_devices(target: Path) -> None:
    host = load_reader(str(target), torch.device("cpu"))
    reader = elsewhere(host)
    tables = tables_of(reader)
    config = new_distilled_config(host.config, "x", 2)
    begun = new_distilled_weights(config, host, tables_of(host))
    parameters = {name: one.to("meta").requires_grad_() for name, one in begun.items()}
    rows, teacher = tables.head_rows(range(308)), Teacher(reader, tables, (), reads_whole=True)
    pupil = DistilledPupil(config.shape, parameters, rows, 4)
    loss_of(pupil, teacher.lesson(TEXTS), rows, 0.8, Random(0)).backward()
    with pytest.raises(NotImplementedError, match="no data"):
        acceptance(pupil, teacher, TEXTS, None, 0.8)


def test_a_gpu_s_way_is_gone_from_end_to_end(target: Path, tmp_path: Path) -> None:
    config, weights = read_folder(target)
    writer = GpuDecoder.from_weights(weights, config, DEVICE, torch.float32, str(target))
    writer.can_be_captured = True  # as rounds on a GPU are; here their twins run
    engine = Engine(writer, load_engine(str(target)).tokenizer, gamma=0, max_batch_size=20)
    reader = load_reader(str(target), DEVICE)
    options = replace(SMALL, num_tokens=200, max_length=16, precision="bfloat16")
    found = train_head(engine, prompts(20), tmp_path, options, reader=reader)
    assert found.greedy is None
    assert read_folder(tmp_path)[0].num_layers == 1
    assert isinstance(found.config, DistilledConfig)
    with pytest.raises(DraftsmithError, match="hands out no layers to begin with"):
        new_distilled_weights(found.config, writer, tables_of(reader))


def test_layers_are_taken_evenly() -> None:
    assert evenly(2, 30) == (0, 29)
    assert evenly(4, 4) == (0, 1, 2, 3)
    assert all(len(set(evenly(k, 13))) == k for k in range(1, 14))


def test_what_does_not_apply_is_refused(engine: Engine, tmp_path: Path) -> None:
    for changes, message in (
        ({"vocab_size": 64}, "vocab_size=64 is of a head, and a distilled draft has all ids"),
        ({"markov_rank": 8}, "markov_rank=8 is of a block, and distilled has none"),
        ({"num_steps": 33}, "num_steps must be 32 at most, got 33"),
        ({"num_layers": 0}, "num_layers must be 1 or more, got 0"),
    ):
        with pytest.raises(DraftsmithError, match=message):
            replace(SMALL, **changes)
    with pytest.raises(DraftsmithError, match=r"num_layers must be 3 at most, .* got 4"):
        train_head(engine, prompts(), tmp_path, replace(SMALL, num_layers=4))
    bare = Engine(engine.target, None, gamma=0)
    with pytest.raises(DraftsmithError, match="has no tokenizer, which a draft has a copy of"):
        train_head(bare, prompts(), tmp_path, SMALL)
    assert not list(tmp_path.iterdir())  # before any text
    train_head(engine, prompts(), tmp_path, SMALL)
    with pytest.raises(DraftsmithError, match="with kind='distilled', and 'block' is asked for"):
        train_head(engine, prompts(), tmp_path, replace(SMALL, kind="block"))
