"""The part of the Data tab that takes a file: what is in it, its first rows as they would be kept, then all.

The browser sends the file to the import route itself: pages take no files. What comes back is written as
text, never as HTML.
"""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from annotate.pages.admin.acting import Update
from annotate.pages.admin.panels.pieces import note
from annotate.services import Services
from store.formats import FORMATS

MEANING = (
    "Labels or prompts, as JSON lines, JSON, CSV or Parquet. All rows or none; what is known already is not"
    " saved twice. Imported labels keep their source and can be dropped as a whole below."
)
_HTML = """<h2>Import</h2>{meaning}
<form id="import-form" class="fields">
  <label>File <input type="file" id="import-file" accept=".jsonl,.json,.csv,.parquet,.txt"></label>
  <label>Format <select id="import-format"><option value="auto">recognise it</option>{formats}
    </select></label>
  <label>Source <input id="import-source" maxlength="100" placeholder="the format's name"></label>
  <button type="submit" class="action" id="import-preview">Preview</button>
</form>
<p id="import-says" class="nothing" role="status"></p>
<div id="import-shown"></div>
<div id="import-acts" class="fields" hidden>
  <button type="button" class="action primary" id="import-go">Import</button>
  <button type="button" class="action" id="import-skip">Skip bad lines and import the rest</button>
  <a id="import-rejects" download="rejects.jsonl" hidden>Download rejected lines</a>
</div>"""

_JS = r"""
const at = id => element.querySelector('#' + id);
const make = (tag, text, ...inside) => { const e = document.createElement(tag);
  if (text !== null) e.textContent = text; e.append(...inside); return e; };
const table = (label, heads, rows) => {
  const head = make('tr', null, ...heads.map(h => { const c = make('th', h); c.scope = 'col'; return c; }));
  const body = rows.map(row => make('tr', null, ...row.map(cell => make('td', cell))));
  const box = make('div', null, make('table', null, make('thead', null, head), make('tbody', null, ...body)));
  box.className = 'table'; box.tabIndex = 0; box.setAttribute('role', 'region');
  box.setAttribute('aria-label', label); return box; };
const short = text => { const line = (text ?? '').replace(/\s+/g, ' ');
  return line.length > 160 ? line.slice(0, 159) + '…' : line; };
const say = (text, bad) => { const p = at('import-says');
  p.className = bad ? 'said bad' : 'said'; p.textContent = text; };
const counts = pairs => Object.entries(pairs).map(([name, many]) => `${many} ${name}`).join(' · ');
const where = p => `${p.unit} ${p.place}` + (p.column === null ? '' : `, column ${p.column}`);
const busy = on => element.querySelectorAll('button').forEach(b => { b.disabled = on; });

const send = (extra, done) => {
  const file = at('import-file').files[0];
  if (!file) { say('Choose a file first.', true); return; }
  const query = new URLSearchParams({format: at('import-format').value, ...extra});
  if (at('import-source').value.trim()) query.set('source', at('import-source').value.trim());
  const call = new XMLHttpRequest();
  call.open('POST', '/v1/import?' + query);
  call.setRequestHeader('content-type', 'application/octet-stream');
  call.upload.onprogress = e => say(`Sending ${file.name}: ${Math.round(100 * e.loaded / e.total)} %`);
  call.upload.onload = () => say(`Reading ${file.name} …`);
  call.onerror = () => { busy(false); say('The file could not be sent. Is the service running?', true); };
  call.onload = () => { busy(false);
    let answer = null; try { answer = JSON.parse(call.responseText); } catch { answer = null; }
    if (call.status < 300 && answer) { done(answer, file); return; }
    say(answer?.error?.message ?? `The service answered ${call.status}; its log says more.`, true); };
  busy(true); say(`Sending ${file.name} …`); call.send(file); };

const problems = list => table('Problems', ['Where', 'Field', 'Problem', 'As it stands'],
  list.map(p => [where(p), p.field ?? '–', p.reason, short(p.raw)]));

const preview = () => send({preview: 'true'}, (found, file) => {
  at('import-shown').replaceChildren();
  const skipped = Object.keys(found.skipped).length ? ` Teaches nothing: ${counts(found.skipped)}.` : '';
  const twice = found.num_repeated ? ` ${found.num_repeated} stand in it twice.` : '';
  const bad = found.num_problems ? ` ${found.num_problems} cannot be read.` : '';
  say(`${file.name} is ${found.format} (${found.reason}): ${counts(found.counts) || 'nothing to import'}.`
    + skipped + twice + bad, !!found.num_problems);
  const rows = found.rows.map(row => [row.kind === 'rating' ? (row.desirable ? 'desirable' : 'undesirable')
    : row.kind, short(row.messages.at(-1)?.content), short(row.chosen), short(row.rejected)]);
  if (rows.length) at('import-shown').append(
    table('The first rows', ['Kind', 'Asked', 'Chosen or rated', 'Rejected'], rows));
  if (found.num_problems) at('import-shown').append(make('h3', 'Problems'), problems(found.problems));
  at('import-acts').hidden = !rows.length;
  at('import-go').hidden = found.num_problems > 0;
  at('import-skip').hidden = !found.num_problems;
  at('import-rejects').hidden = true; });

const bring = skip => send({skip_bad: skip ? 'true' : 'false'}, (done, file) => {
  at('import-shown').replaceChildren();
  at('import-go').hidden = at('import-skip').hidden = true;
  const left = done.num_rejected ? ` ${done.num_rejected} rejected.` : '';
  const skipped = Object.keys(done.skipped).length ? ` Teaches nothing: ${counts(done.skipped)}.` : '';
  say(`${file.name}: ${done.added} ${done.kind} added, ${done.known} known already.${skipped}${left}`);
  const link = at('import-rejects');
  link.hidden = !done.rejected.length;
  if (done.rejected.length) {
    if (link.href) URL.revokeObjectURL(link.href);
    const lines = done.rejected.map(p => JSON.stringify(p) + '\n');
    link.href = URL.createObjectURL(new Blob(lines, {type: 'application/x-ndjson'}));
    at('import-shown').append(problems(done.rejected.slice(0, 20))); }
  document.getElementById('data-refresh')?.click(); });

element.addEventListener('submit', e => { e.preventDefault(); preview(); });
element.addEventListener('change', e => { if (e.target.id === 'import-file') {
  at('import-acts').hidden = true; at('import-shown').replaceChildren(); say(''); } });
element.addEventListener('click', e => {
  if (e.target.id === 'import-go') bring(false);
  if (e.target.id === 'import-skip') bring(true); });
"""


class ImportSection:
    """Lays itself out where it is made; everything happens in the browser and on the import route."""

    is_polled = False

    def __init__(self, services: Services) -> None:  # noqa: ARG002
        with gr.Column(elem_classes=["card"]):
            options = "".join(
                f'<option value="{escape(each.name)}">{escape(each.name)}</option>' for each in FORMATS
            )
            form = _HTML.format(meaning=note(MEANING), formats=options)
            gr.HTML(form, js_on_load=_JS, elem_id="import")
        self.seen: list[Any] = []
        self.outputs: list[Any] = []

    def wire(self) -> None:
        """There is no event of the page."""

    def read(self) -> Update:
        """Nothing changes by itself."""
        return {}
