"""Trees that a drafter grows: the same text for a seed, the target's law without one."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from torch import Tensor

from draftsmith import beam_search, load_engine
from draftsmith.core.noise import NoiseKeys, RoundNoise, exponentials
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.core.tree_verify import without
from draftsmith.core.trees import ROOT
from draftsmith.core.verify import BlockVerifier
from draftsmith.drafters import Draft, DraftContext, Drafter, ModelDrafter
from draftsmith.drafters.trees import Tip
from draftsmith.engine.control.pacing import Costs
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.result import GenerationResult
from draftsmith.engine.rounds import growth, tree, tree_verdicts
from draftsmith.engine.rounds.children import coupled_children
from draftsmith.engine.rounds.outcomes import Checked, Outcome
from draftsmith.engine.rounds.tree import Child, Tree
from draftsmith.engine.rounds.turn import Turn
from draftsmith.errors import DraftError, InvalidRequestError
from draftsmith.models.contract import LanguageModel, ModelTraits
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.read import read_folder
from draftsmith.testing import check_drafter
from tests import tiny
from tests.engine.kit import PROMPTS, texts
from tests.engine.test_law import DETECTS, FALSE_FAIL_RATE, LENGTH, PROMPT, exact_law, params
from tests.engine.test_law import VOCAB as FEW
from tests.engine.test_trees import PARAMS, Paced, native, plain_texts, twin
from tests.grids import thinned
from tests.models.native.test_cpu import plain
from tests.statistics import assert_law


@cache
def another() -> LanguageModel:
    """A draft that is sometimes right."""
    return plain("qwen2")


def run(
    mode: str | SamplingParams, draft: Drafter, gamma: int | str = 7, prompts: object = PROMPTS
) -> list[GenerationResult]:
    params = PARAMS[mode] if isinstance(mode, str) else mode
    return Engine(native(), draft=draft, gamma=gamma).generate(prompts, params)  # pyright: ignore[reportArgumentType]


def total(results: Sequence[GenerationResult]) -> SpeculationStatistics:
    return sum((result.statistics for result in results), SpeculationStatistics())


@pytest.mark.parametrize(
    ("mode", "gamma", "branches"), thinned(PARAMS, [1, 3, 7, 16], [2, 3], every=2)
)
def test_the_text_is_that_of_plain_decoding(mode: str, gamma: int, branches: int) -> None:
    for model in (twin(), another()):
        results = run(mode, ModelDrafter(model, branches=branches), gamma)
        assert texts(results) == plain_texts(mode)
        assert total(results).num_drafted > 0


@pytest.mark.parametrize("mode", ["greedy", "seeded with penalties"])
def test_auto_says_the_same(mode: str) -> None:
    params = replace(PARAMS[mode], max_tokens=24, ignore_eos=True)
    ours = run(params, ModelDrafter(twin(), branches=2), "auto")
    assert texts(ours) == texts(Engine(native()).generate(PROMPTS, params))


@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_a_pace_says_what_is_drawn_before_it_is(verifier: str) -> None:
    """Each row costs: fewer are drawn, and all that were drawn are checked."""
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=3, verifier=verifier)
    counts: list[float] = []
    for row_s in (0.001, 0.08, 5.0):
        controller = Paced(16)
        controller.costs = Costs(1 + row_s * np.arange(200.0), np.zeros(100))
        engine = Engine(native(), draft=ModelDrafter(twin(), branches=3), gamma=16)
        engine.controller = controller
        found = total(engine.generate(PROMPTS, params))
        counts.append(found.num_drafted / max(found.num_rounds, 1))
        for report in controller.reports:
            for place, record in enumerate(report.records):
                assert len(report.confidences[place]) == record.num_drafted
    assert counts[0] > counts[1] > counts[2]


Kept = tuple[list[int], list[int]]
"""The path that was kept of a tree, and the parents of its nodes."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """Of every tree that was checked."""
    found: list[Kept] = []
    along = tree_verdicts._along  # pyright: ignore[reportPrivateUsage] # to look on

    def noted(path: list[int], token: int, index: int, checked: Checked) -> Outcome:
        parents = checked.proposal.parents_of(index)
        assert parents is not None
        found.append((path, parents))
        return along(path, token, index, checked)

    monkeypatch.setattr(tree_verdicts, "_along", noted)
    return found


def first_path(parents: Sequence[int]) -> list[int]:
    """From the root to each node's first child."""
    path: list[int] = []
    while (at := path[-1] if path else ROOT) in parents:
        path.append(list(parents).index(at))
    return path


