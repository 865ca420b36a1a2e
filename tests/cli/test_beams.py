"""`draftsmith generate --num-beams`: the likeliest texts, with a draft or without."""

import pytest

from tests.cli.outcome import Cli

_SEARCH = ("the quick", "--num-beams", "3", "-n", "8", "--ignore-eos")


def test_a_draft_model_changes_no_text(cli: Cli, tiny: str) -> None:
    plain = cli("generate", *_SEARCH, "-m", tiny, "--draft", "none", "--json").document()
    drafted = cli("generate", *_SEARCH, "-m", tiny, "--draft", tiny, "--json").document()
    assert drafted["token_ids"] == plain["token_ids"]
    assert drafted["score"] == plain["score"]
    assert plain["num_steps"] == plain["num_target_passes"] == 8
    assert drafted["num_target_passes"] < 8
    assert len(plain["beams"]) == 1
    asked = {"num_beams": 3, "num_samples": 1, "max_tokens": 8, "ignore_eos": True}
    assert plain["parameters"] == {**asked, "draft_beams": None}
    assert drafted["parameters"] == {**asked, "draft_beams": 6}


def test_several_texts_come_best_first(cli: Cli, tiny: str) -> None:
    options = ("-m", tiny, "--draft", "none", "--num-samples", "3")
    document = cli("generate", *_SEARCH, *options, "--json").document()
    scores = [one["score"] for one in document["beams"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    outcome = cli("generate", *_SEARCH, *options)
    assert outcome.stdout.startswith(document["text"])
    assert "steps per pass" in outcome.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-beams", "2", "--temp", "0.5"), "--temp does nothing in a beam search"),
        (("--num-beams", "2", "--trace"), "--trace does nothing in a beam search"),
        (("--num-beams", "2", "--num-samples", "3"), "--num-samples at most that"),
        (("--num-beams", "-1"), "--num-beams must be 1 or more"),
        (("--draft-beams", "2"), "give --num-beams"),
        (
            ("--num-beams", "2", "--draft", "prompt-lookup"),
            "prompt-lookup is none: give a draft model, or no draft",
        ),
        (("--num-beams", "2", "--draft-beams", "1", "--draft", "none"), "--draft-beams must be"),
    ],
)
def test_what_a_search_would_ignore_is_refused(
    cli: Cli, tiny: str, options: tuple[str, ...], message: str
) -> None:
    assert message in cli("generate", "hi", "-m", tiny, *options).refusal()


def test_draft_settings_and_lenience_are_options(cli: Cli, tiny: str, draft: str) -> None:
    sampled = ("hi", "-m", tiny, "-n", "8", "--temp", "0.8", "--seed", "3", "--ignore-eos")
    plain = cli("generate", *sampled, "--draft", "none", "--json").document()
    own = ("--draft", draft, "--draft-temperature", "1.5", "--draft-top-k", "9", "--json")
    assert cli("generate", *sampled, *own).document()["token_ids"] == plain["token_ids"]
    lossy = ("--draft", draft, "--lossy-lenience", "0.01", "--json")
    counts = cli("generate", *sampled, *lossy).document()["statistics"]
    exact = cli("generate", *sampled, "--draft", draft, "--json").document()["statistics"]
    assert counts["draft_yield"] > exact["draft_yield"]
    refusal = cli("generate", *sampled, *lossy, "--verifier", "block").refusal()
    assert "--lossy-lenience changes the rejection verifier only" in refusal
