"""The chat page: talk to the live policy and say what its answers are worth. Layout and wiring only."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.chat_handlers import Handlers
from annotate.pages.chat_labels import VOTES, Labels
from annotate.pages.chat_screen import CHAT, FRESH, SIDE_BY_SIDE, Parts
from annotate.pages.hotkeys import active_time, hotkeys
from annotate.pages.showing import GONE
from annotate.pages.top_bar import top_bar
from annotate.services import Services

STARTERS = (
    "Explain recursion to a child.",
    "Write a short thank-you note to a colleague.",
    "What should I check before I buy a used bicycle?",
    "Summarise why the sky is blue in two sentences.",
)
_KEEP_URL = f"""(id, at, mode) => {{ const url = new URL(location);
  url.searchParams.set('c', id || '{FRESH}');
  const keep = (name, value) => value ? url.searchParams.set(name, value) : url.searchParams.delete(name);
  keep('at', at); keep('m', mode === '{SIDE_BY_SIDE}' ? '2' : '');
  history.replaceState(history.state, '', url); }}"""
_KEYS = {
    "n": ["new-chat"],
    "/": ["focus-message"],
    "j": ["thumb-down"],
    "k": ["thumb-up"],
    "r": ["retry"],
    "u": ["undo-vote"],
    "?": ["shortcuts"],
    **{vote.key: [vote.elem_id] for vote in VOTES},
}
_SHORTCUTS = """<details class="panel"><summary id="shortcuts">Keys</summary><div class="sheet">
<dl><dt><kbd>K</kbd> <kbd>J</kbd></dt><dd>last answer good, bad; again takes it back</dd>
<dt><kbd>R</kbd></dt><dd>try again</dd>
<dt><kbd>1</kbd>–<kbd>5</kbd> <kbd>0</kbd></dt><dd>vote side by side; 0 is both bad</dd>
<dt><kbd>U</kbd></dt><dd>take the vote back</dd>
<dt><kbd>/</kbd> <kbd>Esc</kbd></dt><dd>into the message box, and out of it</dd>
<dt><kbd>N</kbd></dt><dd>new chat</dd></dl>
<label><input type="checkbox" id="hotkeys-on" checked> Use these keys</label></div></details>"""
_FOCUS = "() => document.querySelector('#message textarea')?.focus()"
_FOCUS_EDITOR = "() => setTimeout(() => document.querySelector('#edited textarea')?.focus(), 50)"
# The sanitiser of messages leaves a button nothing but its class, so its class says what it does.
_PRESS_JS = r"""
document.addEventListener('click', e => {
  const button = e.target.closest?.('#chatbot button.turn-act');
  const act = button && [...button.classList].find(name => name.startsWith('act-'));
  if (act) trigger('act', act.slice(4));
});
"""
_TAKE_ACTIVE_MS = "(...a) => { a[a.length - 1] = window.heedActiveMs?.() ?? null; return a; }"
# Beside two answers there is little room for the conversation: its end is the question they answer.
_NEXT_ITEM = """() => { window.heedNextItem?.(); setTimeout(() => {
  const log = document.querySelector('#chatbot [role=log]');
  if (log) log.scrollTop = log.scrollHeight; }, 250); }"""


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    with gr.Blocks(title="Chat · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Chat")
        buttons: dict[str, Any] = {}
        with gr.Column(elem_id="chat-page"):
            laid = {"links": links, "account": account}
            laid |= _lay_out_top(buttons)
            laid |= _lay_out_duel(buttons)
            laid |= _lay_out_panels(services, buttons)
            laid |= _lay_out_composer()
        hotkeys(_KEYS)
        active_time()
        _wire(page, services, Parts(**laid), buttons)
    return page


def _lay_out_top(buttons: dict[str, Any]) -> dict[str, Any]:
    with gr.Row(elem_id="chat-tools"):
        conversations = gr.Dropdown(
            [],
            label="Conversations",
            show_label=False,
            container=False,
            elem_id="conversations",
            filterable=False,
        )
        mode = gr.Radio(
            [CHAT, SIDE_BY_SIDE], value=CHAT, label="Mode", show_label=False, container=False, elem_id="mode"
        )
        buttons["new"] = gr.Button("New chat", elem_id="new-chat", size="md")
        gr.HTML(_SHORTCUTS, js_on_load=None, elem_id="chat-help")
        buttons["focus"] = gr.Button("Write", elem_id="focus-message", elem_classes=["unseen"])
    chatbot = gr.Chatbot(
        elem_id="chatbot",
        show_label=False,
        label="Conversation",
        buttons=[],
        height=None,
        placeholder="### What would you like to ask?\nRate the answers with the thumbs below them.",
    )
    # Buttons of our own: the chatbot's examples are a list without items to a screen reader.
    with gr.Row(elem_id="starters", elem_classes=[GONE]) as starters:
        buttons |= {starter: gr.Button(starter, size="md", min_width=0) for starter in STARTERS}
    buttons["press"] = gr.HTML("", html_template="", js_on_load=_PRESS_JS, elem_classes=["silent"])
    with gr.Row(elem_id="reply-keys", elem_classes=[GONE]) as reply_keys:
        for name, label in (
            ("thumb-down", "Last answer is bad"),
            ("thumb-up", "Last answer is good"),
            ("retry", "Try again"),
        ):
            buttons[name] = gr.Button(label, elem_id=name)
    return {
        "conversations": conversations,
        "mode": mode,
        "chatbot": chatbot,
        "starters": starters,
        "reply_keys": reply_keys,
    }


def _lay_out_duel(buttons: dict[str, Any]) -> dict[str, Any]:
    with gr.Column(elem_id="duel", elem_classes=[GONE]) as duel:
        with gr.Row(elem_id="duel-answers"):
            sides = {}
            for letter, side in (("A", "left"), ("B", "right")):
                with gr.Column(elem_classes=["duel-side", f"duel-{side}"], min_width=0):
                    gr.HTML(f'<h2 class="label">Answer {letter}</h2>', js_on_load=None)
                    sides[side] = gr.Markdown("", elem_id=f"duel-{side}", line_breaks=True)
        with gr.Row(elem_id="duel-votes", elem_classes=["duel-votes", GONE]) as votes:
            for vote in VOTES:
                buttons[vote.elem_id] = gr.Button(
                    vote.label, elem_id=vote.elem_id, elem_classes=["duel-vote"]
                )
    with gr.Row(elem_id="voted", elem_classes=[GONE]) as voted:
        voted_says = gr.HTML("", js_on_load=None, elem_id="voted-says")
        buttons["undo-vote"] = gr.Button("Undo vote", elem_id="undo-vote", size="sm")
    with gr.Row(elem_id="better", elem_classes=[GONE]) as better:
        gr.HTML("<p>Which is better?</p>", js_on_load=None, elem_id="better-asks")
        answers = {
            f"better_{which}": gr.Button(which.capitalize(), elem_id=f"better-{which}", size="sm")
            for which in ("new", "old", "same")
        }
    return {
        "duel": duel,
        "votes": votes,
        "voted": voted,
        "voted_says": voted_says,
        "better": better,
        **sides,
        **answers,
    }


def _lay_out_panels(services: Services, buttons: dict[str, Any]) -> dict[str, Any]:
    says = gr.HTML("", js_on_load="element.setAttribute('role', 'status')", elem_id="chat-says")
    with gr.Column(elem_id="what-was-wrong", elem_classes=[GONE]) as what_was_wrong:
        reasons = gr.CheckboxGroup(
            list(services.settings.chat.reasons),
            label="What went wrong? (optional)",
            elem_id="rating-reasons",
        )
        with gr.Row():
            comment = gr.Textbox(
                placeholder="Comment", label="Comment", show_label=False, container=False, max_length=4000,
                elem_id="rating-comment",
            )  # fmt: skip
            buttons["save"] = gr.Button("Save", elem_id="save-reasons", size="md")
    with gr.Column(elem_id="editor", elem_classes=[GONE]) as editor:
        editor_says = gr.HTML("", js_on_load=None)
        edited = gr.Textbox(
            label="Your text", show_label=False, container=False, lines=4, max_lines=14, max_length=32_000,
            elem_id="edited",
        )  # fmt: skip
        with gr.Row():
            buttons["save-edit"] = gr.Button("Save", elem_id="save-edit", variant="primary", size="md")
            buttons["ask-anew"] = gr.Button("Ask this", elem_id="ask-anew", variant="primary", size="md")
            buttons["close"] = gr.Button("Cancel", elem_id="close-editor", size="md")
    return {
        "says": says,
        "what_was_wrong": what_was_wrong,
        "reasons": reasons,
        "comment": comment,
        "editor": editor,
        "editor_says": editor_says,
        "edited": edited,
    }


def _lay_out_composer() -> dict[str, Any]:
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
    hidden = ("conversation", "at", "rated", "editing", "pair")
    return {
        "message": message,
        "send": send,
        "stop": stop,
        **{name: gr.Textbox(visible="hidden", elem_id=name, label=name.capitalize()) for name in hidden},
    }


def _wire(page: Any, services: Services, parts: Parts, buttons: dict[str, Any]) -> None:
    asking, labels = Handlers(services, parts), Labels(services, parts)
    outputs = parts.all()
    quietly = {"outputs": outputs, "queue": False, "show_progress": "hidden", "api_visibility": "private"}
    # Generation is batched by the engine and one at a time per person, so the queue sets no limit of its own.
    streaming = {
        "outputs": outputs, "concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"
    }  # fmt: skip
    spot = [parts.conversation, parts.at, parts.mode]
    page.load(asking.open, None, **quietly)
    parts.conversations.input(asking.choose, [parts.conversations, parts.mode], **quietly)
    parts.mode.input(asking.look, spot, **quietly)
    buttons["new"].click(asking.start_anew, [parts.mode], **quietly).then(None, None, None, js=_FOCUS)
    buttons["focus"].click(None, None, None, js=_FOCUS)
    sending = [
        gr.on([parts.message.submit, parts.send.click], asking.send, [parts.message, *spot], **streaming),
        *(buttons[starter].click(asking.sending(starter), spot, **streaming) for starter in STARTERS),
        gr.on([parts.chatbot.retry, buttons["retry"].click], asking.retry, spot, **streaming),
        buttons["ask-anew"].click(asking.ask_anew, [parts.edited, parts.editing, *spot], **streaming),
    ]
    parts.stop.click(asking.stop, None, cancels=sending, **quietly).then(asking.settle, spot, **quietly)
    parts.chatbot.like(labels.rate, spot, **quietly)
    buttons["thumb-up"].click(labels.rating_last(1), spot, **quietly)
    buttons["thumb-down"].click(labels.rating_last(-1), spot, **quietly)
    buttons["save"].click(labels.add_reasons, [parts.rated, parts.reasons, parts.comment, *spot], **quietly)
    buttons["press"].act(labels.act, spot, **quietly).then(None, None, None, js=_FOCUS_EDITOR)
    buttons["save-edit"].click(labels.save_edit, [parts.edited, parts.editing, *spot], **quietly)
    buttons["close"].click(labels.close_editor, None, **quietly)
    for which in ("new", "old", "same"):
        getattr(parts, f"better_{which}").click(labels.better(which), [parts.pair, *spot], **quietly)
    active_ms = gr.Number(visible="hidden", elem_id="active-ms", label="Active time")
    for vote in VOTES:
        voted = [parts.pair, *spot, active_ms]
        buttons[vote.elem_id].click(labels.voting(vote), voted, js=_TAKE_ACTIVE_MS, **quietly)
    buttons["undo-vote"].click(labels.undo_vote, [parts.pair, *spot], **quietly)
    parts.pair.change(None, None, None, js=_NEXT_ITEM)
    for part in spot:
        part.change(None, spot, None, js=_KEEP_URL)
