"""How the pages look: one Gradio theme and one style sheet, light and dark, wide and phone. No layout, no text."""

from __future__ import annotations

from typing import Any

import gradio as gr


def build_theme() -> Any:
    """Indigo on slate in the fonts that ship with Gradio.

    Only weights 400 and 700: the shipped "SemiBold" files hold no Latin letters and would mix two typefaces.
    """
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        text_size="md",
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=(gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_shadow="none",
        block_label_text_weight="700",
        block_title_text_weight="700",
        button_large_text_weight="400",
        button_small_text_weight="400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


CSS = """
:root { --ink: #0f172a; --soft: #526077; --line: #dbe2ea; --paper: #ffffff; --ground: #f8fafc; --a: #4f46e5; --b: #0f766e;
  --good: #15803d; --bad: #b91c1c; --warn: #92400e; --good-bg: #dcfce7; --bad-bg: #fee2e2; --warn-bg: #fef3c7;
  --a-bg: #e0e7ff; }
.dark { --ink: #e2e8f0; --soft: #9fb0c6; --line: #2b3a50; --paper: #111a2c; --ground: #020617; --a: #a5b4fc; --b: #5eead4;
  --good: #86efac; --bad: #fca5a5; --warn: #fcd34d; --good-bg: #14321f; --bad-bg: #3f1518; --warn-bg: #3a2a0a;
  --a-bg: #272a5c; }
body, gradio-app { background: var(--ground) !important; color: var(--ink); }
.gradio-container { max-width: none !important; }
.gradio-container .main.fillable, .gradio-container main { padding: 0 !important; max-width: none !important; }
.gradio-container .html-container, .gradio-container .block.padded:has(> .html-container) { padding: 0 !important; }
.gradio-container .prose { color: var(--ink); }
.gradio-container :is(h1, h2, h3, b, strong) { font-weight: 700; }
.gradio-container *:focus-visible { outline: 2px solid var(--a) !important; outline-offset: 2px; }
.unseen { position: absolute !important; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); margin: 0; }
.silent { display: none !important; }
.muted { color: var(--soft) !important; }
.label { font-size: 12px !important; letter-spacing: .04em; text-transform: uppercase; color: var(--soft) !important;
  margin: 0 !important; display: flex; align-items: center; gap: 8px; }
kbd { font: 12px/1 var(--font-mono); color: var(--soft); border: 1px solid var(--line); border-bottom-width: 2px;
  border-radius: 4px; padding: 2px 5px; background: var(--paper); }
.badge { display: inline-block; font-size: 12px; line-height: 1; padding: 4px 8px; border-radius: 99px; white-space: nowrap;
  background: color-mix(in srgb, var(--soft) 16%, transparent); color: var(--ink); }
.badge.live, .badge.good { background: var(--good-bg); color: var(--good); }
.badge.bad { background: var(--bad-bg); color: var(--bad); }
.badge.warn { background: var(--warn-bg); color: var(--warn); }
.badge.busy { background: var(--a-bg); color: var(--a); }
#signed-out { position: sticky; top: 0; z-index: 99; padding: 10px 16px; background: #b91c1c; color: white; text-align: center; }
#signed-out a { color: white; text-decoration: underline; font-weight: 700; }

/* top bar */
#top-bar { position: sticky; top: 0; z-index: 20; flex-wrap: nowrap; align-items: center; gap: 12px; padding: 0 20px;
  min-height: 48px; background: var(--paper); border-bottom: 1px solid var(--line); }
#site-links { flex: 1 1 auto !important; min-width: 0 !important; } #account { flex: 0 0 auto !important; min-width: 0 !important; }
#top-bar nav, #account .prose, #account > div > div { display: flex; align-items: center; gap: 4px; }
#account .prose { gap: 10px; font-size: 14px; }
#top-bar nav a { color: var(--soft); text-decoration: none; padding: 6px 10px; border-radius: 8px; font-size: 14px; }
#top-bar nav a:hover { background: var(--ground); color: var(--ink); }
#top-bar nav a[aria-current=page] { color: var(--ink); font-weight: 700; box-shadow: inset 0 -2px 0 var(--a); border-radius: 0; }
#top-bar nav a.brand { font-weight: 700; color: var(--ink); font-size: 16px; padding-left: 0; margin-right: 8px; }
#top-bar nav a.brand span { color: var(--a); }
#account form { margin: 0; }
.quiet { font-size: 14px; color: var(--soft); background: none; border: 1px solid transparent; border-radius: 8px; padding: 5px 9px;
  cursor: pointer; }
.quiet:hover { color: var(--ink); border-color: var(--line); }
#person { font-weight: 700; max-width: 16ch; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
#page { max-width: 1180px; width: 100%; margin: 0 auto; padding: 14px 20px 0; gap: 12px; }

/* annotate */
#tools { align-items: center; gap: 16px; flex-wrap: nowrap; }
#kind { flex: 0 0 auto; width: auto; border: 0; padding: 0; background: none; min-width: 0; }
#kind .wrap { gap: 0; flex-wrap: nowrap; border: 1px solid var(--line); border-radius: 9px; overflow: hidden; background: var(--paper); }
#kind label { border: 0; border-radius: 0; background: none; box-shadow: none; padding: 6px 14px; color: var(--soft); margin: 0; }
#kind label.selected { background: var(--a-bg); color: var(--ink); font-weight: 700; }
#kind input { position: absolute; opacity: 0; width: 1px; height: 1px; }
#kind label:focus-within { outline: 2px solid var(--a); outline-offset: -2px; }
#status { flex: 1 1 auto; min-width: 0; font-size: 14px; color: var(--soft); }
#status .numbers strong { color: var(--ink); } #status .says { margin-left: 12px; color: var(--ink); }
#help { flex: 0 0 auto; min-width: 0; position: relative; overflow: visible; }
details.panel { position: relative; font-size: 14px; } details.panel > summary, .turns > summary { cursor: pointer; color: var(--soft);
  list-style: none; padding: 5px 2px; } details summary::-webkit-details-marker { display: none; }
details.panel .sheet { position: absolute; right: 0; top: 110%; z-index: 30; width: min(420px, 90vw); padding: 16px; background: var(--paper);
  border: 1px solid var(--line); border-radius: 12px; box-shadow: 0 12px 32px rgb(15 23 42 / .18); }
.sheet p { margin: 0 0 10px; } .sheet dl { display: grid; grid-template-columns: auto 1fr; gap: 6px 14px; margin: 0 0 12px; }
.sheet dt, .sheet dd { margin: 0; } .sheet dd { color: var(--soft); }
#stage { gap: 8px; } #pair { gap: 14px; align-items: stretch; margin-top: 6px; }
#side-a, #side-b { gap: 6px; flex: 1 1 0; min-width: 0 !important; }
.letter { display: inline-grid; place-items: center; width: 20px; height: 20px; border-radius: 6px; color: var(--paper); background: var(--a); }
.side-b .letter { background: var(--b); }
#prompt, #answer-a, #answer-b { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px !important;
  overflow: auto; overflow-wrap: anywhere; font-size: 15px; line-height: 1.55; }
#prompt { max-height: 28vh; border-left: 3px solid var(--line); background: transparent; }
#answer-a, #answer-b { min-height: 180px; max-height: 52vh; flex: 1 1 auto; justify-content: flex-start; border-top: 3px solid var(--a); }
#answer-b { border-top-color: var(--b); } .single #answer-a { border-top-color: var(--line); }
#prompt pre, #answer-a pre, #answer-b pre { white-space: pre; overflow-x: auto; }
.loading #answer-a, .loading #answer-b, .loading #prompt { animation: wait 1.4s ease-in-out infinite; min-height: 64px; }
.loading #answer-a, .loading #answer-b { min-height: 180px; }
@keyframes wait { 50% { background: color-mix(in srgb, var(--line) 60%, var(--paper)); } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
.turns { font-size: 14px; } .turn { border-left: 2px solid var(--line); padding: 2px 0 2px 12px; margin: 6px 0; }
.turn b { font-size: 12px; color: var(--soft); } .turn p { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
#not-saved { flex-direction: row; align-items: center; gap: 12px; padding: 8px 14px; border-radius: 10px; background: var(--bad-bg);
  border: 1px solid var(--bad); } #not-saved p { margin: 0; color: var(--bad); } #not-saved-says { flex: 1; min-width: 0; }
#retry { flex: 0 0 auto; }
#queue-empty .empty { text-align: center; padding: 15vh 16px; } .empty h2 { font-size: 22px; margin: 0 0 8px; } .empty p { margin: 4px 0; }
#vote-bar { position: sticky; bottom: 0; z-index: 10; gap: 8px; padding: 10px 0 12px; background: linear-gradient(transparent, var(--ground) 10px); }
.votes, #other-votes { gap: 8px; flex-wrap: nowrap; } #other-votes { justify-content: center; }
button.vote { position: relative; background: var(--paper); color: var(--ink); border: 1px solid var(--line); border-radius: 10px; min-height: 46px;
  font-size: 15px; padding: 6px 10px; display: flex; align-items: center; justify-content: center; gap: 8px; box-shadow: none; }
button.vote:hover { border-color: var(--soft); } button.vote:active { background: var(--a-bg); } button.vote:disabled { opacity: .5; }
#k1, #k2, #down { border-bottom: 3px solid var(--a); } #k4, #k5, #up { border-bottom: 3px solid var(--b); } #k3 { border-bottom: 3px solid var(--soft); }
#other-votes button.vote { flex: 0 1 150px; min-height: 40px; font-size: 14px; color: var(--soft); }
button.vote::after { font: 12px/1 var(--font-mono); color: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: 3px 5px; }
#k0::after { content: "0"; } #k1::after, #down::after { content: "1"; } #k2::after, #up::after { content: "2"; } #k3::after { content: "3"; }
#k4::after { content: "4"; } #k5::after { content: "5"; } #skip::after { content: "S"; } #undo::after { content: "U"; }
html[data-hotkeys=off] button.vote::after, html[data-hotkeys=off] summary kbd { display: none; }
#detail { border: 0; background: none; padding: 0 0 16px; } #detail > button { color: var(--soft); font-size: 14px; justify-content: center; }

/* chat */
#chat-page { max-width: 860px; width: 100%; margin: 0 auto; padding: 12px 20px 10px; gap: 8px; height: calc(100dvh - 49px); flex-wrap: nowrap; }
#chat-tools, #composer { gap: 8px; align-items: center; flex: 0 0 auto; } #conversations { min-width: 0 !important; flex: 1 1 auto; }
#new-chat { flex: 0 0 auto; min-width: 0; } #chatbot { flex: 1 1 auto !important; min-height: 160px; border: 1px solid var(--line); border-radius: 12px; }
#chatbot .message { font-size: 15px; line-height: 1.55; overflow-wrap: anywhere; max-width: 100%; } #chatbot pre { max-width: 100%; overflow-x: auto; }
#chatbot .written-by { display: block; margin-top: 6px; font-size: 12px; color: var(--soft); }
#composer { align-items: flex-end; flex-wrap: nowrap; } #message { min-width: 0 !important; } #message textarea { font-size: 15px; }
#send, #stop { flex: 0 0 92px; min-width: 0; min-height: 44px; }
#chat-note { font-size: 12px; color: var(--soft); text-align: center; flex: 0 0 auto; } #chat-says { flex: 0 0 auto; font-size: 14px; }
#chat-says p { margin: 0; padding: 6px 12px; border-radius: 8px; background: var(--warn-bg); color: var(--warn); }
#chat-says p.quiet-note { background: none; color: var(--soft); padding: 0; }
#what-was-wrong { flex: 0 0 auto; gap: 6px; padding: 10px 12px; border: 1px solid var(--line); border-radius: 10px; background: var(--paper); }
#what-was-wrong .row { flex-wrap: nowrap; } #save-reasons { flex: 0 0 110px; min-width: 0; } #rating-comment { min-width: 0 !important; }

/* admin */
#counts { overflow: visible; } .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
.tile b { display: block; font-size: 22px; line-height: 1.2; font-variant-numeric: tabular-nums; } .tile span { color: var(--soft); font-size: 13px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px !important; gap: 10px !important; min-width: 0 !important; }
.card > h2, .card .prose > h2, .card h2 { font-size: 15px !important; margin: 0 0 6px !important; }
.two { gap: 12px; align-items: flex-start; } .two > .card { flex: 1 1 0; }
.table { overflow-x: auto; } .table table { width: 100%; border-collapse: collapse; font-size: 14px; margin: 0; }
.table th { text-align: left; font-weight: 400; color: var(--soft); font-size: 12px; border: 0; border-bottom: 1px solid var(--line); padding: 4px 14px 4px 0; background: none; }
.table td { border: 0; border-bottom: 1px solid color-mix(in srgb, var(--line) 60%, transparent); padding: 6px 14px 6px 0; vertical-align: top;
  color: var(--ink); font-variant-numeric: tabular-nums; background: none; overflow-wrap: anywhere; } .table tr:last-child td { border-bottom: 0; }
.table td.nowrap { white-space: nowrap; } .verdict { margin: 0 0 8px; font-size: 15px; }
.bar { height: 8px; border-radius: 99px; background: color-mix(in srgb, var(--line) 70%, transparent); overflow: hidden; margin: 8px 0; }
.bar i { display: block; height: 100%; background: var(--a); border-radius: 99px; transition: width .4s; }
.figures { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; color: var(--soft); } .figures b { color: var(--ink); font-variant-numeric: tabular-nums; }
.log { max-height: 240px; overflow: auto; margin: 0; font: 12px/1.5 var(--font-mono); white-space: pre-wrap; overflow-wrap: anywhere; color: var(--ink);
  background: var(--ground); border: 1px solid var(--line); border-radius: 8px; padding: 10px; }
.confirm { border: 1px solid var(--a); border-radius: 10px; padding: 12px; gap: 8px; background: var(--ground); }
.said { margin: 0; padding: 6px 12px; border-radius: 8px; background: var(--a-bg); color: var(--ink); font-size: 14px; }
.said.bad { background: var(--bad-bg); color: var(--bad); } .nothing { color: var(--soft); font-size: 14px; margin: 4px 0; }
#person-secret code { font: 14px var(--font-mono); background: var(--ground); border: 1px solid var(--line); padding: 2px 6px; border-radius: 6px; overflow-wrap: anywhere; }
.buttons { gap: 8px; } .buttons > button { flex: 0 1 auto; min-width: 0; }

@media (max-width: 719px) {
  #top-bar { padding: 0 10px; gap: 4px; } #top-bar nav a { padding: 6px 6px; } #top-bar nav a.brand { margin-right: 2px; font-size: 15px; }
  #person, #account .badge { display: none; } #account .prose { gap: 0; } .quiet { padding: 5px 6px; white-space: nowrap; }
  #page { padding: 10px 12px 0; } #chat-page { padding: 8px 10px 6px; }
  #tools { flex-wrap: wrap; gap: 8px; } #status { order: 3; flex-basis: 100%; } #help { margin-left: auto; }
  #pair, .two { flex-direction: column; } .two > .card { width: 100%; flex: none; }
  #answer-a, #answer-b { min-height: 90px; max-height: none; } #prompt { max-height: none; }
  .votes { gap: 5px; } button.vote { font-size: 13px; line-height: 1.15; padding: 5px 3px; min-height: 52px; } button.vote::after, summary kbd { display: none; }
  #other-votes button.vote { min-height: 44px; flex: 1 1 0; } #vote-bar { padding: 8px 0; background: var(--ground); }
  #send, #stop { flex-basis: 72px; }
}
"""
