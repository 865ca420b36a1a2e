"""Forms of texts over HTTP: held to, and the same text with speculation on and off."""

import json
import re
from typing import Any

import pytest

from draftsmith.serve.forms import as_forms_write_it
from tests.serve import live
from tests.serve.live import Live

_SCHEMA = {
    "type": "object",
    "properties": {"fox": {"type": "boolean"}, "dog": {"enum": ["lazy", "quick"]}},
    "required": ["fox", "dog"],
    "additionalProperties": False,
}
_NAMED: dict[str, Any] = {"name": "odd"}
_ODD = {"not": {}}
_BIG = {"description": "x" * 300_000}
_BODY: dict[str, Any] = {"seed": 3, "max_tokens": 300}
_FORMS: list[dict[str, Any]] = [
    {"json": _SCHEMA, "disable_any_whitespace": True},
    {"json": json.dumps(_SCHEMA), "whitespace_pattern": " "},
    {"regex": "[a-f]{3,9}"},
    {"choice": ["lazy dog", "quick fox"]},
    {"grammar": 'start: "fox" | "dog"'},
]


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def _fits(form: dict[str, Any], text: str) -> bool:
    if "json" in form:
        found = json.loads(text)
        return set(found) == {"fox", "dog"} and found["dog"] in ("lazy", "quick")
    if "regex" in form:
        return re.fullmatch(form["regex"], text) is not None
    return text in form.get("choice", ("fox", "dog"))


@pytest.mark.parametrize("form", _FORMS, ids=lambda form: next(iter(form)))
def test_a_text_fits_its_form_whoever_drafts(
    server: Live, plain: Live, form: dict[str, Any]
) -> None:
    bodies = [_BODY | {"seed": seed, "structured_outputs": form} for seed in range(3)]
    texts = [plain.chat(**body).texts[0] for body in bodies]
    assert all(_fits(form, text) for text in texts)
    assert [server.chat(**body).texts[0] for body in bodies] == texts
    for speculation in ({"draft": "prompt-lookup"}, {"gamma": 9}):
        assert server.chat(**bodies[0], speculation=speculation).texts[0] == texts[0]
    prediction = {"type": "content", "content": texts[0]}
    assert server.chat(**bodies[0], prediction=prediction).texts[0] == texts[0]


def test_openais_fields_ask_for_the_same(server: Live) -> None:
    named = {"name": "pair", "schema": _SCHEMA, "strict": True}
    # A random model would write blanks for ever.
    body = _BODY | {"logit_bias": _no_blanks(server)}
    own = server.chat(**body, structured_outputs={"json": _SCHEMA}).texts[0]
    assert _fits({"json": _SCHEMA}, own)
    asked = {"type": "json_schema", "json_schema": named}
    assert server.chat(**body, response_format=asked).texts[0] == own
    flat = {"format": {"type": "json_schema", **named}}
    sent = {name: value for name, value in body.items() if name != "max_tokens"}
    answer = server.post(
        "/v1/responses", input="the quick brown", text=flat, max_output_tokens=300, **sent
    )
    assert answer.body["output"][0]["content"][0]["text"] == own
    assert answer.body["text"] == flat
    odd = {"format": {"type": "json_schema", "name": "odd", "schema": _ODD}}
    refused = server.post("/v1/responses", input="the quick brown", text=odd)
    assert (refused.status, refused.error["param"]) == (400, "text.format.schema")


def _no_blanks(server: Live) -> dict[str, float]:
    names = server.service.texts.names
    blank = [one for one, name in names.items() if set(name) & set("Ġ ĊčĉĠ")]
    return dict.fromkeys(map(str, blank), -100.0)


def test_any_object_is_an_object(server: Live) -> None:
    body = _BODY | {"logit_bias": _no_blanks(server), "response_format": {"type": "json_object"}}
    answer = server.chat(**body)
    assert answer.status == 200
    text = answer.texts[0]
    assert text.startswith("{")
    if answer.body["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        (
            {"response_format": {"type": "json_schema", "json_schema": _NAMED | {"schema": _ODD}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": _NAMED | {"schema": _BIG}}},
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {"json": {"enum": ["\ud800"]}}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": _nested(150)}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"rgex": "a"}}, "structured_outputs.rgex"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {
                "structured_outputs": {"regex": "a"},
                "response_format": {"type": "json_object"},
            },
            "structured_outputs",
        ),
        ({"structured_outputs": {"json": {"multipleOf": 1234567}}}, "structured_outputs"),
    ],
)
def test_a_form_that_is_none_is_refused_and_the_server_goes_on(
    server: Live, fields: dict[str, Any], param: str
) -> None:
    answer = server.chat(**fields)
    assert answer.status == 400, answer.body
    assert param in (answer.error["param"] or answer.error["message"])
    assert server.chat(max_tokens=2).status == 200


def test_predictions_are_written_as_forms_write_them() -> None:
    text = json.dumps({"é": 'a/"\\\n', "😀": "\u0001"}).replace("/", "\\/")
    found = as_forms_write_it(text)
    assert json.loads(found) == json.loads(text)
    assert found == '{"é": "a/\\"\\\\\\n", "😀": "\\u0001"}'


def test_forced_tokens_are_drafted_for_free(plain: Live) -> None:
    form = {"regex": "the quick brown fox jumps over the lazy dog"}
    with live.serving(live.engine(gamma=4)) as other:
        body = _BODY | {"structured_outputs": form, "speculation": {"statistics": True}}
        answer = other.chat(**body)
        assert answer.texts == plain.chat(**(body | {"speculation": None})).texts
        assert answer.body["usage"]["speculation"]["tokens_per_pass"] > 1.5


def test_forced_tokens_are_no_predicted_ones(server: Live) -> None:
    form = {"structured_outputs": {"choice": ["the quick brown fox jumps over the lazy dog"]}}
    wrong = {"type": "content", "content": "nothing of this"}
    details = [
        server.chat(**_BODY, **form, **more).body["usage"]["completion_tokens_details"]
        for more in ({}, {"prediction": wrong})
    ]
    assert {one["accepted_prediction_tokens"] for one in details} == {0}
