"""Which drafts work beside `model.generate`: one vocabulary, gamma, and what they did."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

import draftsmith.transformers
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.errors import InvalidRequestError, VocabularyMismatchError
from draftsmith.transformers import Statistics
from tests import tiny

OURS: dict[str, Any] = {"custom_generate": draftsmith.transformers.generate}
IDS = torch.tensor([[75, 76, 77, 78, 75, 76]])


def tokenizer(shift: int = 0) -> PreTrainedTokenizerFast:
    """Single bytes, each with the id that `shift` gives it."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: (index + shift) % 256 for index, byte in enumerate(bytes_)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    backend.decoder = decoders.ByteLevel()  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def byte_model(seed: int = 0, vocab_size: int = 256) -> Any:
    model = tiny.raw_model("llama", seed, vocab_size=vocab_size)
    model.generation_config.eos_token_id = 255
    model.generation_config.pad_token_id = 0
    return model


OPTIONS: dict[str, Any] = {
    "input_ids": IDS,
    "attention_mask": torch.ones_like(IDS),
    "max_new_tokens": 12,
    "do_sample": False,
}


def test_stop_strings_and_tokenizer_reach_us() -> None:
    model, own = byte_model(), tokenizer()
    free = model.generate(**OPTIONS)
    stop = own.decode(free[0, 6 + 3 : 6 + 5])
    stopping: dict[str, Any] = {"stop_strings": [stop], "tokenizer": own}
    plain = model.generate(**OPTIONS, **stopping)
    assert plain.shape[1] < free.shape[1]
    for drafts in ({}, {"assistant_model": model}, {"prompt_lookup_num_tokens": 3}):
        assert torch.equal(model.generate(**OPTIONS, **stopping, **OURS, **drafts), plain)
    with pytest.raises(InvalidRequestError, match=r"stop_strings=.* needs tokenizer="):
        model.generate(**OPTIONS, stop_strings=[stop], **OURS)


def test_a_draft_of_another_tokenizer_is_translated_or_refused() -> None:
    model = byte_model()
    pair: dict[str, Any] = {"tokenizer": tokenizer(), "assistant_model": byte_model(1)}
    for options in (OPTIONS, OPTIONS | {"do_sample": True, "seed": 3}):
        plain = model.generate(**options, **(OURS if "seed" in options else {}))
        for theirs in (tokenizer(), tokenizer(7)):
            text = model.generate(**options, **OURS, **pair, assistant_tokenizer=theirs)
            assert torch.equal(text, plain)
    silent = tokenizer(7)
    silent.backend_tokenizer.decoder = decoders.Fuse()
    with pytest.raises(VocabularyMismatchError, match="has another tokenizer"):
        model.generate(**OPTIONS, **OURS, **pair, assistant_tokenizer=silent)


def test_a_draft_of_another_size_is_refused_unless_the_tokenizers_show_it_is_padding() -> None:
    model, padded = byte_model(), byte_model(1, vocab_size=264)
    with pytest.raises(VocabularyMismatchError, match="264 ids, the target 256"):
        model.generate(**OPTIONS, **OURS, assistant_model=padded)
    same = {"tokenizer": tokenizer(), "assistant_tokenizer": tokenizer()}
    for options in (OPTIONS, OPTIONS | {"do_sample": True, "seed": 2}):
        plain = model.generate(**options, **OURS)
        text = model.generate(**options, **OURS, **same, assistant_model=padded)
        assert torch.equal(text, plain)
    # Nothing was cut out of the draft.
    assert padded.get_output_embeddings().weight.shape[0] == 264


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_draft_whose_logits_are_narrower_than_its_config_drafts_as_it_can(
    do_sample: bool,
) -> None:
    model, narrow = byte_model(), byte_model(1)
    narrow.set_output_embeddings(torch.nn.Linear(32, 200, bias=False))
    options = OPTIONS | {"do_sample": do_sample, "seed": 4}
    plain = model.generate(**options, **OURS)
    assert torch.equal(model.generate(**options, **OURS, assistant_model=narrow), plain)


def test_statistics_come_back_in_a_collector_and_in_the_output() -> None:
    model, statistics = byte_model(), Statistics()
    options = OPTIONS | {"min_new_tokens": 12, "assistant_model": model, "num_assistant_tokens": 3}
    model.generate(**options, **OURS, statistics=statistics)
    assert statistics.total.num_committed == 12
    assert statistics.total.num_rounds == 3
    assert statistics.total.num_accepted == 9
    output = model.generate(**options, **OURS, statistics=statistics, return_dict_in_generate=True)
    assert output.statistics.total.num_committed == 12
    assert len(statistics.rows) == 2
    assert "2 sequences" in repr(statistics)


def drafted(**options: Any) -> int:
    """Tokens of the first draft."""
    statistics = Statistics()
    model = options.pop("model", None) or byte_model()
    longest = OPTIONS | {"max_new_tokens": 40, "min_new_tokens": 40} | options
    model.generate(**longest, **OURS, statistics=statistics)
    return len(statistics.total.drafted_per_position)


def test_gamma_is_what_the_user_set_and_four_where_nobody_did() -> None:
    assert drafted(assistant_model=byte_model()) == 4
    assert drafted(assistant_model=byte_model(), num_assistant_tokens=6) == 6
    assert drafted(assistant_model=byte_model(), num_assistant_tokens=20) == 20
    config = GenerationConfig(num_assistant_tokens=5, eos_token_id=255, pad_token_id=0)
    assert drafted(assistant_model=byte_model(), generation_config=config) == 5
    assistant, model = byte_model(), byte_model()
    assistant.generation_config.num_assistant_tokens = 7
    assert drafted(assistant_model=assistant) == 7
    model.generation_config.num_assistant_tokens = 3
    assert drafted(assistant_model=assistant, model=model) == 3
    assert drafted(prompt_lookup_num_tokens=2) == 2


def test_a_seeds_text_does_not_ask_what_else_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> bool:
        raise AssertionError("transformers' assisted generation asks for scikit-learn")

    module = "transformers.generation.candidate_generator"
    monkeypatch.setattr(f"{module}.is_sklearn_available", asked)
    options = OPTIONS | {"do_sample": True, "seed": 2}
    plain = byte_model().generate(**options, **OURS)
    text = byte_model().generate(**options, **OURS, assistant_model=byte_model(1))
    assert torch.equal(text, plain)
    with pytest.raises(AssertionError, match="scikit-learn"):
        byte_model().generate(**OPTIONS, assistant_model=byte_model(1))


def test_two_drafts_are_refused_by_name() -> None:
    """Either would draft alone, and the other be dropped."""
    model = byte_model()
    both = {"assistant_model": model, "prompt_lookup_num_tokens": 3}
    with pytest.raises(InvalidRequestError, match="assistant_model and prompt_lookup_num_tokens"):
        model.generate(**OPTIONS, **OURS, **both)
    with pytest.raises(InvalidRequestError, match="draft and assistant_model are both drafts"):
        model.generate(**OPTIONS, **OURS, draft=PromptLookupDrafter(), assistant_model=model)


def test_an_assistant_that_is_no_model_is_refused() -> None:
    with pytest.raises(
        InvalidRequestError, match="assistant_model must be a model of transformers"
    ):
        byte_model().generate(**OPTIONS, **OURS, assistant_model="x")
