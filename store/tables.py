"""What events add to the tables, gathered so that a replay writes many rows a statement.

One row a statement costs about 0.6 ms, `executemany` no less, thousands as one Arrow table 0.05 ms each.
Anything that must see earlier rows goes through `execute`, which writes them first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

ROWS_WORTH_ARROW = 50
TASKS_PER_STATEMENT = 500


class Tables:
    """A buffer in front of one cursor; whoever owns the transaction calls `flush` before committing it."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._rows: defaultdict[tuple[str, tuple[str, ...]], list[list[Any]]] = defaultdict(list)
        self._accepted: Counter[str] = Counter()

    def insert(self, table: str, **columns: Any) -> None:
        """Add one row; values in a column's own type."""
        self._rows[table, tuple(columns)].append(list(columns.values()))

    def add_accepted(self, task_id: str, change: int) -> None:
        """Move the task's count of accepted judgements; changes of a task add up before they are written."""
        self._accepted[task_id] += change

    def execute(self, sql: str, parameters: Sequence[Any]) -> None:
        """Run one statement after everything gathered so far."""
        self.flush()
        self._cursor.execute(sql, parameters)

    def flush(self) -> None:
        """Write what was gathered."""
        for (table, columns), rows in self._rows.items():
            write = self._insert_many if len(rows) >= ROWS_WORTH_ARROW else self._insert_few
            write(table, columns, rows)
        self._rows.clear()
        changes = [change for change in self._accepted.items() if change[1]]
        for start in range(0, len(changes), TASKS_PER_STATEMENT):
            self._move_accepted(changes[start : start + TASKS_PER_STATEMENT])
        self._accepted.clear()

    def _insert_few(self, table: str, columns: tuple[str, ...], rows: list[list[Any]]) -> None:
        places = ", ".join([f"({', '.join('?' * len(columns))})"] * len(rows))
        values = [value for row in rows for value in row]
        self._cursor.execute(f"INSERT INTO {table} ({_quoted(columns)}) VALUES {places}", values)

    def _insert_many(self, table: str, columns: tuple[str, ...], rows: list[list[Any]]) -> None:
        arrow = pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))
        self._cursor.register("incoming", arrow)
        try:
            self._cursor.execute(f"INSERT INTO {table} ({_quoted(columns)}) SELECT * FROM incoming")
        finally:
            self._cursor.unregister("incoming")

    def _move_accepted(self, changes: list[tuple[str, int]]) -> None:
        places = ", ".join(["(?, ?)"] * len(changes))
        self._cursor.execute(
            "UPDATE tasks SET num_accepted = num_accepted + moved.change "
            f"FROM (VALUES {places}) AS moved(id, change) WHERE tasks.task_id = moved.id",
            [value for change in changes for value in change],
        )


def _quoted(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
