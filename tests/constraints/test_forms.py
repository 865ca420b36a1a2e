"""A form is checked once; what cannot be honoured with it is refused by name."""

import copy
import json
import pickle
from dataclasses import asdict
from typing import Any

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.core.structured import LONGEST_GRAMMAR, StructuredOutputs
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError, InvalidRequestError
from tests.constraints.kit import FORMS, model, tokenizer
from tests.engine.kit import target

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "one of json, json_object, regex, choice, grammar, got none"),
    "two": ({"regex": "a", "choice": ["a"]}, "got regex and choice: give one"),
    "no JSON": ({"json": "{"}, "json must be a JSON schema"),
    "no object": ({"json": "[1]"}, "json must be a JSON schema"),
    "not JSON's": ({"json": {"enum": {1}}}, "json must be a JSON schema"),
    "empty": ({"grammar": ""}, "grammar must be a text that is not empty"),
    "a word": ({"choice": "yes"}, "choice must be a list of texts"),
    "no choice": ({"choice": []}, "choice must be one text or more"),
    "an empty choice": ({"choice": ["a", ""]}, "choice must be one text or more"),
    "blanks": ({"regex": "a", "disable_any_whitespace": True}, "is for JSON"),
    "both blanks": (
        {"json_object": True, "disable_any_whitespace": True, "whitespace_pattern": " "},
        "exclude each other",
    ),
    "half a character": ({"regex": "\ud800"}, "half of a surrogate pair"),
    "long": ({"regex": "a" * (LONGEST_GRAMMAR + 1)}, "at most 262144 characters, got 262145"),
    "long choices": ({"choice": ["ab" * LONGEST_GRAMMAR]}, "at most 262144 characters"),
    "a large divisor": ({"json": {"multipleOf": 999983}}, "multipleOf 999983: leave it out"),
    "one in a grammar": (
        {"grammar": 'start: %json {"multipl\\u0065Of": 9.99983}'},
        "multipleOf 9.99",
    ),
    "deep JSON": ({"json": '{"a":' * 3000 + "1" + "}" * 3000}, "structured_outputs.json must"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_form_is_refused_in_one_line(name: str) -> None:
    fields, expected = WRONG[name]
    with pytest.raises(InvalidRequestError) as caught:
        StructuredOutputs(**fields)
    message = str(caught.value)
    assert expected in message
    assert message.startswith("structured_outputs")
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("value", ["{}", 3, ["json"], {"jason": {}}], ids=str)
def test_what_is_no_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="structured_outputs"):
        SamplingParams.from_options(structured_outputs=value)


def test_a_form_is_a_value() -> None:
    for form in FORMS.values():
        params = SamplingParams(structured_outputs=form)
        assert pickle.loads(pickle.dumps(params)) == copy.deepcopy(params) == params
        assert hash(params) == hash(SamplingParams(structured_outputs=form))
        assert json.loads(json.dumps(asdict(params)))["structured_outputs"] is not None
        assert StructuredOutputs.from_value(form.to_dict()) == form


def test_a_mapping_is_taken_and_the_callers_own_is_not_kept() -> None:
    schema = {"type": "object"}
    params = SamplingParams(structured_outputs={"json": schema})
    schema["type"] = "array"
    assert params.structured_outputs == StructuredOutputs(json='{"type":"object"}')


def test_the_order_of_properties_is_the_callers() -> None:
    form = StructuredOutputs(json={"properties": {"z": {}, "a": {}}})
    assert form.json == '{"properties":{"z":{},"a":{}}}'


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ignore_eos": True}, "ignore_eos cannot be honoured with structured_outputs.json"),
        ({"forced_eos_token_id": 1}, "forced_eos_token_id cannot be honoured"),
    ],
)
def test_what_would_end_a_text_elsewhere_is_refused(options: dict[str, Any], expected: str) -> None:
    params = SamplingParams(structured_outputs=FORMS["schema"], **options)
    with pytest.raises(InvalidRequestError, match=expected):
        Engine(model(), tokenizer()).generate("x", params)


def test_a_form_needs_a_tokenizer() -> None:
    with pytest.raises(InvalidRequestError, match=r"structured_outputs\.json needs a tokenizer"):
        Engine(target("llama")).generate([5], SamplingParams(structured_outputs=FORMS["schema"]))


BROKEN: dict[str, dict[str, Any]] = {
    "deep": {"regex": "(" * 5000 + "a" + ")" * 5000},
    "deep lark": {"grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000},
    "no text at all": {"grammar": "start: A\nA: /a/ & /b/"},
    "an option": {"grammar": "start: a\na[max_tokens=3]: /[a-z]+/"},
    "regex": {"regex": "("},
    "look-around": {"regex": "(?=a)b"},
    "lark": {"grammar": "start: missing"},
    "no start": {"grammar": 'begin: "a"'},
    "gbnf": {"grammar": 'root ::= "a"'},
    "schema": {"json": {"type": "nothing"}},
    "unknown keyword": {"json": {"not": {"type": "string"}}},
    "contradiction": {"json": {"type": "string", "minLength": 3, "maxLength": 2}},
    "remote": {"json": {"$ref": "https://example.com/schema.json"}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_compile_is_refused_in_one_line_and_the_engine_goes_on(name: str) -> None:
    engine = Engine(model(), tokenizer())
    with pytest.raises(DraftsmithError) as caught:
        engine.generate("x", structured_outputs=BROKEN[name])
    message = str(caught.value)
    assert message.startswith("structured_outputs."), message
    assert "\n" not in message
    assert len(message) < 500
    good = SamplingParams(structured_outputs=FORMS["choice"])
    broken = SamplingParams(structured_outputs=BROKEN[name])
    bad, fine = engine.generate(["x", "x"], [broken, good])
    assert bad.error == message
    assert fine.text in (FORMS["choice"].choice or ())
