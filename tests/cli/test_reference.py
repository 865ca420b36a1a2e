"""docs/cli.md says what the program does."""

from draftsmith.cli.chat import COMMANDS
from tests.cli.reference import PAGE, commands, options, with_tables

_PAGE = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_the_programs_own() -> None:
    assert with_tables(_PAGE) == _PAGE, "write them anew: python -m tests.cli.reference"


def test_every_command_and_option_stands_in_the_page() -> None:
    for name, command in commands():
        assert name in _PAGE
        for one in options(command):
            assert all(f"`{spelling}`" in _PAGE for spelling in one.names), one.names


def test_every_command_of_a_chat_stands_in_the_page() -> None:
    assert all(f"`{name}`" in _PAGE for name in COMMANDS)
