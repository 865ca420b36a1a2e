"""Every field of a generation_config.json is honoured, ours, without effect, or refused by name."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.generation.utils import GenerationMixin

from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine.beams.search import beam_search
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.generation_config import (
    HONOURED,
    OURS,
    REFUSED,
    WITHOUT_EFFECT,
    demands_of,
    read_demands,
)
from draftsmith.models.hf.load import wrap_model
from draftsmith.models.load import ModelSettings, load_model
from tests import tiny
from tests.versions import text_of_newest

CPU = ModelSettings(device="cpu")
SOURCE = [5, 6, 7, 8, 5, 6, 7]
ASKED: dict[str, Any] = {
    "repetition_penalty": 1.5,
    "encoder_repetition_penalty": 2.0,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2,
    "sequence_bias": [[[5, 6], -3.0], [[7], 2.0]],
    "bad_words_ids": [[5, 6], [9]],
    "suppress_tokens": [25],
    "begin_suppress_tokens": [30, 31],
    "forced_bos_token_id": 33,
    "forced_eos_token_id": 1,
    "exponential_decay_length_penalty": [3, 1.5],
    "min_length": 6,
    "min_new_tokens": 5,
}
"""A value that changes the law, of every field that becomes a processor."""


def demands(**values: Any) -> Demands:
    return demands_of(values, (tiny.EOS,), "tiny")


# --- all fields, by name ----------------------------------------------------------------------


def test_every_field_of_transformers_has_its_place_in_one_table() -> None:
    fields = {name for name in transformers.GenerationConfig().to_dict() if name[0] != "_"}
    tables = [set(HONOURED), set(OURS), set(REFUSED), set(WITHOUT_EFFECT)]
    assert len(fields) > 70
    assert not fields - set.union(*tables), "a field that no table knows"
    assert sum(map(len, tables)) == len(set.union(*tables)), "a field in two tables"


def test_every_field_that_becomes_a_processor_of_greedy_decoding_is_honoured_or_refused() -> None:
    code = inspect.getsource(vars(GenerationMixin)["_get_logits_processor"])
    always = code.split("LogitsWarpers")[0] + code.split("Watermarking")[1]
    fields = [name for name in transformers.GenerationConfig().to_dict() if f".{name} " in always]
    assert len(fields) >= 14
    for name in fields:
        without = name in ("renormalize_logits", "remove_invalid_values", "max_length")
        assert without or name in HONOURED or name in REFUSED, name


@pytest.mark.parametrize("name", sorted(HONOURED))
def test_an_honoured_field_is_taken(name: str) -> None:
    value = {"stop_strings": ["x"], **ASKED}[name]
    found = demands(**{name: value})
    assert not found.refused
    assert getattr(found, HONOURED[name]) != getattr(NO_DEMANDS, HONOURED[name])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_changes_every_text_is_refused_by_name_unless_it_does_nothing(
    name: str,
) -> None:
    found = demands(**{name: {"some": "thing"}})
    assert found.refused.startswith(f"{name}={{'some': 'thing'}} of generation_config.json")
    for value in (None, *REFUSED[name]):
        assert demands(**{name: value}) == NO_DEMANDS


@pytest.mark.parametrize("name", sorted(OURS | WITHOUT_EFFECT))
def test_a_field_of_ours_or_without_effect_asks_nothing(name: str) -> None:
    assert demands(**{name: 3}) == NO_DEMANDS


def test_a_field_that_nobody_knows_is_refused_by_name_unless_it_is_unset() -> None:
    assert "top_secret=0.5" in demands(top_secret=0.5).refused
    assert "not known" in demands(top_secret=0.5).refused
    assert demands(top_secret=None) == NO_DEMANDS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_repeat_ngram_size", "two"),
        ("no_repeat_ngram_size", 2.5),
        ("repetition_penalty", 0),
        ("repetition_penalty", "high"),
        ("bad_words_ids", [3, 4]),
        ("bad_words_ids", "word"),
        ("suppress_tokens", [-1]),
        ("forced_bos_token_id", "en"),
        ("exponential_decay_length_penalty", [3]),
        ("sequence_bias", {"5": 1.0}),
        ("min_length", -1),
        ("min_new_tokens", 1.5),
        ("stop_strings", 3),
    ],
)
def test_a_malformed_value_is_refused_with_its_name_and_the_remedy(name: str, value: Any) -> None:
    refused = demands(**{name: value}).refused
    assert refused.startswith(f"{name} of generation_config.json is malformed (")
    assert refused.endswith("): mend the file")
    assert "\n" not in refused


def test_what_stays_the_requests_own_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "draftsmith"):
        demands(temperature=0.7, top_p=0.8, do_sample=True, num_beams=None)
    [record] = caplog.records
    assert "do_sample=True, temperature=0.7, top_p=0.8" in record.getMessage()
    assert "num_beams" not in record.getMessage()


def test_an_end_of_sequence_id_is_no_bad_word_as_in_transformers() -> None:
    assert demands(bad_words_ids=[[tiny.EOS], [5, tiny.EOS]]).bad_words == ((5, tiny.EOS),)


# --- folders ----------------------------------------------------------------------------------


def folder_asking(folder: Path, kind: str, **asked: Any) -> Path:
    tiny.lively_model(kind).save_pretrained(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | asked))
    return folder


def theirs(folder: Path, kind: str, max_tokens: int) -> list[int]:
    is_pair = kind in tiny.ENCODER_DECODER
    auto = transformers.AutoModelForSeq2SeqLM if is_pair else transformers.AutoModelForCausalLM
    model: Any = auto.from_pretrained(folder)
    ids = torch.tensor([SOURCE])
    text = model.generate(ids, max_new_tokens=max_tokens, do_sample=False, pad_token_id=0)[0]
    return text.tolist()[1 if is_pair else len(SOURCE) :]


MANY = {name: value for name, value in ASKED.items() if name != "forced_bos_token_id"}


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("bart", {"forced_bos_token_id": 33, "no_repeat_ngram_size": 2, "suppress_tokens": [25]}),
        pytest.param("bart", ASKED, marks=text_of_newest),
        pytest.param("t5", ASKED, marks=text_of_newest),
        pytest.param("gpt2", MANY, marks=text_of_newest),
        pytest.param("llama", MANY, marks=text_of_newest),
        ("llama", {"repetition_penalty": 1.5}),
    ],
    ids=str,
)
def test_the_greedy_text_of_a_folder_is_transformers_own_whatever_the_draft(
    tmp_path: Path, kind: str, asked: dict[str, Any]
) -> None:
    folder = folder_asking(tmp_path, kind, **asked)
    expected = theirs(folder, kind, 12)
    plain_file = Engine(load_model(str(folder), CPU)).generate(SOURCE, max_tokens=12)[0]
    assert list(plain_file.token_ids) == expected
    unasked = wrap_model(tiny.lively_model(kind), demands=NO_DEMANDS)
    for gamma in (1, 3):
        for draft in (unasked, wrap_model(tiny.near_twin(tiny.lively_model(kind)))):
            engine = Engine(load_model(str(folder), CPU), draft=ModelDrafter(draft), gamma=gamma)
            assert list(engine.generate(SOURCE, max_tokens=12)[0].token_ids) == expected
    free = Engine(unasked).generate(SOURCE, max_tokens=12)[0]
    assert list(free.token_ids) != expected, "the demands must change the text"


def test_a_request_lifts_what_a_folder_asks(tmp_path: Path) -> None:
    asked = {"no_repeat_ngram_size": 1, "suppress_tokens": [25], "repetition_penalty": 1.4}
    folder = folder_asking(tmp_path, "llama", **asked)
    engine = Engine(load_model(str(folder), CPU))
    own = SamplingParams(
        max_tokens=12, no_repeat_ngram_size=0, suppress_token_ids=(), repetition_penalty=1.0
    )
    free = Engine(wrap_model(tiny.lively_model("llama"))).generate(SOURCE, max_tokens=12)[0]
    assert engine.generate(SOURCE, own)[0].token_ids == free.token_ids
    assert engine.generate(SOURCE, max_tokens=12)[0].token_ids != free.token_ids


def test_a_folder_that_asks_what_cannot_be_honoured_is_refused_as_a_target_and_not_as_a_draft(
    tmp_path: Path,
) -> None:
    folder = folder_asking(tmp_path, "llama", guidance_scale=3.0)
    model = load_model(str(folder), CPU)
    with pytest.raises(InvalidRequestError, match=r"guidance_scale=3\.0 of generation_config"):
        Engine(model).generate(SOURCE)
    target = wrap_model(tiny.lively_model("llama"))
    text = Engine(target, draft=ModelDrafter(model)).generate(SOURCE, max_tokens=6)[0]
    assert text.token_ids == Engine(target).generate(SOURCE, max_tokens=6)[0].token_ids


def test_an_older_folder_asks_in_its_config(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 32, "no_repeat_ngram_size": 3, "top_k": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_demands(tmp_path, (), "old") == Demands(no_repeat_ngram_size=3)
    (tmp_path / "generation_config.json").write_text("{}")
    assert read_demands(tmp_path, (), "new") == NO_DEMANDS


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ModelFormatError, match=r"generation_config\.json.*fetch it again"):
        read_demands(tmp_path, (), "broken")


def test_beam_search_refuses_what_it_would_pass_over() -> None:
    raw = tiny.lively_model("llama")
    raw.generation_config.no_repeat_ngram_size = 2
    with pytest.raises(InvalidRequestError, match="no_repeat_ngram_size=2 of every text"):
        beam_search(Engine(wrap_model(raw, "tiny")), SOURCE)
    assert Engine(wrap_model(raw)).generate(SOURCE, max_tokens=3)


def test_a_stop_string_of_the_file_ends_the_text(tmp_path: Path) -> None:
    from draftsmith.models.hf.load import wrap_tokenizer

    tokenizer = wrap_tokenizer(tiny.raw_tokenizer())
    raw = tiny.raw_model("llama", 3, vocab_size=len(tokenizer.token_strings()))
    whole = Engine(wrap_model(raw), tokenizer).generate([5, 6], max_tokens=12)[0].text
    raw.generation_config.stop_strings = [whole[3:5]]
    engine = Engine(wrap_model(raw), tokenizer)
    assert engine.generate([5, 6], max_tokens=12)[0].text == whole[: whole.index(whole[3:5])]
    assert engine.generate([5, 6], max_tokens=12, stop=())[0].text == whole
