"""The JSON of a benchmark: written whole, read with care."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from draftsmith.bench.run import Bench
from draftsmith.bench.summary import summarise
from draftsmith.errors import InvalidRequestError
from draftsmith.report.document import environment

__all__ = ["SCHEMA", "VERSION", "as_document", "read_document"]

SCHEMA = "draftsmith.bench"
VERSION = 1


def as_document(
    bench: Bench, settings: Mapping[str, Any], *, is_complete: bool, command: str
) -> dict[str, Any]:
    """Everything that was measured, and where.

    Args:
        bench: Finished or interrupted.
        settings: What was asked for.
        is_complete: Whether every arm of every cell came to its end.
        command: The command line.
    """
    is_cpu = bench.engine.target.device.type == "cpu"
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "is_complete": is_complete,
        "command": command,
        "environment": environment(),
        "settings": dict(settings),
        "cells": [
            {
                "workload": run.cell.workload,
                "temperature": run.cell.temperature,
                "batch_size": run.cell.batch_size,
                "num_prompts": len(run.item_ids),
                "is_flattened": run.is_flattened,
                "is_complete": run.is_complete,
                "arms": [
                    summarise(
                        run,
                        track,
                        is_promised=_is_promised(bench, run.cell.temperature),
                        is_synchronous=is_cpu,
                    )
                    for track in run.tracks
                ],
            }
            for run in bench.cells
        ],
    }


def _is_promised(bench: Bench, temperature: float) -> bool:
    """At temperature 0 every verifier gives the same text; above it, `coupled` does."""
    return temperature == 0 or bench.params.verifier in (None, "coupled")


def read_document(path: Path) -> dict[str, Any]:
    """Read a benchmark's JSON.

    Raises:
        InvalidRequestError: If it cannot be read, is no benchmark, or of another version.
    """
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be read: {error.strerror}: check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{path} is not JSON ({error}): give what draftsmith bench --json-file wrote"
        ) from error
    document = cast(dict[str, Any], found) if isinstance(found, dict) else {}
    if document.get("schema") != SCHEMA:
        raise InvalidRequestError(
            f"{path} is not a benchmark: give what draftsmith bench --json-file wrote"
        )
    if document.get("version") != VERSION:
        raise InvalidRequestError(
            f"{path} has version {document.get('version')} of the format, and this draftsmith "
            f"reads {VERSION}: measure again"
        )
    return document
