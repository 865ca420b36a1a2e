"""Python code of a checkpoint is never run: not by default, not by a yes on standard input."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from draftsmith.errors import ModelFormatError
from draftsmith.models.hf import load as module
from draftsmith.models.hf.own_code import check_own_code
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer
from draftsmith.models.reference import resolve
from tests import tiny

_ROOT = Path(__file__).parents[3]
_LOADERS = ("from_pretrained", "from_config", "pipeline")


def _calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (getattr(node.func, "attr", None) or getattr(node.func, "id", None)) in _LOADERS
    ]


def test_every_call_that_loads_forbids_the_checkpoints_code() -> None:
    found = 0
    for folder in ("src", "benchmarks", "scripts"):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            for call in _calls(path):
                found += 1
                given = {one.arg: one.value for one in call.keywords}
                value = given.get("trust_remote_code")
                is_false = isinstance(value, ast.Constant) and value.value is False
                # In `hf/load.py` the options come from `_where`, whose answer is looked at below.
                assert is_false or (path.name == "load.py" and None in given), (path, call.lineno)
    assert found >= 8


@pytest.mark.parametrize("is_hub", [False, True])
def test_the_options_of_every_load_forbid_it(
    is_hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.raw_model("gpt2").save_pretrained(tmp_path)
    monkeypatch.setattr(module, "check_reachable", lambda _: None)
    monkeypatch.setattr(module, "hf_hub_download", lambda **_: str(tmp_path / "config.json"))
    source = resolve("someone/model" if is_hub else f"{tmp_path}/")
    assert module._where(None if is_hub else tmp_path, source)["trust_remote_code"] is False


@pytest.mark.parametrize("kind", ["own", "llama", "gpt2", "t5"])
def test_a_folder_with_code_is_refused_in_one_line_and_asks_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("it read standard input")

    monkeypatch.setattr("builtins.input", asked)
    tiny.raw_model("t5" if kind == "t5" else "llama").save_pretrained(tmp_path)
    tiny.raw_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('the code ran')")
    path = tmp_path / "config.json"
    auto = "AutoModelForSeq2SeqLM" if kind == "t5" else "AutoModelForCausalLM"
    own = {"model_type": kind, "auto_map": {"AutoConfig": "own.Config", auto: "own.Mine"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    for load in (lambda at: load_model(at, ModelSettings(device="cpu")), load_tokenizer):
        with pytest.raises(ModelFormatError, match="which is never run here") as caught:
            load(f"{tmp_path}/")
        assert "\n" not in str(caught.value)


def test_code_of_a_hub_model_is_refused_before_its_weights_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"x": "own.Mine"}}')
    monkeypatch.setattr(module, "check_reachable", lambda _: None)
    monkeypatch.setattr(module, "hf_hub_download", lambda **_: str(tmp_path / "config.json"))
    with pytest.raises(ModelFormatError, match="which is never run here"):
        load_model("someone/own", ModelSettings(device="cpu"))


@pytest.mark.parametrize(
    "given",
    ["modeling_llama.LlamaForCausalLM", "org/name--modeling_llama.LlamaForCausalLM", None],
)
def test_the_librarys_own_class_is_no_code_of_the_checkpoint(given: Any) -> None:
    own = {"AutoModelForCausalLM": given} if given else {"AutoConfig": "x.LlamaConfig"}
    check_own_code({"model_type": "llama", "auto_map": own}, "model")
