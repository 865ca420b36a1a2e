"""`draftsmith models`: what can be run, fetching it, and what is known of it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

__all__ = ["app"]

app = App(name="models", help="List, fetch and describe models.")


@app.command(name="list")
def list_models(
    *, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> None:
    """List the catalogue.

    Parameters
    ----------
    json_output
        Print a JSON array.
    """
    from draftsmith.models.catalogue import CATALOGUE
    from draftsmith.models.home import home

    rows = [
        {
            "name": entry.name,
            "num_bytes": entry.num_bytes,
            "licence": entry.licence,
            "is_here": (home() / "models" / entry.name / entry.filename).exists(),
            "note": entry.note,
        }
        for entry in CATALOGUE.values()
    ]
    if json_output:
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        _print_table(rows)


@app.command
def pull(name: str) -> None:
    """Fetch a model of the catalogue and check it.

    Parameters
    ----------
    name
        As `draftsmith models list` gives it.
    """
    from draftsmith.cli.progress import pull_progress
    from draftsmith.models.pull import pull as fetch

    with pull_progress() as on_progress:
        path = fetch(name, on_progress)
    sys.stdout.write(f"{path}\n")


@app.command
def show(
    reference: str,
    *,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Describe a model: architecture, size, context, weight formats.

    Parameters
    ----------
    reference
        A catalogue name that was fetched, `org/name`, a folder, or a `.gguf` file.
    json_output
        Print one object.
    """
    document = _describe(reference)
    if json_output:
        sys.stdout.write(json.dumps(document) + "\n")
        return
    width = max(map(len, document))
    for key, value in document.items():
        sys.stdout.write(f"{key:<{width}}  {value}\n")


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "size", "licence", "fetched", "note"):
        table.add_column(title)
    for row in rows:
        size = f"{row['num_bytes'] / 1e6:,.0f} MB"
        is_here = "yes" if row["is_here"] else "no"
        table.add_row(row["name"], size, row["licence"], is_here, row["note"])
    Console(highlight=False).print(table)


def _describe(reference: str) -> dict[str, Any]:
    from draftsmith.models.catalogue import CATALOGUE
    from draftsmith.models.home import home
    from draftsmith.models.reference import SourceKind, resolve

    source = resolve(reference)
    document: dict[str, Any] = {"reference": reference, "kind": source.kind.value}
    if source.kind is SourceKind.CATALOGUE:
        entry = CATALOGUE[reference]
        path = home() / "models" / entry.name / entry.filename
        document |= {"licence": entry.licence, "sha256": entry.sha256, "is_here": path.exists()}
        if not path.exists():
            return document | {"num_bytes": entry.num_bytes}
        return document | _of_gguf(path)
    if source.kind is SourceKind.GGUF:
        assert source.path is not None
        return document | _of_gguf(source.path)
    from draftsmith.models.hf.load import describe

    return document | describe(str(source.path or reference))


def _of_gguf(path: Path) -> dict[str, Any]:
    from draftsmith.models.gguf_file import check_gguf

    summary = check_gguf(path)
    return {"path": str(path)} | {name: getattr(summary, name) for name in summary.__slots__}
