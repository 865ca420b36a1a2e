"""Refusals in the shape of OpenAI's API: a status, and a message that names the field."""

import json
from typing import Any

from starlette.responses import Response

__all__ = ["ApiError", "ErrorResponse", "error_body", "refused"]

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """A request that gets an error as its answer.

    Args:
        status: Of HTTP.
        message: One line: the name, the value, the remedy.
        param: The field that is wrong, if it is one field.
        code: A word for programs.
        retry_after_s: When to come again, in whole seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        return error_body(self.status, self.message, self.param, self.code)


class ErrorResponse(Response):
    """An error as the whole answer."""

    media_type = "application/json"

    def __init__(self, error: ApiError, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if error.status == 504:
            # What took too long once takes as long again; OpenAI's clients would try it twice more.
            headers["x-should-retry"] = "false"
        # ASCII, because a message may quote half a surrogate pair.
        super().__init__(json.dumps(error.body).encode(), error.status, headers)


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON of an error."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    line = " ".join(message.split())
    return {"error": {"message": line, "type": kind, "param": param, "code": code}}


def refused(param: str, rule: str) -> ApiError:
    """A field that is not honoured, and why."""
    return ApiError(400, f"{param} {rule}", param=param, code="invalid_value")
