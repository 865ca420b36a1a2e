"""`draftsmith certify`: what it prints and writes, how it fails, and what it refuses."""

import json
import socket
from pathlib import Path

import pytest

from draftsmith.audit import certificate
from draftsmith.audit.certificate import Effort
from draftsmith.audit.law import Power
from draftsmith.audit.planted import BUGS
from tests.audit.openai import serving
from tests.cli.outcome import Cli

POWER = Power(detects=0.9)  # what it sees is tests/audit's affair: here are few samples


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of seconds; two planted bugs stand for all, which tests/audit covers."""
    small = Effort(4, 1, 6, (2,), num_bit_tokens=6, power=POWER)
    monkeypatch.setitem(certificate.EFFORTS, "quick", small)
    few = {name: BUGS[name] for name in ("wrong-residual", "stale-cache")}
    monkeypatch.setattr(certificate, "BUGS", few)


@pytest.mark.long
def test_a_pair_is_certified(cli: Cli, tiny: str, draft: str, tmp_path: Path) -> None:
    files = ("--json-file", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html"))
    run = cli("certify", "--quick", "--target", tiny, "--draft", draft, *files)
    assert run.status == 0, run
    assert "PASS  Proof by enumeration" in run.stdout
    last = run.stdout.rstrip().splitlines()[-1]
    assert "is exact as far as 7 checks can tell." in last
    # One short text has neither wide passes nor company.
    assert last.startswith("PASSED IN PART")
    assert "NOT TESTED: Bits of the logits (rows: 7 rows a pass to 16 rows a pass" in last
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["is_pass"] is True
    assert document["outcome"] == "passed in part"
    assert [check["status"] for check in document["checks"]] == ["pass"] * 7
    assert document["environment"]["versions"]["torch"]
    page = (tmp_path / "a.html").read_text()
    assert "Law of sampled text" in page
    assert draft in page
    assert "PASSED IN PART: Certificate" in page


@pytest.mark.long
def test_a_planted_bug_fails_the_certificate_and_is_named(
    cli: Cli, tiny: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.html"
    planted = ("--plant", "block-shared-noise-streams", "--html", str(path))
    run = cli("certify", "--quick", "--target", tiny, *planted)
    assert run.status == 1
    assert "<title>✗ FAILED: Certificate" in path.read_text()
    assert "FAIL  Proof by enumeration" in run.stdout
    last = run.stdout.rstrip().splitlines()[-1]
    assert last.startswith("FAILED  ")
    assert "NOT exact" in last
    assert "shared-noise-streams (block)" in last


def test_a_server_is_certified_by_its_url(cli: Cli) -> None:
    with serving() as server:
        run = cli("certify", "--quick", "--url", server.url)
    assert run.status == 0, run
    assert "Law of the first sampled token" in run.stdout


def test_transformers_own_generation_is_certified(cli: Cli, tiny: str) -> None:
    run = cli("certify", "--quick", "--transformers", "--target", tiny)
    assert run.status == 0, run
    assert "transformers' assisted generation" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plant", "wrong-residue"), "plant must be one of"),
        (("--quick", "--thorough"), "contradict"),
        (("--power", "1.5"), "power must be above 0 and below 1, got 1.5"),
        (("--url", "nowhere"), "url must be such as"),
        (("--url", "http://x/v1", "--transformers"), "two systems"),
        (
            ("--url", "http://x/v1", "--plant", "stale-cache"),
            "--plant stale-cache breaks this engine only",
        ),
        (("--url", "http://x/v1", "--draft", "random"), "drafts for itself"),
        (("--server-model", "x"), "give --url"),
        (("--transformers", "--draft", "a", "--draft", "b"), "takes one assistant"),
        (("--workload", "nothing"), "no workload 'nothing'"),
        (("--json-file", "/nowhere/a.json"), "no folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    cli: Cli, arguments: tuple[str, ...], message: str
) -> None:
    assert message in cli("certify", *arguments).refusal()


def test_too_few_samples_are_refused_with_the_number_needed(cli: Cli, tiny: str) -> None:
    line = cli("certify", "--target", tiny, "--samples", "100").refusal()
    assert "not 0.1: give --samples" in line


def test_a_url_that_does_not_answer_is_one_line(cli: Cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert (
        "is the server running?" in cli("certify", "--url", f"http://127.0.0.1:{port}/v1").refusal()
    )
