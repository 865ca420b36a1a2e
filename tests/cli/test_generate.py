"""`draftsmith generate`: what it prints, and that speculation does not change it."""

import json
from pathlib import Path

import pytest

from tests.cli.outcome import Cli

_KEYS = {
    "text",
    "token_ids",
    "finish_reason",
    "stop_reason",
    "error",
    "statistics",
    "ledger",
    "num_prompt_tokens",
    "elapsed_s",
    "tokens_per_second",
    "target",
    "draft",
    "branches",
    "gamma",
    "device",
    "runtime",
    "versions",
    "seed",
    "exact",
    "parameters",
}
_SEEDED = ("--seed", "7", "--temperature", "0.8", "-n", "24", "--ignore-eos")


def test_branches_grow_trees_and_the_text_stays(cli: Cli, tiny: str) -> None:
    line = ("generate", "the quick", "-m", tiny, *_SEEDED, "--json")
    plain = cli(*line, "--gamma", "0").document()
    drafted = cli(*line, "--draft", tiny, "--gamma", "6", "--branches", "2").document()
    assert drafted["token_ids"] == plain["token_ids"]
    assert (drafted["branches"], plain["branches"]) == (2, 1)
    assert drafted["statistics"]["num_drafted"] > 0


def test_json_is_one_object_and_nothing_else(cli: Cli, tiny: str) -> None:
    outcome = cli("generate", "the quick", "-m", tiny, "-n", "8", "--json")
    document = outcome.document()
    assert outcome.status == 0
    assert outcome.stderr == ""
    assert document.keys() == _KEYS
    assert (document["target"], document["draft"], document["gamma"]) == (tiny, "free", "auto")
    assert document["statistics"]["num_committed"] == len(document["token_ids"])
    assert document["finish_reason"] in ("length", "stop")
    assert document["tokens_per_second"] > 0


def test_json_says_what_held_where_nothing_was_asked(cli: Cli, tiny: str, draft: str) -> None:
    options = ("--threads", "1", "--draft", draft, "--stop-token", "0", "--json")
    document = cli("generate", "hi", "-m", tiny, *options).document()
    runtime = document["runtime"]
    assert runtime["device"] == document["device"] == "cpu"
    assert (runtime["dtype"], runtime["threads"]) == ("float32", 1)
    longest = document["parameters"]["max_tokens"]
    assert longest == 128 - document["num_prompt_tokens"], "what the context leaves"
    rounded = cli("generate", "hi", "-m", tiny, "--dtype", "bfloat16", "-n", "2", "--json")
    assert rounded.document()["runtime"]["dtype"] == "bfloat16"


def test_cut_offs_that_cut_nothing_off_need_no_temperature(cli: Cli, tiny: str) -> None:
    options = ("--top-p", "1", "--top-k", "0", "--min-p", "0")
    assert cli("generate", "hi", "-m", tiny, "-n", "2", *options).status == 0


def test_json_lists_the_samples_and_their_log_probabilities(cli: Cli, tiny: str) -> None:
    options = ("--num-samples", "3", "-n", "6", "--temp", "1", "--seed", "1", "--ignore-eos")
    document = cli("generate", "hi", "-m", tiny, *options, "--json", "--logprobs", "2").document()
    assert document.keys() == _KEYS | {"completions", "logprobs"}
    assert len(document["completions"]) == 3
    for sample in document["completions"]:
        assert [one["token_id"] for one in sample["logprobs"]] == sample["token_ids"]
        assert all(len(one["top"]) == 2 and one["logprob"] <= 0 for one in sample["logprobs"])
    assert document["text"] == document["completions"][0]["text"]
    assert len({sample["text"] for sample in document["completions"]}) == 3


def test_plain_decoding_says_so(cli: Cli, tiny: str) -> None:
    for options in (["--gamma", "0"], ["--draft", "none"]):
        document = cli("generate", "hi", "-m", tiny, "-n", "2", "--json", *options).document()
        assert (document["draft"], document["gamma"]) == ("none", 0)


