"""`draftsmith completion`: a script that lets a shell complete commands and options."""

from typing import Literal

from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.stdout import write_text

__all__ = ["completion"]


def completion(
    shell: Literal["bash", "zsh", "fish"], /, *, messages: MessageOptions = DEFAULT_MESSAGES
) -> None:
    """Print a completion script.

    Parameters
    ----------
    shell
        Which shell will read it.
    """
    from draftsmith.cli import app

    messages.apply()
    write_text(app.generate_completion(shell=shell))
