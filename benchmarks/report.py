"""What the loop benchmark prints: a table a round and one of all rounds. Numbers in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.metrics import Metrics, score_error, standard_error
from trainer.starter.habits import HABITS


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: a policy and its numbers, or why there are none."""

    title: str
    metrics: Metrics | None
    labels: int | None = None


def format_table(columns: Sequence[Column]) -> str:
    """The columns side by side, the names of the numbers at the left, each rate with its standard error."""
    names = ["", *(name for name, _ in _list_cells(columns[0].metrics)), "labels used"]
    cells = [[column.title, *_fill_column(column)] for column in columns]
    widths = [max(map(len, column)) for column in (names, *cells)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in zip(names, *cells, strict=True)
    ]
    return "\n".join(line.rstrip() for line in lines)


def format_seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {taken:.1f} s" for stage, taken in seconds.items())


def _fill_column(column: Column) -> list[str]:
    cells = [cell for _, cell in _list_cells(column.metrics)]
    return [*cells, "" if column.labels is None else str(column.labels)]


def _list_cells(metrics: Metrics | None) -> list[tuple[str, str]]:
    """Names and cells of one column; a policy that could not be measured has a dash in each."""
    names = (
        *HABITS,
        "fact accuracy",
        "mean length (words)",
        "entropy (nats/token)",
        "win rate against base",
        "win rate of decided",
        "decided comparisons",
        "distinct answers",
        "cut off by length",
    )
    if metrics is None:
        return [(name, "-") for name in names]
    m, n = metrics, metrics.num_prompts
    cells = (
        *(_show_rate(m.habits[habit], n) for habit in HABITS),
        _show_rate(m.fact_accuracy, m.num_facts),
        f"{m.mean_length:.1f}",
        f"{m.entropy:.3f}",
        f"{m.win_rate:.3f} ±{score_error(m.scores):.3f}",
        _show_rate(m.decided_win_rate, m.num_decided),
        f"{m.num_decided} of {n}",
        f"{m.num_distinct} of {n}",
        f"{m.unfinished:.3f}",
    )
    return list(zip(names, cells, strict=True))


def _show_rate(rate: float, count: int) -> str:
    return f"{rate:.3f} ±{standard_error(rate, count):.3f}"
