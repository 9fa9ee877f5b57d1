"""The part of the Data tab that gives labels away: a plain form whose answer is the file."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.admin.acting import Update
from annotate.pages.admin.panels.pieces import note
from annotate.services import Services

MEANING = (
    "In the columns TRL's trainers take, people as pseudonyms. Parquet and CSV hold one kind of label a file;"
    " JSON lines hold both. Nothing is sent anywhere: your browser saves the file."
)
_HTML = """<h2>Export</h2>{meaning}
<form id="export-form" class="fields" method="get" action="/v1/export">
  <label>Format <select name="format"><option>jsonl</option><option>parquet</option><option>csv</option>
    </select></label>
  <label>Kind <select name="kind"><option value="">every kind</option>
    <option value="preference">preference pairs</option><option value="unpaired">single answers</option>
    </select></label>
  <label>Source <input name="source" maxlength="100" placeholder="any, human, import:, judge:"></label>
  <label>Version <input name="version" maxlength="20" placeholder="any"></label>
  <label>From <input type="date" name="since"></label>
  <label>Before <input type="date" name="until"></label>
  <button type="submit" class="action" id="export-go">Download</button>
</form>
<p id="export-says" role="status"></p>"""

# Empty fields are left out of the address; days become moments in UTC.
_JS = r"""
element.addEventListener('submit', e => {
  e.preventDefault();
  const asked = new URLSearchParams(), says = element.querySelector('#export-says');
  for (const [name, value] of new FormData(e.target))
    if (value.trim()) asked.set(name, /^(since|until)$/.test(name) ? `${value}T00:00:00Z` : value.trim());
  if (asked.get('format') !== 'jsonl' && !asked.get('kind')) {
    says.className = 'said bad';
    says.textContent = `A ${asked.get('format')} file holds one kind: choose it.`;
    return;
  }
  says.className = ''; says.textContent = '';
  const link = document.createElement('a');
  link.href = '/v1/export?' + asked; link.download = ''; link.click();
});
"""


class ExportSection:
    """Lays itself out where it is made."""

    is_polled = False

    def __init__(self, services: Services) -> None:  # noqa: ARG002
        with gr.Column(elem_classes=["card"]):
            gr.HTML(_HTML.format(meaning=note(MEANING)), js_on_load=_JS, elem_id="export")
        self.seen: list[Any] = []
        self.outputs: list[Any] = []

    def wire(self) -> None:
        """There is no event of the page."""

    def read(self) -> Update:
        """Nothing changes by itself."""
        return {}
