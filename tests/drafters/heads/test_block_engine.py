"""Block heads in an engine: the text is plain decoding's, and the head is told what it needs."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.core.trees import ROOT, ancestors
from draftsmith.drafters import DraftContext
from draftsmith.drafters.branching import branching
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.heads.block import BlockHead
from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_drafter import BlockDrafter, BlockState
from draftsmith.drafters.heads.block_plain import BlockRows, PlainBlock
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.engine.control.own import OwnDraft
from draftsmith.engine.engine import Engine
from draftsmith.engine.generation import Generation
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel, Rows
from tests.drafters.heads import block_kit, kit
from tests.drafters.heads.test_engine import MODES, target
from tests.drafters.heads.test_trees import PARENTS, Bush
from tests.drafters.recording import view
from tests.engine.kit import PROMPTS, texts
from tests.engine.test_grown_trees import bushy, few, first_tokens
from tests.engine.test_law import DETECTS, FALSE_FAIL_RATE, exact_law
from tests.grids import thinned
from tests.statistics import assert_law

__all__ = ["bushy"]

CPU = torch.device("cpu")


def made_for(model: LanguageModel, name: str) -> tuple[BlockConfig, HeadWeights]:
    tables = tables_of(model)
    sizes = {"hidden_size": tables.hidden_size, "target_hidden_size": tables.hidden_size}
    vocab = {"vocab_size": tables.vocab_size, "target_vocab_size": tables.vocab_size}
    config = block_kit.config(name, boundaries=(0, 1, 2), mask_id=2, **sizes, **vocab)
    return config, block_kit.weights(config)


def drafter(model: LanguageModel, name: str = "dspark", branches: int = 1) -> BlockDrafter:
    head = BlockHead(*made_for(model, name), tables_of(model), model.device, None)
    return BlockDrafter(head, "head", branches)


@pytest.mark.parametrize(
    ("kind", "name", "gamma", "mode"),
    thinned(["plain", "fast"], ["dflash", "dspark-sure"], [1, 4, "auto"], MODES, every=2),
)
def test_the_text_is_that_of_plain_decoding(kind: str, name: str, gamma: int, mode: str) -> None:
    model, params = target(kind), MODES[mode]
    wanted = texts(Engine(model).generate(PROMPTS, params))
    results = Engine(model, draft=drafter(model, name), gamma=gamma).generate(PROMPTS, params)
    assert texts(results) == wanted


@pytest.mark.parametrize("name", ["dflash", "dspark-sure"])
def test_the_text_is_that_of_plain_decoding_under_penalties(name: str) -> None:
    """The prefix that they look at outlives the round."""
    model, params = target("fast"), replace(MODES["coupled"], frequency_penalty=0.5)
    wanted = texts(Engine(model).generate(PROMPTS, params))
    results = Engine(model, draft=drafter(model, name), gamma=3).generate(PROMPTS, params)
    assert texts(results) == wanted


@pytest.mark.parametrize(
    ("branches", "gamma", "mode"), thinned([2, 3], [6, 9, "auto"], MODES, every=2)
)
def test_with_trees_the_text_is_that_of_plain_decoding(
    branches: int, gamma: int, mode: str
) -> None:
    model, params = target("fast"), MODES[mode]
    if not model.takes_trees:
        pytest.skip("takes no trees")
    wanted = texts(Engine(model).generate(PROMPTS, params))
    draft = branching(drafter(model, "dspark-rnn"), branches)
    assert texts(Engine(model, draft=draft, gamma=gamma).generate(PROMPTS, params)) == wanted


@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_the_other_verifiers_take_its_laws(verifier: str) -> None:
    model = target("plain")
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=1, verifier=verifier)
    results = Engine(model, draft=drafter(model), gamma=3).generate(PROMPTS, params)
    assert sum(one.completions[0].statistics.num_drafted for one in results) > 24


@pytest.mark.long
@pytest.mark.usefixtures("bushy")
@pytest.mark.statistical
@pytest.mark.parametrize("verifier", ["rejection", "block"])
@pytest.mark.parametrize("branches", [1, 2])
def test_the_joint_law_of_the_first_tokens_is_the_targets(verifier: str, branches: int) -> None:
    draft = drafter(few(14), "dspark-sure", branches)
    outcomes, kept = first_tokens(verifier, draft, 2 * branches)
    assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=DETECTS)
    assert kept is not None
    assert 1.1 < kept < 3, "the draft must be neither useless nor right"


def test_a_gamma_of_one_text_s_own_ends_with_the_block() -> None:
    model, params = target("fast"), MODES["coupled"]
    plain = Engine(model).generate(PROMPTS, params)
    engine = Engine(model, draft=drafter(model, "dflash"), gamma=2)
    jobs = [engine.prepare(prompt, params) for prompt in PROMPTS]
    jobs[0].samples[0].own_draft = OwnDraft(9)
    found = Generation(engine.scheduler, jobs).finish()
    assert texts(found) == texts(plain)
    lengths = [len(one.completions[0].statistics.drafted_per_position) for one in found]
    assert lengths == [4, *[2] * (len(PROMPTS) - 1)]


def test_more_tokens_than_a_block_has_are_refused() -> None:
    model = target("plain")
    with pytest.raises(InvalidRequestError, match="gamma=5 is beyond the 4 tokens that head") as no:
        Engine(model, draft=drafter(model, "dflash"), gamma=5)
    assert "at most 4, or auto" in str(no.value)
    assert Engine(model, draft=drafter(model, "one-layer")).gamma == 1
    assert Engine(model, draft=drafter(model, "dspark")).gamma == 4
    assert Engine(model, draft=drafter(model, "dspark"), gamma=5).gamma == 5


class Growing(block_kit.Handing):
    """A round that grows `Bush`es."""

    bush: Bush

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> Bush:
        assert depth == self.config.longest
        self.bush = Bush(rows, sum(len(one.tokens) for one in self.sequences))
        return self.bush

    def drawn(self) -> Draft:
        return Draft.certain([[] for _ in self.sequences], self.device)


@pytest.mark.parametrize("name", ["dflash", "dspark", "dspark-gated", "dspark-rnn"])
def test_a_nodes_logits_are_those_of_the_plain_twin_on_its_path(name: str) -> None:
    config = block_kit.config(name)
    weights, handed = block_kit.weights(config), dict[int, int]()
    head = BlockHead(config, weights, kit.target(), CPU, None)
    state = BlockDrafter(head, branches=2).open()
    lists = [[5, 6, 7, 8], [9, 3]]
    for _ in range(2):
        views = [view(text, 8, i) for i, text in enumerate(lists)]
        context = Growing(views, config=config, handed=handed)
        context.takes_trees = True
        state.propose(context)
        assert len(context.bush.logits) == 2 * sum(map(len, ([ROOT], [0, 1], [2, 4], [5, 7])))
        for (row, node), line in context.bush.logits.items():
            drafted = context.bush.tokens[row]
            path = [drafted[one] for one in ancestors(PARENTS, node)]
            wanted = block_kit.plain_laws(config, weights, lists[row], path)[0][len(path)]
            torch.testing.assert_close(line, wanted, rtol=1e-3, atol=1e-3)
        lists = [[*text, *context.bush.tokens[row][1:2], 4] for row, text in enumerate(lists)]


class Watched(BlockDrafter):
    """Compares each draft's first logits with the plain twin's over the target's own states."""

    def __init__(self, model: LanguageModel) -> None:
        config, weights = made_for(model, "dspark")
        super().__init__(BlockHead(config, weights, tables_of(model), model.device, None))
        self.twin = PlainBlock(config, weights.tensors, tables_of(model).logits)
        self.model = model
        self.num_seen = 0

    def open(self) -> BlockState:
        return _Watching(self)

    def wanted(self, tokens: list[int]) -> Tensor:
        own, config = self.model.open_cache(), self.twin.config
        rows = Rows([own.add()], [tokens[:-1]])
        _, states = self.model.forward_with_states(own, rows, config.boundaries)
        block = [tokens[-1], *[config.mask_id] * (config.block_size - 1)]
        embedded = tables_of(self.model).embed(block)[None, None]
        anchor = torch.tensor([[len(tokens) - 1]])
        hidden = self.twin.run(BlockRows(embedded, anchor), self.twin.context(states))[0, 0, :1]
        corrections = self.twin.corrections(hidden, torch.tensor(tokens[-1:]))
        return self.twin.corrected(self.twin.logits(hidden), corrections)[0]


