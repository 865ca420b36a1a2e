"""Rules that keep a state are asked as `transformers` asks them, and the text is its own."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

import draftsmith.transformers
from draftsmith.errors import InvalidRequestError
from draftsmith.transformers.state import is_stateless, stateless
from tests import tiny

OURS: dict[str, Any] = {"custom_generate": draftsmith.transformers.generate}


class Automaton(LogitsProcessor):
    """Moves on by each row's last token of each call, and notes what it is shown."""

    def __init__(self, num_ids: int = 8) -> None:
        self.states: list[int] = []
        self.num_ids = num_ids
        self.seen: list[list[list[int]]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(input_ids.tolist())
        if not self.states:
            self.states = [0] * len(input_ids)
        else:
            last = input_ids[:, -1].tolist()
            self.states = [(3 * s + t + 1) % 8 for s, t in zip(self.states, last, strict=True)]
        out = torch.full_like(scores, -torch.inf)
        for row, state in enumerate(self.states):
            ids = [(state * 8 + k) % tiny.VOCAB for k in range(self.num_ids)]
            out[row, ids] = scores[row, ids]
        return out


class Counter:
    """A stopping criterion that ends row b at its (4 + 2 b)-th call."""

    def __init__(self) -> None:
        self.calls = 0
        self.seen: list[list[list[int]]] = []

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        self.calls += 1
        self.seen.append(input_ids.tolist())
        return torch.tensor([self.calls >= 4 + 2 * row for row in range(len(input_ids))])


def batch(num_rows: int) -> dict[str, Tensor]:
    ids = torch.tensor(
        [[5, 6, 7, 5, 6, 7, 5, 6], [0, 0, 8, 9, 8, 9, 8, 9], [7, 7, 7, 7, 7, 7, 7, 7]]
    )
    ids = ids[:num_rows]
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def target(**changes: Any) -> Any:
    model = tiny.raw_model("llama")
    model.generation_config.pad_token_id = 0
    for name, value in changes.items():
        setattr(model.generation_config, name, value)
    return model


def both(model: Any, make: Callable[[], dict[str, Any]], **options: Any) -> tuple[Any, ...]:
    """`transformers`' plain text and ours with drafts, and the rules that made each."""
    first, second = make(), make()
    plain = model.generate(**options, **first)
    with pytest.warns(UserWarning, match="may keep a state"):
        ours = model.generate(**options, **second, **OURS, prompt_lookup_num_tokens=4)
    return plain, ours, first, second


@pytest.mark.parametrize("num_rows", [1, 3])
def test_an_automaton_sees_what_transformers_shows_and_gives_its_text(num_rows: int) -> None:
    def make() -> dict[str, Any]:
        return {"logits_processor": LogitsProcessorList([Automaton()])}

    plain, ours, first, second = both(
        target(), make, **batch(num_rows), max_new_tokens=16, do_sample=False
    )
    assert torch.equal(ours, plain)
    assert first["logits_processor"][0].seen == second["logits_processor"][0].seen


def test_an_automaton_ends_a_row_early_and_the_others_see_padding() -> None:
    def make() -> dict[str, Any]:
        return {"logits_processor": LogitsProcessorList([Automaton(24)])}

    free, _, _, _ = both(target(), make, **batch(3), max_new_tokens=16, do_sample=False)
    model = target(eos_token_id=int(free[1, 8 + 4]))
    plain, ours, first, second = both(model, make, **batch(3), max_new_tokens=16, do_sample=False)
    assert (plain[:, -1] == 0).any()
    assert torch.equal(ours, plain)
    assert first["logits_processor"][0].seen == second["logits_processor"][0].seen


@pytest.mark.parametrize("eos", [1, None])
def test_a_criterion_that_counts_its_calls_ends_rows_where_transformers_ends_them(
    eos: int | None,
) -> None:
    def make() -> dict[str, Any]:
        return {"stopping_criteria": [Counter()]}

    model = target(eos_token_id=eos)
    plain, ours, first, second = both(
        model, make, **batch(3), max_new_tokens=16, min_new_tokens=16, do_sample=False
    )
    assert plain.shape[1] == 8 + 8
    assert torch.equal(ours, plain)
    assert first["stopping_criteria"][0].seen == second["stopping_criteria"][0].seen


def test_one_rows_criterion_is_asked_in_order_beside_drafts() -> None:
    model, ours, theirs = target(), Counter(), Counter()
    options: dict[str, Any] = {**batch(1), "max_new_tokens": 16, "do_sample": False}
    statistics = draftsmith.transformers.Statistics()
    plain = model.generate(**options, stopping_criteria=[theirs])
    text = model.generate(
        **options, stopping_criteria=[ours], assistant_model=model, statistics=statistics, **OURS
    )
    assert torch.equal(text, plain)
    assert ours.seen == theirs.seen
    assert statistics.total.num_accepted > 0


def test_guidance_is_transformers_own_under_a_draft() -> None:
    model = target()
    options: dict[str, Any] = {
        **batch(1),
        "max_new_tokens": 12,
        "do_sample": False,
        "guidance_scale": 1.5,
    }
    plain = model.generate(**options)
    with pytest.warns(UserWarning, match="UnbatchedClassifierFreeGuidance"):
        ours = model.generate(**options, **OURS, assistant_model=model)
    assert torch.equal(ours, plain)


def test_without_a_draft_nobody_is_warned() -> None:
    model = target()
    options: dict[str, Any] = {**batch(1), "max_new_tokens": 8, "do_sample": False}
    plain = model.generate(**options, logits_processor=[Automaton()])
    assert torch.equal(model.generate(**options, logits_processor=[Automaton()], **OURS), plain)


def test_a_subclass_of_a_known_class_is_not_known() -> None:
    class Mine(RepetitionPenaltyLogitsProcessor):
        pass

    assert is_stateless(RepetitionPenaltyLogitsProcessor(1.2))
    assert not is_stateless(Mine(1.2))
    assert is_stateless(stateless(Mine(1.2)))
    assert not is_stateless(Mine(1.2))


def test_a_declared_processor_is_asked_about_drafts() -> None:
    class Even(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            scores[:, 1::2] = -torch.inf
            return scores

    model, statistics = target(), draftsmith.transformers.Statistics()
    options: dict[str, Any] = {**batch(1), "max_new_tokens": 12, "do_sample": False}
    plain = model.generate(**options, logits_processor=[Even()])
    ours = model.generate(
        **options,
        logits_processor=[stateless(Even())],
        assistant_model=model,
        statistics=statistics,
        **OURS,
    )
    assert torch.equal(ours, plain)
    assert statistics.total.num_accepted > 0


def test_what_takes_no_mark_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="takes no attributes"):
        stateless(7)