@pytest.mark.parametrize("mode", ["greedy", "seeded", "several"])
def test_of_a_model_as_its_own_draft_the_first_path_is_kept_whole(
    mode: str, seen: list[Kept]
) -> None:
    run(mode, ModelDrafter(twin(), branches=3))
    assert any(parents.count(ROOT) > 1 for _, parents in seen)
    for path, parents in seen:
        # Best first: of siblings the surest stands first, and that is the one of a chain.
        assert path == first_path(parents)


@pytest.mark.long
def test_a_tree_keeps_more_than_a_chain_of_as_many_rows() -> None:
    """Of a poor draft, whose second guess is often the right one."""
    params = SamplingParams(max_tokens=40, temperature=0.9, seed=11, ignore_eos=True, n=4)
    kept = [
        total(run(params, ModelDrafter(another(), branches=branches), 6)).tokens_per_pass
        for branches in (1, 3)
    ]
    assert kept[1] is not None
    assert kept[0] is not None
    assert kept[1] > kept[0]


def test_requests_of_all_kinds_grow_side_by_side() -> None:
    modes = ["greedy", "seeded", "seeded with penalties"]
    drawn = SamplingParams(max_tokens=12, temperature=1.0, verifier="block", frequency_penalty=0.2)
    each = [PARAMS[modes[0]], drawn, PARAMS[modes[1]], drawn, PARAMS[modes[2]]]
    draft = ModelDrafter(twin(), branches=2)
    results = Engine(native(), draft=draft, gamma=6).generate(PROMPTS, each)
    found = texts(results)
    for row, mode in ((0, modes[0]), (2, modes[1]), (4, modes[2])):
        assert found[row] == plain_texts(mode)[row]
    assert all(result.error is None for result in results)


# --- the law -----------------------------------------------------------------------------------


@cache
def few(seed: int) -> LanguageModel:
    """The models of the tests of the law, on a decoder that takes trees."""
    with TemporaryDirectory() as folder:
        tiny.raw_model("llama", seed, vocab_size=FEW).save_pretrained(folder)
        config, weights = read_folder(Path(folder))
    return TorchDecoder.from_weights(weights, config)


@pytest.fixture
def bushy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Second guesses seem worth more than they are, so that small trees have some."""

    def flat(sure: float, number: int) -> float:
        return sure * (1 - sure) ** number

    for module in (growth, tree):
        monkeypatch.setattr(module, "kept_chance", flat)


def first_tokens(verifier: str, draft: Drafter, gamma: int = 4) -> tuple[Tensor, float | None]:
    """The first tokens of many samples, as one number each, and how many were kept a pass."""
    engine = Engine(few(14), draft=draft, gamma=gamma, max_batch_size=1000)
    result = engine.generate(PROMPT, replace(params(verifier), max_tokens=LENGTH + 2))[0]
    assert result.error is None
    tokens = torch.tensor([one.token_ids[:LENGTH] for one in result.completions])
    places = torch.tensor([FEW**i for i in reversed(range(LENGTH))])
    return (tokens * places).sum(dim=1), result.statistics.tokens_per_pass


@pytest.mark.long
@pytest.mark.usefixtures("bushy")
@pytest.mark.statistical
@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_the_joint_law_of_the_first_tokens_is_the_targets(verifier: str, seen: list[Kept]) -> None:
    outcomes, kept = first_tokens(verifier, ModelDrafter(few(10), branches=2))
    assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=DETECTS)
    assert kept is not None
    assert 1.2 < kept < 3, "the draft must be neither useless nor right"
    assert {tuple(path) for path, _ in seen} >= {(), (0,), (1,), (0, 2)}, "paths of all kinds"


def _likeliest(law: Tensor, taken: Sequence[int]) -> Tensor:
    """The likeliest of what is left, for certain."""
    left = law.clone()
    left[list(taken)] = -1.0
    return torch.nn.functional.one_hot(left.argmax(), len(law)).to(law)


@pytest.mark.long
@pytest.mark.usefixtures("bushy")
def test_likeliest_children_under_a_soft_law_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn from one law, and reported with another."""
    soft: list[Tensor | None] = []

    def drawn(law: Tensor, taken: Sequence[int]) -> Tensor:
        soft.append(without(law, taken))
        return _likeliest(law, taken)

    def reported(token: int, sure: float, law: Tensor) -> Child:
        del law
        return Child(token, sure, soft[-1])

    monkeypatch.setattr(growth, "without", drawn)
    monkeypatch.setattr(growth, "Child", reported)
    outcomes, _ = first_tokens("rejection", ModelDrafter(few(10), branches=2))
    with pytest.raises(AssertionError, match=r"TV .* at rate"):
        assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=DETECTS)


