"""The three pages people use: /annotate, /chat, /admin. Nothing heavy is imported until they are mounted.

Three apps and not one, because Gradio asks who may call an event once for a whole app.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request

from annotate.auth import require
from annotate.gradio_gate import PAGE_ROLES
from annotate.services import Services
from store.errors import HeedError
from store.records import Role

if TYPE_CHECKING:
    from fastapi import FastAPI

# Read when Gradio is imported; without it the server looks up addresses outside this machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def mount_pages(app: FastAPI, services: Services) -> FastAPI:
    """Mount the pages on the app that already guards its routes, and return it."""
    import gradio as gr

    from annotate.pages import admin, annotate, chat
    from annotate.pages.theme import build_theme, read_styles
    from annotate.pages.top_bar import SIGNED_OUT_HEAD

    pages = (("/annotate", annotate.build_page), ("/chat", chat.build_page), ("/admin", admin.build_page))
    theme = build_theme()
    for path, build_page in pages:
        blocks = build_page(services)
        gr.mount_gradio_app(
            app,
            blocks,
            path,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            show_error=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=theme,
            css=read_styles(),
            head=SIGNED_OUT_HEAD,
            auth_dependency=admit(PAGE_ROLES[path]),
        )
        # Only a launched app checks the paths in file inputs, and mounting does not say that it is one.
        blocks.has_launched = True
    return app


def admit(roles: Sequence[Role]) -> Callable[[Request], str | None]:
    """Gradio's question "who is this?": the person's id, or None when they may not use the page."""

    def admitted(request: Request) -> str | None:
        try:
            return require(request, *roles).person_id
        except HeedError:
            return None

    return admitted
