"""The annotate page: one item, two answers (or one), one key. Layout and wiring only.

Blind on purpose: nothing on this page tells which policy wrote an answer.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.acts import ACTS, BOTH_BAD, PAIR_ACTS, REASONS, SINGLE_ACTS, SKIP, Act, map_keys
from annotate.pages.annotate_handlers import Handlers, Parts, write_heading
from annotate.pages.hotkeys import active_time, hotkeys
from annotate.pages.showing import GONE
from annotate.pages.top_bar import top_bar
from annotate.services import Services

HEARTBEAT_S = 120.0
LOOK_AGAIN_S = 5.0

_SHORTCUTS = """<details class="panel" id="shortcuts">
<summary>Shortcuts <kbd>?</kbd></summary><div class="sheet">
<p>Read both answers, then press one key. It is saved at once and the next item comes;
undo as often as you like.</p>
<dl><dt><kbd>1</kbd> … <kbd>5</kbd></dt><dd>A much better … B much better</dd>
<dt><kbd>←</kbd> <kbd>→</kbd></dt><dd>slightly better, with <kbd>Shift</kbd> much better</dd>
<dt><kbd>↓</kbd> <kbd>0</kbd></dt><dd>about the same, both bad</dd>
<dt><kbd>S</kbd> <kbd>U</kbd></dt><dd>skip, undo (also <kbd>Backspace</kbd>)</dd>
<dt><kbd>H</kbd> <kbd>E</kbd></dt><dd>earlier turns, reasons and comment</dd>
<dt><kbd>Esc</kbd></dt><dd>leave a field or this panel</dd>
<dt>Single</dt><dd><kbd>1</kbd> or <kbd>←</kbd> bad, <kbd>2</kbd> or <kbd>→</kbd> good</dd></dl>
<label><input type="checkbox" id="hotkeys-on" checked> Keyboard shortcuts on</label></div></details>"""

_TAKE_ACTIVE_MS = "(...a) => { a[a.length - 1] = window.heedActiveMs?.() ?? null; return a; }"
_NEXT_ITEM = "() => window.heedNextItem?.()"


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    with gr.Blocks(title="Annotate · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Annotate")
        buttons: dict[str, Any] = {}
        with gr.Column(elem_id="page"):
            parts = _lay_out(links, account, buttons)
        active_time()
        hotkeys(map_keys())
        _wire(page, services, parts, buttons)
    return page


def _lay_out(links: Any, account: Any, buttons: dict[str, Any]) -> Parts:
    with gr.Row(elem_id="tools"):
        kind = gr.Radio(
            [("Pairs", "pair"), ("Single", "single")],
            value="pair",
            label="What to judge",
            show_label=False,
            container=False,
            elem_id="kind",
        )
        status = gr.HTML("Loading…", js_on_load="element.setAttribute('role', 'status')", elem_id="status")
        gr.HTML(_SHORTCUTS, js_on_load=None, elem_id="help")
    with gr.Column(elem_id="not-saved", elem_classes=[GONE]) as not_saved:
        not_saved_says = gr.HTML("", js_on_load=None, elem_id="not-saved-says")
        buttons["retry"] = gr.Button("Retry", elem_id="retry", size="md")
    with gr.Column(elem_id="stage", elem_classes=["loading"]) as stage:
        history = gr.HTML("", js_on_load=None, elem_id="earlier")
        gr.HTML('<h2 class="label">Prompt</h2>', js_on_load=None)
        prompt = gr.Markdown("", elem_id="prompt", line_breaks=True)
        with gr.Row(elem_id="pair"):
            with gr.Column(elem_id="side-a", min_width=0):
                heading_a = gr.HTML(write_heading("A"), js_on_load=None)
                answer_a = gr.Markdown("", elem_id="answer-a", line_breaks=True)
            with gr.Column(elem_id="side-b", min_width=0) as side_b:
                gr.HTML(write_heading("B"), js_on_load=None)
                answer_b = gr.Markdown("", elem_id="answer-b", line_breaks=True)
    with gr.Column(elem_id="queue-empty", elem_classes=[GONE]) as empty:
        empty_says = gr.HTML("", js_on_load=None)
    with gr.Accordion("Reasons and comment (optional)", open=False, elem_id="detail") as detail:
        reasons = gr.CheckboxGroup(list(REASONS), label="Why", elem_id="reasons")
        comment = gr.Textbox(label="Comment", lines=2, max_length=4000, elem_id="comment")
        correction = gr.Textbox(
            label="A better answer, in your words", lines=3, max_length=32_000, elem_id="correction"
        )
    with gr.Column(elem_id="vote-bar"):
        with gr.Row(elem_id="pair-votes", elem_classes=["votes"]) as pair_votes:
            buttons |= {act.elem_id: _vote_button(act) for act in PAIR_ACTS}
        with gr.Row(elem_id="single-votes", elem_classes=["votes", GONE]) as single_votes:
            buttons |= {act.elem_id: _vote_button(act) for act in SINGLE_ACTS}
        with gr.Row(elem_id="other-votes"):
            buttons |= {act.elem_id: _vote_button(act) for act in (BOTH_BAD, SKIP)}
            buttons["undo"] = gr.Button("Undo", elem_id="undo", elem_classes=["vote"], min_width=0)
    return Parts(
        links=links,
        account=account,
        kind=kind,
        status=status,
        not_saved=not_saved,
        not_saved_says=not_saved_says,
        stage=stage,
        history=history,
        prompt=prompt,
        side_b=side_b,
        heading_a=heading_a,
        answer_a=answer_a,
        answer_b=answer_b,
        empty=empty,
        empty_says=empty_says,
        pair_votes=pair_votes,
        single_votes=single_votes,
        both_bad=buttons["k0"],
        skip=buttons["skip"],
        detail=detail,
        reasons=reasons,
        comment=comment,
        correction=correction,
        task_id=gr.Textbox(visible="hidden", elem_id="task-id", label="Task"),
        active_ms=gr.Number(visible="hidden", elem_id="active-ms", label="Active time"),
        pending=gr.Textbox(visible="hidden", elem_id="pending", label="Choice not saved yet"),
        look_again=gr.Timer(LOOK_AGAIN_S, active=False),
    )


def _vote_button(act: Act) -> Any:
    return gr.Button(act.label, elem_id=act.elem_id, elem_classes=["vote"], min_width=0)


def _wire(page: Any, services: Services, parts: Parts, buttons: dict[str, Any]) -> None:
    handlers = Handlers(services, parts)
    # Unqueued: a judgement never waits behind somebody's generation, and no tab holds an event stream open.
    quietly = {
        "outputs": parts.all(), "queue": False, "show_progress": "hidden", "api_visibility": "private"
    }  # fmt: skip
    clicked = [parts.task_id, parts.kind, parts.reasons, parts.comment, parts.correction, parts.active_ms]
    page.load(handlers.open, [parts.kind], **quietly)
    parts.kind.input(handlers.load, [parts.kind], **quietly)
    parts.look_again.tick(handlers.load, [parts.kind], **quietly)
    gr.Timer(HEARTBEAT_S).tick(handlers.renew, [parts.task_id, parts.kind], **quietly)
    for act in ACTS.values():
        buttons[act.elem_id].click(handlers.judging(act), clicked, js=_TAKE_ACTIVE_MS, **quietly)
    buttons["undo"].click(handlers.undo, [parts.kind], **quietly)
    buttons["retry"].click(handlers.retry, [parts.pending, *clicked], js=_TAKE_ACTIVE_MS, **quietly)
    parts.task_id.change(None, None, None, js=_NEXT_ITEM)
