"""Puts the web process together: sign-in, API, guard, pages. Knows the order of the layers only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from annotate import sign_in
from annotate.api import ROUTERS
from annotate.edge import Edge
from annotate.error_body import add_error_answers
from annotate.guard import Guard
from annotate.services import Services

LAST_WORDS_S = 5.0


def build_app(services: Services) -> FastAPI:
    """The whole web process: the API, and the three pages behind the same guard."""
    from annotate.pages import mount_pages  # Gradio takes seconds to import; nothing before needs it

    return mount_pages(build_api(services), services)


def build_api(services: Services) -> FastAPI:
    """Everything but the pages: sign-in, API and the layers around them."""
    app = FastAPI(
        title="Heed",
        summary="People rate what a language model says; the model learns from it.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # served by a route of ours, to people who are signed in
        lifespan=_run,
    )
    app.state.services = services
    app.state.desk = sign_in.SignInDesk(services)
    app.state.chat_threads = CapacityLimiter(services.settings.chat_threads)
    add_error_answers(app)
    app.include_router(sign_in.routes)
    for router in ROUTERS:
        app.include_router(router)
    # The last one added is the outermost. CORS allows nobody, and so Gradio adds no layer of its own that all
    app.add_middleware(CORSMiddleware, allow_origins=[])
    app.add_middleware(Guard, services=services)
    app.add_middleware(Edge, settings=services.settings)
    return app


@asynccontextmanager
async def _run(app: FastAPI) -> AsyncIterator[None]:
    # Labels and page events take a thread for a moment; questions have their own (`chat_threads`).
    services: Services = app.state.services
    to_thread.current_default_thread_limiter().total_tokens = services.settings.web_threads
    yield
    # What was being written when the service was told to stop is saved before the store closes.
    await to_thread.run_sync(services.slots.wait_until_idle, LAST_WORDS_S)
