"""What trains on a GPU: whole batches are read at once, and nothing on the way changes place."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from draftsmith.api import load_engine
from draftsmith.drafters.heads.layouts import read_eagle3
from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.engine.engine import Engine
from draftsmith.models.load import load_reader
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.dense import DenseLayer, DenseLinear, DenseWeights
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.read import read_folder
from draftsmith.train import TimeLimit, TrainOptions, train_head
from draftsmith.train.heldout import acceptance
from draftsmith.train.pupil import EaglePupil
from draftsmith.train.student import loss_of, new_config, new_weights
from draftsmith.train.teacher import Teacher
from draftsmith.train.texts import Text
from tests.kernels.gpu.device import DEVICE
from tests.train.kit import prompts, save_easy_target

BOUNDARIES = (0, 1, 2)
TEXTS = [Text([3, 9, 4, 30, 8, 21, 5, 6, 7], 4), Text([5, 7, 1, 2, 11, 40], 2)]
OPTIONS = TrainOptions(
    num_tokens=200,
    max_length=16,
    temperature=0.4,
    greedy_share=0.25,
    vocab_size=64,
    batch_tokens=256,
    max_epochs=2,
    held_out=0.2,
    trials_per_epoch=1,
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_easy_target(tmp_path_factory.mktemp("target"))


def elsewhere(reader: TorchDecoder) -> TorchDecoder:
    """The same on a device without numbers, which refuses to be mixed with the host's."""

    def moved(value: torch.Tensor) -> torch.Tensor:
        return torch.empty(value.shape, device="meta")

    def part(value: object) -> object:
        if isinstance(value, DenseLinear):
            return DenseLinear(moved(value.weight), None)
        return None if value is None else moved(value)  # type: ignore[arg-type]

    held = reader._weights
    layers = [
        DenseLayer(**{name: part(value) for name, value in vars(layer).items()})  # type: ignore[arg-type]
        for layer in held.layers
    ]
    weights = DenseWeights(
        moved(held.embedding), tuple(layers), moved(held.final_norm), moved(held.head)
    )
    return TorchDecoder(reader.config, weights, "elsewhere")


def test_whole_batches_teach_what_single_texts_do(target: Path) -> None:
    reader = load_reader(str(target), torch.device("cpu"))
    tables = tables_of(reader)
    one, whole = (
        Teacher(reader, tables, BOUNDARIES, reads_whole=reads_whole).lesson(TEXTS)
        for reads_whole in (False, True)
    )
    for name in ("states", "embedded", "final"):
        torch.testing.assert_close(getattr(whole, name), getattr(one, name), rtol=1e-4, atol=1e-5)
    assert torch.equal(whole.is_own, one.is_own)
    assert not whole.states.is_inference()


def test_what_was_read_once_is_not_read_again_while_there_is_room(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = load_reader(str(target), torch.device("cpu"))
    tables, read = tables_of(reader), list[int]()
    states_of = reader.states_of
    monkeypatch.setattr(reader, "states_of", lambda *a: read.append(len(a[0])) or states_of(*a))
    teacher = Teacher(reader, tables, BOUNDARIES, reads_whole=True, room=1 << 20)
    first, again = teacher.lesson(TEXTS), teacher.lesson(TEXTS)
    assert read == [len(TEXTS)]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
    # In another order, and with others beside them, they are the same texts.
    turned = teacher.lesson(TEXTS[::-1])
    assert read == [len(TEXTS)]
    assert torch.equal(
        turned.states[0, : len(TEXTS[-1].tokens) - 1], first.states[-1, : len(TEXTS[-1].tokens) - 1]
    )
    full = Teacher(reader, tables, BOUNDARIES, reads_whole=True, room=1)
    full.lesson(TEXTS)
    full.lesson(TEXTS)
    assert read == 3 * [len(TEXTS)]


def test_own_tokens_are_where_they_are_foretold(target: Path) -> None:
    reader = load_reader(str(target), torch.device("cpu"))
    lesson = Teacher(reader, tables_of(reader), BOUNDARIES).lesson(TEXTS)
    for step in range(6):
        rows, of_law = lesson.wanted(step)
        places = [(row // 8, row % 8 + 2 + step) for row in rows.tolist()]
        assert places == [
            (number, token)
            for number, text in enumerate(TEXTS)
            for token in range(max(text.num_prompt, 2 + step), len(text.tokens))
        ]
        # The law of a token stands behind the one before it.
        assert of_law.tolist() == [8 * text + token - 1 for text, token in places]


def test_no_step_mixes_devices(target: Path) -> None:
    host = load_reader(str(target), torch.device("cpu"))
    reader = elsewhere(host)
    teacher = Teacher(reader, tables_of(reader), BOUNDARIES, reads_whole=True)
    config, ids = new_config(reader.config, "x", 64, OPTIONS), torch.arange(64)
    begun = new_weights(config, ids, tables_of(host), 0).tensors
    tensors = {name: one.to("meta").requires_grad_() for name, one in begun.items()}
    pupil, rows = EaglePupil(PlainHead(config, tensors), 4), teacher.tables.head_rows(range(64))
    loss_of(pupil, teacher.lesson(TEXTS), rows, 0.8, Random(0)).backward()
    torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
    torch.optim.AdamW(tensors.values()).step()
    # It comes as far as the numbers, which are not there.
    with pytest.raises(NotImplementedError, match="no data"):
        acceptance(pupil, teacher, TEXTS, ids, 0.8)


def test_a_gpu_s_way_is_gone_from_end_to_end(target: Path, tmp_path: Path) -> None:
    config, weights = read_folder(target)
    writer = GpuDecoder.from_weights(weights, config, DEVICE, torch.float32, str(target))
    writer.can_be_captured = True  # as rounds on a GPU are; here their twins run
    engine = Engine(writer, load_engine(str(target)).tokenizer, gamma=0, max_batch_size=20)
    reader = load_reader(str(target), DEVICE)
    found = train_head(engine, prompts(20), tmp_path / "head", OPTIONS, reader=reader)
    assert found.greedy is None
    assert found.config.vocab_size == 64
    recipe = json.loads((tmp_path / "head" / "recipe.json").read_text())
    assert recipe["costs"] is None
    assert [trial["loss"] for trial in recipe["trials"]] == sorted(
        (trial["loss"] for trial in recipe["trials"]), reverse=True
    )
    assert read_eagle3(tmp_path / "head", tables_of(reader))[0].vocab_size == 64


def test_half_of_the_time_is_for_text_and_the_best_head_is_kept(
    target: Path, tmp_path: Path
) -> None:
    engine = load_engine(str(target))
    seconds = iter(range(10_000))
    limit = TimeLimit(0.1, lambda: float(next(seconds)))
    long = replace(OPTIONS, num_tokens=10**6, max_epochs=4)
    found = train_head(engine, prompts(), tmp_path, long, limit=limit)
    assert found.why == "0.1 minutes are over"
    assert (tmp_path / "config.json").is_file()
    texts = (tmp_path / "training" / "texts.jsonl").read_bytes()
    # With more time the same command goes on, over the same text.
    more = TimeLimit(0.1, lambda: float(next(seconds)))
    again = train_head(engine, prompts(), tmp_path, long, limit=more)
    assert again.num_steps > found.num_steps
    assert (tmp_path / "training" / "texts.jsonl").read_bytes() == texts
