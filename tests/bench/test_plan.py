"""The plan: its arithmetic, its measuring on tiny models, its words."""

import json

import pytest

from draftsmith import Engine, SamplingParams
from draftsmith.bench.costs import Curve, measure_passes, measure_rounds
from draftsmith.bench.plan import Plan, Planner
from draftsmith.bench.plan_report import as_document, as_page, table
from draftsmith.bench.predict import batch_limit, predict
from draftsmith.core.statistics import RoundRecord, SpeculationStatistics
from draftsmith.drafters import ModelDrafter, PromptLookupDrafter, RandomDrafter
from draftsmith.workloads import Item, Workload
from tests.engine import kit

PARAMS = SamplingParams(temperature=0.8, seed=3)


def test_a_prediction_adds_up_what_its_rounds_take() -> None:
    rounds = [RoundRecord(2, 2, 2, 3), RoundRecord(2, 2, 1, 2), RoundRecord(0, 0, 0, 1)]
    found = predict([rounds], 2, lambda count: 0.1 * count, lambda rows: 1 + 0.2 * (rows - 1))
    # The first round is the prompt's; then 3 tokens in 0.2 + 1.4 + 0 + 1 seconds.
    assert found.speedup == pytest.approx(3 / 2.6)
    assert found.draft_s == pytest.approx(0.1)
    assert found.check_s == pytest.approx(1.2)
    assert found.tokens_per_pass == 2
    assert found.interval is None


def test_the_interval_comes_from_the_spread_over_texts() -> None:
    good = [RoundRecord(3, 3, 3, 4)] * 8
    bad = [RoundRecord(3, 1, 0, 1)] * 8
    found = predict([good, bad, good, bad], 3, lambda _: 0.0, lambda rows: 1.0)
    assert found.interval is not None
    assert 1 <= found.interval.low < found.speedup < found.interval.high <= 4
    alike = predict([good] * 4, 3, lambda _: 0.0, lambda rows: 1.0)
    assert alike.interval == pytest.approx((4.0, 4.0))


def test_a_batch_pays_until_its_rows_cost_more_than_they_bring() -> None:
    texts = [[RoundRecord(1, 1, 1, 2), RoundRecord(1, 1, 0, 1)] * 10]
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


def test_costs_are_measured_at_every_size() -> None:
    costs = measure_rounds(kit.target("llama"), None, [5, 6, 7], PARAMS, repeats=2)
    assert costs.check.counts == costs.passes.counts
    assert {1, 2, 5, 32} <= set(costs.check.counts)
    assert all(
        0 < passing < checking
        for passing, checking in zip(costs.passes.medians, costs.check.medians, strict=True)
    )
    passes = measure_passes(kit.target("llama"), [5, 6, 7], (1, 4), 2)
    assert passes.counts == (1, 4)


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
    assert best.best.gamma in best.observed
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
