"""A training of a tiny head that drafts a block, from prompts to a folder that a draft loads."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from draftsmith.api import load_engine
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.block_export import write_block
from draftsmith.drafters.heads.block_layouts import read_block
from draftsmith.drafters.heads.block_plain import BlockRows, PlainBlock
from draftsmith.drafters.heads.load import load_head
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.kernels.quantise import blocks_from_float
from draftsmith.models.load import load_reader
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.read import read_folder
from draftsmith.train import Outcome, train_head
from draftsmith.train.block_pupil import BlockPupil
from draftsmith.train.block_student import chosen_mask, new_block_config, new_block_weights
from draftsmith.train.heldout import acceptance
from draftsmith.train.run import Report
from draftsmith.train.state import TrainState, load_state, save_state
from draftsmith.train.student import loss_of
from draftsmith.train.teacher import Teacher
from draftsmith.train.texts import Text
from tests.drafters.heads import block_kit, kit
from tests.kernels.gpu.device import DEVICE
from tests.train.kit import check_is_as_foretold, prompts, save_easy_target
from tests.train.test_on_a_device import elsewhere
from tests.train.test_run import GOOD, SMALL, Killed, killer

SPARK: dict[str, Any] = {"kind": "block", "markov_rank": 16, "num_steps": 4}
BLOCK = replace(SMALL, **SPARK)
TEXTS = [Text([3, 9, 4, 30, 8, 21, 5, 6, 7], 4), Text([5, 7, 1, 2, 11, 40], 2)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_easy_target(tmp_path_factory.mktemp("target"))


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
    options = replace(GOOD, **SPARK, max_epochs=6)
    return train_head(
        engine, prompts(90), tmp_path_factory.mktemp("trained"), options, reports.append
    )


def tensors(folder: Path, engine: Engine) -> dict[str, torch.Tensor]:
    return read_block(folder, tables_of(engine.target))[1].tensors


def test_acceptance_rises_and_is_what_the_head_drafts(
    engine: Engine, target: Path, trained: Outcome, reports: list[Report]
) -> None:
    trials = [one.trial for one in reports if one.trial is not None]
    # From 64 ids, of which one in 64 is right by chance.
    assert trained.acceptance.greedy[0] > 0.4
    assert trained.acceptance.sampled[2] > trials[0].sampled[2] + 0.1
    drafting = load_engine(str(target), str(trained.folder), gamma=3)
    assert isinstance(drafting.draft, BlockDrafter)
    check_is_as_foretold(drafting, engine, trained.acceptance)


def test_a_recipe_lies_beside_it(trained: Outcome) -> None:
    recipe = json.loads((trained.folder / "recipe.json").read_text())
    assert recipe["options"]["kind"] == "block"
    assert recipe["conventions"]["markov"] == "vanilla, rank 16"
    assert len(recipe["acceptance"]["greedy"]) == 4
    assert len(recipe["costs"]["drafts_s"]) == 4
    assert recipe["foretold"]["greedy"]["gamma"] <= 4


def test_the_anchor_that_is_read_wrongly_is_named(
    engine: Engine, trained: Outcome, tmp_path: Path
) -> None:
    config = json.loads((trained.folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sample_from_anchor": False}))
    # A head that relies on its rows alone: without what the token before adds.
    stored = read_block(trained.folder, tables_of(engine.target))
    weights = stored[1].tensors | {"markov.following": torch.zeros(64, 16)}
    write_block(tmp_path / "rows", stored[0], HeadWeights(weights, stored[1].ids))
    (tmp_path / "model.safetensors").write_bytes(
        (tmp_path / "rows" / "model.safetensors").read_bytes()
    )
    cause = "with sample_from_anchor true it would be right in [0-9]+ % of its first tokens"
    with pytest.raises(DraftsmithError, match=cause) as refusal:
        load_head(tmp_path, engine.target, engine.tokenizer)
    assert "\n" not in str(refusal.value)


def test_after_a_kill_it_ends_with_the_same_bits(engine: Engine, tmp_path: Path) -> None:
    whole = train_head(engine, prompts(), tmp_path / "whole", BLOCK)
    for after in (2, 1):
        with pytest.raises(Killed):
            train_head(engine, prompts(), tmp_path / "killed", BLOCK, killer(after))
    resumed = train_head(engine, prompts(), tmp_path / "killed", BLOCK)
    assert resumed.acceptance == whole.acceptance
    assert resumed.num_steps == whole.num_steps
    one, other = (tensors(tmp_path / name, engine) for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = train_head(engine, prompts(), tmp_path / "again", replace(BLOCK, seed=1))
    assert again.acceptance != whole.acceptance


def test_another_kind_s_folder_is_refused(engine: Engine, tmp_path: Path) -> None:
    train_head(engine, prompts(), tmp_path, BLOCK)
    for changes, message in (
        ({"kind": "eagle3", "markov_rank": 0}, "with kind='block', and 'eagle3' is asked for"),
        ({"markov_rank": 8}, "with markov_rank=16, and 8 is asked for"),
        ({"num_steps": 3}, "with num_steps=4, and 3 is asked for"),
    ):
        with pytest.raises(DraftsmithError, match=message):
            train_head(engine, prompts(), tmp_path, replace(BLOCK, **changes))


def test_a_checkpoint_from_before_there_were_kinds_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    of: dict[str, object] = {"target": "x", "num_steps": 3}
    save_state(path, TrainState({}), of)
    with pytest.raises(DraftsmithError, match="with kind='eagle3', and 'block' is asked for"):
        load_state(path, of | {"kind": "block", "markov_rank": 0})
    assert load_state(path, of | {"kind": "eagle3", "markov_rank": 0}) is not None


@pytest.mark.parametrize("rank", [0, 16])
def test_in_bfloat16_without_and_with_a_markov_head(
    engine: Engine, tmp_path: Path, rank: int
) -> None:
    options = replace(BLOCK, markov_rank=rank, precision="bfloat16", vocab_size=64)
    found = train_head(engine, prompts(), tmp_path, options)
    config, _ = read_block(tmp_path, tables_of(engine.target))
    assert config.kind == ("DSpark" if rank else "DFlash")
    assert config.longest == 4 == len(found.acceptance.greedy)
    assert config.mask_id >= 64  # no text has it


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(DraftsmithError, match="markov_rank=16 is of a block, and eagle3 has none"):
        replace(SMALL, markov_rank=16)
    with pytest.raises(DraftsmithError, match="num_steps must be 32 at most, got 33"):
        replace(BLOCK, num_steps=33)
    with pytest.raises(DraftsmithError, match="markov_rank must be 0 or more, got -1"):
        replace(BLOCK, markov_rank=-1)


def pupil_of(reader: object, seed: int = 0) -> tuple[BlockPupil, PlainBlock, torch.Tensor]:
    tables = tables_of(reader)  # type: ignore[arg-type]
    shape = reader.config  # type: ignore[attr-defined]
    config = new_block_config(shape, tables, 64, BLOCK, TEXTS)
    weights = new_block_weights(config, torch.arange(64), tables, seed).tensors
    chance = torch.Generator().manual_seed(1)
    weights = {
        name: one + 0.3 * torch.randn(one.shape, generator=chance) for name, one in weights.items()
    }
    head = PlainBlock(config, weights)
    return BlockPupil(head, tables.embed([config.mask_id])[0]), head, torch.arange(64)


def test_what_it_says_in_a_lesson_is_what_a_fresh_block_says(target: Path) -> None:
    reader = load_reader(str(target), torch.device("cpu"))
    pupil, head, _ = pupil_of(reader)
    lesson = Teacher(reader, tables_of(reader), head.config.boundaries).lesson(TEXTS)
    length = lesson.is_own.shape[1]
    seen = Counter[tuple[int, int, int]]()
    for place, logits, of_law, sure, *_ in pupil.drafts(lesson, None):
        assert sure is not None
        for line, told, row in zip(logits, sure, of_law.tolist(), strict=True):
            number, token = divmod(row, length)
            anchor, text = token - place, TEXTS[number]
            block = [text.tokens[anchor], *[head.config.mask_id] * 3]
            embedded = tables_of(reader).embed(block)[None, None]
            states = lesson.states[number : number + 1, :anchor]
            rows = BlockRows(embedded, torch.tensor([[anchor]]))
            hidden = head.run(rows, head.context(states))[0, 0, place]
            before = torch.tensor(text.tokens[token])
            wanted = head.corrected(
                head.logits(hidden[None]), head.corrections(hidden[None], before[None])
            )[0]
            torch.testing.assert_close(line, wanted, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(told, head.confidence(hidden, before), rtol=1e-3, atol=1e-4)
            seen[number, anchor, place] += 1
    own = {
        (number, anchor, place)
        for number, text in enumerate(TEXTS)
        for anchor in range(max(1, text.num_prompt - 1), len(text.tokens) - 1)
        for place in range(4)
        if anchor + 1 + place < len(text.tokens)
    }
    assert set(seen) == own
    assert max(seen.values()) == 1


def test_some_anchors_are_drawn_and_the_same_chance_draws_the_same(target: Path) -> None:
    reader = load_reader(str(target), torch.device("cpu"))
    pupil, head, _ = pupil_of(reader)
    lesson = Teacher(reader, tables_of(reader), head.config.boundaries).lesson(TEXTS)

    def drawn(seed: int | None) -> list[list[int]]:
        chance = None if seed is None else Random(seed)
        return [one.of_law.tolist() for one in pupil.drafts(lesson, chance)]

    assert drawn(1) == drawn(1)
    assert len({str(drawn(seed)) for seed in range(9)}) > 2
    whole = {(place, row) for place, rows in enumerate(drawn(None)) for row in rows}
    for seed in range(3):
        assert {(place, row) for place, rows in enumerate(drawn(seed)) for row in rows} < whole


def test_no_step_mixes_devices(target: Path) -> None:
    host = load_reader(str(target), torch.device("cpu"))
    _, head, ids = pupil_of(host)
    reader = elsewhere(host)
    teacher = Teacher(reader, tables_of(reader), head.config.boundaries, reads_whole=True)
    parameters = {name: one.to("meta").requires_grad_() for name, one in head.tensors.items()}
    mask = teacher.tables.embed([head.config.mask_id])[0]
    pupil = BlockPupil(PlainBlock(head.config, parameters), mask)
    rows = teacher.tables.head_rows(range(64))
    loss_of(pupil, teacher.lesson(TEXTS), rows, 0.8, Random(0)).backward()
    # It comes as far as the numbers, which are not there.
    with pytest.raises(NotImplementedError, match="no data"):
        acceptance(pupil, teacher, TEXTS, ids, 0.8)


def test_a_gpu_s_way_is_gone_from_end_to_end(target: Path, tmp_path: Path) -> None:
    config, weights = read_folder(target)
    writer = GpuDecoder.from_weights(weights, config, DEVICE, torch.float32, str(target))
    writer.can_be_captured = True  # as rounds on a GPU are; here their twins run
    engine = Engine(writer, load_engine(str(target)).tokenizer, gamma=0, max_batch_size=20)
    reader = load_reader(str(target), DEVICE)
    options = replace(BLOCK, num_tokens=200, max_length=16, vocab_size=64)
    found = train_head(engine, prompts(20), tmp_path / "head", options, reader=reader)
    assert found.greedy is None
    assert read_block(tmp_path / "head", tables_of(reader))[0].vocab_size == 64


def test_the_mask_is_an_id_that_no_text_has() -> None:
    target = kit.target()
    texts = [Text([one for one in range(kit.VOCAB) if one not in (17, 40)], 3)]
    assert chosen_mask(texts, target) in (17, 40)
    rare = [Text([*range(kit.VOCAB), *range(1, kit.VOCAB)], 3)]
    assert chosen_mask(rare, target) == 0


@pytest.mark.parametrize("name", ["own-head", "dspark-reduced", "dspark-rnn", "causal"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    config = block_kit.config(name, target="some/target")
    weights = block_kit.weights(config)
    write_block(tmp_path, config, weights, torch.float32)
    found, read = read_block(tmp_path, kit.target())
    assert found == replace(
        config,
        layout="speculators",
        context_length=found.context_length,
        rope_scaling=(("rope_type", "default"),),
    )
    assert all(torch.equal(read.tensors[name], weights.tensors[name]) for name in weights.tensors)


@pytest.mark.parametrize("name", ["own-head", "dspark-sure"])
def test_eight_bits_are_those_that_it_is_rounded_to_when_it_is_loaded(
    tmp_path: Path, name: str
) -> None:
    config = block_kit.config(name, **({} if name == "own-head" else {"markov_rank": 32}))
    weights = block_kit.weights(config)
    write_block(tmp_path / "floats", config, weights, torch.float32)
    write_block(tmp_path / "bits", config, weights, torch.int8)
    sizes = [(tmp_path / one / "model.safetensors").stat().st_size for one in ("floats", "bits")]
    assert sizes[1] < 0.5 * sizes[0]
    floats, bits = (read_block(tmp_path / one, kit.target())[1] for one in ("floats", "bits"))
    for tensor, one in floats.tensors.items():
        other = bits.tensors[tensor]
        torch.testing.assert_close(other, one, rtol=0.01, atol=0.01 * float(one.abs().max()))
        if one.ndim == 2 and tensor not in ("markov.previous", "confidence"):
            assert (
                blocks_from_float(one.numpy(), "Q8_0") == blocks_from_float(other.numpy(), "Q8_0")
            ).all(), tensor
