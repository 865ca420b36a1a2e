"""The plan: its arithmetic, its measuring on tiny models, its words."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from draftsmith import Engine, SamplingParams
from draftsmith.bench.costs import Curve, measure_passes, measure_rounds
from draftsmith.bench.filled import Filled
from draftsmith.bench.plan import Plan
from draftsmith.bench.plan_report import as_document, as_page, checked_table, table
from draftsmith.bench.planner import Planner
from draftsmith.bench.predict import batch_limit, expected_tokens, found_at, predict
from draftsmith.core.enumeration import Tokens
from draftsmith.core.statistics import RoundRecord, SpeculationStatistics
from draftsmith.core.tree_enumeration import tree_round_law
from draftsmith.core.tree_verify import without
from draftsmith.core.trees import ROOT
from draftsmith.core.verify import RejectionVerifier
from draftsmith.drafters import (
    Draft,
    DraftContext,
    Drafter,
    FreeDrafter,
    ModelDrafter,
    PromptLookupDrafter,
    RandomDrafter,
)
from draftsmith.engine.replay import Replayed, Text, Told, rounds
from draftsmith.engine.requests.request import make_request
from draftsmith.errors import InvalidRequestError
from draftsmith.models.load import load_model, load_tokenizer
from draftsmith.workloads import Item, Workload
from tests import tiny
from tests.engine import kit
from tests.engine.test_trees import native

PARAMS = SamplingParams(temperature=0.8, seed=3)


def chain(*records: RoundRecord) -> list[Replayed]:
    return [Replayed(record, (0,) * record.num_accepted) for record in records]


def test_a_prediction_adds_up_what_its_rounds_take() -> None:
    records = [RoundRecord(2, 2, 2, 3), RoundRecord(2, 2, 1, 2), RoundRecord(0, 0, 0, 1)]
    found = predict(
        [chain(*records)], 2, lambda count: 0.1 * count, lambda rows: 1 + 0.2 * (rows - 1)
    )
    # The first round is the prompt's; then 3 tokens in 0.2 + 1.4 + 0 + 1 seconds.
    assert found.speedup == pytest.approx(3 / 2.6)
    assert found.draft_s == pytest.approx(0.1)
    assert found.check_s == pytest.approx(1.2)
    assert found.tokens_per_pass == 2
    assert found.interval is None


def test_the_interval_comes_from_the_spread_over_texts() -> None:
    good = chain(*[RoundRecord(3, 3, 3, 4)] * 8)
    bad = chain(*[RoundRecord(3, 1, 0, 1)] * 8)
    found = predict([good, bad, good, bad], 3, lambda _: 0.0, lambda rows: 1.0)
    assert found.interval is not None
    assert 1 <= found.interval.low < found.speedup < found.interval.high <= 4
    alike = predict([good] * 4, 3, lambda _: 0.0, lambda rows: 1.0)
    assert alike.interval == pytest.approx((4.0, 4.0))


def test_a_batch_pays_until_its_rows_cost_more_than_they_bring() -> None:
    texts = [chain(RoundRecord(1, 1, 1, 2), RoundRecord(1, 1, 0, 1)) * 10]
    flat = predict(texts, 1, lambda _: 0.0, lambda rows: 1.0)
    assert batch_limit([flat], lambda _, __: 0.0, lambda rows: 1.0) is None
    # Up to 16 rows a pass costs one; from there every row costs as much as any.
    limit = batch_limit([flat], lambda _, __: 0.0, lambda rows: max(1.0, rows / 16))
    assert limit == 12


def test_a_curve_runs_straight_between_and_behind_its_counts() -> None:
    curve = Curve((1, 3), ((1.0, 1.0), (2.0, 2.0)))
    assert curve.at(2) == pytest.approx(1.5)
    assert curve.at(5) == pytest.approx(3.0)
    assert curve.to_dict()["median_s"] == [1.0, 2.0]


def test_a_curve_that_falls_is_levelled() -> None:
    curve = Curve((1, 2, 3, 4), ((1.0,), (4.0,), (3.0,), (2.0,)))
    assert [curve.at(count) for count in (1, 2, 3, 4)] == pytest.approx([1.0, 3.0, 3.0, 3.0])


class Small:
    """A world of three tokens, whose chances are quarters: its texts can be written out."""

    vocab = 3

    def target(self, history: Tokens) -> Tensor:
        return torch.tensor([0.5, 0.25, 0.25]).roll(sum(history) + len(history))

    def draft(self, history: Tokens) -> Tensor:
        return torch.tensor([0.5, 0.3, 0.2]).roll(sum(history[-1:]) + 2 * len(history))

    def drawn_from(self, history: Tokens) -> Tensor:
        return self.draft(history)

    def texts(self, length: int, history: Tokens = ()) -> list[Tokens]:
        """All of them, each as often as its chance says."""
        if length == 0:
            return [history]
        counts = (4 * self.target(history)).int().tolist()
        return [
            text
            for token, count in enumerate(counts)
            for text in self.texts(length - 1, (*history, token)) * count
        ]


def _next_likeliest(law: Tensor, taken: Sequence[int]) -> Tensor | None:
    """The likeliest token of those that are left, for certain."""
    left = without(law, taken)
    if left is None:
        return None
    return torch.nn.functional.one_hot(left.argmax(), len(law)).to(law.dtype)


class Certain(Drafter):
    """The trees of one shape that are likeliest in a small world."""

    draws_from_law = False

    def __init__(self, world: Small, parents: Sequence[int]) -> None:
        self.world, self.parents = world, list(parents)

    def propose(self, context: DraftContext) -> Draft:
        (view,) = context.sequences
        history = tuple(view.tokens[view.num_prompt :])
        paths: list[Tokens] = []
        for node, parent in enumerate(self.parents):
            above = () if parent == ROOT else paths[parent]
            elder = [paths[one][-1] for one in range(node) if self.parents[one] == parent]
            law = _next_likeliest(self.world.draft((*history, *above)), elder)
            assert law is not None
            paths.append((*above, int(law.argmax())))
        tokens = [path[-1] for path in paths]
        return Draft.certain([tokens], context.device, parents=[self.parents])


@pytest.mark.parametrize("parents", [(-1, 0), (-1, -1), (-1, -1, 0, 0), (-1, -1, 1, 0, 1)])
def test_tokens_and_speed_are_those_of_enumeration(parents: tuple[int, ...]) -> None:
    world, model = Small(), native()
    law = tree_round_law(world, RejectionVerifier(), parents, siblings=_next_likeliest)
    wanted = sum(mass * len(tokens) for tokens, mass in law.items())
    request = make_request([5], SamplingParams(max_tokens=9, seed=1), model.traits, None)
    told = [Told(Text(request, 1, text), torch.empty(3, 1), None) for text in world.texts(3)]
    drafter = Certain(world, parents)
    first = [one[0] for one in rounds(model, drafter, told, len(parents))]
    assert len(first) == 64
    assert expected_tokens(found_at(first)) == pytest.approx(wanted, abs=1e-6)
    # Costs that differ, so that none can be taken for another.
    twice = [[one, one] for one in first]
    found = predict(twice, 4, lambda count: 0.1 * count, lambda rows: 1 + 0.05 * rows)
    assert found.tokens_per_pass == pytest.approx(wanted, abs=1e-6)
    count = len(parents)
    assert found.speedup == pytest.approx(wanted * 1.05 / (0.1 * count + 1.05 + 0.05 * count))


def test_costs_are_measured_at_every_size() -> None:
    params = replace(PARAMS, max_tokens=12)
    costs = measure_rounds(kit.target("llama"), None, [5, 6, 7], params, repeats=2)
    assert costs.check.counts == costs.passes.counts
    assert {1, 2, 5, 32} <= set(costs.check.counts)
    assert all(
        0 < passing < checking
        for passing, checking in zip(costs.passes.means, costs.check.means, strict=True)
    )
    assert {0, 1, 4, 31} <= set(costs.draft.counts)
    passes = measure_passes(kit.target("llama"), [5, 6, 7], (1, 4), 2)
    assert passes.counts == (1, 4)


@pytest.mark.parametrize("inner", [PromptLookupDrafter(min_ngram=1), FreeDrafter()])
def test_a_draft_that_is_filled_up_has_gamma_tokens(inner: Drafter) -> None:
    model = native()
    costs = measure_rounds(model, None, [5, 6, 7], SamplingParams(), inner, (2, 5), repeats=2)
    assert {1, 3, 6} <= set(costs.check.counts)
    assert Filled(inner, model).open().num_top_ids == inner.open().num_top_ids


@pytest.fixture(scope="module")
def found() -> Plan:
    tokenizer = kit.text_tokenizer()
    target = kit.text_model()
    drafters = {
        "itself": ModelDrafter(target),
        "prompt-lookup": PromptLookupDrafter(min_ngram=1),
        "random": RandomDrafter(target.traits.vocab_size),
    }
    items = tuple(Item(str(i), text, None, "") for i, text in enumerate(["ab", "the the", "x y"]))
    engine = Engine(target, tokenizer)
    steps: list[str] = []
    planner = Planner(engine, drafters, Workload("own", items), PARAMS, 12, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("draftsmith.bench.planner._GAMMAS", (1, 2, 4))
        plan = planner.run(steps.append)
    assert 0 < len(steps) <= planner.num_steps()
    return plan


def test_a_plan_foretells_the_rounds_of_a_run(found: Plan) -> None:
    by_name = {draft.name: draft for draft in found.drafts}
    itself = by_name["itself"]
    assert itself.overlap == pytest.approx(1, abs=1e-4)
    assert all(one.statistics.alpha == 1 for one in itself.predictions)
    assert by_name["random"].overlap < 0.5
    # Which one is the best depends on what this machine's passes cost.
    best = max(found.drafts, key=lambda draft: draft.best.speedup)
    seen = best.observed[best.best.gamma, 1]
    assert seen.tokens_per_pass == pytest.approx(best.best.tokens_per_pass)
    assert best.ratio(best.best) == best.best.speedup / seen.speedup.median
    total = sum((one.statistics for one in itself.predictions), SpeculationStatistics())
    assert total.num_committed == found.num_tokens * len(itself.predictions)


def test_a_plan_is_a_document_a_table_and_a_page(found: Plan) -> None:
    document = json.loads(json.dumps(as_document(found, {"target": "tiny"}, "draftsmith plan")))
    assert document["verdict"] == found.verdict
    assert [draft["name"] for draft in document["drafts"]] == ["itself", "prompt-lookup", "random"]
    assert len(table(found).rows) == 3
    html = as_page(found, document)
    assert found.verdict.split(":")[0] in html.replace("&#x27;", "'")
    assert html.count("<svg") == 2 * 4


def test_branches_are_foretold_and_named(tmp_path: Path) -> None:
    folder, other = (str(tiny.save_checkpoint(tmp_path / str(seed), seed)) for seed in (0, 1))
    words = load_tokenizer(folder)
    engine = Engine(load_model(folder), words)
    drafters = {
        "tree": ModelDrafter(load_model(other), words, branches=3),
        "copies": PromptLookupDrafter(),
    }
    items = (Item("a", "the quick", None, ""),)
    planner = Planner(engine, drafters, Workload("own", items), PARAMS, 10, 1, (2, 3), (1, 3))
    steps: list[str] = []
    plan = planner.run(steps.append)
    assert len(steps) <= planner.num_steps()
    growing, copies = plan.drafts
    shapes = [(one.gamma, one.branches) for one in growing.predictions]
    assert shapes == [(2, 1), (3, 1), (2, 3), (3, 3)]
    assert [(one.gamma, one.branches) for one in copies.predictions] == [(2, 1), (3, 1)]
    # One seed, one text: what is kept is foretold to the token.
    for draft in plan.drafts:
        for one in draft.predictions:
            seen = draft.observed[one.gamma, one.branches]
            assert seen.tokens_per_pass == pytest.approx(one.tokens_per_pass)
    held = checked_table(plan)
    assert held is not None
    assert held.rows[3][0] == "tree, gamma 3, 3 branches"
    document = json.loads(json.dumps(as_document(plan, {}, "draftsmith plan")))
    assert document["drafts"][0]["observed"][3]["branches"] == 3
    assert "gamma 3, 3 branches" in as_page(plan, document)


def test_trees_of_drawn_tokens_are_refused_by_name() -> None:
    engine = Engine(kit.text_model(), kit.text_tokenizer())
    params = SamplingParams(temperature=0.8, seed=1, verifier="block")
    planner = Planner(engine, {}, Workload("own", ()), params, branches=(1, 2))
    with pytest.raises(InvalidRequestError, match=r"branches=2 is foretold .* got block"):
        planner.run(lambda _: None)