class _Watching(BlockState):
    def __init__(self, drafter: Watched) -> None:
        super().__init__(drafter.head)
        self.drafter = drafter

    def propose(self, context: DraftContext) -> Draft:
        draw, seen = context.draw, set[int]()

        def watched(rows: list[int], logits: Tensor, confidences: list[float] | None) -> list[int]:
            for row, line in zip(rows, logits, strict=True):
                if row not in seen:
                    wanted = self.drafter.wanted(list(context.sequences[row].tokens))
                    torch.testing.assert_close(line, wanted, rtol=1e-3, atol=1e-3)
                    self.drafter.num_seen += 1
            seen.update(rows)
            return draw(rows, logits, confidences)

        context.draw = watched  # type: ignore[method-assign]
        return super().propose(context)


@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_in_every_round_it_goes_on_from_the_targets_own_states(kind: str) -> None:
    model = target(kind)
    watched = Watched(model)
    Engine(model, draft=watched, gamma=3).generate(PROMPTS, MODES["coupled"])
    assert watched.num_seen > 60


def test_what_it_says_of_its_tokens_is_what_gamma_auto_hears() -> None:
    """Not the chance of the likeliest token, which stands in where a drafter says nothing."""
    model, told = target("fast"), list[float]()

    class Telling(BlockState):
        def propose(self, context: DraftContext) -> Draft:
            draw = context.draw

            def heard(rows: list[int], logits: Tensor, confidences: list[float]) -> list[int]:
                told.extend(confidences)
                return draw(rows, logits, confidences)

            context.draw = heard  # type: ignore[method-assign]
            found = super().propose(context)
            for turn in context.turns:  # type: ignore[attr-defined]
                assert set(turn.confidences) <= set(told)
            return found

    class Said(BlockDrafter):
        def open(self) -> BlockState:
            return Telling(self.head)

    draft = Said(drafter(model, "dspark-sure").head)
    Engine(model, draft=draft, gamma="auto").generate(PROMPTS, MODES["coupled"])
    assert told
