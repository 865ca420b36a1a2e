"""The certificate takes trained heads, which read the target's states, and its bugs are caught."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from draftsmith.audit.equality import compare_texts, equality_record
from draftsmith.audit.lengths import draft_lengths, lengths_record
from draftsmith.audit.memo import memoised
from draftsmith.audit.planted import BUGS, plant
from draftsmith.audit.sampling import Setting, sampled
from draftsmith.audit.subject import Subject
from draftsmith.models.contract import Rows
from tests.audit.kit import PROMPTS, subject
from tests.drafters.heads.kinds import MADE

BOUNDARIES = (0, 1, 2)


@cache
def with_heads() -> Subject:
    whole = subject()
    heads = {name: made(whole.target, 1) for name, made in MADE.items()}
    return replace(whole, drafters=heads, itself=None, trees=None)


def test_a_memo_hands_out_the_models_own_states() -> None:
    remembered, memo = memoised(with_heads())
    assert remembered.target is memo
    own, theirs = memo.open_cache(), memo.inner.open_cache()
    rows = own.add(), theirs.add()
    text = [5, 6, 7, 8, 9]
    found = memo.extend_with_states(own, rows[0], text, BOUNDARIES)
    wanted = memo.inner.extend_with_states(theirs, rows[1], text, BOUNDARIES)
    torch.testing.assert_close(found, wanted)
    for tokens, parents in (([3, 4, 5], None), ([3, 4, 4, 6], [-1, 0, 0, 1]), ([3, 9], None)):
        for cache_, row in zip((own, theirs), rows, strict=True):
            cache_.rollback(row, len(text))
        above = None if parents is None else [parents]
        found = memo.forward_with_states(own, Rows([rows[0]], [tokens], above), BOUNDARIES)
        inner = memo.inner.forward_with_states(theirs, Rows([rows[1]], [tokens], above), BOUNDARIES)
        for one, other in zip(found, inner, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_whatever_is_drawn_their_drafts_are_as_long() -> None:
    found = list(draft_lengths(with_heads()))
    assert lengths_record(found).status == "pass"
    assert {one.lengths[0] for one in found} == {3}


def test_a_cut_by_a_look_at_their_tokens_is_caught() -> None:
    with plant(BUGS["anticipating-cut"], with_heads()) as broken:
        assert lengths_record(list(draft_lengths(broken))).status == "fail"


@pytest.mark.parametrize("bug", [None, "stale-cache"])
def test_their_texts_are_plain_decodings_unless_the_target_is_broken(bug: str | None) -> None:
    whole = with_heads()
    if bug is None:
        texts = list(compare_texts(whole, (8,), (0.8,), 6, 7))
        # Five Medusa heads draft five tokens.
        assert {one.gamma for one in texts if one.drafter == "medusa"} == {5, "auto"}
    else:
        with plant(BUGS[bug], whole) as broken:
            texts = list(compare_texts(broken, (4,), (0.8,), 6, 7))
    assert equality_record(texts).status == ("pass" if bug is None else "fail")


@pytest.mark.long
@pytest.mark.parametrize("head", MADE)
def test_samples_of_theirs_have_the_targets_law(head: str) -> None:
    remembered, memo = memoised(with_heads())
    setting = Setting(head, remembered.drafters[head])
    found = sampled(remembered.target, memo, setting, "rejection", PROMPTS[2], 8, 40)
    assert found.num_drafted == 40
    assert found.law.p_value > 1e-9
