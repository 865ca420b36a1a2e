"""The measuring loop on tiny models: what is run, in which order, and what is kept."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from draftsmith.bench.arms import PLAIN, Arm, Cell, make_arms
from draftsmith.bench.document import as_document
from draftsmith.bench.run import Bench, CellRun
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import (
    Draft,
    DraftContext,
    Drafter,
    FreeDrafter,
    ModelDrafter,
    PromptLookupDrafter,
    RandomDrafter,
)
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftError, InvalidRequestError
from draftsmith.workloads import Item, Workload
from tests.engine import kit

_TEXTS = ("def add(a, b):", "the lazy dog", "quick quick quick", "x = 1", "a b c d e f g")
_WORKLOAD = Workload("w", tuple(Item(f"w/{i}", text, None, "w") for i, text in enumerate(_TEXTS)))


class Failing(Drafter):
    """Works for some rounds, then breaks its contract."""

    name = "failing"

    def __init__(self, num_good: int) -> None:
        self.left = num_good

    def propose(self, context: DraftContext) -> Draft:
        self.left -= 1
        if self.left < 0:
            raise DraftError("drafter failing has\nfailed")
        return Draft.certain([[] for _ in context.sequences], context.device)


def _bench(drafters: dict[str, Drafter], gammas: Sequence[Any] = (3,), **options: Any) -> Bench:
    engine = Engine(kit.text_model(), kit.text_tokenizer())
    params = SamplingParams(verifier="coupled", ignore_eos=True)
    arms = make_arms(list(drafters), list(gammas))
    given: dict[str, Any] = {"num_rounds": 2, "seed": 5, "max_tokens": 8} | options
    return Bench(engine, drafters, arms, params, **given)


def _ignore(*_: object) -> None:
    """No progress is shown."""


def _document(bench: Bench, *, is_complete: bool = True) -> dict[str, Any]:
    return as_document(bench, {"target": "t"}, is_complete=is_complete, command="c")


def _free() -> dict[str, Drafter]:
    vocab = kit.text_model().traits.vocab_size
    return {"lookup": PromptLookupDrafter(min_ngram=1), "random": RandomDrafter(vocab)}


@pytest.mark.parametrize(("temperature", "batch_size"), [(0.0, 1), (0.9, 2), (0.9, 8)])
def test_every_arm_runs_every_prompt_and_gives_plain_decodings_text(
    temperature: float, batch_size: int
) -> None:
    bench = _bench(_free(), (2, "auto"))
    bench.run([(Cell("w", temperature, batch_size), _WORKLOAD)], _ignore)
    (run,) = bench.cells
    assert run.is_complete
    num_batches = -(-5 // batch_size)
    for track in run.tracks:
        assert sorted(track.batches) == [(r, n) for r in range(2) for n in range(num_batches)]
        assert sum(batch.num_tokens for batch in track.batches.values()) == 2 * 5 * 8
    (cell,) = _document(bench)["cells"]
    assert [arm["is_identical"] for arm in cell["arms"]] == [True] * 5
    assert cell["arms"][0]["speedup"]["decode"]["median"] == 1.0
    auto = cell["arms"][2]
    assert auto["name"] == "lookup, gamma auto"
    assert auto["ledger"]["num_rounds"] > 0
    assert cell["arms"][1]["ledger"] is None


def test_another_text_is_reported_with_its_place() -> None:
    bench = _bench(_free())
    bench.run([(Cell("w", 0.0, 2), _WORKLOAD)], _ignore)
    request = bench.cells[0].tracks[1].batches[1, 1].requests[1]
    changed = list(request.token_ids)
    changed[7] += 1
    request.token_ids = tuple(changed)
    arm = _document(bench)["cells"][0]["arms"][1]
    assert arm["is_identical"] is False
    assert arm["differences"] == [{"item": "w/3", "round": 1, "position": 7}]


def test_the_counts_are_the_engines_own() -> None:
    bench = _bench(_free(), num_rounds=1, max_tokens=16)
    bench.run([(Cell("w", 0.0, 2), _WORKLOAD)], _ignore)
    (cell,) = _document(bench)["cells"]
    engine = Engine(kit.text_model(), kit.text_tokenizer(), _free()["lookup"], gamma=3)
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    results = engine.generate(list(_TEXTS), params)
    arm = cell["arms"][1]
    assert arm["num_tokens"] == 80
    drafted = sum(result.statistics.num_drafted for result in results)
    accepted = sum(result.statistics.num_accepted for result in results)
    assert accepted > 0
    assert arm["statistics"]["num_drafted"] == drafted
    assert arm["statistics"]["num_accepted"] == accepted
    interval = arm["alpha_interval"]
    assert interval["low"] <= arm["statistics"]["alpha"] <= interval["high"]


def test_tokens_of_the_first_round_are_not_decoding() -> None:
    perfect = ModelDrafter(kit.text_model())
    bench = _bench({**_free(), "perfect": perfect}, num_rounds=1)
    bench.run([(Cell("w", 0.0, 5), _WORKLOAD)], _ignore)
    drafted = bench.cells[0].tracks[-1].batches[0, 0]
    assert [request.num_first_tokens for request in drafted.requests] == [4] * 5
    for track in bench.cells[0].tracks:
        (batch,) = track.batches.values()
        assert batch.num_decode_tokens == batch.num_tokens - sum(
            request.num_first_tokens for request in batch.requests
        )
        for request in batch.requests:
            assert sum(count for _, count in request.shares) == request.num_decode_tokens
            took = sum(seconds * count for seconds, count in request.shares)
            assert took == pytest.approx(request.decode_s)
            assert 0 < request.decode_s <= batch.decode_s
    plain = bench.cells[0].plain.batches[0, 0]
    assert all(request.num_first_tokens == 1 for request in plain.requests)


def test_the_parts_of_a_round_add_up() -> None:
    bench = _bench(_free())
    bench.run([(Cell("w", 0.0, 1), _WORKLOAD)], _ignore)
    plain, lookup, _ = _document(bench)["cells"][0]["arms"]
    # 8 tokens each, of which the first comes with the prompt.
    assert plain["parts_ms"]["num_rounds"] == 2 * 5 * 7
    for parts in (plain["parts_ms"], lookup["parts_ms"]):
        total = parts["draft"] + parts["target_pass"] + parts["rest"]
        assert total == pytest.approx(parts["round"])
        assert parts["target_pass"] > 0
        assert parts["rest"] > 0


def test_the_order_of_the_arms_turns() -> None:
    bench = _bench(_free(), num_rounds=3)
    seen: list[str] = []

    warm_ups: list[bool] = []

    def note(_: Cell, arm: Arm, is_warm_up: bool) -> None:
        seen.append(arm.name)
        warm_ups.append(is_warm_up)

    bench.run([(Cell("w", 0.0, 5), _WORKLOAD)], note)
    assert warm_ups == [True] * 3 + [False] * 9
    assert warm_ups.count(False) == bench.num_steps([(Cell("w", 0.0, 5), _WORKLOAD)])
    warm_up, rounds = seen[:3], [seen[i : i + 3] for i in (3, 6, 9)]
    assert {one[0] for one in rounds} == set(warm_up)
    assert all(set(one) == set(warm_up) for one in rounds)


def test_rounds_sample_anew_and_the_seed_fixes_them() -> None:
    def texts(seed: int) -> list[tuple[int, ...]]:
        bench = _bench(_free(), seed=seed)
        bench.run([(Cell("w", 1.0, 5), _WORKLOAD)], _ignore)
        plain = bench.cells[0].plain
        return [plain.batches[key].requests[0].token_ids for key in ((0, 0), (1, 0))]

    first = texts(5)
    assert first[0] != first[1]
    assert texts(5) == first
    assert texts(6)[0] == first[1]


@pytest.mark.parametrize("num_good", [0, 15])
def test_an_arm_that_fails_is_left_out_and_the_others_go_on(num_good: int) -> None:
    bench = _bench({"failing": Failing(num_good), **_free()})
    cells = [(Cell("w", 0.0, 1), _WORKLOAD)]
    bench.run(cells, _ignore)
    (run,) = bench.cells
    assert not run.is_complete
    failed = run.tracks[1]
    assert failed.error == "drafter failing has failed"
    assert all(len(track.batches) == 10 for track in run.tracks if track is not failed)
    assert len(failed.batches) < 10
    document = _document(bench, is_complete=False)
    assert document["cells"][0]["arms"][1]["error"] == failed.error
    assert document["is_complete"] is False


def test_an_interrupted_run_keeps_what_it_has() -> None:
    bench = _bench(_free())
    steps = iter(range(100))

    def stop(*_: object) -> None:
        if next(steps) == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run([(Cell("w", 0.0, 1), _WORKLOAD)] * 2, stop)
    (run,) = bench.cells
    assert sum(len(track.batches) for track in run.tracks) == 8
    (cell,) = _document(bench, is_complete=False)["cells"]
    assert cell["is_complete"] is False
    assert all(arm["speedup"]["decode"] for arm in cell["arms"])


def test_a_conversation_is_written_as_text_where_there_is_no_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = ({"role": "user", "content": "the dog"},)
    workload = Workload("w", (Item("w/0", turns, 4, "w"),))
    bench = _bench(_free(), num_rounds=1, max_tokens=None)
    kind = type(bench.engine.tokenizer)
    bench.run([(Cell("w", 0.0, 1), workload)], _ignore)
    monkeypatch.setattr(kind, "has_chat_template", property(lambda _: False))
    bench.run([(Cell("w", 0.0, 1), workload)], _ignore)
    assert [run.is_flattened for run in bench.cells] == [False, True]
    # The item's own length holds where none was asked for.
    assert [run.plain.batches[0, 0].num_tokens for run in bench.cells] == [4, 4]


def test_the_arms_are_plain_and_every_pair_once() -> None:
    trees = make_arms(["a"], [2, 3], [1, 2, 2])
    assert trees == [PLAIN, Arm("a", 2), Arm("a", 3), Arm("a", 2, 2), Arm("a", 3, 2)]
    assert trees[-1].name == "a, gamma 3, 2 branches"
    with pytest.raises(InvalidRequestError, match="branches must be between 1 and 8, got 9"):
        make_arms(["a"], [2], [9])
    arms = make_arms(["a", "b", "a"], [0, 2, 2, "auto"])
    assert arms == [PLAIN, Arm("a", 2), Arm("a", "auto"), Arm("b", 2), Arm("b", "auto")]
    for drafts, gammas in ((["a"], [0]), ([], [3])):
        with pytest.raises(InvalidRequestError, match="nothing to compare"):
            make_arms(drafts, cast(Any, gammas))
    with pytest.raises(InvalidRequestError, match="gamma must be between 0 and 32"):
        make_arms(["a"], [33])


def test_a_run_without_a_batch_is_still_a_document() -> None:
    bench = _bench(_free())
    bench.cells.append(CellRun(Cell("w", 0.0, 1), ["w/0"], []))
    assert _document(bench, is_complete=False)["cells"][0]["arms"] == []


def test_a_draft_that_learns_begins_anew_in_every_round_and_arm() -> None:
    # Greedy texts are the same in each round: what it remembered of the first would be copied.
    bench = _bench({"free": FreeDrafter()}, gammas=(3, 4), num_rounds=3, max_tokens=24)
    bench.run([(Cell("w", 0.0, 1), _WORKLOAD)], _ignore)
    drafted = [
        [
            [one.statistics.num_rounds for one in track.batches[round_, number].requests]
            for number in range(len(_TEXTS))
        ]
        for track in bench.cells[0].tracks[1:]
        for round_ in range(3)
    ]
    assert drafted[0] == drafted[1] == drafted[2]
    assert drafted[3] == drafted[4] == drafted[5]
    assert sum(map(sum, drafted[0])) > 30, "nothing is recalled that was not seen"
