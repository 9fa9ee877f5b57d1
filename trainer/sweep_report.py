"""sweep.json and sweep.html: the points of a sweep side by side, drawn with the report's own code."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from trainer.charts import HEIGHT, LEFT, RIGHT, STYLE, TOP, WIDTH, Frame, ticks, write_number
from trainer.report import write_page
from trainer.report_parts import write_table
from trainer.sweep import Result, show_flags, write_atomically

COLUMNS = (
    "accuracy", "margin", "drift", "own_drift", "entropy_ratio", "length_ratio", "first_loss", "last_loss",
    "seconds",
)  # fmt: skip
SCATTER_STYLE = """
.points { max-width: 620px; }
.points circle { fill: var(--soft); } .points circle.passed { fill: var(--b); }
.points circle.best { fill: var(--a); stroke: var(--ink); stroke-width: 1.5; }
"""


def leave_comparison(folder: Path, results: Sequence[Result], best: Result | None) -> None:
    """Write both files of a sweep, each whole or not at all; also while points are still missing."""
    told = {"best": best and best.name, "points": [dataclasses.asdict(result) for result in results]}
    write_atomically(folder / "sweep.json", json.dumps(told, indent=2) + "\n")
    write_atomically(folder / "sweep.html", write_comparison(folder.name, results, best))


def write_comparison(name: str, results: Sequence[Result], best: Result | None) -> str:
    """The page: the best point and why, accuracy against drift, and every measure."""
    says = (
        f"<p><b>Best: {html.escape(best.name)}.</b> Of the points that passed the gate and whose held-out"
        " accuracy is within one standard error of the highest, it is nearest to the base. As a normal round:"
        f" <code>{html.escape(show_flags(best))}</code></p>"
        if best
        else "<p><b>No point passed the gate.</b> The table says why.</p>"
    )
    rows = [
        [_name(result, best), *map(_cell, _measures(result)), result.decision, result.reason]
        for result in results
    ]
    heads = ("Point", *(column.replace("_", " ") for column in COLUMNS), "gate", "reason")
    links = "".join(
        f'<li><a href="points/{quote(result.name)}/report.html">{html.escape(result.name)}</a></li>'
        for result in results
    )
    body = (
        f"<h1>{html.escape(name)}</h1>{says}<style>{STYLE}{SCATTER_STYLE}</style>{draw_points(results, best)}"
        f"<h2>Measures</h2>{write_table(heads, rows, 'Points of the sweep')}<h2>Reports</h2><ul>{links}</ul>"
    )
    return write_page(name, body)


def draw_points(results: Sequence[Result], best: Result | None) -> str:
    """Held-out accuracy against drift from the base, a dot a point; empty where neither was measured."""
    placed = [(r, r.drift, r.accuracy) for r in results if r.drift is not None and r.accuracy is not None]
    if not placed:
        return ""
    drifts, accuracies = [abs(drift) for _, drift, _ in placed], [accuracy for *_, accuracy in placed]
    room = max(max(accuracies) - min(accuracies), 0.05) * 0.2
    frame = Frame(0.0, max(drifts) * 1.15 or 1.0, min(accuracies) - room, max(accuracies) + room)
    dots = "".join(_draw_dot(frame, result, abs(drift), accuracy, best) for result, drift, accuracy in placed)
    says = " ".join(
        f"{result.name}: accuracy {accuracy:.2f}, drift {abs(drift):.2f}."
        for result, drift, accuracy in placed
    )
    return (
        '<figure class="chart points"><figcaption><b>Held-out accuracy against drift</b> (nats a token from'
        " the base; up and left is better)</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="points-t points-d">'
        f'<title id="points-t">Held-out accuracy against drift</title><desc id="points-d">{html.escape(says)}'
        f"</desc>{_draw_axes(frame)}{dots}</svg></figure>"
    )


def _name(result: Result, best: Result | None) -> str:
    return f"{result.name} (best)" if best is not None and result.name == best.name else result.name


def _measures(result: Result) -> list[float | None]:
    return [getattr(result, column) for column in COLUMNS]


def _cell(value: float | None) -> str:
    return "–" if value is None else write_number(value)


def _draw_axes(frame: Frame) -> str:
    lines = [
        f'<path class="axis" d="M{LEFT} {frame.y(value):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 5}" y="{frame.y(value) + 4:.1f}" text-anchor="end">{write_number(value)}</text>'
        for value in ticks(frame.low_y, frame.high_y)
    ]
    lines += [
        f'<text x="{frame.x(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{write_number(value)}</text>'
        for value in ticks(frame.low_x, frame.high_x)
    ]
    return "".join(lines)


def _draw_dot(frame: Frame, result: Result, drift: float, accuracy: float, best: Result | None) -> str:
    x, y = frame.x(drift), frame.y(accuracy)
    is_best = best is not None and result.name == best.name
    style = "best" if is_best else "passed" if result.decision == "promote" else "held"
    # Beside its dot, on the side where there is room; never above the frame.
    anchor, text_x = ("end", x - 7) if x > WIDTH * 0.6 else ("start", x + 7)
    return (
        f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{6 if is_best else 4}"/>'
        f'<text x="{text_x:.1f}" y="{max(y + 4, TOP + 8):.1f}" text-anchor="{anchor}">'
        f"{html.escape(result.name)}</text>"
    )
