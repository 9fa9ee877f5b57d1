"""The plain HTML of signing in and of being refused. One file, no script, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape

# Contrast of every text on its ground is at least 4.5 in both themes (WCAG AA).
STYLE = """
:root { color-scheme: light dark; --ground: #f1f5f9; --card: #ffffff; --line: #cbd5e1; --ink: #0f172a;
  --soft: #475569; --accent: #4338ca; --on-accent: #ffffff; --bad: #b91c1c; --bad-ground: #fef2f2;
  --ring: #6366f1; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f172a; --card: #1e293b; --line: #475569;
  --ink: #f1f5f9; --soft: #cbd5e1; --accent: #a5b4fc; --on-accent: #1e1b4b; --bad: #fecaca;
  --bad-ground: #450a0a; --ring: #818cf8; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: grid; place-items: center;
  padding: 24px 16px; background: var(--ground); color: var(--ink);
  font: 16px/1.5 "IBM Plex Sans", system-ui, -apple-system, "Segoe UI", sans-serif; }
main { width: 100%; max-width: 384px; background: var(--card); border: 1px solid var(--line);
  border-radius: 16px; padding: 32px 28px; box-shadow: 0 12px 32px rgb(15 23 42 / 8%); }
.brand { display: flex; align-items: center; gap: 10px; margin: 0 0 24px; font-weight: 700;
  color: var(--accent); }
.brand span { width: 14px; height: 14px; border-radius: 3px; background: var(--accent);
  transform: rotate(45deg); }
h1 { margin: 0 0 4px; font-size: 24px; line-height: 1.25; letter-spacing: -0.01em; }
p { margin: 0 0 20px; color: var(--soft); }
label { display: block; margin: 0 0 6px; font-weight: 600; font-size: 14px; }
input { width: 100%; min-height: 44px; margin: 0 0 16px; padding: 9px 12px; font: inherit; color: var(--ink);
  background: var(--ground); border: 1px solid var(--soft); border-radius: 10px; }
button, .button { display: block; width: 100%; min-height: 46px; margin-top: 8px; padding: 11px 16px;
  font: inherit; font-weight: 600; text-align: center; text-decoration: none;
  color: var(--on-accent); background: var(--accent); border: 0; border-radius: 10px; cursor: pointer; }
button:hover, .button:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--ring); outline-offset: 2px; }
.notice { margin: 0 0 20px; padding: 10px 14px; border-radius: 10px; border: 1px solid var(--bad);
  color: var(--bad); background: var(--bad-ground); font-size: 14px; }
.foot { margin: 20px 0 0; font-size: 14px; }
form.quiet button { background: transparent; color: var(--accent); border: 1px solid var(--accent); }
"""


ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<path d="M8 1l7 7-7 7-7-7z" fill="#6366f1"/></svg>'
)


def sign_in_page(next_path: str = "", notice: str = "", name: str = "") -> str:
    """The sign-in form; `next_path` is where it leads, `notice` what went wrong the last time."""
    said = f'<div class="notice" role="alert">{escape(notice)}</div>' if notice else ""
    goal = f'<input type="hidden" name="next" value="{escape(next_path)}">' if next_path else ""
    return _page(
        "Sign in",
        f"""<h1>Sign in</h1>
<p>Rate answers, and the next version learns from you.</p>
{said}
<form method="post" action="/login">
{goal}
<label for="name">Name</label>
<input id="name" name="name" value="{escape(name)}" autocomplete="username"
 autocapitalize="none" spellcheck="false" maxlength="200" required {"" if name else "autofocus"}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="1000" required
 {"autofocus" if name else ""}>
<button type="submit">Sign in</button>
</form>
<p class="foot">No password yet, or forgotten? Ask an admin for a sign-in link.</p>""",
    )


def refused_page(reason: str, home: str) -> str:
    """What somebody sees who is signed in but may not open this page; `home` is the page they may open."""
    return _page(
        "Not for your role",
        f"""<h1>Not for your role</h1>
<p>{escape(reason)}</p>
<a class="button" href="{escape(home)}">Go to your page</a>
<form class="quiet" method="post" action="/logout">
<button type="submit">Sign in as somebody else</button>
</form>""",
    )


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Heed</title>
<link rel="icon" href="/favicon.ico">
<style>{STYLE}</style>
</head>
<body>
<main>
<div class="brand"><span aria-hidden="true"></span>Heed</div>
{body}
</main>
</body>
</html>
"""
