"""The command line: `draftsmith generate | chat | models | theory | demo`."""

import os
import sys

from cyclopts import App, CycloptsError

from draftsmith import __version__
from draftsmith.errors import DraftsmithError

__all__ = ["app", "main"]

app = App(
    name="draftsmith",
    help="Generate with a transformer: the same text, sooner, by exact speculative decoding.",
    version=__version__,
    help_on_error=False,
)
# Strings, so that a command's module is imported when the command is run.
for _name, _place, _help in (
    ("generate", "generate:generate", "Generate text for one prompt."),
    ("chat", "chat:chat", "Talk to a model; each line is a turn."),
    ("models", "models:app", "List, fetch and describe models."),
    ("theory", "theory:theory", "What the papers' formulas say of a draft."),
    ("demo", "demo:demo", "The same text with and without speculation, side by side."),
):
    app.command(f"draftsmith.cli.{_place}", name=_name, help=_help)

_USAGE_ERROR = 2
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; every refusal is one line on stderr and exit status 2."""
    try:
        app(exit_on_error=False, print_error=False)
    except DraftsmithError as error:
        _refuse(str(error))
    except CycloptsError as error:
        _refuse(f"{_one_line(str(error))} (see draftsmith --help)")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`| head`): no complaint, and none when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _refuse(message: str) -> None:
    sys.stderr.write(f"draftsmith: error: {_one_line(message)}\n")
    sys.exit(_USAGE_ERROR)


def _one_line(text: str) -> str:
    return " ".join(text.split())