@pytest.mark.long
@pytest.mark.usefixtures("bushy")
def test_a_row_off_by_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tree_verdicts._laws_of_tree  # pyright: ignore[reportPrivateUsage] # to plant a fault

    def moved(turn: Turn, index: int, checked: Checked) -> Tensor:
        rows = made(turn, index, checked)
        return torch.cat([rows[1:], rows[-1:]])

    monkeypatch.setattr(tree_verdicts, "_laws_of_tree", moved)
    outcomes, _ = first_tokens("rejection", ModelDrafter(few(10), branches=2))
    with pytest.raises(AssertionError, match=r"TV .* at rate"):
        assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=DETECTS)


@pytest.mark.parametrize("is_drawn", [True, False])
def test_every_drawn_token_is_checked_and_of_others_the_likeliest(is_drawn: bool) -> None:
    grown = Tree(3, is_drawn=is_drawn)
    assert [tip.node for tip in grown.tips(0, 2)] == [ROOT]
    grown.add(ROOT, Child(7, 0.2))
    grown.add(ROOT, Child(8, 0.6))
    assert [tip.node for tip in grown.tips(0, 2)] == [1, 0]
    for parent, token, sure in ((1, 9, 0.1), (1, 5, 0.9)):
        grown.add(parent, Child(token, sure))
    tokens, parents, *_ = grown.finished()
    assert tokens == ([7, 8, 9, 5] if is_drawn else [8, 5, 7])
    assert parents == ([ROOT, ROOT, 1, 1] if is_drawn else [ROOT, 0, ROOT])
    assert grown.tips(0, 2) == ([] if is_drawn else [Tip(0, 3, (1, 3))])


@pytest.mark.parametrize("is_drawn", [True, False])
def test_a_node_at_the_depth_that_was_asked_for_is_not_read(is_drawn: bool) -> None:
    grown = Tree(8, 2, is_drawn=is_drawn)
    grown.tips(0, 3)
    for token in (7, 8):
        grown.add(ROOT, Child(token, 0.5))
    assert {tip.node for tip in grown.tips(0, 3)} == {0, 1}
    for parent in (0, 1):
        grown.add(parent, Child(9, 0.9))
    assert grown.tips(0, 3) == []


def test_at_the_last_depth_more_children_are_drawn() -> None:
    """No longer chain could have their rows."""
    counts = {
        depth: len(list(Tree(4, depth, is_drawn=True).places_to_draw({ROOT: 0.9}, 4)))
        for depth in (None, 4, 3, 2, 1)
    }
    assert counts == {None: 1, 4: 1, 3: 2, 2: 3, 1: 4}


def test_a_second_child_is_drawn_where_it_is_worth_more_than_the_end_of_a_chain() -> None:
    def counts(sure: float, size: int) -> int:
        return len(list(Tree(size, is_drawn=True).places_to_draw({ROOT: sure}, 3)))

    assert [counts(0.9, size) for size in (0, 1, 4, 32)] == [0, 1, 1, 1]
    assert [counts(0.5, size) for size in (1, 4, 8, 16)] == [1, 1, 2, 3]


# --- the noise of siblings ---------------------------------------------------------------------


