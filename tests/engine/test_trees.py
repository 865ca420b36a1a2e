"""Draft trees through a whole engine: the same text, the target's law, and honest books."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
import torch

from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.core.trees import ROOT, ancestors
from draftsmith.drafters import Draft, DraftContext, Drafter
from draftsmith.drafters.contract import CheckedText, DraftState, StatefulDrafter
from draftsmith.engine.control.chances import ByConfidence, Chances
from draftsmith.engine.control.contract import Choice, RoundReport, Sample
from draftsmith.engine.control.fixed import FixedGamma
from draftsmith.engine.control.pacing import Costs, RatePace
from draftsmith.engine.engine import Engine
from draftsmith.engine.rounds import tree_verdicts, verdicts
from draftsmith.engine.rounds.outcomes import Checked
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.follower import Followed, Follower
from tests import tiny
from tests.engine.kit import PROMPTS, texts
from tests.models.native.test_cpu import fast, plain

PARAMS = {
    "greedy": SamplingParams(max_tokens=12),
    "greedy with penalties": SamplingParams(
        max_tokens=12, frequency_penalty=0.7, repetition_penalty=1.3
    ),
    "seeded": SamplingParams(max_tokens=12, temperature=0.9, top_p=0.95, seed=7),
    "seeded with penalties": SamplingParams(
        max_tokens=12, temperature=0.9, presence_penalty=0.4, seed=8
    ),
    "several": SamplingParams(max_tokens=8, temperature=1.0, seed=3, n=3),
}


@cache
def native(name: str = "llama") -> LanguageModel:
    model = fast(name)
    return model if model.takes_trees else plain(name)


@cache
def twin(name: str = "llama") -> LanguageModel:
    return plain(name)


class Bushes(Drafter):
    """Trees of many shapes, of which some paths are right: likely tokens and chance ones."""

    def __init__(self, model: LanguageModel, seed: int = 0, num_right: int = 4) -> None:
        self.model, self.seed, self.num_right = model, seed, num_right
        self.num_trees = 0

    def propose(self, context: DraftContext) -> Draft:
        assert context.takes_trees
        parts = [self._tree(list(view.tokens), view.gamma) for view in context.sequences]
        tokens, parents = [part[0] for part in parts], [part[1] for part in parts]
        self.num_trees += sum(map(bool, parents))
        sure = [[0.5 + 0.01 * (node % 7) for node in range(len(row))] for row in tokens]
        return Draft.certain(tokens, context.device, sure, parents)

    def _tree(self, text: list[int], gamma: int) -> tuple[list[int], list[int]]:
        source = torch.Generator().manual_seed(self.seed + sum(text) + 31 * len(text))

        def below(limit: int) -> int:
            return int(torch.randint(limit, (1,), generator=source))

        tokens: list[int] = []
        parents: list[int] = []
        for node in range(gamma):
            parent = below(node + 1) - 1
            prefix = [tokens[one] for one in ancestors(parents, parent)]
            likely = self._likely([*text, *prefix]) if below(4) else [below(tiny.VOCAB)]
            taken = {tokens[n] for n, above in enumerate(parents) if above == parent}
            token = next((one for one in likely if one not in taken), below(tiny.VOCAB))
            tokens.append(token)
            parents.append(parent)
        return tokens, parents

    def _likely(self, text: list[int]) -> list[int]:
        cache = self.model.open_cache()
        logits = self.model.forward(cache, Rows([cache.add()], [text]))[0, -1]
        return logits.topk(self.num_right).indices.tolist()


@cache
def plain_texts(mode: str) -> list[list[tuple[int, ...]]]:
    engine = Engine(native())
    return [texts(engine.generate(prompt, PARAMS[mode]))[0] for prompt in PROMPTS]


@pytest.mark.parametrize("gamma", [1, 3, 7, 16])
@pytest.mark.parametrize("mode", PARAMS)
def test_the_text_is_that_of_plain_decoding(mode: str, gamma: int) -> None:
    draft = Bushes(twin(), seed=gamma)
    results = Engine(native(), draft=draft, gamma=gamma).generate(PROMPTS, PARAMS[mode])
    assert texts(results) == plain_texts(mode)
    total = sum((result.statistics for result in results), SpeculationStatistics())
    assert draft.num_trees > 0
    assert 0 < total.num_accepted < total.num_drafted
    for one in (one for result in results for one in result.completions):
        assert tuple(trace.token_id for trace in one.trace) == one.token_ids


def test_both_decoders_say_the_same_by_trees() -> None:
    for model in (native(), twin()):
        draft = Bushes(twin(), seed=5)
        results = Engine(model, draft=draft, gamma=6).generate(PROMPTS, PARAMS["greedy"])
        assert texts(results) == plain_texts("greedy")


def test_logprobs_are_those_of_plain_decoding() -> None:
    params = replace(PARAMS["seeded"], logprobs=3)
    ours, theirs = (
        Engine(native(), draft=draft, gamma=gamma).generate(PROMPTS, params)
        for draft, gamma in ((Bushes(twin()), 7), (None, 0))
    )
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip(one.completions[0].trace, other.completions[0].trace, strict=True)
        for trace, plain_trace in pairs:
            assert trace.logprob == pytest.approx(plain_trace.logprob, abs=1e-5)
            ids = [top.token_id for top in trace.top_logprobs]
            assert ids == [top.token_id for top in plain_trace.top_logprobs]


# --- planted faults ----------------------------------------------------------------------------


def _row_off_by_one(index: int, checked: Checked, said: Callable[[int], int]) -> object:
    return ORIGINAL(index, checked, lambda row: said(max(0, row - 1)))


ORIGINAL = tree_verdicts.tree_outcome


@pytest.mark.parametrize("mode", ["greedy", "seeded"])
def test_a_row_off_by_one_is_caught(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (verdicts, tree_verdicts):
        monkeypatch.setattr(module, "tree_outcome", _row_off_by_one)
    results = Engine(native(), draft=Bushes(twin()), gamma=7).generate(PROMPTS, PARAMS[mode])
    assert texts(results) != plain_texts(mode)


def test_a_path_that_is_not_kept_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache would go on with the first nodes, whichever they were."""
    kept = Follower.keep

    def keep_the_first(self: Follower, sequence: Followed, path: Sequence[int]) -> None:
        kept(self, sequence, range(len(path)))

    monkeypatch.setattr(Follower, "keep", keep_the_first)
    try:
        results = Engine(native(), draft=Bushes(twin()), gamma=7).generate(
            PROMPTS, PARAMS["greedy"]
        )
    except AssertionError:
        return
    assert texts(results) != plain_texts("greedy")


