"""`draftsmith models`: what can be run, fetching it, and what is known of it."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import Flag, JsonOutput, Target
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.cli.turns import is_terminal
from draftsmith.errors import InvalidRequestError

__all__ = ["app"]

app = App(name="models", help="List, fetch, remove and describe models.")


@app.command(name="list")
def list_models(
    *, json_output: JsonOutput = False, messages: MessageOptions = DEFAULT_MESSAGES
) -> None:
    """List the catalogue.

    Parameters
    ----------
    json_output
        Print a JSON array.
    """
    messages.apply()
    from draftsmith.models.catalogue import CATALOGUE
    from draftsmith.models.home import home
    from draftsmith.models.remove import num_bytes_here
    from draftsmith.models.shipped import SHIPPED

    rows = [
        {
            "name": entry.name,
            "kind": "model",
            "num_bytes": entry.num_bytes,
            "licence": entry.licence,
            "is_here": (home() / "models" / entry.name / entry.filename).exists(),
            "num_bytes_here": num_bytes_here(entry),
            "note": entry.note,
        }
        for entry in CATALOGUE.values()
    ]
    rows += [
        {
            "name": head.name,
            "kind": "head",
            "num_bytes": head.num_bytes,
            "licence": head.licence,
            "is_here": True,
            "num_bytes_here": head.num_bytes,
            "note": head.note,
        }
        for head in SHIPPED.values()
    ]
    if json_output:
        write_json(rows)
        return
    table = [("name", "size", "pulled", "licence", "note"), *map(_row, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        padded = map(str.ljust, cells, widths)
        write_text("  ".join(padded).rstrip() + "\n")


@app.command
def pull(name: str, /, *, messages: MessageOptions = DEFAULT_MESSAGES) -> None:
    """Fetch a model of the catalogue and check it.

    Parameters
    ----------
    name
        As `draftsmith models list` gives it.
    """
    messages.apply()
    from draftsmith.cli.progress import pull_progress
    from draftsmith.models.pull import pull as fetch

    with pull_progress(name) as on_progress:
        path = fetch(name, on_progress)
    write_text(f"{path}\n")


@app.command(name="rm")
def remove_model(
    name: str,
    /,
    *,
    yes: Annotated[Flag, Parameter(alias="-y")] = False,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Remove a pulled model from this disk; it can be pulled again.

    Parameters
    ----------
    name
        As `draftsmith models list` gives it.
    yes
        Do not ask.
    """
    from draftsmith.models.catalogue import find_entry
    from draftsmith.models.remove import num_bytes_here, remove

    messages.apply()
    size = f"{num_bytes_here(find_entry(name)) / 1e6:,.0f} MB"
    if not yes and num_bytes_here(find_entry(name)) and not _is_agreed(name, size):
        return
    remove(name)
    write_text(f"removed {name}, {size}\n")


def _is_agreed(name: str, size: str) -> bool:
    """Ask at a terminal.

    Raises:
        InvalidRequestError: If there is nobody to ask.
    """
    if not is_terminal():
        raise InvalidRequestError(
            f"removing {name} ({size}) needs a yes: give --yes, as there is no terminal to ask at"
        )
    sys.stderr.write(f"remove {name}, {size}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@app.command
def show(
    reference: str,
    /,
    *,
    target: Target | None = None,
    json_output: JsonOutput = False,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Describe a model: architecture, size, context, weight formats; a head: its conventions.

    Parameters
    ----------
    reference
        A catalogue name that was fetched, `org/name`, a folder, or a `.gguf` file.
    target
        Of a draft head, where its files leave something to the target.
    json_output
        Print one object.
    """
    messages.apply()
    document = _describe(reference, target)
    if json_output:
        write_json(document)
        return
    width = max(map(len, document))
    for key, value in document.items():
        write_text(f"{key:<{width}}  {_shown(value)}\n")


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['num_bytes'] / 1e6:,.0f} MB"
    return row["name"], size, _pulled(row), row["licence"], row["note"]


def _pulled(row: dict[str, Any]) -> str:
    if row["is_here"]:
        return "shipped" if row["kind"] == "head" else "yes"
    part = row["num_bytes_here"] / row["num_bytes"]
    return f"{part:.0%}" if row["num_bytes_here"] else "no"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items())
    return "-" if value is None else str(value)


def _describe(reference: str, target: str | None) -> dict[str, Any]:
    from draftsmith.drafters.heads.described import described_head
    from draftsmith.models.catalogue import CATALOGUE
    from draftsmith.models.home import home
    from draftsmith.models.reference import SourceKind, resolve

    source = resolve(reference)
    document: dict[str, Any] = {"reference": reference, "kind": source.kind.value}
    if source.path is not None and (head := described_head(source.path, target)) is not None:
        return document | head
    if target is not None:
        raise InvalidRequestError(f"--target is for a draft head, and {reference!r} is none")
    if source.kind is SourceKind.CATALOGUE:
        entry = CATALOGUE[reference]
        path = home() / "models" / entry.name / entry.filename
        document |= {"licence": entry.licence, "sha256": entry.sha256, "is_here": path.exists()}
        if not path.exists():
            return document | {"num_bytes": entry.num_bytes}
        # The file's own word on its licence may be missing; the catalogue's is not.
        summary = _of_gguf(path)
        del summary["license"]
        return document | summary
    if source.kind is SourceKind.GGUF:
        assert source.path is not None
        return document | _of_gguf(source.path)
    from draftsmith.models.hf.load import describe

    return document | describe(str(source.path or reference))


def _of_gguf(path: Path) -> dict[str, Any]:
    from draftsmith.models.gguf.header import check_gguf

    summary = check_gguf(path)
    return {"path": str(path)} | {name: getattr(summary, name) for name in summary.__slots__}
