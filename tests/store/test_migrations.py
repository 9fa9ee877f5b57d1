"""Migrations: from an empty file, twice in a row, and what a failed step leaves."""

from __future__ import annotations

import duckdb
import pytest

from store.errors import HeedError
from store.migrations import FACT_TABLES, STEPS, migrate


def table_names(db: duckdb.DuckDBPyConnection) -> set[str]:
    return {name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}


def test_an_empty_file_gets_every_step_and_the_second_run_none() -> None:
    with duckdb.connect(":memory:") as db:
        assert migrate(db) == [step.__name__ for step in STEPS]
        before = db.execute("SELECT sql FROM duckdb_tables() ORDER BY sql").fetchall()
        assert migrate(db) == []
        assert db.execute("SELECT sql FROM duckdb_tables() ORDER BY sql").fetchall() == before
        assert set(FACT_TABLES) <= table_names(db)


def test_no_table_has_an_index_beside_its_primary_key() -> None:
    with duckdb.connect(":memory:") as db:
        migrate(db)
        assert db.execute("SELECT * FROM duckdb_indexes()").fetchall() == []


def test_a_file_from_the_middle_of_the_diary_gets_the_rest() -> None:
    with duckdb.connect(":memory:") as db:
        migrate(db, STEPS[:4])
        assert migrate(db) == [step.__name__ for step in STEPS[4:]]


def test_a_failed_step_leaves_no_trace() -> None:
    def fail(db: duckdb.DuckDBPyConnection) -> None:
        db.execute("CREATE TABLE half (n INTEGER)")
        raise RuntimeError("no")

    with duckdb.connect(":memory:") as db:
        with pytest.raises(RuntimeError):
            migrate(db, (*STEPS, fail))
        assert "half" not in table_names(db)
        assert migrate(db) == []


def test_a_file_of_a_newer_version_is_refused() -> None:
    def add_the_future(db: duckdb.DuckDBPyConnection) -> None:
        db.execute("CREATE TABLE future (n INTEGER)")

    with duckdb.connect(":memory:") as db:
        migrate(db, (*STEPS, add_the_future))
        with pytest.raises(HeedError, match=r"newer Heed \(step 'add_the_future'\)"):
            migrate(db)
