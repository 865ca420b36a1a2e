"""Where a document goes: JSON on stdout or in a file, a page, plots."""

from dataclasses import dataclass

from cyclopts import Parameter

from draftsmith.cli.options import OUTPUT, Html, JsonFile, JsonOutput, Plots
from draftsmith.errors import InvalidRequestError

__all__ = ["DEFAULT_DOCUMENT", "DEFAULT_FILES", "DocumentOptions", "FileOptions"]


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class DocumentOptions:
    """Where the numbers go.

    Parameters
    ----------
    json_output
        Print everything that was found as JSON, in the place of the tables.
    json_file
        Write the same JSON to this file.
    html
        Write a page with tables and plots to this file.
    """

    json_output: JsonOutput = False
    json_file: JsonFile | None = None
    html: Html | None = None

    def check(self) -> None:
        """Refuse what cannot be written, before the work.

        Raises:
            InvalidRequestError: With the reason.
        """
        from draftsmith.report.html import check_writable

        for option, path in (("--json-file", self.json_file), ("--html", self.html)):
            if path is not None:
                check_writable(path, option)


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class FileOptions(DocumentOptions):
    """Where the numbers go, and the plots.

    Parameters
    ----------
    json_output
        Print everything that was found as JSON, in the place of the tables.
    json_file
        Write the same JSON to this file.
    html
        Write a page with tables and plots to this file.
    plots
        Write every plot into this folder.
    """

    plots: Plots | None = None

    def check(self) -> None:
        """Refuse what cannot be written, before the work.

        Raises:
            InvalidRequestError: With the reason.
        """
        super().check()
        if self.plots is not None and not self.plots.is_dir():
            raise InvalidRequestError(f"there is no folder {self.plots} for plots: make it first")


DEFAULT_DOCUMENT = DocumentOptions()
DEFAULT_FILES = FileOptions()
