"""An option is one thing: the same names, and the same kind of value, in every command."""

from typing import get_args

import pytest
from cyclopts.argument import Argument

from tests.cli.outcome import Cli
from tests.cli.reference import commands

_COMMANDS = dict(commands())
_OPTIONS: list[tuple[str, Argument]] = [
    (name, argument)
    for name, command in _COMMANDS.items()
    for argument in command.assemble_argument_collection()
    if argument.names and argument.names[0].startswith("-")
]


def test_every_command_is_looked_at() -> None:
    assert {"generate", "chat", "bench", "bench passrate", "models list"} <= _COMMANDS.keys()
    assert len(_OPTIONS) > 100


@pytest.mark.parametrize("spelling", sorted({name for _, one in _OPTIONS for name in one.names}))
def test_a_spelling_names_one_option_of_one_kind_everywhere(spelling: str) -> None:
    found = {command: one for command, one in _OPTIONS if spelling in one.names}
    assert len({one.names for one in found.values()}) == 1, found
    kinds = {_kind(one.hint) for one in found.values()}
    assert len(kinds) == 1, {command: _kind(one.hint) for command, one in found.items()}


def _kind(hint: object) -> str:
    """Of one value: whether it may be left out or repeated is the command's affair."""
    parts = [part for part in get_args(hint) if part not in (type(None), Ellipsis)]
    if not parts or (not isinstance(hint, type) and "Literal" in str(hint).split("[")[0]):
        return str(hint)
    return " ".join(sorted({_kind(part) for part in parts}))


@pytest.mark.parametrize("command", [name for name in _COMMANDS if name.startswith("models")])
def test_json_is_a_flag(command: str) -> None:
    flags = [one for name, one in _OPTIONS if name == command and "--json" in one.names]
    assert all(one.hint is bool for one in flags)


def test_n_is_max_tokens_and_samples_have_a_name_of_their_own(cli: Cli, tiny: str) -> None:
    document = cli("generate", "hi", "-m", tiny, "-n", "3", "--ignore-eos", "--json").document()
    assert len(document["token_ids"]) == 3
    said = cli("generate", "hi", "-m", tiny, "--n", "3").refusal()
    assert "-n is --max-tokens, and the number of samples --num-samples" in said


def test_a_beam_search_needs_no_word_about_the_draft(cli: Cli, tiny: str) -> None:
    search = ("generate", "the quick", "-m", tiny, "--num-beams", "2", "-n", "4", "--json")
    assert cli(*search).document()["draft"] == "none"


def test_json_goes_to_stdout_in_the_place_of_tables(cli: Cli) -> None:
    document = cli("reproduce", "chen", "--json").document()
    assert document["num_same"] == 15
