"""Checkpoints with one file that is not what it should be: each is one line, with the remedy."""
# safetensors' and json's objects are looser than pyright's strict mode asks:
# pyright: basic

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from safetensors.torch import load_file, save_file

from draftsmith.models.hf import faults
from tests.cli.outcome import Cli
from tests.tiny import raw_model, raw_tokenizer

Change = Callable[[Path], object]


@pytest.fixture
def copied(tiny: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "odd"))


def _config(**changes: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text()) | changes
        kept = {name: value for name, value in config.items() if value is not ...}
        path.write_text(json.dumps(kept))

    return change


def _text(name: str, content: str | bytes) -> Change:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def _gone(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _folder(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def _tensor(name: str, rows: int | None) -> Change:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        whole = tensors.pop(name)
        if rows is not None:
            tensors[name] = whole[:rows].contiguous()
        save_file(tensors, path, metadata={"format": "pt"})

    return change


def _index(content: str) -> Change:
    return _text("model.safetensors.index.json", content)


_LOST = json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "model-00002.safetensors"}})
_OUTSIDE = json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "../x.safetensors"}})
_DEEP = '{"a":' + "[" * 100_000
_QUERY = "model.layers.0.self_attn.q_proj.weight"

ODD: dict[str, tuple[Change, str]] = {
    "config a list": (_text("config.json", "[]"), "must hold a JSON object, got a list: fetch"),
    "config a number": (_text("config.json", "3"), "must hold a JSON object, got a int: fetch"),
    "config empty": (_text("config.json", ""), "config.json is not JSON (Expecting value"),
    "config cut": (_text("config.json", '{"model_type": "lla'), "config.json is not JSON"),
    "config not UTF-8": (_text("config.json", b'{"a": "\xe9"}'), "config.json is not JSON"),
    "config too deep": (_text("config.json", _DEEP), "config.json is not JSON (maximum recursion"),
    "config a folder": (_folder("config.json"), "has no config.json; give a folder"),
    "no type": (_config(model_type=...), "its config.json has no model_type: fetch it again"),
    "type of no name": (_config(model_type=5), "model_type must be a name, such as 'llama', got 5"),
    "unknown type": (_config(model_type="llamma"), "no model_type 'llamma': did you mean llama?"),
    "code of its own": (
        _config(model_type="own", auto_map={"AutoModelForCausalLM": "x.Y"}),
        "of type 'own' runs only by Python code of its own, which is never run here",
    ),
    "code in a known type's place": (
        _config(auto_map={"AutoModelForCausalLM": "modeling.MyForCausalLM"}),
        "has 'MyForCausalLM' of Python code of its own for 'llama', which is never run here",
    ),
    "a tokenizer's code": (
        _text("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["own.Mine", null]}}'),
        "has no tokenizer_class 'Mine', and code of a checkpoint is never run here",
    ),
    "an unknown tokenizer": (
        _text("tokenizer_config.json", '{"tokenizer_class": "WobbleTokenizer"}'),
        "has no tokenizer_class 'WobbleTokenizer'",
    ),
    "an end beyond the vocabulary": (
        _config(eos_token_id=[1, 400]),
        "config.json: eos_token_id 400 is beyond the vocabulary of",
    ),
    "a longest text of no number": (
        _text("tokenizer_config.json", '{"model_max_length": "long"}'),
        "cannot be loaded: '>' not supported",
    ),
    "an end that is no id elsewhere": (
        _text("generation_config.json", '{"eos_token_id": [1.5]}'),
        "eos_token_id must be a token id or a list of them, got [1.5]",
    ),
    "a tokenizer of other types": (
        _text("tokenizer.json", '{"model": {"type": "BPE", "vocab": [], "merges": 3}}'),
        "cannot be loaded: ",
    ),
    "an end beyond it elsewhere": (
        _text("generation_config.json", '{"eos_token_id": 9000}'),
        "generation_config.json: eos_token_id 9000 is beyond the vocabulary of",
    ),
    "size a text": (_config(hidden_size="big"), "hidden_size must be a whole number, 1 or more"),
    "no layers": (_config(num_hidden_layers=0), "num_hidden_layers must be a whole number"),
    "negative layers": (_config(num_hidden_layers=-1), "1 or more, got -1: fetch it again"),
    "no context": (_config(max_position_embeddings=0), "max_position_embeddings must be"),
    "too many layers": (_config(num_hidden_layers=5), "it lacks tensor 'model.layers.2"),
    "another vocabulary": (_config(vocab_size=500), "but the config means (500, 32): take"),
    "heads that do not divide": (_config(num_attention_heads=3), "not a multiple of the number"),
    "unknown activation": (_config(hidden_act="wobble"), "cannot be loaded: KeyError: 'wobble'"),
    "an end of text": (_config(eos_token_id="end"), "eos_token_id must be a token id or a list of"),
    "an epsilon of text": (_config(rms_norm_eps="small"), "expected float, got str"),
    "scaling a list": (_config(rope_parameters=[1]), "'rope_parameters' with value [1]"),
    "weights cut": (_cut, "model.safetensors is cut off or overlong: it has"),
    "weights empty": (
        _text("model.safetensors", ""),
        "cut off or no safetensors file: it has 0",
    ),
    "weights garbage": (_text("model.safetensors", "x" * 99), "is cut off or no safetensors file"),
    "no weights": (_gone("model.safetensors"), "cannot be read (Error no file named model.safe"),
    "a tensor less": (_tensor(_QUERY, None), f"it lacks tensor '{_QUERY}'; fetch it again"),
    "a tensor cut": (_tensor(_QUERY, 8), f"tensor '{_QUERY}' has shape (8, 32), but the config"),
    "index cut": (_index("{"), "model.safetensors.index.json is not JSON"),
    "index a list": (_index("[]"), "must hold a JSON object, got a list"),
    "index without a map": (_index("{}"), "has no weight_map of tensors to files: fetch"),
    "a part missing": (_index(_LOST), "lacks 'model-00002.safetensors', a part of its weights"),
    "a part outside": (_index(_OUTSIDE), "names '../x.safetensors', which is outside the folder"),
    "no tokenizer": (_gone("tokenizer.json"), "has no tokenizer (tokenizer.json, tokenizer.model"),
    "tokenizer cut": (_text("tokenizer.json", "{"), "tokenizer.json is not JSON"),
    "tokenizer a list": (_text("tokenizer.json", "[]"), "must hold a JSON object, got a list"),
    "tokenizer settings": (_text("tokenizer_config.json", "[]"), "must hold a JSON object"),
    "generation settings": (_text("generation_config.json", "{"), "generation_config.json is not"),
}
TEMPLATES = {
    "{% for turn in messages %}": "Unexpected end of template",
    "{{ messages[0].nothing.more }}": "has no attribute 'nothing'",
    "{{ raise_exception('no thanks') }}": "refuses the messages: no thanks: change the turns",
    "{{ messages | nosuch }}": "No filter named 'nosuch'",
    "{{ messages + 3 }}": "can only concatenate list",
    "{{ 1 / 0 }}": "division by zero: change the turns, or mend the template",
}


@pytest.mark.parametrize(("change", "said"), ODD.values(), ids=ODD)
def test_an_odd_checkpoint_is_one_line(cli: Cli, copied: Path, change: Change, said: str) -> None:
    change(copied)
    outcome = cli("generate", "hi", "-n", "2", "-m", str(copied))
    assert said in outcome.refusal()
    assert "-m: " in outcome.stderr
    assert outcome.stdout == ""


@pytest.mark.parametrize(("template", "said"), TEMPLATES.items())
def test_a_broken_template_is_one_line(cli: Cli, copied: Path, template: str, said: str) -> None:
    (copied / "chat_template.jinja").write_text(template)
    outcome = cli("generate", "hi", "-n", "2", "-m", str(copied), "--chat")
    assert said in outcome.refusal()
    assert outcome.stdout == ""


def test_code_that_the_library_has_as_well_is_left_alone(cli: Cli, copied: Path) -> None:
    (copied / "modeling_llama.py").write_text("raise SystemExit('the code ran')")
    _config(auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})(copied)
    outcome = cli("generate", "hi", "-n", "2", "-m", str(copied), stdin="y\n")
    assert outcome.status == 0
    assert "code" not in outcome.stdout + outcome.stderr


