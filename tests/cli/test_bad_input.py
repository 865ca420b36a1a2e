"""Every refusal is one line on stderr, exit status 2, and nothing on stdout."""

import json
import struct
from pathlib import Path

import pytest
import torch

from draftsmith.drafters import NgramTable
from tests.cli.outcome import Cli


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("generate hi --gama 4", "--gama. Did you mean --gamma?"),
        ("generat hi", 'unknown command "generat". Did you mean "generate"?'),
        ("generate", "no prompt: give one, or --file FILE"),
        ("generate hi there", "unexpected argument 'there'"),
        ("generate hi --gamma", "--gamma needs a value"),
        ("generate hi --gamma x", "--gamma: must be a whole number, got 'x'"),
        ("generate hi --gamma 4.5", "--gamma: must be a whole number, got '4.5'"),
        ("generate hi --gamma 40", "gamma must be between 0 and 32, or auto, got 40"),
        ("generate hi --gamma -1", "gamma must be between 0 and 32, or auto, got -1"),
        ("generate hi --temperature -1", "temperature must be 0 or more, got -1.0"),
        ("generate hi --temperature nan", "temperature must be 0 or more, got nan"),
        ("generate hi --temperature hot", '--temperature: unable to convert "hot"'),
        ("generate hi --top-p 0", "top_p must be above 0 and at most 1, got 0.0"),
        ("generate hi --top-p 1.1", "top_p must be above 0 and at most 1, got 1.1"),
        ("generate hi --top-k -2", "top_k must be 0 (all) or more, got -2"),
        ("generate hi --min-p 2", "min_p must be between 0 and 1, got 2.0"),
        ("generate hi --repetition-penalty 0", "repetition_penalty must be above 0, got 0.0"),
        ("generate hi --presence-penalty inf", "presence_penalty must be finite, got inf"),
        ("generate hi --max-tokens 0", "max_tokens must be 1 or more, got 0"),
        ("generate hi --min-tokens 300", "min_tokens must be between 0 and max_tokens"),
        ("generate hi --n 0", "n must be 1 or more, got 0"),
        ("generate hi --seed -1", "seed must be between 0 and 2**64 - 1, got -1"),
        ("generate hi --stop=", "stop must be made of non-empty strings"),
        ("generate hi --ban-token -3", "banned_token_ids must be token ids"),
        ("generate hi --json --logprobs 101", "logprobs must be between 0 and 100, got 101"),
        ("generate hi --logit-bias 3", "--logit-bias must be ID=VALUE, such as 42=-1.5, got '3'"),
        ("generate hi --logit-bias a=1", "--logit-bias must be ID=VALUE"),
        ("generate hi --logit-bias 3=nan", "logit_bias must be finite"),
        ("generate hi --dtype int3", '"int3" for --dtype. Choose from: "auto"'),
        ("generate hi --verifier lucky", '"lucky" for --verifier. Choose from:'),
        ("generate hi --json --trace", "--trace colours text, and --json prints none"),
        ("generate hi --logprobs 2", "--logprobs shows in --json or --trace-html"),
        ("generate hi --system be-kind", "--system is a turn of a conversation: give --chat"),
        ("generate --file /nowhere/p.txt", "/nowhere/p.txt cannot be read: No such file"),
        ("generate hi --file p.txt", "give a prompt or --file p.txt, not both"),
        ("generate hi --target nosuch", "no model 'nosuch'; give a catalogue name"),
        ("generate hi --target smolm2-135m-instruct", "did you mean smollm2-135m-instruct?"),
        ("generate hi --target /nowhere/m.gguf", "no file /nowhere/m.gguf"),
        ("chat --target nosuch", "no model 'nosuch'"),
        ("chat --top-p 0", "top_p must be above 0"),
        ("chat hello", "unexpected argument 'hello'"),
        ("models pull", "NAME is missing"),
        ("models pull nosuch", "no model 'nosuch' in the catalogue; choose one of"),
        ("models show nosuch", "no model 'nosuch'"),
        ("models lst", 'unknown command "lst". Did you mean "list"?'),
        ("theory", "--alpha is required"),
        ("theory --alpha 1.5", "alpha must be between 0 and 1, got 1.5"),
        ("theory --alpha 0.5 --gamma -1", "gamma must be a whole number, 0 or more, got -1"),
        ("theory --alpha 0.5 --cost-ratio inf", "cost_ratio must be 0 or more and finite"),
        ("demo --gamma 0", "demo compares with speculation"),
        ("demo --draft none", "demo compares with speculation"),
        ("demo --max-tokens 0", "max_tokens must be 1 or more, got 0"),
    ],
)
def test_a_refusal_needs_no_model_and_names_what_is_wrong(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded before the refusal")

    monkeypatch.setattr("draftsmith.api.load_model", load)
    monkeypatch.setattr("draftsmith.api.load_tokenizer", load)
    outcome = cli(*arguments.split())
    assert said in outcome.refusal()
    assert outcome.stdout == ""


def test_the_help_to_see_is_the_commands_own(cli: Cli) -> None:
    assert "(see draftsmith models show --help)" in cli("models", "show").refusal()
    assert "(see draftsmith --help)" in cli("--nope").refusal()


@pytest.mark.parametrize("prompt", ["- one item", "--- a rule"])
def test_a_prompt_that_looks_like_an_option_is_told_how_to_pass(
    cli: Cli, tiny: str, prompt: str
) -> None:
    told = cli("generate", prompt, "--target", tiny)
    assert "put -- before a prompt that begins with a dash" in told.refusal()
    assert cli("generate", "-m", tiny, "-n", "1", "--", prompt).status == 0
    assert cli("generate", f"--prompt={prompt}", "-m", tiny, "-n", "1").status == 0


def test_an_empty_prompt_is_refused(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert "the prompt is empty" in cli("generate", "").refusal()
    assert f"the prompt is empty (--file {empty})" in cli("generate", "-f", str(empty)).refusal()
    assert "the prompt is empty (--file -)" in cli("generate", "-f", "-").refusal()


def test_a_prompt_that_is_not_utf8_is_refused(cli: Cli, tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café".encode("latin-1"))
    assert "is not UTF-8 text (byte 3)" in cli("generate", "-f", str(latin)).refusal()
    assert "standard input is not UTF-8" in cli("generate", "-f", "-", stdin=b"\xff").refusal()
    # What Python makes of such bytes on a command line:
    assert "the prompt is not UTF-8 text" in cli("generate", "caf\udce9").refusal()


def test_a_folder_is_no_prompt_file(cli: Cli, tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in cli("generate", "-f", str(tmp_path)).refusal()


def test_a_prompt_longer_than_the_context_is_refused(cli: Cli, tiny: str) -> None:
    outcome = cli("generate", "no " * 200, "-m", tiny)
    assert f"tokens, but {tiny} has a context of 128: shorten it" in outcome.refusal()
    assert outcome.stdout == ""


def test_ids_beyond_the_vocabulary_are_refused(cli: Cli, tiny: str) -> None:
    said = cli("generate", "hi", "-m", tiny, "--ban-token", "99999").refusal()
    assert "banned_token_ids has id 99999" in said
    assert (
        "logit_bias has id 99999"
        in cli("generate", "hi", "-m", tiny, "--logit-bias", "99999=1").refusal()
    )


def test_a_device_that_is_not_here_is_refused(cli: Cli, tiny: str) -> None:
    said = cli("generate", "hi", "-m", tiny, "--device", "abacus").refusal()
    assert "device 'abacus' is not available" in said


def test_mismatched_tokenizers_name_the_first_token_that_differs(
    cli: Cli, tiny: str, shuffled: str
) -> None:
    said = cli("generate", "hi", "-m", tiny, "-md", shuffled).refusal()
    vocab = json.loads((Path(tiny) / "tokenizer.json").read_text())["model"]["vocab"]
    ours = next(name for name, id in vocab.items() if id == 10)
    theirs = next(name for name, id in vocab.items() if id == 11)
    assert f"token 10 is {theirs!r}, not {ours!r}" in said
    assert shuffled in said
    assert tiny in said


@pytest.mark.parametrize("command", ["generate hi --target", "models show"])
def test_a_broken_gguf_file_is_refused(cli: Cli, tmp_path: Path, command: str) -> None:
    truncated, corrupt = tmp_path / "truncated.gguf", tmp_path / "corrupt.gguf"
    truncated.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2, 5))
    corrupt.write_bytes(b"not a model at all" * 9)
    for path, said in ((truncated, "is truncated"), (corrupt, "is not a GGUF file")):
        outcome = cli(*command.split(), str(path))
        assert f"{path} {said}" in outcome.refusal()
        assert outcome.stdout == ""


def test_a_folder_without_a_model_is_refused(cli: Cli, tmp_path: Path) -> None:
    said = cli("generate", "hi", "-m", str(tmp_path)).refusal()
    assert f"folder {tmp_path} has no config.json" in said


def test_a_draft_that_is_nowhere_is_refused(cli: Cli, tiny: str) -> None:
    assert "no model 'nosuch'" in cli("generate", "hi", "-m", tiny, "-md", "nosuch").refusal()


def test_ngram_tables_that_are_missing_or_corrupt_are_refused(
    cli: Cli, tiny: str, tmp_path: Path
) -> None:
    corrupt, other = tmp_path / "corrupt.npz", tmp_path / "unigram.npz"
    corrupt.write_bytes(b"PK\x03\x04 not a table")
    NgramTable(torch.ones(308, dtype=torch.long)).save(other)
    for draft, said in {
        "bigram": "draft bigram needs a file",
        "bigram:/nowhere.npz": "n-gram file '/nowhere.npz' does not exist",
        "unigram:/nowhere.txt": "n-gram file '/nowhere.txt' does not exist",
        f"bigram:{corrupt}": f"{corrupt} is not an n-gram table",
        f"bigram:{other}": f"{other} holds a table of order 1, not 2",
    }.items():
        assert said in cli("generate", "hi", "-m", tiny, "--draft", draft).refusal()


def test_a_chat_needs_a_template(cli: Cli, untemplated: str) -> None:
    said = cli("chat", "-m", untemplated, stdin="hi\n").refusal()
    assert f"{untemplated} has no chat template: use an instruct model" in said
    said = cli("generate", "hi", "--chat", "-m", untemplated).refusal()
    assert "chat needs a model with a chat template" in said


def test_a_trace_page_that_cannot_be_written_is_refused_before_the_work(
    cli: Cli, tmp_path: Path
) -> None:
    lost = tmp_path / "lost" / "page.html"
    for path, said in ((lost, f"there is no folder {lost.parent}"), (tmp_path, "it is a folder")):
        outcome = cli("generate", "hi", "--trace-html", str(path))
        assert f"trace page {path} cannot be written: {said}" in outcome.refusal()
        assert outcome.stdout == ""
    assert not lost.parent.exists()


def test_a_full_disk_is_told_after_the_text(
    cli: Cli, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)
    page = tmp_path / "page.html"
    outcome = cli("generate", "hi", "-m", tiny, "-n", "2", "--trace-html", str(page))
    assert outcome.status == 2
    assert outcome.stdout != ""
    assert f"trace page {page} cannot be written: No space left" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_nan_logits_end_in_an_error(cli: Cli, not_finite: str, form: list[str]) -> None:
    outcome = cli("generate", "hi", "-m", not_finite, *form)
    assert outcome.status == 2
    assert outcome.stderr.splitlines()[-1].startswith("draftsmith: error: ")
    if form:
        document = outcome.document()
        assert document["finish_reason"] == "error"
        assert document["error"] in outcome.stderr
