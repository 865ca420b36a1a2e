"""Every planted bug is caught by an exact check, and named by what it leaves behind."""

import pytest

from draftsmith.audit.findings import SIGNATURES, Finding, Trace, name_mistakes
from draftsmith.audit.planted import BUGS, bug_named, plant
from draftsmith.audit.probes import probe_verifier
from draftsmith.audit.teeth import bite, teeth_record
from draftsmith.core.verify import VERIFIERS
from draftsmith.errors import InvalidRequestError
from tests.audit.kit import subject


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught_and_named(name: str) -> None:
    found = bite(BUGS[name], subject())
    assert found is not None
    assert found.is_named, found
    assert found.distance > 1e-6
    assert teeth_record([found]).status == "pass"
    assert teeth_record([found._replace(named="something else (block)")]).status == "fail"


def test_correct_verifiers_leave_no_traces() -> None:
    for name, verifier in VERIFIERS.items():
        assert probe_verifier(name, verifier) == []


def test_a_bug_is_gone_when_the_planting_ends() -> None:
    before = dict(VERIFIERS)
    with plant(BUGS["wrong-residual"], subject()):
        assert VERIFIERS["rejection"] is not before["rejection"]
    assert before == VERIFIERS


def test_traces_that_fit_no_known_mistake_are_described() -> None:
    traces = [Trace("block", Finding.SHARED_NOISE), Trace("block", Finding.KEPT)]
    (named,) = name_mistakes(traces)
    assert named.startswith("unknown mistake (block)")
    assert Finding.KEPT.value in named


def test_every_signature_is_that_of_a_planted_bug() -> None:
    assert set(SIGNATURES.values()) <= set(BUGS)


def test_an_unknown_bug_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match=r"wrong-residual.*got 'wrong-residuals'"):
        bug_named("wrong-residuals")