# --- what is told ------------------------------------------------------------------------------


@dataclass
class Fixed(Drafter):
    """One tree, whatever the text is."""

    tokens: list[int]
    above: list[int]

    def propose(self, context: DraftContext) -> Draft:
        counts = [min(view.gamma, len(self.tokens)) for view in context.sequences]
        tokens, above = ([full[:n] for n in counts] for full in (self.tokens, self.above))
        return Draft.certain(tokens, context.device, parents=above)


@pytest.mark.parametrize(
    ("above", "message"),
    [
        ([-1, 1], "parent 1"),
        ([-1, -2], "parent -2"),
        ([-1], "parents that do not fit"),
    ],
)
def test_what_is_no_tree_ends_its_sequence_by_name(above: list[int], message: str) -> None:
    engine = Engine(native(), draft=Fixed([5, 6], above), gamma=4)
    [result] = engine.generate(PROMPTS[0], PARAMS["greedy"])
    assert result.completions[0].error is not None
    assert message in result.completions[0].error


def test_a_tree_is_refused_where_only_chains_are_checked() -> None:
    engine = Engine(tiny.model("gpt2", 1), draft=Fixed([5, 6], [-1, -1]), gamma=4)
    [result] = engine.generate(PROMPTS[0], PARAMS["greedy"])
    assert "only chains are checked" in str(result.completions[0].error)
    chain = Engine(tiny.model("gpt2", 1), draft=Fixed([5, 6], [-1, 0]), gamma=4)
    [result] = chain.generate(PROMPTS[0], PARAMS["greedy"])
    assert result.completions[0].error is None


def test_the_books_count_levels_as_tests_and_nodes_as_drafts() -> None:
    [first] = Engine(native()).generate(PROMPTS[0], replace(PARAMS["greedy"], max_tokens=4))
    one, two, *_ = first.token_ids
    wrong = next(token for token in range(2, tiny.VOCAB) if token not in first.token_ids)
    draft = Fixed([wrong, one, wrong, two], [ROOT, ROOT, 0, 1])
    [result] = Engine(native(), draft=draft, gamma=4).generate(
        PROMPTS[0], replace(PARAMS["greedy"], max_tokens=5)
    )
    record = result.completions[0].statistics
    # The first round keeps the path to the leaf, behind which nothing was drafted; in the second
    # there is room for one wrong token, in the third for none.
    assert record.accepted_per_position[:2] == (1, 1)
    assert record.tested_per_position[:2] == (2, 1)
    assert (record.num_rounds, record.num_drafted) == (3, 5)


# --- auto --------------------------------------------------------------------------------------


