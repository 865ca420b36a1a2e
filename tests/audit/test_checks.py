"""Each check passes a correct engine and fails one with the bugs that it is there for."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from draftsmith.audit.acceptance import acceptance_record
from draftsmith.audit.attribution import Attributor, Difference
from draftsmith.audit.bits import bit_tests, bits_record
from draftsmith.audit.equality import compare_texts, equality_record, num_comparisons
from draftsmith.audit.findings import Finding
from draftsmith.audit.law import (
    LawRun,
    Power,
    law_record,
    num_tests,
    run_laws,
    settings,
)
from draftsmith.audit.lengths import draft_lengths, lengths_record
from draftsmith.audit.memo import memoised
from draftsmith.audit.planted import BUGS, plant
from draftsmith.audit.proof import proof_record
from draftsmith.audit.record import Certificate, Record
from draftsmith.audit.sampling import Samples, Setting, sampled
from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.models.hf.load import wrap_model
from tests import tiny
from tests.audit.kit import PROMPTS, subject
from tests.engine.kit import texts as texts_of

GAMMAS, TEMPERATURES = (1, 4), (0.0, 0.8)
POWER = Power(detects=0.3)


def equality(bug: str | None) -> Record:
    if bug is None:
        return equality_record(list(compare_texts(subject(), GAMMAS, TEMPERATURES, 12, 7)))
    with plant(BUGS[bug], subject()) as broken:
        return equality_record(list(compare_texts(broken, GAMMAS, TEMPERATURES, 12, 7)))


def samples(bug: str | None, count: int) -> Samples:
    """The target drafts for itself, far from its own law."""
    remembered, memo = memoised(subject())
    with nullcontext(remembered) if bug is None else plant(BUGS[bug], remembered) as system:
        assert system.itself is not None
        setting = Setting("itself", system.itself, draft_temperature=6.0)
        return sampled(system.target, memo, setting, "rejection", PROMPTS[2], 8, count)


def test_a_correct_engine_gives_the_plain_texts() -> None:
    record = equality(None)
    assert record.status == "pass"
    assert record.figures["num_same"] == record.figures["num_texts"] > 0
    comparisons = record.figures["comparisons"]
    assert len(comparisons) == num_comparisons(subject(), GAMMAS, TEMPERATURES)
    assert sum(one["num_accepted"] for one in comparisons) > 50


@pytest.mark.parametrize("bug", ["stale-cache", "coupled-noise-used-twice"])
def test_a_text_that_changes_is_no_numerics(bug: str) -> None:
    record = equality(bug)
    assert record.status == "fail"
    assert record.figures["num_same"] < record.figures["num_texts"]
    assert record.figures["num_numerics"] == 0


def test_a_difference_within_the_measured_error_is_numerics() -> None:
    within = Difference(0, 3, 5, 6, margin=0.01, error=0.02)
    beyond = within._replace(margin=0.03)
    assert within.is_numerics
    assert not beyond.is_numerics
    assert not within._replace(error=0.0, margin=0.0).is_numerics


def test_the_logit_error_is_that_of_the_prefix() -> None:
    with plant(BUGS["bf16-check"], subject()) as broken:
        why = Attributor(broken.target, SamplingParams(max_tokens=8))
        found = why.explain(0, PROMPTS[0], [1, 2, 3], [1, 9, 3])
    assert found is not None
    assert (found.position, found.expected, found.found) == (1, 2, 9)
    assert 1e-4 < found.error < 0.2, "bfloat16 keeps 8 bits of logits of about 10"
    exact = Attributor(subject().target, SamplingParams(max_tokens=8))
    found = exact.explain(0, PROMPTS[0], [1, 2, 3], [1, 9, 3])
    assert found is not None
    assert found.error == 0
    assert exact.explain(0, PROMPTS[0], [1, 2, 3], [1, 2, 3]) is None
    assert exact.explain(0, PROMPTS[0], [1, 2, 3], [1, 2]) is not None


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_margin_is_what_the_choice_was_made_by(temperature: float) -> None:
    """The plain text's token is the best by this margin, also under the seed's noise."""
    params = SamplingParams(temperature=temperature, seed=7, max_tokens=8, ignore_eos=True)
    why = Attributor(subject().target, params)
    found = why.explain(0, PROMPTS[0], [], [5])
    assert found is not None
    assert found.margin > 0
    other = Attributor(subject().target, replace(params, seed=8)).explain(0, PROMPTS[0], [], [5])
    assert other is not None
    assert (other.margin == found.margin) == (temperature == 0)


def test_bits_are_promised_and_kept_natively() -> None:
    record = bits_record(subject(), list(bit_tests(subject(), 2, 17)))
    assert record.status == "pass"
    assert {test["kind"] for test in record.figures["tests"]} == {
        "rows", "batch", "threads", "rollback",
    }  # fmt: skip


def test_behind_transformers_the_error_is_measured_and_no_promise_is_broken() -> None:
    adapted = wrap_model(tiny.lively_model("gpt2"))
    other = replace(subject(), target=adapted, is_row_exact=False)
    record = bits_record(other, list(bit_tests(other, 1, 17)))
    assert record.status == "info"
    assert record.traces == []
    with plant(BUGS["stale-cache"], other) as broken:
        record = bits_record(broken, list(bit_tests(broken, 1, 17)))
    assert record.status == "fail"
    assert [trace.finding for trace in record.traces] == [Finding.ROLLBACK]


def test_an_encoder_decoder_has_its_bits_compared_too() -> None:
    adapted = wrap_model(tiny.lively_model("t5"))
    other = replace(subject(), target=adapted, is_row_exact=False)
    assert bits_record(other, list(bit_tests(other, 1, 9))).status == "info"


@pytest.mark.long
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("bug", "count", "is_law_off", "is_acceptance_off"),
    [
        (None, 500, False, False),
        # What is drawn after a rejection has no part in how often drafts are kept.
        ("wrong-residual", 1200, True, False),
        ("draft-law-not-sampled-from", 200, True, True),
        ("row-off-by-one", 200, True, True),
        ("shared-noise-streams", 400, True, True),
    ],
)
def test_a_bug_shows_in_the_law_or_in_the_acceptance(
    bug: str | None, count: int, is_law_off: bool, is_acceptance_off: bool
) -> None:
    run = LawRun("itself", "rejection", samples(bug, count))
    power = Power(false_fail_rate=1e-4)
    assert law_record([run], power).status == ("fail" if is_law_off else "pass")
    acceptance = acceptance_record([run], power)
    assert acceptance.status == ("fail" if is_acceptance_off else "pass")
    if bug is None:
        for test in acceptance.figures["tests"]:
            assert test["num_tested"] > 300
            assert 0.5 < test["expected"] < 0.95, "or it would prove nothing"


@pytest.mark.long
@pytest.mark.statistical
def test_every_drafter_is_sampled_under_every_verifier() -> None:
    remembered, memo = memoised(subject())
    runs = list(run_laws(remembered, memo, 20, 7))
    assert len(runs) == num_tests(subject()) == 12
    assert law_record(runs, POWER).status == "pass"
    assert acceptance_record(runs, POWER).status == "pass"
    assert [one.name for one in settings(remembered)][:2] == ["twin", "prompt-lookup"]


def test_the_proof_holds_and_sees_a_cut() -> None:
    assert proof_record(6).status == "pass"
    with plant(BUGS["anticipating-cut"], subject()) as broken:
        assert proof_record(6, broken.cut).status == "fail"
        found = list(draft_lengths(broken))
    assert lengths_record(found).traces
    assert not lengths_record(list(draft_lengths(subject()))).traces


def test_memos_give_the_models_own_logits() -> None:
    remembered, memo = memoised(subject())
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=9, ignore_eos=True, n=3)
    texts = [
        texts_of(
            Engine(one.target, None, one.drafters["twin"], gamma=3, max_batch_size=2).generate(
                PROMPTS[0], params
            )
        )
        for one in (subject(), remembered)
    ]
    assert texts[0] == texts[1]
    logits = memo.logits_after([], PROMPTS[0])
    assert torch.equal(logits, memo.logits_after([], PROMPTS[0]))


def test_a_verdict_names_what_failed_and_why() -> None:
    passed = Record("a", "First", "pass", "", "")
    failed = replace(passed, name="b", title="Second", status="fail", traces=[])
    assert Certificate("x", [passed]).is_pass
    assert not Certificate("x", []).is_pass
    certificate = Certificate("x", [passed, failed])
    assert not certificate.is_pass
    assert "NOT exact: 1 of 2 checks failed (Second)" in certificate.verdict
