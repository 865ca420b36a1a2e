"""Where a report goes, beside the terminal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from draftsmith.cli.options import OUTPUT
from draftsmith.errors import InvalidRequestError

__all__ = ["DEFAULT_FILES", "FileOptions"]


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Where the numbers go, beside the terminal.

    Parameters
    ----------
    json_file
        Write everything that was found to this file.
    html
        Write a page with tables and plots to this file.
    plots
        Write every plot into this folder.
    """

    json_file: Annotated[Path | None, Parameter(name="--json")] = None
    html: Path | None = None
    plots: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be written, before the work.

        Raises:
            InvalidRequestError: With the reason.
        """
        from draftsmith.report.html import check_writable

        for path, what in ((self.json_file, "document"), (self.html, "page")):
            if path is not None:
                check_writable(path, what)
        if self.plots is not None and not self.plots.is_dir():
            raise InvalidRequestError(f"there is no folder {self.plots} for plots: make it first")


DEFAULT_FILES = FileOptions()
