"""Heads that grow trees: a node's logits are its own path's, the text is plain decoding's."""

from collections.abc import Sequence
from random import Random

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.core.trees import ROOT, ancestors
from draftsmith.drafters import Draft
from draftsmith.drafters.heads import HeadDrafter, eagle3
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.trees import Tip
from draftsmith.engine.engine import Engine
from tests.drafters.heads import kinds, kit
from tests.drafters.heads.test_engine import MODES, target
from tests.drafters.recording import view
from tests.engine.kit import PROMPTS, texts
from tests.engine.test_grown_trees import bushy, few, first_tokens
from tests.engine.test_law import DETECTS, FALSE_FAIL_RATE, exact_law
from tests.statistics import assert_law

__all__ = ["bushy"]

CPU = torch.device("cpu")
PARENTS = [ROOT, ROOT, 0, 0, 1, 2, 2, 4, 5]
STEPS = [[ROOT], [0, 1], [2, 4], [5, 7]]


class Bush:
    """Trees of one shape, whose logits are kept."""

    def __init__(self, rows: Sequence[int], seed: int) -> None:
        chance = Random(seed)
        self.tokens = {row: [chance.randrange(kit.VOCAB) for _ in PARENTS] for row in rows}
        self.steps = iter(STEPS)
        self.now: list[Tip] = []
        self.logits: dict[tuple[int, int], Tensor] = {}

    def tips(self) -> list[Tip]:
        nodes = next(self.steps, [])
        self.now = [
            Tip(row, node, tuple(ancestors(PARENTS, node))) for row in self.tokens for node in nodes
        ]
        return self.now

    def token(self, tip: Tip, node: int) -> int:
        return self.tokens[tip.row][node]

    def branch(self, logits: Tensor) -> None:
        for tip, line in zip(self.now, logits, strict=True):
            self.logits[tip.row, tip.node] = line.clone()


class Growing(kit.Handing):
    """A round that grows `Bush`es."""

    takes_trees = True
    bush: Bush

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> Bush:
        assert branches == 2
        self.bush = Bush(rows, sum(len(one.tokens) for one in self.sequences))
        return self.bush

    def drawn(self) -> Draft:
        return Draft.certain([[] for _ in self.sequences], self.device)


def nowhere(device: torch.device) -> bool:
    return False


@pytest.mark.parametrize("has_kernels", [True, False])
@pytest.mark.parametrize("name", kit.VARIANTS)
def test_a_nodes_logits_are_those_of_the_plain_twin_on_its_path(
    name: str, has_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_kernels:
        monkeypatch.setattr(eagle3, "has_kernels", nowhere)
    config = kit.config(name)
    weights, handed = kit.weights(config), dict[int, int]()
    head = EagleHead(config, weights, kit.target(), CPU, None)
    state = HeadDrafter(head, branches=2).open()
    lists = [[5, 6, 7, 8], [9, 3]]
    for _ in range(2):
        context = Growing([view(text, 8, i) for i, text in enumerate(lists)], config=config)
        context.handed = handed
        context.takes_trees = True
        state.propose(context)
        for (row, node), line in context.bush.logits.items():
            drafted = context.bush.tokens[row]
            path = [drafted[one] for one in ancestors(PARENTS, node)]
            wanted = kit.plain_laws(config, weights, lists[row], path)[-1]
            torch.testing.assert_close(line, wanted, rtol=1e-3, atol=1e-3)
        # A branch of the tree is kept, and the next round reads it with the target's states.
        lists = [[*text, *context.bush.tokens[row][1:2], 4] for row, text in enumerate(lists)]


@pytest.mark.parametrize("kind", ["plain", "fast"])
@pytest.mark.parametrize("gamma", [1, 6, "auto"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("head", kinds.MADE)
def test_the_text_is_that_of_plain_decoding(kind: str, gamma: int, mode: str, head: str) -> None:
    model, params = target(kind), MODES[mode]
    if not model.takes_trees:
        pytest.skip("takes no trees")
    wanted = texts(Engine(model).generate(PROMPTS, params))
    draft = kinds.MADE[head](model, 2)
    results = Engine(model, draft=draft, gamma=gamma).generate(PROMPTS, params)
    assert texts(results) == wanted


@pytest.mark.long
@pytest.mark.usefixtures("bushy")
@pytest.mark.statistical
@pytest.mark.parametrize("verifier", ["rejection", "block"])
@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("head", kinds.MADE)
def test_the_joint_law_of_the_first_tokens_is_the_targets(
    verifier: str, branches: int, head: str
) -> None:
    outcomes, kept = first_tokens(verifier, kinds.MADE[head](few(14), branches), 2 * branches)
    assert_law(outcomes, exact_law(), false_fail_rate=FALSE_FAIL_RATE, detects=DETECTS)
    assert kept is not None
    assert 1.1 < kept < 3, "the draft must be neither useless nor right"


@pytest.mark.parametrize("head", kinds.MADE)
def test_trees_are_checked_in_every_round(head: str) -> None:
    model = target("plain")
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=1, verifier="block")
    draft = kinds.MADE[head](model, 3)
    results = Engine(model, draft=draft, gamma=6).generate(PROMPTS, params)
    assert sum(one.completions[0].statistics.num_drafted for one in results) > 60
