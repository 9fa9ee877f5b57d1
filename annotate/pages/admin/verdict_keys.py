"""The verdicts of an admin as buttons and keys; keys work while their box is ticked, outside fields."""

from __future__ import annotations

import json

import gradio as gr

# Element, label, what it means on screen, strength, key.
PAIR_VERDICTS = (
    ("verdict-a2", "A much better", "left", 2, "1"),
    ("verdict-a1", "A slightly better", "left", 1, "2"),
    ("verdict-tie", "About the same", "tie", 0, "3"),
    ("verdict-b1", "B slightly better", "right", 1, "4"),
    ("verdict-b2", "B much better", "right", 2, "5"),
    ("verdict-bad", "Both bad", "both_bad", 0, "0"),
)
SINGLE_VERDICTS = (
    ("verdict-down", "Bad answer", "down", 0, "1"),
    ("verdict-up", "Good answer", "up", 0, "2"),
)
_KEYS = [(name, key) for name, *_, key in (*PAIR_VERDICTS, *SINGLE_VERDICTS)] + [("verdict-next", "n")]

# One listener for the page: the tab is laid out again whenever it is opened, and would press twice.
_JS = r"""
const keys = KEYS, box = element.querySelector('#verdict-keys');
box.checked = localStorage.getItem('heed-verdict-keys') !== 'off';
box.addEventListener('change', () => localStorage.setItem('heed-verdict-keys', box.checked ? 'on' : 'off'));
const button = id => { const e = document.getElementById(id);
  return e?.matches('button') ? e : e?.querySelector('button'); };
for (const [id, key] of keys) button(id)?.setAttribute('aria-keyshortcuts', key);
if (!window.heedVerdictKeys) {
  window.heedVerdictKeys = true;
  document.addEventListener('keydown', e => {
    if (e.altKey || e.ctrlKey || e.metaKey || e.repeat || e.isComposing) return;
    if (!document.getElementById('verdict-keys')?.checked) return;
    const t = e.target, isField = /^(TEXTAREA|SELECT)$/.test(t.tagName) || t.isContentEditable
      || (t.tagName === 'INPUT' && !/^(radio|checkbox|button)$/.test(t.type));
    if (isField) return;
    const found = keys.filter(([, key]) => key === e.key.toLowerCase()).map(([id]) => button(id))
      .find(b => b && !b.disabled && b.offsetParent !== null);
    if (!found) return;
    e.preventDefault(); found.click(); document.activeElement?.blur();
  });
}
"""


def lay_out_keys() -> gr.HTML:
    """The box that turns the keys on and off, with what they are."""
    said = "Keys: <kbd>1</kbd>–<kbd>5</kbd> and <kbd>0</kbd> as the buttons stand, <kbd>N</kbd> next"
    box = f'<label class="keys"><input type="checkbox" id="verdict-keys"> {said}</label>'
    return gr.HTML(box, js_on_load=_JS.replace("KEYS", json.dumps(_KEYS), 1))
