"""report.html: one page about one round, made of the files in its directory; no script, nothing fetched.

It can be written at any time, also for a round that runs or failed: what is not there yet is said to be so.
"""

from __future__ import annotations

import html
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.charts import write_number
from trainer.curves import Line, read_lines
from trainer.findings import WITHOUT_REFERENCE
from trainer.report_parts import write_curves, write_table

logger = logging.getLogger(__name__)

PAGE_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #0f172a; --soft: #526077; --line: #dbe2ea; --paper: #ffffff; --ground: #f8fafc; --a: #4f46e5;
  --b: #0f766e; --good: #15803d; --bad: #b91c1c; --warn: #92400e; --good-bg: #dcfce7; --bad-bg: #fee2e2;
  --warn-bg: #fef3c7; --a-bg: #e0e7ff;
}
@media (prefers-color-scheme: dark) { :root {
  --ink: #e2e8f0; --soft: #9fb0c6; --line: #2b3a50; --paper: #111a2c; --ground: #020617; --a: #a5b4fc;
  --b: #5eead4; --good: #86efac; --bad: #fca5a5; --warn: #fcd34d; --good-bg: #14321f; --bad-bg: #3f1518;
  --warn-bg: #3a2a0a; --a-bg: #272a5c;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1180px; padding: 16px 20px 48px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 28px 0 8px; }
h3 { font-size: 15px; margin: 16px 0 6px; }
.badge {
  display: inline-block; font-size: 12px; line-height: 1; padding: 4px 8px; border-radius: 99px;
  background: color-mix(in srgb, var(--soft) 16%, transparent);
}
.badge.good { background: var(--good-bg); color: var(--good); }
.badge.bad { background: var(--bad-bg); color: var(--bad); }
.badge.warn { background: var(--warn-bg); color: var(--warn); }
.badge.busy { background: var(--a-bg); color: var(--a); }
.nothing { color: var(--soft); }
.table { overflow-x: auto; }
.table:focus-visible, summary:focus-visible { outline: 2px solid var(--a); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 400; color: var(--soft); font-size: 12px; }
th, td { border-bottom: 1px solid var(--line); padding: 5px 16px 5px 0; vertical-align: top; }
th, td { overflow-wrap: normal; } td { min-width: 5ch; }
td:first-child { min-width: 12ch; } .wide td:first-child { min-width: 26ch; }
.side { display: flex; flex-wrap: wrap; gap: 4px 40px; align-items: flex-start; }
.side > * { min-width: 0; } .side h3 { margin-top: 0; } summary { cursor: pointer; padding: 6px 0; }
"""

ROW_WORDS = {"pairs": "pairs", "holdout": "held-out pairs", "ratings": "ratings"}
COUNTS = {
    "num_pairs": "pairs to train on",
    "num_ratings": "ratings to train on",
    "num_holdout": "pairs held out",
}


def describe_round(folder: Path, state: str = "", reason: str = "") -> None:
    """Leave report.html for whatever became of a round. Catches broadly: a drawing that fails must neither
    undo a verdict nor hide why a round failed. A round without a directory has nothing to describe."""
    if not folder.is_dir():
        return
    try:
        leave_report(folder, state, reason)
    except Exception:
        logger.exception("the report of round %s could not be written", folder.name)


def leave_report(folder: Path, state: str = "", reason: str = "") -> Path:
    """Write report.html into a round's directory, whole or not at all; returns its path."""
    path, draft = folder / "report.html", folder / "report.html.tmp"
    draft.write_text(write_report(folder, state, reason), "utf-8")
    draft.replace(path)
    return path


def write_report(folder: Path, state: str = "", reason: str = "") -> str:
    """The page about the round in `folder`. `state` and `reason` are what the store says of it; without them
    the gate's decision stands for them."""
    plan, gate = _read(folder / "round.json"), _read(folder / "gate.json")
    lines = read_lines(folder / "progress.jsonl")
    title = f"Round {plan.get('round_id', folder.name)}"
    curves = write_curves(lines, plan, gate or None)
    sections = (
        _write_head(title, plan, gate, lines, state, reason),
        _section("Labels", _write_labels(folder, lines)),
        _section("Training", curves or _nothing("No step was logged.")),
        _section("Gate", _write_gate(gate)),
        _section("Settings", _write_settings(plan)),
    )
    return write_page(title, "".join(sections))


def write_page(title: str, body: str) -> str:
    """A whole HTML document around a body that is HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{PAGE_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _nothing(sentence: str) -> str:
    return f'<p class="nothing">{html.escape(sentence)}</p>'


def _write_head(
    title: str,
    plan: Mapping[str, Any],
    gate: Mapping[str, Any],
    lines: Sequence[Line],
    state: str,
    reason: str,
) -> str:
    trainer, base = plan.get("trainer", {}), plan.get("base", {})
    state = state or str(gate.get("decision", ""))
    reason = reason or str(gate.get("reason", ""))
    tone = {"promote": "good", "promoted": "good", "failed": "bad", "reject": "warn", "rejected": "warn"}
    badge = f'<span class="badge {tone.get(state, "busy")}">{html.escape(state)}</span> ' if state else ""
    loss = str(trainer.get("loss") or "cdpo")
    reference = "none" if loss in WITHOUT_REFERENCE else str(trainer.get("reference", "base"))
    facts = [
        ("Version", plan.get("version")),
        ("Trained while this was live", plan.get("parent")),
        ("Loss", loss),
        ("Reference", reference),
        ("Starts from", trainer.get("start")),
        ("Base model", base.get("model") and os.path.basename(str(base["model"]).rstrip("/"))),  # noqa: PTH119
        *((_name_stage(stage), says) for stage, says in _find_note(lines, "stages").items()),
    ]
    rows = [[name, str(value)] for name, value in facts if value is not None]
    return (
        f"<header><h1>{html.escape(title)}</h1><p>{badge}{html.escape(reason)}</p>"
        f"{write_table(('What', 'Value'), rows, 'About this round')}</header>"
    )


def _name_stage(stage: str) -> str:
    return f"Stage {stage}"


def _find_note(lines: Iterable[Line], about: str) -> dict[str, Any]:
    found: Line = next((line for line in lines if line.get("note") == about), {})
    return {name: value for name, value in found.items() if name not in ("stage", "note")}


def _write_labels(folder: Path, lines: Sequence[Line]) -> str:
    """What the snapshot holds and why the rest is not in it, and what was cut or left out on the way."""
    report = _read(folder / "snapshot" / "report.json")
    if not report:
        return _nothing("There is no snapshot yet, or it keeps no report.")
    counts = [[says, str(report[name])] for name, says in COUNTS.items() if name in report]
    parts = [_card("Snapshot", write_table(("Rows", "Count"), counts, "Rows of the snapshot"))]
    for name, value in report.items():
        if _is_counts(value):
            rows = [[key.replace("_", " "), write_number(float(count))] for key, count in value.items()]
            title = name.replace("_", " ").capitalize()
            parts.append(_card(title, write_table(("What", "Count"), rows, title)))
    parts += [
        _write_rows(lines),
        _write_account(_read(folder / "training_report.json")),
        _write_recorded(lines),
    ]
    return f'<div class="side">{"".join(parts)}</div>'


def _card(title: str, body: str) -> str:
    return f"<section><h3>{html.escape(title)}</h3>{body}</section>"


def _is_counts(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(count, int) and not isinstance(count, bool) for count in value.values())
    )


def _write_rows(lines: Sequence[Line]) -> str:
    rows: list[list[str]] = []
    for line in lines:
        if line.get("note") != "rows":
            continue
        name = ROW_WORDS.get(str(line.get("set")), str(line.get("set")))
        rows.append([name, "used", str(line.get("used"))])
        notices = line.get("notices")
        if isinstance(notices, dict):
            rows.extend([name, str(what), str(count)] for what, count in notices.items())
    if not rows:
        return ""
    return _card("As token ids", write_table(("Rows", "What", "Count"), rows, "Rows as token ids"))


def _write_account(report: Mapping[str, Any]) -> str:
    """What each stage made of its rows, from training_report.json; empty before it is written."""
    rows: list[list[str]] = []
    for name, account in report.items():
        cut = account["cut"]
        facts = [
            ("read", account["read"]),
            ("used", account["used"]),
            ("rows cut", cut["rows"]),
            ("oldest messages cut", cut["messages"]),
            ("not reached by max_steps", account["not_reached"]),
            *((f"left out: {why}", len(row_ids)) for why, row_ids in account["left_out"].items()),
        ]
        stage = ROW_WORDS.get(name, name)
        rows.extend([stage, what, str(count)] for what, count in facts if count or what in ("read", "used"))
    if not rows:
        return ""
    return _card("By stage", write_table(("Stage", "What", "Rows"), rows, "Rows by stage"))


def _write_recorded(lines: Sequence[Line]) -> str:
    """How far the reference is from what each version's log-probs were when it gave its answers."""
    found: dict[object, Line] = {line.get("stage"): line for line in lines if line.get("event") == "recorded"}
    rows: list[list[str]] = []
    for stage, line in found.items():
        versions: Any = line["versions"]
        for version, told in versions.items():
            own = " (the reference)" if version == line["reference"] else ""
            numbers = [f"{told['log_ratio']:+.4f}", f"{told['apart']:.4f}"]
            rows.append([str(stage), f"{version}{own}", str(told["num_answers"]), *numbers])
    if not rows:
        return ""
    heads = ("Stage", "Answers of", "Answers", "Mean", "Mean size")
    title = "Log-prob today less the recorded one, nats a token"
    return _card(title, write_table(heads, rows, title))


def _write_gate(gate: Mapping[str, Any]) -> str:
    if not gate:
        return _nothing("There is no candidate, so there is no verdict.")
    rows = [
        [
            str(check.get("says") or check.get("name", "")),
            *(_cell(check.get(key)) for key in ("value", "live", "threshold", "noise_floor")),
            "passed" if check.get("passed") else "failed",
        ]
        for check in gate.get("checks", ())
    ]
    heads = ("Check", "Candidate", "Live", "Threshold", "Noise", "Verdict")
    return f"<p>{html.escape(str(gate.get('reason', '')))}</p>{write_table(heads, rows, 'Gate')}"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return write_number(value) if isinstance(value, float) else str(value)


def _write_settings(plan: Mapping[str, Any]) -> str:
    if not plan:
        return _nothing("There is no plan yet.")
    rows = [
        [f"--{group}.{name.replace('_', '-')}", json.dumps(value)]
        for group in ("trainer", "guards", "gate")
        for name, value in plan.get(group, {}).items()
    ]
    packages = [[name, str(number)] for name, number in plan.get("packages", {}).items()]
    return (
        f"<details><summary>Every setting</summary>{write_table(('Setting', 'Value'), rows, 'Settings')}"
        f"</details><details><summary>Packages</summary>"
        f"{write_table(('Package', 'Version'), packages, 'Packages')}</details>"
    )
