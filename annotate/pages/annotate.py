"""The annotate page: one item, two answers (or one), one key. Wiring only; the layout is next door.

Blind on purpose: nothing on this page tells which policy wrote an answer.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.acts import BOTH_BAD, SINGLE_ACTS, build_acts
from annotate.pages.annotate_handlers import Handlers
from annotate.pages.annotate_layout import lay_out
from annotate.pages.desk import desk
from annotate.pages.hotkeys import active_time, hotkeys
from annotate.pages.top_bar import top_bar
from annotate.services import Services

HEARTBEAT_S = 120.0

_KEEP = "(...a) => window.heedKeep?.(...a)"


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    acts = build_acts(services.annotation)
    with gr.Blocks(title="Annotate · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Annotate")
        buttons: dict[str, Any] = {}
        with gr.Column(elem_id="page"):
            parts = lay_out(services.annotation, acts, links, account, buttons)
        active_time()
        desk()
        hotkeys(acts.keymap())
        handlers = Handlers(services, parts, acts)
        _wire_events(page, handlers, buttons)
        _wire_browser(handlers, buttons)
    return page


def _wire_events(page: Any, handlers: Handlers, buttons: dict[str, Any]) -> None:
    parts, acts = handlers.parts, handlers.acts
    # Unqueued: a judgement never waits behind somebody's generation, and no tab holds an event stream open.
    quietly = {
        "inputs": parts.given(), "outputs": parts.all(), "queue": False, "show_progress": "hidden",
        "api_visibility": "private",
    }  # fmt: skip
    page.load(handlers.open, **quietly)
    for event in (parts.kind.input, parts.look_again.tick):
        event(handlers.load, **quietly)
    gr.Timer(HEARTBEAT_S).tick(handlers.renew, **quietly)
    parts.highlight.input(handlers.highlight, **quietly)
    for act in (*acts.pair, *SINGLE_ACTS, BOTH_BAD, *acts.skips):
        buttons[act.elem_id].click(handlers.judging(act), js=_send(act.elem_id), **quietly)
    for name, handler in (
        ("save", handlers.save),
        ("retry", handlers.retry),
        ("restore", handlers.restore),
        ("undo", handlers.undo),
        ("reopen", handlers.reopen),
        ("start", handlers.accept),
        ("to-other", handlers.load_other),
    ):
        buttons[name].click(handler, js=_send("save" if name in ("save", "retry") else ""), **quietly)
    recent = quietly | {"js": "(...a) => { window.heedToggle?.('recent-list'); return a; }"}
    buttons["recent"].click(handlers.list_recent, **recent)


def _wire_browser(handlers: Handlers, buttons: dict[str, Any]) -> None:
    """What needs no server: panels that open, drafts that are kept."""
    parts = handlers.parts
    for name, panel in (("skip", "skip-asks"), ("add-detail", "detail"), ("guide", "guidelines")):
        buttons[name].click(None, None, None, js=f"() => window.heedToggle?.('{panel}')")
    typed = (parts.comment, parts.correction, parts.reasons, parts.unsafe_a, parts.unsafe_b)
    for component in typed:
        component.input(None, parts.given(), None, js=_KEEP)
    parts.recent.change(None, None, None, js="() => window.heedLocalise?.()")
    parts.cue.change(None, [parts.cue], None, js="text => window.heedCue?.(text)")


def _send(choice: str) -> str:
    return f"(...a) => window.heedSend?.('{choice}', a) ?? a"