def test_siblings_take_the_places_of_the_shared_race() -> None:
    """The first child has a chain's token, the others come in behind it, at any depth."""
    turns = [turn_of(seed) for seed in range(6)]
    source = torch.Generator().manual_seed(3)
    laws = torch.rand(6, 50, generator=source).softmax(dim=-1)
    for depth in (0, 2):
        slots = [turn.noise_slot for turn in turns]
        keys = NoiseKeys(torch.tensor([slot.seed for slot in slots]), torch.zeros(6).long())
        positions = torch.tensor([slot.position + depth for slot in slots])
        arrival = exponentials(keys, positions, 50) / laws
        wanted = arrival.argsort(dim=1)[:, :3].tolist()
        found = coupled_children(turns, laws, [depth] * 6, 3)
        assert [[child.token for child in some] for some in found] == wanted
        shares = (1 / arrival / (1 / arrival).sum(1, keepdim=True)).sort(1, descending=True)
        sure = torch.tensor([[child.sure for child in some] for some in found])
        torch.testing.assert_close(sure, shares.values[:, :3], rtol=1e-4, atol=1e-6)


def turn_of(seed: int) -> Turn:
    traits = ModelTraits("the target", 50, (), None)
    how = SamplingParams(temperature=1.0, seed=seed, max_tokens=40)
    request = make_request([1, 2, 3], how, traits, None)
    return request.sequence(0, seed, torch.device("cpu"), None).turn(4)


@pytest.mark.usefixtures("bushy")
def test_the_contract_suite_asks_for_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked() -> None:
        draft = ModelDrafter(few(10), branches=2)
        check_drafter(draft, vocab_size=FEW, gamma=3, num_draws=600, false_fail_rate=1e-6)

    checked()
    draws = BlockVerifier.draw

    def first_only(self: BlockVerifier, probs: Tensor, noise: RoundNoise, index: int) -> Tensor:
        return draws(self, probs, noise, index) if index == 0 else probs.argmax(-1)

    monkeypatch.setattr(BlockVerifier, "draw", first_only)
    with pytest.raises(AssertionError, match="does not follow the law"):
        checked()


# --- what is told ------------------------------------------------------------------------------


def test_an_engine_is_loaded_with_branches(tmp_path: Path) -> None:
    target, draft = (
        tiny.save_checkpoint(tmp_path / name, seed) for name, seed in (("target", 0), ("draft", 1))
    )
    params = SamplingParams(max_tokens=8, temperature=1.0, seed=4, ignore_eos=True)
    plain = load_engine(target).generate(PROMPTS, params)
    engine = load_engine(target, draft, gamma=5, branches=3)
    assert engine.draft is not None
    assert engine.draft.branches == 3
    assert texts(engine.generate(PROMPTS, params)) == texts(plain)
    with pytest.raises(InvalidRequestError, match="beam search drafts in chains"):
        beam_search(engine, PROMPTS[0], num_beams=2, max_tokens=4)


@pytest.mark.parametrize("branches", [0, 9, True])
def test_a_number_of_branches_that_is_none_is_refused(branches: object) -> None:
    with pytest.raises(InvalidRequestError, match="branches must be between 1 and 8"):
        ModelDrafter(twin(), branches=branches)  # pyright: ignore[reportArgumentType]


def test_branches_are_refused_where_chains_alone_are_run_or_checked() -> None:
    adapted = tiny.model("llama", 1)
    with pytest.raises(InvalidRequestError, match="needs a draft that a native decoder runs"):
        ModelDrafter(adapted, branches=2)
    with pytest.raises(InvalidRequestError, match="needs a target that a native decoder runs"):
        Engine(adapted, draft=ModelDrafter(twin(), branches=2))


class _Careless(Drafter):
    """Grows where no tree is taken, or twice, or with too few logits."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def propose(self, context: DraftContext) -> Draft:
        grown = context.grow([0], 2)
        if self.fault == "twice":
            context.grow([0], 2)
        grown.tips()
        grown.branch(torch.zeros(2 if self.fault == "rows" else 1, tiny.VOCAB))
        return context.drawn()


@pytest.mark.parametrize(
    ("fault", "message"), [("twice", "once a round"), ("rows", "2 rows for 1 nodes")]
)
def test_a_drafter_that_grows_wrongly_is_told(fault: str, message: str) -> None:
    with pytest.raises(DraftError, match=message):
        run("seeded", _Careless(fault), 2, PROMPTS[0])


def test_a_drafter_that_grows_where_chains_are_checked_is_told() -> None:
    engine = Engine(tiny.model("gpt2", 1), draft=_Careless(""), gamma=2)
    with pytest.raises(DraftError, match="only chains are checked"):
        engine.generate(PROMPTS[0], PARAMS["seeded"])