def test_a_seed_fixes_the_text_whatever_drafts(
    cli: Cli, tiny: str, draft: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the quick brown fox jumps over the lazy dog")
    plain = cli("generate", "the dog", "-m", tiny, "--gamma", "0", *_SEEDED, "--json").document()
    for drafter in (draft, tiny, "prompt-lookup", "random", f"bigram:{corpus}"):
        options = ("--draft", drafter, "--gamma", "4", *_SEEDED, "--json")
        document = cli("generate", "the dog", "-m", tiny, *options).document()
        assert document["text"] == plain["text"]
        assert document["token_ids"] == plain["token_ids"]
    assert plain["statistics"]["num_drafted"] == 0
    assert document["statistics"]["num_drafted"] > 0


def test_text_goes_to_stdout_and_remarks_to_stderr(cli: Cli, tiny: str) -> None:
    options = ("the dog", "-m", tiny, *_SEEDED)
    text = cli("generate", *options, "--json").document()["text"]
    outcome = cli("generate", *options)
    assert outcome.stdout == text + "\n"
    assert "tok/s" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_several_samples_follow_each_other(cli: Cli, tiny: str) -> None:
    options = ("the dog", "-m", tiny, *_SEEDED, "--num-samples", "2")
    samples = cli("generate", *options, "--json").document()["completions"]
    outcome = cli("generate", *options)
    assert outcome.stdout == "".join(f"{sample['text']}\n" for sample in samples)
    assert "sample 2 of 2" in outcome.stderr


def test_tabs_and_escapes_of_samples_are_not_touched(cli: Cli, tiny: str) -> None:
    only = ("--allow-token", str(_id_of(tiny, "ĉ")), "-n", "3", "--num-samples", "2")
    only = (*only, "--temp", "1")
    assert cli("generate", "hi", "-m", tiny, *only).stdout == "\t\t\t\n\t\t\t\n"


@pytest.mark.parametrize("source", ["argument", "option", "file", "stdin"])
def test_a_prompt_comes_from_anywhere(cli: Cli, tiny: str, tmp_path: Path, source: str) -> None:
    prompt = "two lines:\r\n <b> & é\n"
    file = tmp_path / "prompt.txt"
    file.write_bytes(f"{prompt}\n".encode())
    given = {
        "argument": [prompt],
        "option": ["-p", prompt],
        "file": ["--file", str(file)],
        "stdin": ["-f", "-"],
    }[source]
    common = ("-m", tiny, "-n", "1", "--json")
    document = cli("generate", *given, *common, stdin=f"{prompt}\n").document()
    assert document["num_prompt_tokens"] == len(prompt.encode())


def test_chat_puts_the_prompt_through_the_template(cli: Cli, tiny: str) -> None:
    common = ("-m", tiny, "-n", "1", "--json", "--chat")
    # The tiny template is one special token before each turn and one before the answer.
    alone = cli("generate", "xyz", *common).document()["num_prompt_tokens"]
    assert alone == 1 + len("xyz") + 1
    both = cli("generate", "xyz", "--system", "xyz", *common).document()["num_prompt_tokens"]
    assert both == 2 * (1 + len("xyz")) + 1


def test_a_stop_string_is_cut_off_and_named(cli: Cli, tiny: str) -> None:
    options = ("the dog", "-m", tiny, *_SEEDED, "--json")
    text = cli("generate", *options).document()["text"]
    stop = text[8:11]
    document = cli("generate", *options, "--stop", stop).document()
    assert document["text"] == text[: text.index(stop)]
    assert (document["finish_reason"], document["stop_reason"]) == ("stop", stop)


def test_biases_bans_and_limits_are_passed_on(cli: Cli, tiny: str) -> None:
    options = ("--logit-bias", "7=100", "--max-tokens", "4", "--json")
    assert cli("generate", "hi", "-m", tiny, *options).document()["token_ids"] == [7] * 4
    document = cli("generate", "hi", "-m", tiny, *options, "--ban-token", "7").document()
    assert 7 not in document["token_ids"]


def test_rules_of_the_text_are_passed_on(cli: Cli, tiny: str) -> None:
    rules = "--no-repeat-ngram-size 2 --suppress-token 9 --begin-suppress-token 8 --bad-word the"
    more = "--forced-eos-token 7 --sequence-bias 3,4=1.5 --encoder-repetition-penalty 1.2"
    options = ("-m", tiny, "-n", "4", *rules.split(), *more.split(), "--json")
    document = cli("generate", "hi", *options).document()
    found = document["parameters"]
    assert (found["no_repeat_ngram_size"], found["encoder_repetition_penalty"]) == (2, 1.2)
    assert (found["suppress_token_ids"], found["begin_suppress_token_ids"]) == ([9], [8])
    assert (found["bad_words"], found["forced_eos_token_id"]) == (["the"], 7)
    assert found["sequence_bias"] == {"3,4": 1.5}
    assert document["token_ids"][-1] == 7


@pytest.mark.parametrize(
    "options",
    [
        "--model TINY --draft-model random --num-speculative-tokens 2 --max-tokens 3",
        "-m TINY -md random --draft-max 2 --temp 0 -n 3",
        "--target TINY --assistant-model random --num-assistant-tokens 2 --max-new-tokens 3",
        "--target=TINY --draft=random --gamma=2 --max_new_tokens=3",
    ],
)
def test_the_names_of_other_programs_are_understood(cli: Cli, tiny: str, options: str) -> None:
    given = options.replace("TINY", tiny).split()
    document = cli("generate", "hi", *given, "--ignore-eos", "--json").document()
    assert (document["target"], document["draft"], document["gamma"]) == (tiny, "random", 2)
    assert len(document["token_ids"]) == 3


def test_json_stays_json_where_stdout_is_not_unicode(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draftsmith.cli.stdout.is_unicode", lambda: False)
    outcome = cli("generate", "the dog", "-m", tiny, *_SEEDED, "--json")
    assert outcome.stdout.isascii()
    assert "\N{REPLACEMENT CHARACTER}" in json.loads(outcome.stdout)["text"]


def _id_of(checkpoint: str, name: str) -> int:
    document = json.loads((Path(checkpoint) / "tokenizer.json").read_text())
    return int(document["model"]["vocab"][name])