class Paced(FixedGamma):
    """Gamma "auto" with made-up costs: a row costs 3 % of a pass, drafting nothing."""

    def __init__(self, gamma: int) -> None:
        super().__init__(gamma)
        self.chances = Chances(ByConfidence())
        self.reports: list[RoundReport] = []
        self.costs = Costs(1 + 0.03 * np.arange(200.0), np.zeros(100))

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        pace = RatePace([one.id for one in sequences], self.chances, self.costs)
        return super().choose(sequences)._replace(pace=pace)

    def observe(self, report: RoundReport) -> None:
        self.reports.append(report)


@pytest.mark.parametrize("mode", ["greedy", "seeded with penalties"])
def test_a_pace_cuts_trees_and_the_text_stays(mode: str) -> None:
    controller = Paced(12)
    engine = Engine(native(), draft=Bushes(twin()), gamma=12)
    engine.controller = controller
    assert texts(engine.generate(PROMPTS, PARAMS[mode])) == plain_texts(mode)
    assert any(0 < one.num_drafted < 12 for report in controller.reports for one in report.records)
    trees = [report for report in controller.reports if report.tree_tests]
    assert trees
    for report in trees:
        for place, tests in report.tree_tests.items():
            record = report.records[place]
            assert min(1, record.num_drafted) <= len(tests) <= record.num_drafted
            assert report.tests(place) is tests


@pytest.mark.parametrize("mode", ["greedy", "seeded"])
def test_auto_says_the_same(mode: str) -> None:
    engine = Engine(native(), draft=Bushes(twin(), num_right=2), gamma="auto")
    params = replace(PARAMS[mode], max_tokens=24, ignore_eos=True)
    ours = engine.generate(PROMPTS, params)
    assert texts(ours) == texts(Engine(native()).generate(PROMPTS, params))


# --- learning ----------------------------------------------------------------------------------


class Listening(StatefulDrafter):
    """Notes what it hears, and drafts the tree of what it heard last."""

    def __init__(self, num_top_ids: int = 3) -> None:
        self.num_top_ids = num_top_ids
        self.heard: list[CheckedText] = []

    def open(self) -> DraftState:
        return _Hears(self)


@dataclass
class _Hears(DraftState):
    drafter: Listening
    last: dict[int, Sequence[int]] = field(default_factory=dict[int, Sequence[int]])

    def __post_init__(self) -> None:
        self.num_top_ids = self.drafter.num_top_ids

    def propose(self, context: DraftContext) -> Draft:
        tokens = [list(self.last.get(v.id, ()))[: v.gamma] for v in context.sequences]
        parents = [[ROOT] * len(row) for row in tokens]
        return Draft.certain(tokens, context.device, parents=parents)

    def learn(self, checked: Sequence[CheckedText]) -> None:
        self.drafter.heard += checked
        self.last |= {one.sequence: one.top_ids[0] for one in checked}


def test_a_drafter_hears_the_likeliest_ids_behind_every_token() -> None:
    draft = Listening()
    results = Engine(native(), draft=draft, gamma=3).generate(PROMPTS, PARAMS["greedy"])
    assert texts(results) == plain_texts("greedy")
    assert draft.heard
    for heard in draft.heard:
        assert len(heard.tokens) == len(heard.parents) == len(heard.top_ids)
        assert all(len(ids) == 3 for ids in heard.top_ids)
        assert heard.parents[0] == ROOT
        assert all(parent < node for node, parent in enumerate(heard.parents))
    # The first pass over each prompt, held against the model itself.
    for prompt in PROMPTS:
        model = twin()
        cache_ = model.open_cache()
        row = model.forward(cache_, Rows([cache_.add()], [prompt]))[0, -1]
        likely = row.topk(3).indices.tolist()
        assert any(heard.top_ids[0] == likely for heard in draft.heard), prompt


def test_a_tree_with_laws_of_its_own_is_checked_by_them() -> None:
    for mode in ("greedy", "seeded"):
        draft = _Lawful()
        results = Engine(native(), draft=draft, gamma=2).generate(PROMPTS[0], PARAMS[mode])
        assert texts(results)[0] == plain_texts(mode)[0]
    params = replace(PARAMS["seeded"], verifier="block")
    [result] = Engine(native(), draft=_Lawful(), gamma=2).generate(PROMPTS[0], params)
    assert result.error is None
    [result] = Engine(native(), draft=_Lawful(0.5), gamma=2).generate(PROMPTS[0], params)
    assert "a law that sums to 0.5" in str(result.completions[0].error)


@dataclass
class _Lawful(Drafter):
    """Two certain guesses for one position, said with their laws."""

    mass: float = 1.0

    def propose(self, context: DraftContext) -> Draft:
        gamma = max(view.gamma for view in context.sequences)
        rows = [[5, 6][:gamma] for _ in context.sequences]
        draft = Draft.certain(rows, context.device)
        probs = self.mass * draft.dense_probs(tiny.VOCAB)
        return replace(draft, probs=probs, parents=[[-1, -1][:gamma] for _ in rows])
