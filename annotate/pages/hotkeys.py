"""Keyboard shortcuts: a key presses a real button, so mouse, keyboard and tests share one path.

Also measures, in the browser, how long the item on screen was really in use. Knows no page and no session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gradio as gr

# The page takes keys when <html data-hotkeys="ready">; the off switch (WCAG 2.1.4) sets "off" and is kept.
# A panel of class `asks` takes all keys while it is open (`data-open`); Escape closes it.
_JS = r"""
const root = document.documentElement, keys = props.keymap;
const typing = t => t && (t.isContentEditable || /^(TEXTAREA|SELECT)$/.test(t.tagName)
  || (t.tagName === 'INPUT' && !/^(radio|checkbox|button)$/.test(t.type)));
const target = id => { const e = document.getElementById(id);
  return e && (e.matches('button,input,summary') ? e : e.querySelector('summary,button,input')); };
const label = () => { for (const [key, ids] of Object.entries(keys)) for (const id of ids) {
  const b = target(id);
  b?.setAttribute('aria-keyshortcuts', ((b.getAttribute('aria-keyshortcuts') || '') + ' ' + key).trim()); } };
document.addEventListener('keydown', e => {
  if (e.altKey || e.repeat || e.isComposing) return;
  if (e.key === 'Escape') {
    document.querySelectorAll('details.panel[open]').forEach(d => d.open = false);
    document.querySelectorAll('.asks[data-open]').forEach(p => p.removeAttribute('data-open'));
    if (typing(e.target)) e.target.blur();
    return;
  }
  if (root.dataset.hotkeys !== 'ready') return;
  const one = e.key.length === 1, ctrl = e.ctrlKey || e.metaKey;
  const held = (ctrl ? 'Ctrl+' : '') + (e.shiftKey && !one ? 'Shift+' : '');
  const combo = held + (one ? e.key.toLowerCase() : e.key);
  if (typing(e.target) && !ctrl) return;
  const asking = [...document.querySelectorAll('.asks[data-open]')].find(p => p.offsetParent !== null);
  if (e.key === 'Enter' && !ctrl && e.target.closest?.('button,summary,a')) return;  // has its own
  for (const id of keys[combo] || []) {
    const b = target(id);
    if (!b || b.disabled || b.offsetParent === null) continue;
    if (asking && !asking.contains(b)) continue;  // an open question takes all keys
    e.preventDefault(); b.click();
    if (b.matches('button')) document.activeElement?.blur();  // or Space would press the button again
    return;
  }
}, true);
const turn = on => { root.dataset.hotkeys = on ? 'ready' : 'off'; };
const start = () => {
  const box = document.getElementById('hotkeys-on'), kept = localStorage.getItem('heed-hotkeys') !== 'off';
  label();
  if (box) box.checked = kept;
  box?.addEventListener('change', () => {
    localStorage.setItem('heed-hotkeys', box.checked ? 'on' : 'off'); turn(box.checked); });
  turn(!box || kept);
};
const waiting = setInterval(() => {   // the other components of the page come one after the other
  if (!Object.values(keys).flat().every(id => document.getElementById(id))) return;
  clearInterval(waiting); start();
}, 30);
"""

# Counts only while the page is visible and something was pressed, moved or scrolled in the last 30 s.
_ACTIVE_TIME_JS = r"""
let active = 0, last = performance.now(), seen = last;
for (const name of ['pointermove', 'pointerdown', 'keydown', 'wheel', 'scroll', 'touchstart'])
  document.addEventListener(name, () => { seen = performance.now(); }, {capture: true, passive: true});
const count = () => { const now = performance.now();
  if (document.visibilityState === 'visible' && now - seen < 30000) active += now - last;
  last = now; };
setInterval(count, 250);
window.heedActiveMs = () => { count(); return Math.round(active); };
window.heedNextItem = () => { active = 0; last = seen = performance.now();
  document.querySelectorAll('#prompt, #answer-a, #answer-b').forEach(e => { e.scrollTop = 0; }); };
"""


def hotkeys(keymap: Mapping[str, Sequence[str]]) -> gr.HTML:
    """Bind each key ("1", "Shift+ArrowLeft") to the first of its element ids that is visible and enabled."""
    return gr.HTML(
        "",
        html_template="",
        js_on_load=_JS,
        keymap={key: list(ids) for key, ids in keymap.items()},
        elem_classes=["silent"],
    )


def active_time() -> gr.HTML:
    """Define `heedActiveMs()` (milliseconds in use on this item) and `heedNextItem()` in the browser."""
    return gr.HTML("", html_template="", js_on_load=_ACTIVE_TIME_JS, elem_classes=["silent"])