def test_no_code_runs_and_nothing_is_asked_of_stdin(cli: Cli, copied: Path) -> None:
    (copied / "own.py").write_text("raise SystemExit('the code ran')")
    for kind in ("own", "llama", "gpt2"):
        _config(model_type=kind, auto_map={"AutoModelForCausalLM": "own.Mine"})(copied)
        for command in (("generate", "hi", "-m"), ("models", "show"), ("chat", "-m")):
            said = cli(*command, str(copied), stdin="y\ny\n").refusal()
            assert "which is never run here" in said


def test_activations_of_a_model_without_such_products_are_refused(cli: Cli, tmp_path: Path) -> None:
    tokenizer = raw_tokenizer()
    raw_model("gpt2", vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    said = cli("generate", "hi", "-m", str(tmp_path), "--activations", "int8").refusal()
    assert "--activations int8 needs a native decoder on a CPU" in said
    assert "has none: leave it out" in said


def test_an_adapted_model_without_a_tensor_is_no_random_model(cli: Cli, tmp_path: Path) -> None:
    tokenizer = raw_tokenizer()
    raw_model("gpt2", vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _tensor("transformer.h.1.mlp.c_fc.weight", None)(tmp_path)
    said = cli("generate", "hi", "-n", "2", "-m", str(tmp_path)).refusal()
    assert "lacks tensor 'transformer.h.1.mlp.c_fc.weight': fetch it again, whole" in said


def test_a_hub_out_of_reach_is_tried_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def get(url: str, **options: object) -> None:
        tries.append(url)
        raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr(faults, "get_hf_file_metadata", get)
    monkeypatch.setattr(faults, "is_offline", lambda: False)
    said = cli("generate", "hi", "-m", "nobody/nothing").refusal()
    assert "-m 'nobody/nothing' is not kept here, and the Hub cannot be reached" in said
    assert "check the network, or give a local folder" in said
    assert len(tries) == 1


def test_an_offline_hub_is_not_tried(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "is_offline", lambda: True)
    assert "HF_HUB_OFFLINE forbids" in cli("models", "show", "nobody/nothing").refusal()


@pytest.mark.parametrize("start", [[1, 2], "x", 900, -1])
def test_a_start_that_is_no_id_is_refused(cli: Cli, tmp_path: Path, start: object) -> None:
    tokenizer = raw_tokenizer()
    raw_model("bart", vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for name in ("config.json", "generation_config.json"):
        path = tmp_path / name
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"decoder_start_token_id": start})
        )
    said = cli("generate", "hi", "-n", "2", "-m", str(tmp_path)).refusal()
    assert "decoder_start_token_id" in said
