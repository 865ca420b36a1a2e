"""A check in which nothing happened passes nothing, and the certificate says so."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from draftsmith.audit.acceptance import acceptance_record
from draftsmith.audit.attribution import Difference
from draftsmith.audit.bits import bit_tests, bits_record
from draftsmith.audit.client import Answer, Client, Position
from draftsmith.audit.equality import Comparison, compare_texts, equality_record
from draftsmith.audit.law import LawRun, Power, law_record
from draftsmith.audit.lengths import Lengths, draft_lengths, lengths_record
from draftsmith.audit.pages import sections
from draftsmith.audit.planted import BUGS
from draftsmith.audit.record import Certificate, Grid, Record
from draftsmith.audit.reference import Reference
from draftsmith.audit.sampling import Samples
from draftsmith.audit.sampling import Tests as DraftTests
from draftsmith.audit.server import certify_server
from draftsmith.audit.significance import LawTest
from draftsmith.audit.teeth import bite, teeth_record
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.report.page import page
from tests.audit.kit import PROMPTS, subject
from tests.audit.openai import sharp_model
from tests.engine.kit import text_tokenizer

POWER = Power(detects=0.3)
_IDLE = {"idle": PromptLookupDrafter(min_ngram=30, max_ngram=30)}


def rows(record: Record) -> list[Sequence[str]]:
    return [row for grid in record.grids for row in grid.rows]


def statuses(record: Record) -> list[str | None]:
    return [status for grid in record.grids for status in grid.statuses]


# Same seed, same text


def test_texts_in_which_nothing_was_drafted_are_not_plain_decodings_but_untested() -> None:
    idle = replace(subject(), drafters=_IDLE, itself=None, trees=None)
    record = equality_record(list(compare_texts(idle, (2,), (0.0,), 6, 7)))
    assert record.status == "untested"
    assert statuses(record) == ["untested"] * 3
    assert record.summary.startswith("0 of 0 texts")
    assert record.untested == ["idle drafted nothing in 3 of 3 rows"]
    assert all(row[-1] == "not tested" for row in rows(record))


_ROW = Comparison("d", 2, 1, 0.0, 2, 0, 12, 8, 3, 2, ())


def test_one_idle_row_among_others_is_named_and_counts_for_nothing() -> None:
    nothing = _ROW._replace(num_texts=0, num_idle=2, num_tokens=0, num_tested=0, num_accepted=0)
    record = equality_record([_ROW, nothing._replace(gamma="auto", num_same=0)])
    assert record.status == "pass"
    assert record.figures["num_texts"] == 2
    assert record.untested == ["d drafted nothing in 1 of 2 rows"]
    assert statuses(record) == ["pass", "untested"]


def test_a_text_that_differs_fails_also_where_nothing_was_drafted() -> None:
    wrong = Difference(0, 3, 5, 6, margin=1.0, error=0.0)
    row = _ROW._replace(num_tested=0, num_accepted=0, num_same=1, differences=(wrong,))
    record = equality_record([row])
    assert record.status == "fail"
    assert rows(record)[0][-1] == "DIFFERS"


@pytest.mark.parametrize(
    ("num_accepted", "said"), [(0, "no draft was kept"), (8, "no draft was rejected")]
)
def test_an_outcome_that_never_came_is_named(num_accepted: int, said: str) -> None:
    assert equality_record([_ROW._replace(num_accepted=num_accepted)]).untested == [said]


# Law and acceptance


def _run(num_drafted: int, kept: list[list[bool]], setting: str = "d") -> LawRun:
    tests = DraftTests(kept, [[0.5] * len(one) for one in kept])
    return LawRun(
        setting, "rejection", Samples(LawTest(500, 9, 8.0, 0.02, 1.0), tests, num_drafted)
    )


def test_a_law_without_a_draft_is_plain_decodings_and_not_tested() -> None:
    record = law_record([_run(0, [[], []], "idle")], POWER)
    assert record.status == "untested"
    assert record.untested == ["idle drafted nothing under rejection"]
    both = law_record([_run(0, [[], []], "idle"), _run(9, [[], []])], POWER)
    assert both.status == "pass"
    assert statuses(both) == ["untested", "pass"]


def test_a_law_that_is_off_fails_also_where_nothing_was_drafted() -> None:
    run = _run(0, [[], []])
    off = run._replace(samples=run.samples._replace(law=LawTest(500, 9, math.inf, 1.0, 0.0)))
    assert law_record([off], POWER).status == "fail"


def test_acceptance_is_tested_at_the_positions_that_were_reached_often_enough() -> None:
    even = [index % 2 == 0 for index in range(2000)]
    record = acceptance_record([_run(9, [even, [True]]), _run(0, [[], []], "idle")], POWER)
    assert record.status == "pass"
    assert [row[-1] for row in rows(record)] == ["holds", *["not tested"] * 3]
    assert rows(record)[1][-2] == "nothing"
    assert record.untested == ["d at position 2", "idle at position 1", "idle at position 2"]


def test_acceptance_without_a_test_is_untested() -> None:
    record = acceptance_record([_run(0, [[], []])], POWER)
    assert record.status == "untested"
    assert record.summary == "No drafted token was tested."


# The exact checks


def test_lengths_of_no_drafts_or_of_one_draft_again_and_again_are_untested() -> None:
    found = list(draft_lengths(replace(subject(), drafters=_IDLE, itself=None)))
    assert lengths_record(found).status == "untested"
    same = Lengths("d", 0, has_law=True, lengths=(3,) * 12, num_drafts=1)
    assert lengths_record([same]).status == "untested"
    assert lengths_record([same, same._replace(num_drafts=5)]).status == "pass"
    certain = Lengths("lookup", 0, has_law=False, lengths=(3,) * 12, num_drafts=1)
    record = lengths_record([certain, same._replace(num_drafts=5)])
    assert (record.status, record.untested) == ("pass", [])


def test_passes_that_were_not_wide_not_batched_and_not_rolled_back_are_not_tested() -> None:
    small = replace(subject(), prompts=PROMPTS[:1])
    record = bits_record(small, list(bit_tests(small, 1, 3)))
    assert record.status == "pass"
    assert record.untested == [
        "rows: 4 rows a pass to 16 rows a pass",
        "batch: texts side by side in the order (0,)",
        "rollback: three wrong tokens and back, at every token",
    ]
    assert [row[-1] for row in rows(record)] == ["3 of 16", "not tested", "3 of 3", "not tested"]
    enough = bits_record(subject(), list(bit_tests(subject(), 2, 17)))
    assert enough.untested == []


def test_bugs_that_cannot_be_planted_are_named() -> None:
    assert teeth_record([]).status == "untested"
    loose = replace(subject(), is_row_exact=False)
    assert bite(BUGS["stale-cache"], loose) is None
    caught = bite(BUGS["coupled-noise-used-twice"], loose)
    assert caught is not None
    record = teeth_record([caught], ["stale-cache"])
    assert (record.status, statuses(record)) == ("pass", ["pass", "untested"])
    assert record.untested == ["stale-cache: this target promises no equal bits"]


# Servers


def _server(monkeypatch: pytest.MonkeyPatch, answer: Answer, **more: Any) -> Certificate:
    def connect(_: Client) -> str:
        return "model"

    def complete(_: Client, __: str, **___: object) -> Answer:
        return answer

    monkeypatch.setattr(Client, "connect", connect)
    monkeypatch.setattr(Client, "complete", complete)
    return certify_server(Client("http://x/v1"), ["a"], more.get("reference"), POWER)


def test_a_server_that_answers_nothing_passes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Reference(Engine(sharp_model(), text_tokenizer()))
    found = _server(monkeypatch, Answer("", ()), reference=reference)
    assert {record.status for record in found.records} == {"untested"}
    assert not found.is_pass
    assert found.outcome.word == "NOT TESTED"


def test_a_token_that_is_the_likeliest_of_one_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lone = Position("a", -3.0, {"a": -3.0})
    record = {one.name: one for one in _server(monkeypatch, Answer("a", (lone,))).records}
    assert record["server-argmax"].status == "untested"
    assert record["server-later-tokens"].status == "untested"
    beaten = Position("a", -3.0, {"a": -3.0, "b": -0.1})
    record = {one.name: one for one in _server(monkeypatch, Answer("a", (beaten,))).records}
    assert record["server-argmax"].status == "fail"


# The certificate


_PASSED = Record("a", "First", "pass", "", "")
_PART = replace(_PASSED, title="Second", untested=["d drafted nothing"])
_UNTESTED = replace(_PASSED, title="Third", status="untested")
_FAILED = replace(_PASSED, title="Fourth", status="fail")


@pytest.mark.parametrize(
    ("records", "word", "is_pass", "verdict"),
    [
        ([_PASSED], "PASSED", True, "x is exact as far as 1 check can tell."),
        (
            [_PASSED, _PART, _UNTESTED],
            "PASSED IN PART",
            True,
            "x is exact as far as 2 checks can tell. "
            "NOT TESTED: Second (d drafted nothing), Third.",
        ),
        (
            [_UNTESTED],
            "NOT TESTED",
            False,
            "x could not be tested: no check applied. NOT TESTED: Third.",
        ),
        ([_PASSED, _FAILED], "FAILED", False, "x is NOT exact: 1 of 2 checks failed (Fourth)."),
    ],
)
def test_a_certificate_claims_what_was_tested(
    records: list[Record], word: str, is_pass: bool, verdict: str
) -> None:
    certificate = Certificate("x", records)
    assert (certificate.outcome.word, certificate.is_pass) == (word, is_pass)
    assert certificate.verdict == verdict
    document = certificate.to_dict()
    assert document["outcome"] == word.lower()
    assert document["untested"] == list(certificate.untested)
    html = page("t", verdict, sections(certificate), {}, certificate.outcome)
    assert f"{word}: t</title>" in html
    assert f'<div class="outcome {certificate.outcome.status}"' in html
    assert ("What was not tested" in html) == bool(certificate.untested)


def test_rows_keep_their_statuses_on_the_page() -> None:
    grid = Grid("c", ["a"], [["one"], ["two"]], ["fail", "untested"])
    html = page("t", "v", sections(Certificate("x", [replace(_FAILED, grids=[grid])])), {})
    assert '<tr class="fail"><td>one' in html
    assert '<tr class="untested"><td>two' in html
