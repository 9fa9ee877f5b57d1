"""The bar above every page: brand, the pages this person may open, live version, theme, name, sign out.

Everything that came from a person or the store is escaped. The annotate page is blind and gets no version.
"""

from __future__ import annotations

from html import escape

import gradio as gr

from annotate.gradio_gate import PAGE_ROLES
from annotate.pages.text import plain
from store.records import Person, Role

_PAGES = {"/annotate": "Annotate", "/chat": "Chat", "/admin": "Admin"}

# One listener for the page, not one per button: the bar is written again when its text changes.
_JS = r"""
const dark = () => document.body.classList.contains('dark');
const kept = localStorage.getItem('heed-theme');
const asked = new URLSearchParams(location.search).has('__theme');
if (kept && !asked) document.body.classList.toggle('dark', kept === 'dark');
document.addEventListener('click', e => {
  if (!e.target.closest?.('#theme-toggle')) return;
  document.body.classList.toggle('dark');
  localStorage.setItem('heed-theme', dark() ? 'dark' : 'light');
});
document.documentElement.lang = 'en';
"""

# A click whose session has ended gets 401; without this the page would just do nothing.
SIGNED_OUT_HEAD = """<style>
#signed-out { position: sticky; top: 0; z-index: 99; padding: 10px 16px; text-align: center;
  font: 15px system-ui; background: #b91c1c; color: white; }
#signed-out a { color: white; font-weight: 700; }
</style><script>
(() => { const send = window.fetch;
  window.fetch = async (...args) => {
    const answer = await send(...args);
    if (answer.status === 401 && !document.getElementById('signed-out')) {
      const bar = document.createElement('div'), link = document.createElement('a');
      bar.id = 'signed-out'; bar.setAttribute('role', 'alert');
      bar.textContent = 'You are signed out. Your last click was not saved. ';
      link.href = '/login?next=' + encodeURIComponent(location.pathname + location.search);
      link.textContent = 'Sign in again';
      bar.append(link); document.body.prepend(bar);
    }
    return answer;
  };
})();
</script>"""


def top_bar(title: str) -> tuple[gr.HTML, gr.HTML]:
    """Lay out the bar of the page called `title`; its two parts are filled on load: (links, account)."""
    with gr.Row(elem_id="top-bar", equal_height=True):
        links = gr.HTML(write_links(title, None), js_on_load=_JS, elem_id="site-links")
        account = gr.HTML("", js_on_load=None, elem_id="account")
    return links, account


def write_links(title: str, role: Role | None) -> str:
    """Brand and navigation; with no role yet only the brand, so that the bar does not jump."""
    links = [
        f'<a href="{path}/"{" aria-current=page" if label == title else ""}>{label}</a>'
        for path, label in _PAGES.items()
        if role == "admin" or role in PAGE_ROLES[path]
    ]
    return (
        f'<h1 class="unseen">{escape(title)}</h1><nav aria-label="Pages">'
        f'<a class="brand" href="/"><span aria-hidden="true">◆</span> Heed</a>{"".join(links)}</nav>'
    )


def write_account(person: Person, live_version: str | None) -> str:
    """Who is signed in and how to leave; `live_version` None shows no version."""
    badge = (
        f'<span id="live-version" class="badge live">live {escape(live_version)}</span>'
        if live_version
        else ""
    )
    return (
        f'{badge}<button id="theme-toggle" type="button" class="quiet">Theme</button>'
        f'<span id="person">{plain(person.name)}</span>'
        '<form method="post" action="/logout">'
        '<button id="sign-out" type="submit" class="quiet">Sign out</button></form>'
    )
