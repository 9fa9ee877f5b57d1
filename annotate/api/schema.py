"""The description of this API: OpenAPI as JSON, and a plain page that lists it, both served from here."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from annotate.api.given import Anyone

routes = APIRouter(include_in_schema=False)

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; }
tr { border-bottom: 1px solid #8886; }
code { font-family: ui-monospace, monospace; }
"""


@routes.get("/openapi.json")
def read_openapi(request: Request, _person: Anyone) -> JSONResponse:
    """The OpenAPI description."""
    return JSONResponse(request.app.openapi())


@routes.get("/docs")
def read_docs(request: Request, _person: Anyone) -> HTMLResponse:
    """Every route in one table."""
    rows = "".join(_rows(request.app.openapi()))
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Heed API</title><style>{STYLE}</style>'
        "<h1>Heed API</h1><p>Send <code>Authorization: Bearer …</code>; the full description is "
        '<a href="/openapi.json">openapi.json</a>.</p>'
        f"<table><thead><tr><th>Route<th>What<tbody>{rows}</table></html>"
    )


def _rows(description: dict[str, Any]) -> Iterator[str]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            route = f"{method.upper()} {path}"
            yield f"<tr><td><code>{escape(route)}</code><td>{escape(operation.get('description', ''))}"
