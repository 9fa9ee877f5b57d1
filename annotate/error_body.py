"""Errors as HTTP answers: one body for all of them, in OpenAI's shape, never a traceback."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from annotate.errors import NotSignedIn, TooManyRequests
from store.errors import Busy, HeedError

_TYPES = {404: "not_found", 405: "method_not_allowed"}


def error_body(kind: str, message: str, param: str | None = None) -> dict[str, dict[str, str | None]]:
    """The body every error has; also sent as an event when a stream breaks. `param` is the field at fault."""
    return {"error": {"type": kind, "message": message, "param": param, "code": None}}


def answer_error(error: HeedError) -> JSONResponse:
    """The status, the sentence and the headers that go with one of our own errors."""
    headers: dict[str, str] = {}
    if isinstance(error, NotSignedIn):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, TooManyRequests | Busy):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return JSONResponse(error_body(error.kind, str(error)), error.status, headers)


def add_error_answers(app: FastAPI) -> None:
    """Give every error of the app the same body."""

    @app.exception_handler(HeedError)
    async def answer_ours(_request: Request, error: HeedError) -> JSONResponse:
        return answer_error(error)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(error_body("invalid", _describe(error), _find_param(error)), 422)

    @app.exception_handler(HTTPException)
    async def answer_http(_request: Request, error: HTTPException) -> JSONResponse:
        kind = _TYPES.get(error.status_code, "http")
        return JSONResponse(error_body(kind, str(error.detail)), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def answer_unexpected(_request: Request, _error: Exception) -> JSONResponse:
        # The server logs the traceback; the caller learns only that it was our fault.
        message = "something failed on the server; its log says what"
        return JSONResponse(error_body("internal", message), 500, {"x-content-type-options": "nosniff"})


def _find_param(error: RequestValidationError) -> str | None:
    """The one field of the body that is at fault; None for several of them, or another place."""
    places = [found["loc"] for found in error.errors()]
    fields = {place[1] for place in places if place[0] == "body" and len(place) > 1}
    return str(fields.pop()) if len(fields) == 1 else None


def _describe(error: RequestValidationError) -> str:
    # Only where and why, never the value: it may be a secret, and a lone surrogate cannot be sent back.
    return "; ".join(
        f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}" for found in error.errors()
    )
