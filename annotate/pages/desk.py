"""What the browser itself does on the annotate page: drafts, the marked choice, which panels are open.

The server sends a cue (JSON) with each item; it names the choice to mark and the panels to open. A draft is
what was typed and flagged on an item, and the choice that was pressed but never confirmed; it is kept in the
browser under the person and the task until the judgement is saved, so a reload or a restart loses nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass

import gradio as gr

_JS = r"""
const MOST_DRAFTS = 20, at = id => document.getElementById(id);
let person = '', task = '', reopened = '', selected = '';
const shelf = () => 'heed-drafts-' + person;
const read = () => { try { return JSON.parse(localStorage.getItem(shelf())) || {}; } catch { return {}; } };
const write = drafts => { try {
  const newest = Object.fromEntries(Object.entries(drafts).slice(-MOST_DRAFTS));
  localStorage.setItem(shelf(), JSON.stringify(newest));
} catch { /* no room, or storage is off: the page works without */ } };
const open = (id, on) => at(id)?.toggleAttribute('data-open', on);
const isOpen = id => !!at(id)?.hasAttribute('data-open');
const keep = (a, choice) => { if (!a[0]) return;
  const [id, , reasons, comment, correction, unsafeA, unsafeB] = a, drafts = read();
  delete drafts[id];
  if (choice || reasons.length || comment || correction || unsafeA || unsafeB)
    drafts[id] = {task_id: id, reasons, comment, correction, unsafe_a: unsafeA, unsafe_b: unsafeB, choice};
  write(drafts); };
const press = id => document.querySelectorAll('button.vote[aria-pressed]').forEach(b =>
  b.setAttribute('aria-pressed', String(b.id === id)));
const mark = cue => document.querySelectorAll('button.vote').forEach(b => {
  if (/^(k\d|up|down|skip(-\d)?)$/.test(b.id)) {
    b.setAttribute('aria-pressed', String(b.id === cue.selected));
    const before = cue.before?.replace(/^skip-\d/, 'skip');
    if (before !== undefined) b.toggleAttribute('data-before', b.id === before); } });
const CLOCK = {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'};
const localise = () => document.querySelectorAll('#page time[datetime]').forEach(t => {
  t.textContent = new Date(t.dateTime).toLocaleTimeString([], CLOCK); });

window.heedKeep = (...a) => keep(a, '');
window.heedSend = (choice, a) => {   // what goes with every click: the time in use and whether detail is open
  if (choice === 'save') keep(a, a[9]);
  else if (choice && (!isOpen('detail') || choice.startsWith('skip-'))) keep(a, choice);
  a[a.length - 4] = reopened;
  a[a.length - 3] = JSON.stringify(read()[a[0]] ?? null);
  a[a.length - 2] = window.heedActiveMs?.() ?? null;
  a[a.length - 1] = isOpen('detail');
  return a; };
document.addEventListener('click', e => {
  const row = e.target.closest?.('button.reopen');
  if (!row) return;
  reopened = row.dataset.judgement;
  open('recent-list', false);
  at('reopen').click(); });
window.heedToggle = id => {
  open(id, !isOpen(id));
  if (id === 'detail') press(isOpen(id) ? selected : '');  // with it closed, no choice waits for Enter
  if (isOpen(id)) at(id).scrollIntoView({block: 'nearest'}); };
window.heedLocalise = () => setTimeout(localise, 0);
document.addEventListener('keydown', e => {
  if (e.key !== 'Escape' || /^(TEXTAREA|SELECT)$/.test(e.target.tagName)) return;  // first leave the field
  for (const id of ['detail', 'guidelines', 'recent-list']) if (isOpen(id)) window.heedToggle(id); });
window.heedCue = text => {
  if (!text) return;
  const cue = JSON.parse(text);
  person = cue.person;
  if (cue.done) { const drafts = read(); delete drafts[cue.done]; write(drafts); }
  open('skip-asks', false);
  if (cue.detail !== null) open('detail', cue.detail);
  selected = cue.selected;
  mark(cue);
  if (cue.task !== task) {
    task = cue.task;
    window.heedNextItem?.();
    if (task && read()[task]) at('restore')?.click();
  }
  window.heedLocalise();
  document.documentElement.dataset.item = task; };
"""


@dataclass(frozen=True)
class Cue:
    """What the browser shall do with an item: buttons to mark by id, whether the detail panel is open.

    `done` is the task whose draft can go; None for `before` or `detail` leaves that as it is.
    """

    person: str
    task: str
    selected: str
    before: str | None
    done: str
    detail: bool | None

    def write(self) -> str:
        """As JSON, never twice the same text: the browser is told of a change only."""
        return json.dumps(asdict(self) | {"n": secrets.token_hex(4)})


@dataclass(frozen=True)
class Draft:
    """What was left on an item without being saved; `choice` is the button pressed, "" when none was."""

    task_id: str
    reasons: list[str]
    comment: str
    correction: str
    unsafe_a: bool
    unsafe_b: bool
    choice: str

    @property
    def has_detail(self) -> bool:
        """Whether something in it stands in the detail panel."""
        return bool(self.reasons or self.comment or self.correction)


def desk() -> gr.HTML:
    """Define in the browser what the page's events call there: `window.heedCue` and its siblings."""
    return gr.HTML("", html_template="", js_on_load=_JS, elem_classes=["silent"])


def read_draft(text: str, reasons: Collection[str]) -> Draft | None:
    """The draft a browser kept; None when it is no draft of ours (its storage is the person's own)."""
    try:
        kept = json.loads(text or "null")
        draft = Draft(**kept) if isinstance(kept, dict) else None
    except (ValueError, TypeError):
        return None
    if draft is None or not isinstance(draft.reasons, list):
        return None
    texts = (draft.task_id, draft.comment, draft.correction, draft.choice)
    flags = (draft.unsafe_a, draft.unsafe_b)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(flag, bool) for flag in flags):
        return None
    known = [reason for reason in draft.reasons if reason in reasons]
    return Draft(draft.task_id, known, draft.comment, draft.correction, *flags, draft.choice)
