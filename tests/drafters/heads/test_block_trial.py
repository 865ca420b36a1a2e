"""The trial of block heads at load: one that knows the target passes, a wrong reading is named."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from draftsmith.api import load_engine
from draftsmith.core.params import SamplingParams
from draftsmith.drafters.heads import trial
from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.block_kind import BlockKind
from draftsmith.drafters.heads.block_plain import BlockRows, PlainBlock
from draftsmith.drafters.heads.kind import Head, Written
from draftsmith.drafters.heads.load import load_head
from draftsmith.drafters.heads.tables import TargetTables, tables_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import Rows
from tests.drafters.heads import block_kit, kit
from tests.drafters.heads.test_block_layouts import deep_spec, their_tensors, write
from tests.train.kit import SPOKEN, save_easy_target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_easy_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load_engine(str(folder))


def knowing(engine: Engine) -> tuple[BlockConfig, HeadWeights]:
    """A DSpark head of which the Markov table is the target's own law behind one token."""
    tables = tables_of(engine.target)
    config = block_kit.config(
        "dspark",
        boundaries=(0, 1),
        hidden_size=tables.hidden_size,
        target_hidden_size=tables.hidden_size,
        vocab_size=tables.vocab_size,
        target_vocab_size=tables.vocab_size,
        markov_rank=SPOKEN,
        has_head=True,
        has_embedding=True,
    )
    weights = block_kit.weights(config)
    own, chance, count = engine.target.open_cache(), Random(0), 8
    texts = [
        [*(chance.randrange(SPOKEN) for _ in range(12)), token]
        for token in range(SPOKEN)
        for _ in range(count)
    ]
    logits = engine.target.forward(own, Rows([own.add() for _ in texts], texts))[:, -1]
    logits = logits.view(SPOKEN, count, -1).mean(1)
    previous = torch.zeros(tables.vocab_size, SPOKEN)
    previous[:SPOKEN] = torch.eye(SPOKEN)
    changed = {
        "head": torch.zeros(tables.vocab_size, tables.hidden_size),
        "markov.previous": previous,
        "markov.following": logits.T.clone(),
    }
    return config, HeadWeights(weights.tensors | changed)


def saved(folder: Path, config: BlockConfig, weights: HeadWeights) -> Path:
    keys = {k: v for k, v in deep_spec(config).items() if k != "num_target_layers"}
    write(folder, keys, their_tensors(config, weights))
    return folder


def test_a_head_that_knows_the_target_is_loaded_by_name(
    engine: Engine, folder: Path, tmp_path: Path
) -> None:
    head = saved(tmp_path / "head", *knowing(engine))
    drafting = load_engine(str(folder), str(head), gamma=3)
    assert isinstance(drafting.draft, BlockDrafter)
    params = SamplingParams(max_tokens=40, temperature=0.7, seed=3, ignore_eos=True)
    prompts = [[4 + one, 9] for one in range(4)]
    [*drafted] = drafting.generate(prompts, params)
    assert [one.token_ids for one in drafted] == [
        one.token_ids for one in engine.generate(prompts, params)
    ]
    kept = sum(one.completions[0].statistics.num_accepted for one in drafted)
    asked = sum(one.completions[0].statistics.num_drafted for one in drafted)
    assert kept / asked > 0.15


def test_a_head_that_knows_nothing_of_the_target_is_refused(engine: Engine, tmp_path: Path) -> None:
    config, _ = knowing(engine)
    head = saved(tmp_path, config, block_kit.weights(config, 4))
    with pytest.raises(DraftsmithError, match="20 % is the least: no other reading") as refusal:
        load_head(head, engine.target, engine.tokenizer)
    assert "\n" not in str(refusal.value)


def test_options_of_draft_models_are_refused(folder: Path, engine: Engine, tmp_path: Path) -> None:
    head = str(saved(tmp_path, *knowing(engine)))
    with pytest.raises(DraftsmithError, match="is a head with ids of its own"):
        load_engine(str(folder), head, draft_vocab_size=64)
    with pytest.raises(DraftsmithError, match="gamma=6 is beyond the 5 tokens that"):
        load_engine(str(folder), head, gamma=6)
    assert load_engine(str(folder), head, gamma="auto").gamma == "auto"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"drafts_from_anchor": False}, "with sample_from_anchor true"),
        ({"boundaries": (1, 2)}, "with states behind layers 0, 1"),
        ({"rope_theta": 5e5}, "with rope_theta 10000"),
        ({"is_causal": True}, "with causal false"),
    ],
)
def test_the_reading_that_works_is_named(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, object], why: str
) -> None:
    config, weights = knowing(engine)

    def right_as_it_was_made(one: Head, *rest: object) -> list[float]:
        assert isinstance(one, BlockKind)
        return [0.6, 0.5, 0.4] if one.config == config else [0.05, 0.01, 0.0]

    monkeypatch.setattr(trial, "rates_of", right_as_it_was_made)
    read = BlockKind(replace(config, **changes), weights)
    refusal = trial.try_head(read, engine.target).refusal()
    assert refusal is not None
    assert f"{why} it would be right in 60 % of its first tokens" in refusal


def fresh(
    config: BlockConfig, weights: HeadWeights, text: Written, anchor: int, count: int
) -> Tensor:
    """The likeliest ids of one block, by the twin on it alone."""
    head = PlainBlock(config, weights.tensors, kit.target().logits)
    states = torch.stack([text.states[b][:anchor] for b in config.boundaries], dim=1)
    block = [text.tokens[anchor], *[config.mask_id] * (config.block_size - 1)]
    rows = BlockRows(kit.table(5)[block][None, None], torch.tensor([[anchor]]))
    hidden = head.run(rows, head.context(states.unsqueeze(0)))[0, 0]
    hidden = hidden[(0 if config.drafts_from_anchor else 1) :][:count]
    before = torch.tensor(text.tokens[anchor : anchor + len(hidden)])
    found = head.corrected(head.logits(hidden), head.corrections(hidden, before)).argmax(-1)
    return found if weights.ids is None else weights.ids[found]


@pytest.mark.parametrize("name", ["dflash", "own-head", "dspark", "dspark-rnn", "one-layer"])
def test_its_guesses_along_a_text_are_those_of_fresh_blocks(name: str) -> None:
    config = block_kit.config(name)
    weights, tokens = block_kit.weights(config), [(7 * one) % kit.VOCAB for one in range(20)]
    states = block_kit.states_of(tokens, config)[:-1].unbind(1)
    text = Written(tokens, 4, dict(zip(config.boundaries, states, strict=True)))
    target: TargetTables = kit.target()
    guesses = BlockKind(config, weights).guesses(text, target, 3)
    assert len(guesses) == min(3, config.longest)
    for column, row in enumerate(text.rows(3)):
        wanted = fresh(config, weights, text, row + 1, len(guesses))
        assert guesses[:, column].tolist() == wanted.tolist()


def test_what_the_files_say_is_what_is_logged(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = saved(tmp_path, *knowing(engine))
    assert json.loads((head / "config.json").read_text())["markov_rank"] == SPOKEN
    with caplog.at_level("INFO", logger="draftsmith"):
        load_head(head, engine.target, engine.tokenizer)
    assert "block 5 rows, which draft 5 tokens; anchor drafts" in caplog.text
    assert "right in" in caplog.text
