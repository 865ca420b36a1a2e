"""The command line: `draftsmith COMMAND`; each command's module is imported when it runs."""

import os
import sys

from cyclopts import App, CycloptsError

from draftsmith import __version__
from draftsmith.cli.exits import INTERRUPTED, READER_GONE, REFUSED
from draftsmith.cli.messages import warn
from draftsmith.cli.refusal import as_typed, explain, one_line
from draftsmith.cli.stdout import flush, rich_console
from draftsmith.cli.terminal import write_stderr
from draftsmith.errors import DraftsmithError, InvalidRequestError

__all__ = ["app", "main"]

app = App(
    name="draftsmith",
    help="Generate with a transformer: the same text, sooner, by exact speculative decoding.",
    help_format="plaintext",  # rich's markdown takes a fifth of the time of --help
    version=__version__,
    help_on_error=False,
    suppress_keyboard_interrupt=False,  # it would end without a word
)
_HELP = {
    "generate:generate": (
        "Generate text for one prompt, or for a batch.\n\n"
        "The text goes to stdout, a line of statistics to stderr. Ctrl-C ends the text after the "
        "round in hand, a second one at once."
    ),
    "chat:chat": (
        "Talk to a model; each line is a turn, typed or piped.\n\n"
        "/help lists the commands, /exit or the end of the input leaves. Ctrl-C stops an answer; "
        "where the lines are piped, the conversation."
    ),
    "models:app": "List, fetch, remove and describe models.",
    "theory:theory": (
        "What the papers' formulas say of a draft.\n\n"
        "They take every drafted token to be kept with the same probability, and a check to cost "
        "one plain pass (Leviathan et al., arXiv:2211.17192); a benchmark reports what it measured."
    ),
    "reproduce:app": "The source papers' numbers, ours beside theirs.",
    "certify:certify": (
        "Certify that a pair, a server or a transformers pair generates exactly what its target "
        "would.\n\nExit status 1 if anything fails."
    ),
    "plan:plan": (
        "Measure this machine, and say whether speculation will pay.\n\n"
        "For every drafter: how often it is right, what it costs, the best gamma, the speed to "
        "expect, and the batch size at which it stops paying. Takes about a minute."
    ),
    "train:train": (
        "Train a draft head for a target, on text that the target writes itself.\n\n"
        "The folder that it writes is what --draft takes. A training that was ended goes on when "
        "the same command is run again."
    ),
    "serve:app": (
        "Serve a model over OpenAI's API, every parameter exact under speculation.\n\n"
        "With --gamma auto, the default here, drafts are those that pay. docs/serve.md lists every "
        "field of a request."
    ),
    "bench:app": "Measure speculation beside plain decoding, in one run and in turn.",
    "completion:completion": (
        "Print a script that completes commands and options in a shell.\n\n"
        'bash: eval "$(draftsmith completion bash)"; zsh: draftsmith completion zsh > '
        '"${fpath[1]}/_draftsmith"; fish: draftsmith completion fish | source'
    ),
    "demo:demo": (
        "The same text with and without speculation, side by side.\n\n"
        "Exit status 1 if the texts differ."
    ),
}
# Strings, so that a command's module is imported when the command is run.
for _place, _help in _HELP.items():
    app.command(f"draftsmith.cli.{_place}", name=_place.partition(":")[0], help=_help)


def main() -> None:
    """Run the command line and exit; a refusal is one line on stderr, never a traceback."""
    try:
        _run(sys.argv[1:])
    except BrokenPipeError:
        # The reader went away (`| head`): no complaint, and none when Python closes stdout.
        _drop_stdout()
        sys.exit(READER_GONE)


def _run(arguments: list[str]) -> None:
    try:
        app(arguments, exit_on_error=False, print_error=False, console=rich_console())
        flush()
    except DraftsmithError as error:
        _refuse(as_typed(str(error), app, arguments))
    except CycloptsError as error:
        _refuse(explain(error))
    except KeyboardInterrupt:
        warn("interrupted")
        sys.exit(INTERRUPTED)
    except MemoryError:
        _refuse("out of memory: take a smaller model, a smaller --dtype or a shorter context")


def _refuse(message: str) -> None:
    try:
        flush()
    except InvalidRequestError:
        _drop_stdout()
    write_stderr(f"draftsmith: error: {one_line(message)}\n")
    sys.exit(REFUSED)


def _drop_stdout() -> None:
    """Send what is still held back nowhere, so that Python's own exit does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
