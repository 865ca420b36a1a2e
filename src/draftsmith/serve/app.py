"""The app: routes, errors, and the engine's thread for as long as it runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response

from draftsmith import __version__
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.serve.errors import ApiError, ErrorResponse
from draftsmith.serve.guards import BodyGuard, KeyGuard, RequestLog
from draftsmith.serve.refusals import refusal_of, refusal_of_engine
from draftsmith.serve.routes import (
    chat,
    completions,
    health,
    metrics,
    models,
    page,
    responses,
    stats,
    tokens,
)
from draftsmith.serve.schemas.answers import ChatChunk, ErrorBody, ResponseEvent, TextCompletion
from draftsmith.serve.schemas.documented import ERRORS, with_bounds, with_streams
from draftsmith.serve.service import Service
from draftsmith.serve.settings import ServeSettings

__all__ = ["create_app"]


def create_app(engine: Engine, settings: ServeSettings | None = None) -> FastAPI:
    """An ASGI app that serves an engine.

    Args:
        engine: Nobody else may run it meanwhile.
        settings: None is the default ones.

    Returns:
        The app; its `state.service` is what the routes have at hand. The engine's thread runs
        between the app's startup and its shutdown.
    """
    service = Service(engine, settings or ServeSettings())
    app = FastAPI(
        title="draftsmith",
        version=__version__,
        lifespan=_lifespan,
        responses=ERRORS,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign] # as FastAPI has it done
    for part in (chat, completions, responses, models, tokens, health, metrics, stats, page):
        app.include_router(part.router)
    # The last one added is the first that a request meets.
    limits, keys = service.settings.limits, service.settings.api_keys
    app.add_middleware(
        BodyGuard, max_bytes=limits.max_body_bytes, timeout_s=service.settings.body_timeout_s
    )
    if keys:
        app.add_middleware(KeyGuard, keys=keys)
    app.add_middleware(RequestLog, on_failure=service.metrics.note_failure)
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(DraftsmithError, _answer_engine_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_unforeseen)
    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """What is served, with this server's own limits."""
    if app.openapi_schema is None:
        # Events of streams have a schema from this version on.
        made = get_openapi(
            title=app.title, version=app.version, openapi_version="3.2.0", routes=app.routes
        )
        found = with_streams(made, ChatChunk, TextCompletion, ResponseEvent, ErrorBody)
        service: Service = app.state.service
        longest = service.settings.limits.max_output_tokens
        last = service.engine.target.traits.vocab_size - 1
        bounds: dict[str, int] = dict.fromkeys(("prompt", "tokens", "stop_token_ids"), last)
        lengths = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
        with_bounds(found, bounds | dict.fromkeys(lengths, longest))
        app.openapi_schema = found
    return app.openapi_schema


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    worker = app.state.service.worker
    worker.start()
    try:
        yield
    finally:
        worker.stop()


async def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return ErrorResponse(error)


async def _answer_engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DraftsmithError)
    return ErrorResponse(refusal_of_engine(error))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return ErrorResponse(refusal_of(error.errors(), error.body))


async def _answer_unforeseen(request: Request, error: Exception) -> Response:
    # Its traceback goes to the log.
    return ErrorResponse(ApiError(500, f"the server failed ({type(error).__name__}): see its log"))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {})
    return ErrorResponse(ApiError(error.status_code, message), headers)
