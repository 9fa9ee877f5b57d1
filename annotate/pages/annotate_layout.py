"""The annotate page's layout: declarations only."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.guidelines import EXAMPLES
from annotate.pages.acts import BOTH_BAD, SINGLE_ACTS, Act, Acts, write_reason
from annotate.pages.annotate_parts import Parts
from annotate.pages.annotate_text import STAGE_WAITS, write_guide_head, write_heading, write_shortcuts
from annotate.pages.showing import GONE
from annotate.settings import AnnotationSettings

LOOK_AGAIN_S = 5.0

Placed = dict[str, Any]  # components by the name they have in `Parts`


def lay_out(settings: AnnotationSettings, acts: Acts, links: Any, account: Any, buttons: Placed) -> Parts:
    """Declare everything under the top bar, in the order it stands on the page; `buttons` is filled."""
    placed: Placed = {"links": links, "account": account}
    placed |= _lay_out_tools(acts, buttons)
    placed["recent"] = gr.HTML("", js_on_load=None, elem_id="recent-list")
    placed |= _lay_out_not_saved(buttons)
    with gr.Row(elem_id="desk"):
        with gr.Column(elem_id="work", min_width=0):
            placed |= _lay_out_stage()
            placed |= _lay_out_empty(buttons)
        placed |= _lay_out_guide(buttons)
    placed |= _lay_out_votes(settings, acts, buttons)
    return Parts(**placed, **_lay_out_hidden(buttons))


def _lay_out_tools(acts: Acts, buttons: Placed) -> Placed:
    with gr.Row(elem_id="tools"):
        kind = gr.Radio(
            [("Pairs", "pair"), ("Single", "single")],
            value="pair",
            label="What to judge",
            show_label=False,
            container=False,
            elem_id="kind",
        )
        says_live = "element.setAttribute('role', 'status'); element.setAttribute('aria-atomic', 'false')"
        status = gr.HTML("Loading…", js_on_load=says_live, elem_id="status")
        buttons["recent"] = _quiet_button("Recent", "recent")
        buttons["guide"] = _quiet_button("Guidelines", "guide")
        gr.HTML(write_shortcuts(acts), js_on_load=None, elem_id="help")
    notices = gr.HTML("", js_on_load=None, elem_id="notices")
    return {"kind": kind, "status": status, "notices": notices}


def _lay_out_not_saved(buttons: Placed) -> Placed:
    with gr.Column(elem_id="not-saved", elem_classes=[GONE]) as not_saved:
        not_saved_says = gr.HTML("", js_on_load=None, elem_id="not-saved-says")
        buttons["retry"] = gr.Button("Retry (Enter)", elem_id="retry", size="md")
    return {"not_saved": not_saved, "not_saved_says": not_saved_says}


def _lay_out_stage() -> Placed:
    with gr.Column(elem_id="stage", elem_classes=["loading"]) as stage:
        gr.HTML(STAGE_WAITS, js_on_load=None, elem_id="preparing")
        with gr.Row(elem_id="prompt-head"):
            gr.HTML('<h2 class="label">Prompt</h2>', js_on_load=None)
            history = gr.HTML("", js_on_load=None, elem_id="earlier")
        prompt = gr.Markdown("", elem_id="prompt", line_breaks=True)
        with gr.Row(elem_id="pair"):
            heading_a, unsafe_a, answer_a, _ = _lay_out_answer("a")
            _, unsafe_b, answer_b, side_b = _lay_out_answer("b")
    return {
        "stage": stage,
        "history": history,
        "prompt": prompt,
        "heading_a": heading_a,
        "unsafe_a": unsafe_a,
        "unsafe_b": unsafe_b,
        "answer_a": answer_a,
        "answer_b": answer_b,
        "side_b": side_b,
    }


def _lay_out_answer(letter: str) -> tuple[Any, Any, Any, Any]:
    key = {"a": "Q", "b": "W"}[letter]
    with gr.Column(elem_id=f"side-{letter}", min_width=0) as side:
        with gr.Row(elem_classes=["answer-head"]):
            heading = gr.HTML(write_heading(letter.upper()), js_on_load=None)
            unsafe = _checkbox(f"Unsafe ({key})", f"unsafe-{letter}")
        answer = gr.Markdown("", elem_id=f"answer-{letter}", line_breaks=True)
    return heading, unsafe, answer, side


def _lay_out_empty(buttons: Placed) -> Placed:
    with gr.Column(elem_id="queue-empty", elem_classes=[GONE]) as empty:
        empty_says = gr.HTML("", js_on_load=None)
        other_kind = gr.Button("Rate single answers", elem_id="to-other", size="md")
    buttons["to-other"] = other_kind
    return {"empty": empty, "empty_says": empty_says, "other_kind": other_kind}


def _lay_out_guide(buttons: Placed) -> Placed:
    with gr.Column(elem_id="guidelines", min_width=0) as guide:
        head = gr.HTML(write_guide_head(0, False), js_on_load=None)
        text = gr.Markdown("", elem_id="guide-text")
        gr.Markdown(EXAMPLES, elem_id="guide-examples")
        buttons["start"] = gr.Button("Start (Enter)", elem_id="start", variant="primary", size="md")
    return {"guide": guide, "guide_head": head, "guide_text": text}


def _lay_out_votes(settings: AnnotationSettings, acts: Acts, buttons: Placed) -> Placed:
    with gr.Column(elem_id="vote-bar") as vote_bar:
        placed = _lay_out_detail(settings, buttons)
        with gr.Row(elem_id="skip-asks", elem_classes=["asks"]):
            gr.HTML("<p>Why skip?</p>", js_on_load=None, elem_id="skip-why")
            buttons |= {act.elem_id: _vote_button(act) for act in acts.skips}
        with gr.Row(elem_id="pair-votes", elem_classes=["votes"]) as pair_votes:
            buttons |= {act.elem_id: _vote_button(act) for act in acts.pair}
        with gr.Row(elem_id="single-votes", elem_classes=["votes", GONE]) as single_votes:
            buttons |= {act.elem_id: _vote_button(act) for act in SINGLE_ACTS}
        with gr.Row(elem_id="other-votes"):
            buttons["k0"] = _vote_button(BOTH_BAD)
            for name, elem_id in (("Skip", "skip"), ("Undo", "undo"), ("Detail", "add-detail")):
                buttons[elem_id] = gr.Button(name, elem_id=elem_id, elem_classes=["vote"], min_width=0)
            highlight = _checkbox("Highlight differences (D)", "highlight")
            offer = gr.HTML("", js_on_load=None, elem_id="highlight-offer")
    votes = {"vote_bar": vote_bar, "pair_votes": pair_votes, "single_votes": single_votes}
    return placed | votes | {"both_bad": buttons["k0"], "highlight": highlight, "highlight_offer": offer}


def _lay_out_detail(settings: AnnotationSettings, buttons: Placed) -> Placed:
    chips = [(write_reason(reason), reason) for reason in settings.reasons]
    with gr.Column(elem_id="detail"):
        with gr.Row(elem_id="detail-head"):
            reasons = gr.CheckboxGroup(chips, label="Why", elem_id="reasons", visible=bool(chips))
            buttons["save"] = gr.Button("Save (Enter)", elem_id="save", variant="primary", size="md")
        with gr.Row(elem_id="detail-texts"):
            comment = gr.Textbox(label="Comment", lines=2, max_length=4000, elem_id="comment")
            correction = gr.Textbox(
                label="Edit the answer you prefer (choose it first)",
                lines=2,
                max_length=32_000,
                elem_id="correction",
            )
    return {"reasons": reasons, "comment": comment, "correction": correction}


def _lay_out_hidden(buttons: Placed) -> Placed:
    """What travels between browser and server without being seen."""
    for elem_id in ("restore", "reopen"):
        buttons[elem_id] = gr.Button(elem_id, elem_id=elem_id, elem_classes=["silent"])
    return {
        "task_id": gr.Textbox(visible="hidden", elem_id="task-id", label="Task"),
        "active_ms": gr.Number(visible="hidden", elem_id="active-ms", label="Active time"),
        "selected": gr.Textbox(visible="hidden", elem_id="selected", label="Choice not saved yet"),
        "reopened": gr.Textbox(visible="hidden", elem_id="reopened", label="Decision to change"),
        "is_detail_open": gr.Checkbox(visible="hidden", elem_id="is-detail-open", label="Detail is open"),
        "draft": gr.Textbox(visible="hidden", elem_id="draft", label="Draft"),
        "guide_version": gr.Number(visible="hidden", elem_id="guide-version", label="Guidelines"),
        "cue": gr.Textbox(visible="hidden", elem_id="cue", label="Cue"),
        "look_again": gr.Timer(LOOK_AGAIN_S, active=False),
    }


def _vote_button(act: Act) -> Any:
    classes = ["vote", "mid"] if act.choice == "tie" else ["vote"]
    return gr.Button(act.label, elem_id=act.elem_id, elem_classes=classes, min_width=0)


def _quiet_button(label: str, elem_id: str) -> Any:
    return gr.Button(label, elem_id=elem_id, elem_classes=["quiet"], min_width=0, size="md")


def _checkbox(label: str, elem_id: str) -> Any:
    return gr.Checkbox(
        label=label, container=False, elem_id=elem_id, elem_classes=["flag"], min_width=0, interactive=True
    )
