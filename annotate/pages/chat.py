"""The chat page: talk to the live policy and rate what it says. Layout and wiring only."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.chat_handlers import FRESH, Handlers, Parts
from annotate.pages.hotkeys import hotkeys
from annotate.pages.showing import GONE
from annotate.pages.top_bar import top_bar
from annotate.services import Services

STARTERS = (
    "Explain recursion to a child.",
    "Write a short thank-you note to a colleague.",
    "What should I check before I buy a used bicycle?",
    "Summarise why the sky is blue in two sentences.",
)
REASONS = (
    ("Incorrect", "incorrect"),
    ("Unsafe", "unsafe"),
    ("Ignored my request", "ignored_request"),
    ("Refused needlessly", "refused"),
    ("Too long", "too_long"),
    ("Other", "other"),
)
_KEEP_URL = f"""(id) => {{ const url = new URL(location); url.searchParams.set('c', id || '{FRESH}');
  history.replaceState(history.state, '', url); }}"""
_KEYS = {"n": ["new-chat"], "/": ["focus-message"]}
_FOCUS = "() => document.querySelector('#message textarea')?.focus()"


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    with gr.Blocks(title="Chat · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Chat")
        with gr.Column(elem_id="chat-page"):
            parts, buttons = _lay_out(links, account)
        hotkeys(_KEYS)
        _wire(page, services, parts, buttons)
    return page


def _lay_out(links: Any, account: Any) -> tuple[Parts, dict[str, Any]]:
    buttons: dict[str, Any] = {}
    with gr.Row(elem_id="chat-tools"):
        conversations = gr.Dropdown(
            [],
            label="Conversations",
            show_label=False,
            container=False,
            elem_id="conversations",
            filterable=False,
        )
        buttons["new"] = gr.Button("New chat", elem_id="new-chat", size="md")
        buttons["focus"] = gr.Button("Write", elem_id="focus-message", elem_classes=["unseen"])
    chatbot = gr.Chatbot(
        elem_id="chatbot",
        show_label=False,
        label="Conversation",
        buttons=[],
        height=None,
        examples=[{"text": starter} for starter in STARTERS],
        placeholder="### What would you like to ask?\nRate the answers with the thumbs below them.",
    )
    says = gr.HTML("", js_on_load="element.setAttribute('role', 'status')", elem_id="chat-says")
    with gr.Column(elem_id="what-was-wrong", elem_classes=[GONE]) as what_was_wrong:
        reasons = gr.CheckboxGroup(
            list(REASONS), label="What went wrong? (optional)", elem_id="rating-reasons"
        )
        with gr.Row():
            comment = gr.Textbox(
                placeholder="Comment", label="Comment", show_label=False, container=False, max_length=4000,
                elem_id="rating-comment",
            )  # fmt: skip
            buttons["save"] = gr.Button("Save", elem_id="save-reasons", size="md")
    with gr.Row(elem_id="composer"):
        message = gr.Textbox(
            label="Message", show_label=False, container=False, lines=1, max_lines=8, autofocus=True,
            placeholder="Message the model (Enter sends)", elem_id="message",
        )  # fmt: skip
        send = gr.Button("Send", variant="primary", elem_id="send")
        stop = gr.Button("Stop", variant="stop", elem_id="stop", visible="hidden")
    gr.HTML(
        "Ratings train the next version. Do not enter personal data.", js_on_load=None, elem_id="chat-note"
    )
    parts = Parts(
        links=links,
        account=account,
        conversations=conversations,
        chatbot=chatbot,
        says=says,
        what_was_wrong=what_was_wrong,
        reasons=reasons,
        comment=comment,
        message=message,
        send=send,
        stop=stop,
        conversation=gr.Textbox(visible="hidden", elem_id="conversation", label="Conversation id"),
        rated=gr.Textbox(visible="hidden", elem_id="rated", label="Rated answer"),
    )
    return parts, buttons


def _wire(page: Any, services: Services, parts: Parts, buttons: dict[str, Any]) -> None:
    handlers = Handlers(services, parts)
    outputs = parts.all()
    quietly = {"outputs": outputs, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
    # Generation is batched by the engine and one at a time per person, so the queue sets no limit of its own.
    streaming = {
        "outputs": outputs, "concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"
    }  # fmt: skip
    page.load(handlers.open, None, **quietly)
    parts.conversations.input(handlers.choose, [parts.conversations], **quietly)
    buttons["new"].click(handlers.start_anew, None, **quietly).then(None, None, None, js=_FOCUS)
    buttons["focus"].click(None, None, None, js=_FOCUS)
    sending = [
        gr.on(
            [parts.message.submit, parts.send.click],
            handlers.send,
            [parts.message, parts.conversation],
            **streaming,
        ),
        parts.chatbot.example_select(handlers.send_starter, [parts.conversation], **streaming),
    ]
    parts.stop.click(handlers.stop, None, cancels=sending, **quietly)
    parts.chatbot.like(handlers.rate, [parts.conversation], **quietly)
    buttons["save"].click(handlers.add_reasons, [parts.rated, parts.reasons, parts.comment], **quietly)
    parts.conversation.change(None, [parts.conversation], None, js=_KEEP_URL)
