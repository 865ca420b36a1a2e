"""The log: a JSON object a line, without prompts and texts unless they are asked for."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

from draftsmith.errors import InvalidRequestError

__all__ = ["REQUESTS", "JsonLines", "log_to"]

REQUESTS = logging.getLogger("draftsmith.serve.requests")
"""A record a request, with its numbers as `fields`."""
_SERVE = logging.getLogger("draftsmith.serve")
_UVICORN = logging.getLogger("uvicorn")


class JsonLines(logging.Handler):
    """Writes records as JSON; a disk that is full, or a reader that is gone, stops no request.

    Args:
        stream: Where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self.num_lost = 0
        """Lines that could not be written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or count it as lost."""
        try:
            self._stream.write(line_of(record) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.num_lost += 1


def line_of(record: logging.LogRecord) -> str:
    """A record as JSON, in ASCII: no character of a request reaches a terminal as it is."""
    whole, part = divmod(record.created, 1)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    line: dict[str, object] = {
        "time": f"{when}.{int(part * 1000):03d}Z",
        "level": record.levelname.lower(),
        "event": record.getMessage(),
    }
    line |= getattr(record, "fields", {})
    if record.exc_info and record.exc_info[1] is not None:
        line["error"] = logging.Formatter().formatException(record.exc_info)
    return json.dumps(line, default=str)


@contextlib.contextmanager
def log_to(path: Path | None) -> Generator[JsonLines]:
    """Let the server's log go to a file, or to stderr.

    Raises:
        InvalidRequestError: If the file cannot be opened.
    """
    try:
        stream = sys.stderr if path is None else path.open("a", encoding="ascii")
    except OSError as error:
        raise InvalidRequestError(
            f"log_file {path} cannot be written ({error.strerror}): give another"
        ) from error
    handler = JsonLines(stream)
    levels = [(logger, logger.level) for logger in (_SERVE, _UVICORN)]
    try:
        for logger, level in zip((_SERVE, _UVICORN), (logging.INFO, logging.WARNING), strict=True):
            logger.addHandler(handler)
            logger.setLevel(level)
        yield handler
    finally:
        for logger, level in levels:
            logger.removeHandler(handler)
            logger.setLevel(level)
        if path is not None:
            with contextlib.suppress(OSError):
                stream.close()
