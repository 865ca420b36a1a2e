"""A draft of another vocabulary: its law is cut to what both have; the text is the target's."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from draftsmith import SamplingParams, load_engine
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.drafters.translated import TranslatedDrafter
from draftsmith.drafters.vocabularies import Translation, translation_between
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError, VocabularyMismatchError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.load import wrap_model, wrap_tokenizer
from draftsmith.models.tokenizer import Tokenizer
from draftsmith.testing import check_drafter
from tests import tiny
from tests.engine.kit import texts
from tests.models.native.test_cpu import fast

PROMPTS = ["the quick fox jumps", "def add(a):\n    return", "a lazy dog and a café"]
MODES = {
    "greedy": SamplingParams(max_tokens=12, ignore_eos=True),
    "seeded": SamplingParams(max_tokens=12, temperature=0.9, top_p=0.9, seed=4, ignore_eos=True),
    "penalised": SamplingParams(
        max_tokens=12, temperature=0.7, repetition_penalty=1.2, seed=5, ignore_eos=True
    ),
}


@cache
def other_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, too, with other words, other ids, and one special token in common."""
    raw = RawTokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    raw.decoder = decoders.ByteLevel()  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<start>", "<end>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["a lazy brown dog sleeps under the quick red fence"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")


@cache
def words() -> Tokenizer:
    return wrap_tokenizer(tiny.raw_tokenizer())


@cache
def other_words() -> Tokenizer:
    return wrap_tokenizer(other_tokenizer())


@cache
def translation() -> Translation:
    return translation_between(words(), other_words(), "big", "small")


@cache
def pair() -> tuple[Any, Any]:
    """A target, and a draft that says the same in its own ids wherever it can."""
    size = len(words().token_strings())
    target = tiny.raw_model("llama", 3, vocab_size=size)
    draft = tiny.raw_model("llama", 3, vocab_size=len(other_words().token_strings()))
    with torch.no_grad():
        shared = translation().shared
        own = draft.state_dict()
        for name, values in target.state_dict().items():
            if own[name].shape == values.shape:
                own[name].copy_(values)
            else:
                own[name][list(shared.values())] = values[list(shared)]
    return target, draft


@cache
def target() -> LanguageModel:
    return wrap_model(pair()[0])


def drafter() -> TranslatedDrafter:
    return TranslatedDrafter(
        wrap_model(pair()[1]), translation(), target().traits.vocab_size, other_words()
    )


# --- the translation ----------------------------------------------------------------------------


def test_shared_ids_mean_the_same() -> None:
    found = translation()
    assert len(found.shared) > 256
    assert len(set(found.shared.values())) == len(found.shared), "one id of the draft, one meaning"
    for token, own in found.shared.items():
        if found.target[token]:
            assert found.target[token] == found.draft[own]
    ours, theirs = words().special_tokens(), other_words().special_tokens()
    assert found.shared[ours["<eos>"]] == theirs["<eos>"]
    assert ours["<user>"] not in found.shared


def test_every_token_is_spelled_in_full_or_not_at_all() -> None:
    found = translation()
    unshared = 0
    for token, piece in enumerate(found.target):
        spelled = found.to_draft(token)
        if piece:
            assert b"".join(found.draft[own] for own in spelled) == piece
            unshared += len(spelled) > 1
        elif token not in found.shared:
            assert spelled == ()
    assert unshared > 5, "the two have words of their own"


def test_what_the_draft_has_no_byte_for_it_does_not_hear() -> None:
    found = Translation((b"ab", b"ax"), (b"a", b"b"), {}, {})
    assert (found.to_draft(0), found.to_draft(1), found.to_draft(9)) == ((0, 1), (), ())


def test_of_two_ids_with_the_same_bytes_the_first_is_drafted() -> None:
    found = Translation((b"a", b"b", b"a"), (b"a", b"a", b"b"), {}, {})
    assert found.shared == {0: 0, 1: 2}
    assert found.to_draft(2) == (0,)


def test_logits_move_to_the_targets_columns() -> None:
    found = Translation((b"a", b"b", b"c"), (b"c", b"x", b"a"), {}, {})
    moved = found.to_target(torch.tensor([[1.0, 2.0, 3.0]]), 4)
    assert moved.tolist() == [[3.0, -torch.inf, 1.0, -torch.inf]]


# --- the drafter --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_text_is_that_of_plain_decoding(mode: str) -> None:
    results = Engine(target(), words(), drafter(), gamma=4).generate(PROMPTS, MODES[mode])
    assert texts(results) == texts(Engine(target(), words()).generate(PROMPTS, MODES[mode]))
    total = sum((result.statistics for result in results), SpeculationStatistics())
    assert 0 < total.num_accepted < total.num_tested


def test_it_keeps_to_the_contract_and_reports_the_law_that_it_draws_from() -> None:
    check_drafter(drafter(), vocab_size=target().traits.vocab_size, num_draws=600)


def in_shared_ids(mode: str) -> SpeculationStatistics:
    """Rounds of texts whose every token both have, so that both say the same."""
    shared = tuple(translation().shared)
    params = replace(MODES[mode], allowed_token_ids=shared, repetition_penalty=1.0)
    prompts = [[shared[(7 * i + 31 * n) % len(shared)] for i in range(9)] for n in range(3)]
    results = Engine(target(), words(), drafter(), gamma=4).generate(prompts, params)
    assert texts(results) == texts(Engine(target(), words()).generate(prompts, params))
    return sum((result.statistics for result in results), SpeculationStatistics())


@pytest.mark.parametrize("mode", MODES)
def test_what_both_can_say_is_always_kept(mode: str) -> None:
    total = in_shared_ids(mode)
    assert total.num_accepted == total.num_tested > 20


def test_a_wrong_column_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Translation.to_target
    monkeypatch.setattr(
        Translation, "to_target", lambda self, logits, size: moved(self, logits.roll(1, -1), size)
    )
    total = in_shared_ids("greedy")
    assert total.num_accepted < 0.2 * total.num_tested


def test_a_loaded_draft_with_its_own_tokenizer_is_translated() -> None:
    big, small = pair()
    engine = load_engine(
        big, small, tokenizer=tiny.raw_tokenizer(), draft_tokenizer=other_tokenizer()
    )
    assert isinstance(engine.draft, TranslatedDrafter)
    results = engine.generate(PROMPTS, MODES["greedy"])
    assert texts(results) == texts(Engine(target(), words()).generate(PROMPTS, MODES["greedy"]))


def test_vocabularies_that_share_next_to_nothing_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, silent = wrap_tokenizer(tiny.raw_tokenizer()), wrap_tokenizer(tiny.raw_tokenizer())
    monkeypatch.setattr(few, "spellings", lambda: [b"a", b"b"])
    monkeypatch.setattr(silent, "spellings", lambda: None)
    with pytest.raises(VocabularyMismatchError, match="small shares 4 ids"):
        translation_between(few, few, "big", "small")
    with pytest.raises(VocabularyMismatchError, match="that of small does not tell the bytes"):
        translation_between(words(), silent, "big", "small")


def test_a_bound_in_the_targets_tokens_is_refused() -> None:
    draft = TranslatedDrafter(fast("llama"), translation(), 352)
    with pytest.raises(InvalidRequestError, match="another vocabulary"):
        Engine(fast("llama"), None, draft, gamma=2, cache_tokens=1024)
