"""Draws curves as SVG: a small plot with axes, dashed lines and a description for those who do not see it.

Colours are variables of the page around it (`--ink`, `--soft`, `--line`, `--a`, `--b`, `--warn`), so that a
chart follows its theme. Every series has a dash of its own besides its colour.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.curves import Series

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 24
MOST_POINTS = 120  # a curve; more would not be seen on this width

STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 14px; }
.chart { margin: 0; min-width: 0; }
.chart figcaption { font-size: 13px; color: var(--soft); margin: 0 0 4px; }
.chart figcaption b { color: var(--ink); }
.chart svg { display: block; width: 100%; height: auto; }
.chart svg text { fill: var(--soft); font-size: 11px; }
.chart .axis { stroke: var(--line); stroke-width: 1; }
.chart .mark { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 5 4; }
.chart path, .keyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.chart .c0, .keyline.c0 { stroke: var(--a); }
.chart .c1, .keyline.c1 { stroke: var(--b); stroke-dasharray: 6 3; }
.chart .c2, .keyline.c2 { stroke: var(--warn); stroke-dasharray: 2 4; }
.chart .raw { stroke-width: 1; opacity: .3; stroke-dasharray: none; }
.chart circle.c0 { fill: var(--a); }
.chart circle.c1 { fill: var(--b); }
.chart circle.c2 { fill: var(--warn); }
.key { display: inline-flex; align-items: center; gap: 5px; margin-right: 10px; white-space: nowrap; }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """A named series of a chart; `place` 0..2 decides how it is drawn."""

    label: str
    series: Series
    place: int = 0


@dataclass(frozen=True, slots=True)
class Chart:
    """What one plot shows. `marks` are dashed lines across it, each a value with its name."""

    key: str
    title: str
    says: str
    curves: tuple[Curve, ...]
    marks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """The ranges a plot covers, and where a point of them lies in it."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        """From the left edge, in units of the drawing."""
        return LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From the top edge, in units of the drawing."""
        return TOP + (self.high_y - value) / (self.high_y - self.low_y) * (HEIGHT - TOP - BOTTOM)


def draw_chart(chart: Chart, prefix: str) -> str:
    """A figure with its caption, key and plot; `prefix` keeps its ids apart from other charts'. Empty when
    there is nothing to draw."""
    curves = [curve for curve in chart.curves if curve.series]
    if not curves:
        return ""
    frame = frame_of(curves, chart.marks)
    name = html.escape(f"{prefix}-{chart.key}", quote=True)
    body = "".join(
        [*_draw_axes(frame), *_draw_marks(frame, chart.marks), *(_draw_curve(frame, c) for c in curves)]
    )
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(chart.title)}</b> {_draw_key(curves)}'
        "</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{html.escape(chart.title)}</title>'
        f'<desc id="{name}-d">{html.escape(describe(chart, curves))}</desc>{body}</svg></figure>'
    )


def describe(chart: Chart, curves: Sequence[Curve]) -> str:
    """What there is to see, in words and numbers."""
    parts = [chart.says]
    for curve in curves:
        series = curve.series
        parts.append(
            f"{curve.label}: {write_number(series.first)} at step {series.steps[0]},"
            f" {write_number(series.last)} at step {series.steps[-1]}."
        )
    return " ".join(parts)


def frame_of(curves: Sequence[Curve], marks: Sequence[tuple[float, str]]) -> Frame:
    """Ranges that hold every point and mark, never of no width."""
    steps = [step for curve in curves for step in curve.series.steps]
    values = [value for curve in curves for value in curve.series.values] + [value for value, _ in marks]
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 1e-9)
    last = max(steps)
    return Frame(min(steps), last if last > min(steps) else last + 1, low - room, high + room)


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers within a range, at most about `most` of them."""
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def write_number(value: float) -> str:
    """Short: three significant digits, and 0.0005 as 5e-4."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def thin(series: Series, most: int = MOST_POINTS) -> Series:
    """At most `most` points, each the mean of its neighbours; a short series as it is."""
    many = len(series)
    if many <= most:
        return series
    cuts = [round(i * many / most) for i in range(most + 1)]
    means = [sum(series.values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    return Series(tuple(series.steps[b - 1] for b in cuts[1:]), tuple(means))


def smooth(series: Series) -> Series:
    """The mean over a twentieth of the points around each, where there are enough to hide the trend."""
    half = len(series) // 40
    if half < 1:
        return series
    sums = [0.0]
    for value in series.values:
        sums.append(sums[-1] + value)
    means = []
    for i in range(len(series)):
        low, high = max(i - half, 0), min(i + half + 1, len(series))
        means.append((sums[high] - sums[low]) / (high - low))
    return Series(series.steps, tuple(means))


def _draw_axes(frame: Frame) -> list[str]:
    bottom = HEIGHT - BOTTOM
    lines = []
    for value in ticks(frame.low_y, frame.high_y):
        y = frame.y(value)
        lines.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{write_number(value)}</text>')
    for step, anchor in ((frame.low_x, "start"), (frame.high_x, "end")):
        x = frame.x(step)
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="{anchor}">{step:.0f}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle:.0f}" y="{bottom + 16}" text-anchor="middle">step</text>')
    return lines


def _draw_marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> list[str]:
    lines = []
    for value, name in marks:
        y = frame.y(value)
        lines.append(f'<path class="mark" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(
            f'<text x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">{html.escape(name)}</text>'
        )
    return lines


def _draw_curve(frame: Frame, curve: Curve) -> str:
    style = f"c{curve.place}"
    if len(curve.series) == 1:
        x, y = frame.x(curve.series.steps[0]), frame.y(curve.series.first)
        return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    raw, smoothed = thin(curve.series), thin(smooth(curve.series))
    behind = f'<path class="{style} raw" d="{_path(frame, raw)}"/>' if raw != smoothed else ""
    return f'{behind}<path class="{style}" d="{_path(frame, smoothed)}"/>'


def _path(frame: Frame, series: Series) -> str:
    points = zip(series.steps, series.values, strict=True)
    return "M" + "L".join(f"{frame.x(step):.1f} {frame.y(value):.1f}" for step, value in points)


def _draw_key(curves: Sequence[Curve]) -> str:
    if len(curves) == 1 and curves[0].place == 0:
        return ""
    return "".join(
        f'<span class="key"><svg width="22" height="6" viewBox="0 0 22 6" aria-hidden="true">'
        f'<path class="keyline c{curve.place}" d="M1 3H21"/></svg>{html.escape(curve.label)}</span>'
        for curve in curves
    )
