"""Line charts as SVG text, with nothing but the standard library: a panel a measure, a line a variant."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, TOP, GAP = 420, 260, 52, 34, 30
# Told apart by people who see few colours too (Okabe and Ito's order).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True, slots=True)
class Band:
    """One line: its middle and how far below and above the single runs lie, one place a step."""

    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def draw_panels(title: str, panels: Mapping[str, Mapping[str, Band]], x_name: str) -> str:
    """Panels side by side, each with its own scale; all share the legend below."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = dict(zip(names, COLOURS, strict=False))
    width = len(panels) * (WIDTH + GAP) + GAP
    height = TOP + HEIGHT + 70
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{GAP}" y="18" font-size="15">{html.escape(title)}</text>',
    ]
    for place, (name, lines) in enumerate(panels.items()):
        parts.append(_panel(GAP + place * (WIDTH + GAP), name, lines, colours, x_name))
    for place, name in enumerate(names):
        x, y = GAP + place * 200, height - 12
        parts.append(f'<rect x="{x}" y="{y - 9}" width="18" height="4" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{html.escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(x: int, name: str, lines: Mapping[str, Band], colours: Mapping[str, str], x_name: str) -> str:
    values = [value for band in lines.values() for value in (*band.low, *band.high)]
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or 0.5
    low, high = low - room, high + room
    steps = max(len(band.middle) for band in lines.values())

    def at(step: int, value: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT) * (step / max(steps - 1, 1))
        return round(x + across, 1), round(TOP + HEIGHT * (high - value) / (high - low), 1)

    parts = [f'<text x="{x + LEFT}" y="{TOP - 4}">{html.escape(name)}</text>']
    for tick in range(5):
        value = low + (high - low) * tick / 4
        y = at(0, value)[1]
        parts.append(f'<line x1="{x + LEFT}" x2="{x + WIDTH}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{x + LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.2f}</text>')
    for step in range(steps):
        parts.append(_centred(at(step, low)[0], TOP + HEIGHT + 16, str(step)))
    parts.append(_centred(x + (WIDTH + LEFT) / 2, TOP + HEIGHT + 34, x_name))
    for line_name, band in lines.items():
        edge = [at(step, value) for step, value in enumerate(band.high)]
        edge += [at(step, value) for step, value in enumerate(band.low)][::-1]
        colour = colours[line_name]
        parts.append(f'<polygon points="{_points(edge)}" fill="{colour}" opacity="0.15"/>')
        points = [at(step, value) for step, value in enumerate(band.middle)]
        parts.append(f'<polyline points="{_points(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "\n".join(parts)


def _centred(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle">{html.escape(text)}</text>'


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)
