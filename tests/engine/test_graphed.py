"""Rounds as graphs give the plain path's texts and counts; without a GPU they run uncaptured."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from dataclasses import replace
from typing import ClassVar
from unittest import mock

import pytest
import torch

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.engine.control.auto import AutoGamma
from draftsmith.engine.control.contract import Choice
from draftsmith.engine.engine import Engine
from draftsmith.engine.rounds.graphed import GraphedRounds
from draftsmith.models.native.gpu import GpuDecoder
from tests.models.native.test_decoder import TOKENS
from tests.models.native.test_gpu import fast_and_plain

PROMPTS = [TOKENS[:5], TOKENS[7:30], TOKENS[2:4]]
GREEDY = SamplingParams(max_tokens=14, ignore_eos=True)


@pytest.fixture(name="target")
def _target() -> GpuDecoder:
    plain = fast_and_plain("qwen3, biases, tied")[0]
    target = GpuDecoder.on_weights(plain.weights, plain.config, "target")
    target.can_be_captured = True
    return target


@pytest.fixture(name="draft")
def _draft(target: GpuDecoder) -> GpuDecoder:
    """Of the same family, and right now and then."""
    noise = torch.randn(target.weights.head.shape, generator=torch.Generator().manual_seed(2))
    head = target.weights.head + 0.25 * noise.to(target.device)
    draft = GpuDecoder.on_weights(replace(target.weights, head=head), target.config, "draft")
    draft.can_be_captured = True
    return draft


def results(target, draft, gamma, batch=8, params=GREEDY, *, is_graphed=True):
    drafter = ModelDrafter(draft) if isinstance(draft, GpuDecoder) else draft
    # For this run alone: targets are shared, and the next test says itself what it wants.
    with mock.patch.object(target, "can_be_captured", is_graphed):
        engine = Engine(target, draft=drafter, gamma=gamma, max_batch_size=batch)
        return engine.generate(PROMPTS, params)


def told(found):
    return [
        (
            one.token_ids,
            one.finish_reason,
            one.error,
            one.statistics.num_drafted,
            one.statistics.alpha,
        )
        for one in found
    ]


@pytest.mark.parametrize(("gamma", "batch"), [(0, 8), (1, 8), (4, 1), (4, 8), (3, 2)])
def test_texts_and_counts_are_those_of_the_plain_path(target, draft, gamma, batch) -> None:
    draft = draft if gamma else None
    with mock.patch.object(
        GraphedRounds, "_launch", autospec=True, side_effect=GraphedRounds._launch
    ) as launch:
        found = results(target, draft, gamma, batch)
    assert launch.called
    want = results(target, draft, gamma, batch, is_graphed=False)
    assert told(found) == told(want)
    assert [one.token_ids for one in found] == [
        one.token_ids for one in results(target, None, 0, is_graphed=False)
    ]
    if gamma:
        assert any(0 < (one.statistics.alpha or 0) < 1 for one in found)


SAMPLED = [
    {"temperature": 0.8},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 12, "min_p": 0.01},
]


@pytest.mark.parametrize(("gamma", "batch"), [(0, 8), (3, 1), (4, 8)])
@pytest.mark.parametrize("sampling", SAMPLED, ids=str)
def test_seeded_texts_and_counts_are_those_of_the_plain_path(
    target, draft, gamma, batch, sampling
) -> None:
    draft = draft if gamma else None
    params = replace(GREEDY, seed=5, n=2, **sampling)
    with mock.patch.object(
        GraphedRounds, "_launch", autospec=True, side_effect=GraphedRounds._launch
    ) as launch:
        found = results(target, draft, gamma, batch, params)
    assert launch.called
    assert told(found) == told(results(target, draft, gamma, batch, params, is_graphed=False))
    alone = results(target, None, 0, params=params, is_graphed=False)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]


@pytest.mark.parametrize("ngrams", [(1, 2), (2, 16)], ids=str)
@pytest.mark.parametrize("sampling", [{}, SAMPLED[1]], ids=str)
@pytest.mark.parametrize(("gamma", "batch"), [(1, 8), (5, 2)])
def test_prompt_lookup_copies_on_the_device(target, gamma, batch, sampling, ngrams) -> None:
    params = replace(GREEDY, max_tokens=30, seed=5, **sampling)
    prompts = [TOKENS[:5] * 3, TOKENS[7:30], [3, 3, 3, 3]]
    with mock.patch(f"{__name__}.PROMPTS", prompts):
        with mock.patch.object(
            GraphedRounds, "_launch", autospec=True, side_effect=GraphedRounds._launch
        ) as launch:
            found = results(target, PromptLookupDrafter(*ngrams), gamma, batch, params)
        assert launch.called
        lookup = PromptLookupDrafter(*ngrams)
        want = results(target, lookup, gamma, batch, params, is_graphed=False)
        assert told(found) == told(want)
        alone = results(target, None, 0, params=params, is_graphed=False)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]
    assert any(one.statistics.num_drafted for one in found)


@pytest.mark.parametrize("kind", ["model", "prompt lookup"])
def test_auto_changes_its_mind_between_graphs(target, draft, kind) -> None:
    """Any sequence of draft lengths gives the text, and leaves the caches right."""
    lengths = [0, 3, 3, 0, 0, 2, 1, 4, 0, 3]
    drafter: Drafter = PromptLookupDrafter(1) if kind == "prompt lookup" else ModelDrafter(draft)
    want = results(target, None, 0, params=replace(GREEDY, max_tokens=40), is_graphed=False)
    engine = Engine(target, draft=drafter, gamma="auto")
    turn = iter(lengths * 20)
    with (
        mock.patch.object(
            AutoGamma,
            "choose",
            lambda self, samples: Choice([min(next(turn), max(0, s.room - 1)) for s in samples]),
        ),
        mock.patch.object(AutoGamma, "observe", return_value=None),
    ):
        found = engine.generate(PROMPTS[:1], replace(GREEDY, max_tokens=40))
    assert [one.token_ids for one in found] == [want[0].token_ids]


@pytest.mark.parametrize("sampling", [{}, SAMPLED[1]], ids=str)
def test_a_draft_of_fewer_ids_changes_no_text(target, draft, sampling) -> None:
    params = replace(GREEDY, seed=5, **sampling)
    reduced = GpuDecoder.on_weights(draft.weights, draft.config, "reduced", num_head_ids=24)
    reduced.can_be_captured = True
    found = results(target, reduced, 3, params=params)
    assert told(found) == told(results(target, reduced, 3, params=params, is_graphed=False))
    alone = results(target, None, 0, params=params, is_graphed=False)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]


def test_greedy_and_sampled_sequences_share_a_round(target, draft) -> None:
    engine = Engine(target, draft=ModelDrafter(draft), gamma=3)
    params = [replace(GREEDY, seed=5, **sampling) for sampling in [{}, *SAMPLED[:2]]]
    found = engine.generate(PROMPTS, params)
    for prompt, one, result in zip(PROMPTS, params, found, strict=True):
        alone = Engine(target, draft=ModelDrafter(draft), gamma=3).generate([prompt], one)[0]
        assert result.token_ids == alone.token_ids


@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_other_verifiers_take_the_plain_path(target, draft, verifier) -> None:
    params = replace(GREEDY, temperature=0.8, seed=5, verifier=verifier)
    with mock.patch.object(GraphedRounds, "_launch") as launch:
        found = results(target, draft, 3, params=params)
    assert not launch.called
    assert told(found) == told(results(target, draft, 3, params=params, is_graphed=False))


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 3}], ids=str)
def test_auto_runs_graphs_and_keeps_the_text(target, draft, sampling) -> None:
    params = replace(GREEDY, max_tokens=40, **sampling)
    want = results(target, None, 0, params=params, is_graphed=False)
    engine = Engine(target, draft=ModelDrafter(draft), gamma="auto")
    gammas: list[int] = []

    def noting(self, *args, **options):
        gammas.append(args[4])
        return launch(self, *args, **options)

    launch = GraphedRounds._launch
    with mock.patch.object(GraphedRounds, "_launch", noting):
        found = [engine.generate(PROMPTS, params) for _ in range(3)]
    assert {0, 2} <= set(gammas)
    for results_of_run in found:
        assert [one.token_ids for one in results_of_run] == [one.token_ids for one in want]
    ledger = engine.controller.ledger
    assert ledger is not None
    assert 0 < ledger.num_plain_rounds < ledger.num_rounds


def test_a_choice_that_lets_a_draft_catch_up_is_for_one_round(target, draft) -> None:
    """Its costs are known before another is launched; from then on one is always under way."""
    engine = Engine(target, draft=ModelDrafter(draft), gamma="auto")
    turn = iter([2, 2, 0, 0, 3, 3, 3, *[0] * 99])
    seen: list[tuple[int, int]] = []
    launch = GraphedRounds._launch

    def noting(self, *args, **options):
        seen.append((args[4], options["behind"] if options else args[5]))
        return launch(self, *args, **options)

    with (
        mock.patch.object(AutoGamma, "choose", side_effect=lambda _: Choice([next(turn)])),
        mock.patch.object(AutoGamma, "observe", return_value=None),
        mock.patch.object(GraphedRounds, "_launch", noting),
    ):
        engine.generate(PROMPTS[:1], replace(GREEDY, max_tokens=40))
    # Two drafts, of which the second has a third behind it, then plain; a draft waits until the
    # plain round is read, and begins anew.
    assert seen[:3] == [(2, 0), (2, 0), (2, 3)]
    assert seen[3:5] == [(0, 3), (0, 1)]
    assert seen[5:8] == [(3, 0), (3, 0), (3, 4)]


def test_a_round_feeds_nothing_twice(target, draft) -> None:
    """Caches are read before the first round, and follow from then on."""
    with mock.patch.object(
        GpuDecoder, "extend", autospec=True, side_effect=GpuDecoder.extend
    ) as fed:
        results(target, draft, 3)
    tokens = [len(call.args[3]) for call in fed.call_args_list if call.args[3]]
    # Each model reads each prompt, and a little again whenever one of the three has left.
    prompts = sum(len(prompt) - 1 for prompt in PROMPTS)
    assert 2 * prompts <= sum(tokens) <= 2 * prompts + 3 * 3 * 4


@pytest.mark.parametrize(
    "params",
    [
        replace(GREEDY, stop_token_ids=(TOKENS[3],), ignore_eos=False),
        replace(GREEDY, max_tokens=1),
        replace(GREEDY, max_tokens=2),
        replace(GREEDY, repetition_penalty=1.3),
        replace(GREEDY, temperature=0.8, seed=3),
        replace(GREEDY, logprobs=2),
    ],
    ids=["stop", "1 token", "2 tokens", "penalty", "sampled", "logprobs"],
)
def test_what_graphs_cannot_do_the_plain_path_does(target, draft, params) -> None:
    found = results(target, draft, 3, params=params)
    assert told(found) == told(results(target, draft, 3, params=params, is_graphed=False))


def test_texts_go_up_to_the_context(target, draft) -> None:
    prompt = [TOKENS[:60]]
    params = replace(GREEDY, max_tokens=target.config.context_length - 60)
    with mock.patch(f"{__name__}.PROMPTS", prompt):
        found = results(target, draft, 4, params=params)
        assert told(found) == told(results(target, draft, 4, params=params, is_graphed=False))
    assert [len(one.token_ids) for one in found] == [params.max_tokens]


def test_logits_that_are_none_end_the_sequence_with_a_word(target) -> None:
    weights = replace(
        target.weights, final_norm=torch.full_like(target.weights.final_norm, torch.nan)
    )
    broken = GpuDecoder.on_weights(weights, target.config, "broken")
    broken.can_be_captured = True
    found = results(broken, None, 0)
    assert all("NaN" in str(one.error) for one in found)


def test_sequences_join_and_leave_between_rounds(target, draft) -> None:
    engine = Engine(target, draft=ModelDrafter(draft), gamma=3)
    streams = [
        engine.stream(prompt, replace(GREEDY, max_tokens=9 + 4 * k))
        for k, prompt in enumerate(PROMPTS)
    ]
    ids: list[list[int]] = [[], [], []]
    alive = dict(enumerate(streams))
    while alive:
        for k, stream in list(alive.items()):
            event = next(stream, None)
            if event is None:
                del alive[k]
            else:
                ids[k] += [token.token_id for token in event.tokens]
    long = results(target, None, 0, params=replace(GREEDY, max_tokens=20), is_graphed=False)
    for k, one in enumerate(long):
        assert tuple(ids[k]) == one.token_ids[: 9 + 4 * k]
    target.pool.check_integrity([])
    draft.pool.check_integrity([])


def test_a_draft_may_have_a_shorter_context_and_fewer_ids(target) -> None:
    few = 60
    assert any(token >= few for prompt in PROMPTS for token in prompt[-2:])
    table = target.weights.embedding[:few].clone()
    weights = replace(target.weights, embedding=table, head=table)
    config = replace(target.config, vocab_size=few, context_length=60)
    draft = GpuDecoder.on_weights(weights, config, "draft")
    draft.can_be_captured = True
    assert draft.pool.store.most_pages < target.pool.store.most_pages
    with mock.patch("draftsmith.engine.pairs._check_vocabularies"):
        found = results(target, draft, 3, params=replace(GREEDY, max_tokens=40))
    want = results(target, None, 0, params=replace(GREEDY, max_tokens=40), is_graphed=False)
    assert [one.token_ids for one in found] == [one.token_ids for one in want]


def test_an_error_that_is_kept_keeps_no_pages(target, draft) -> None:
    engine = Engine(target, draft=ModelDrafter(draft), gamma=3)
    free = target.pool.num_free_pages, draft.pool.num_free_pages
    kept = None
    with mock.patch.object(GraphedRounds, "_launch", side_effect=KeyboardInterrupt):
        try:
            engine.generate(PROMPTS, GREEDY)
        except KeyboardInterrupt as error:
            kept = error
    assert kept is not None
    assert (target.pool.num_free_pages, draft.pool.num_free_pages) == free
    again = engine.generate(PROMPTS, GREEDY)
    assert told(again) == told(results(target, draft, 3, is_graphed=False))


class _Noted:
    """A lock that notes which others are held when it is taken."""

    held: ClassVar[list[str]] = []
    taken: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        if self.name not in self.held:
            self.taken.update((other, self.name) for other in self.held)
        self.held.append(self.name)

    def __exit__(self, *_: object) -> None:
        self.held.remove(self.name)


def test_two_engines_that_draft_for_each_other_take_locks_in_one_order(target, draft) -> None:
    target.lock, draft.lock = _Noted("one"), _Noted("other")
    for checks, guesses in ((target, draft), (draft, target)):
        results(checks, guesses, 2)
    assert len(_Noted.taken) == 1
