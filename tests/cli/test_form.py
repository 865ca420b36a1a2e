"""`--json-schema`, `--regex`, `--grammar` and their like: a text that has a form."""

import json
from pathlib import Path

import pytest

from tests.cli.outcome import Cli

SCHEMA = '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}'
LARK = 'start: "a" | "b"\n'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "schema.json").write_text(SCHEMA)
    (tmp_path / "grammar.lark").write_text(LARK)
    return tmp_path


def test_a_schema_is_a_file_or_the_schema_itself(cli: Cli, tiny: str, files: Path) -> None:
    form = ("--disable-any-whitespace", "--json")
    asked = ("generate", "hi", "-m", tiny, *form)
    told = cli(*asked, "--json-schema", str(files / "schema.json")).document()
    assert told["text"] in ('{"ok":true}', '{"ok":false}')
    assert cli(*asked, "-j", SCHEMA).document()["text"] == told["text"]
    assert told["parameters"]["structured_outputs"] == {
        "json": SCHEMA,
        "disable_any_whitespace": True,
    }


def test_a_grammar_is_a_file_or_the_grammar_itself(cli: Cli, tiny: str, files: Path) -> None:
    for grammar in (str(files / "grammar.lark"), LARK, 'start: "b"'):
        text = cli("generate", "hi", "-m", tiny, "--grammar", grammar).stdout
        assert text.strip() in ("a", "b")


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (("--regex", "x[yz]"), {"xy", "xz"}),
        (("--choice", "yes", "--choice", "no"), {"yes", "no"}),
    ],
)
def test_other_forms(cli: Cli, tiny: str, options: tuple[str, ...], texts: set[str]) -> None:
    outcome = cli("generate", "hi", "-m", tiny, *options, "--json")
    assert outcome.document()["text"] in texts


def test_an_object(cli: Cli, tiny: str) -> None:
    asked = ("generate", "hi", "-m", tiny, "--json-object", "--json", "--max-tokens", "30")
    document = cli(*asked).document()
    assert document["text"].startswith("{")
    if document["finish_reason"] == "stop":
        assert isinstance(json.loads(document["text"]), dict)


def test_without_speculation_the_text_is_the_same(cli: Cli, tiny: str) -> None:
    asked = ("generate", "hi", "-m", tiny, "--json-schema", SCHEMA, "--json")
    sampled = ("--temperature", "1", "--seed", "3")
    for more in ((), sampled):
        on = cli(*asked, *more).document()
        off = cli(*asked, *more, "--gamma", "0").document()
        assert on["token_ids"] == off["token_ids"]
        assert off["statistics"]["num_drafted"] == 0


REFUSALS: dict[tuple[str, ...], str] = {
    ("--json-schema", "nowhere.json"): "--json-schema nowhere.json cannot be read: No such file",
    ("--json-schema", "{"): "--json-schema",
    ("--grammar", "nowhere.lark"): "--grammar nowhere.lark cannot be read",
    ("--regex", "("): "does not compile",
    ("--regex", "a", "--json-object"): "got --json-object and --regex: give one",
    ("--disable-any-whitespace",): "got no form: give one",
    ("--regex", "a", "--disable-any-whitespace"): "is for JSON, and this is regex",
    ("--regex", "a", "--ignore-eos"): "--ignore-eos cannot be honoured",
    ("--regex", "a", "--num-beams", "2"): "--regex does nothing in a beam search, got a: drop it",
}


@pytest.mark.parametrize("options", REFUSALS)
def test_a_wrong_form_is_refused_in_one_line(cli: Cli, tiny: str, options: tuple[str, ...]) -> None:
    assert REFUSALS[options] in cli("generate", "hi", "-m", tiny, *options).refusal()
