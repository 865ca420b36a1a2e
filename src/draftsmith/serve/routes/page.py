"""`/`: the playground, and the files that it is made of."""

from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Another version of the server must not meet this one's script.
    "Cache-Control": "no-cache",
}
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class _File(NamedTuple):
    content: bytes
    media_type: str


def _read() -> dict[str, _File]:
    """All files, by their names: nothing else can be asked for."""
    found: dict[str, _File] = {}
    for path in files("draftsmith.serve").joinpath("static").iterdir():
        suffix = path.name[path.name.rindex(".") :]
        found[path.name] = _File(path.read_bytes(), _MEDIA_TYPES[suffix])
    return found


_FILES = _read()


@router.get("/")
async def page() -> Response:
    """The playground."""
    return _answer("index.html")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """One of its files."""
    if name not in _FILES:
        raise HTTPException(404, "there is no such file")
    return _answer(name)


def _answer(name: str) -> Response:
    content, media_type = _FILES[name]
    return Response(content, headers=_HEADERS | {"Content-Type": media_type})
