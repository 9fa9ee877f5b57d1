"""The store as a whole: kills, damage, second owners, groups that fail, and what readers see meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from store.clock import utc
from store.database import Store
from store.errors import Busy, HeedError, NoSpace, NotFound, StateConflict
from store.events import new_event
from store.people import read_people
from store.projection import Projection
from store.prompts import count_prompts, read_prompt
from store.sessions import find_session, open_session
from store.writer import Command, Decision, Writer
from tests.store import samples

REPOSITORY = Path(__file__).parents[2]


def all_prompt_ids(store: Store) -> set[str]:
    with store.read() as cursor:
        return {prompt_id for (prompt_id,) in cursor.execute("SELECT prompt_id FROM prompts").fetchall()}


def kill_while_writing(data_dir: Path, num_acked: int) -> set[str]:
    """Start the writing child, kill it after that many acknowledgements, return every id it acknowledged."""
    command = [sys.executable, str(Path(__file__).with_name("writing_child.py")), str(data_dir)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        acked = [child.stdout.readline() for _ in range(num_acked)]
        child.kill()
        acked += child.stdout.readlines()
    assert all(acked), "the child ended by itself"
    return {line.decode().strip() for line in acked if line.endswith(b"\n")}


# The other ways lead to the same rebuilding.
DAMAGES = [
    "zero the header",
    "flip a block",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("random bytes", "empty", "remove")),
]


def check_kills(data_dir: Path, num_rounds: int) -> None:
    draw, acked = random.Random(11), set[str]()
    for _ in range(num_rounds):
        acked |= kill_while_writing(data_dir, draw.randrange(1, 60))
        store = Store.open(data_dir)
        saved = all_prompt_ids(store)
        store.close()
        assert acked <= saved
        acked = saved  # what was saved and not yet acknowledged must stay as well


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    check_kills(tmp_path / "data", 5)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_fifty_kills(tmp_path: Path) -> None:
    check_kills(tmp_path / "data", 50)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_built_again(tmp_path: Path, damage: str) -> None:
    store = Store.open(tmp_path)
    samples.fill(store)
    before, spoken = samples.facts(store), read_people(store)
    store.close()
    path = tmp_path / "heed.duckdb"
    whole = path.read_bytes()
    damaged = {
        "zero the header": bytes(12288) + whole[12288:],
        "random bytes": random.Random(1).randbytes(len(whole)),
        "empty": b"",
        "flip a block": whole[:20480] + bytes(b ^ 255 for b in whole[20480:]),
    }
    path.unlink()
    if damage in damaged:
        path.write_bytes(damaged[damage])
    again = Store.open(tmp_path)
    assert (samples.facts(again), read_people(again)) == (before, spoken)
    assert again.health()["rebuilt"] == 1
    again.close()
    kept = [file.read_bytes() for file in (tmp_path / "set-aside").rglob("heed.duckdb")]
    assert kept == ([damaged[damage]] if damage in damaged else [])


def test_a_damaged_write_ahead_log_is_set_aside_with_its_file(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    samples.fill(store)
    before = samples.facts(store)
    shutil.copytree(tmp_path / "data", tmp_path / "after a crash")
    store.close()
    log = tmp_path / "after a crash" / "heed.duckdb.wal"
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    log.write_bytes(bytes(damaged))
    again = Store.open(tmp_path / "after a crash")
    assert samples.facts(again) == before
    assert len(list((tmp_path / "after a crash" / "set-aside").rglob("heed.duckdb*"))) == 2
    again.close()


def test_events_the_tables_have_missed_are_applied_at_the_next_start(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    samples.prompt(store, "one")
    store.close()
    old = (tmp_path / "heed.duckdb").read_bytes()
    store = Store.open(tmp_path)
    samples.fill(store)
    before = samples.facts(store)
    store.close()
    (tmp_path / "heed.duckdb").write_bytes(old)
    store = Store.open(tmp_path)
    assert samples.facts(store) == before
    assert store.health()["rebuilt"] == 0
    store.close()


def test_a_removed_journal_is_refused_and_nothing_is_made_in_its_place(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    samples.prompt(store)
    store.close()
    for file in (tmp_path / "journal").iterdir():
        file.unlink()
    with pytest.raises(HeedError, match="holds 2 events, the journal only 0"):
        Store.open(tmp_path)
    (tmp_path / "heed.duckdb").write_bytes(b"garbage")
    with pytest.raises(HeedError, match="no journal to build it from"):
        Store.open(tmp_path)
    assert (tmp_path / "heed.duckdb").read_bytes() == b"garbage"


def test_an_event_of_the_future_stops_the_start(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store._journal.append([b'{"type":"dream_saved","v":3,"at":"2026-01-01T00:00:00+00:00"}'])
    store.close()
    with pytest.raises(HeedError, match="event 2 is a 'dream_saved' of version 3"):
        Store.open(tmp_path)


def test_a_second_owner_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    (tmp_path / "heed.duckdb").read_bytes()  # opening and closing the file drops DuckDB's own lock, not ours
    with pytest.raises(StateConflict, match=f"in use by process {os.getpid()}; stop it first"):
        Store.open(tmp_path)
    code = f"from pathlib import Path; from store.database import Store; Store.open(Path({str(tmp_path)!r}))"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert child.returncode == 1
    assert f"in use by process {os.getpid()}" in child.stderr
    store.close()
    Store.open(tmp_path).close()


def test_a_start_that_was_killed_at_creation_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "new-heed.duckdb").write_bytes(b"half")
    (tmp_path / "new-heed.duckdb.wal").write_bytes(b"half")
    store = Store.open(tmp_path)
    assert store.health()["ok"]
    store.close()


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    files = [tmp_path / "data", *(path for path in (tmp_path / "data").rglob("*") if path.suffix != ".wal")]
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []
    store.close()


def test_sql_can_reach_no_file_and_no_python_variable(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (
        f"SELECT * FROM read_csv('{secret}')",
        f"COPY people TO '{tmp_path}/out.csv'",
        "INSTALL httpfs",
    ):
        with store.read() as cursor, pytest.raises(duckdb.Error):
            cursor.execute(sql)
    with store.read() as cursor, pytest.raises(duckdb.CatalogException):
        cursor.execute("SELECT * FROM secret")
    with store.read() as cursor, pytest.raises(duckdb.InvalidInputException, match="locked"):
        cursor.execute("SET enable_external_access = true")


def test_only_the_caller_whose_decision_fails_sees_the_error(store: Store) -> None:
    def decide_badly(cursor: duckdb.DuckDBPyConnection) -> Decision[None]:
        cursor.execute(
            "DELETE FROM sessions WHERE no_such_column = 1"
        )  # spoils the transaction for everybody in it
        return Decision(None)

    def decide_to_refuse(_: duckdb.DuckDBPyConnection) -> Decision[None]:
        raise NotFound("no such thing")

    with ThreadPoolExecutor(24) as pool:
        good = [pool.submit(samples.prompt, store, f"good {n}") for n in range(20)]
        bad = [pool.submit(store.write, decide) for decide in (decide_badly, decide_to_refuse)]
    assert all(read_prompt(store, future.result()).source == "test" for future in good)
    assert [type(future.exception()) for future in bad] == [duckdb.BinderException, NotFound]
    assert store.health()["ok"]


def test_a_doubled_id_fails_alone_and_is_not_journalled(store: Store) -> None:
    event = new_event("policy_added", utc(), version="v0", parent=None, round_id=None, weights_sha256=None)
    with pytest.raises(duckdb.ConstraintException):
        store.write(lambda _: Decision(None, [event]))
    assert store.health()["last_seq"] == 1


def test_a_full_disk_refuses_everyone_in_the_group_and_recovers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)
    journal = store._journal

    def refuse(_: object) -> None:
        raise NoSpace("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", refuse)
        with pytest.raises(NoSpace):
            samples.prompt(store, "lost")
    assert count_prompts(store) == 0
    samples.prompt(store, "kept")
    assert count_prompts(store) == 1
    store.close()


@pytest.mark.parametrize("failure", [duckdb.FatalException, duckdb.TransactionException])
def test_a_commit_that_fails_after_the_journal_is_repaired_and_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[duckdb.Error]
) -> None:
    store = Store.open(tmp_path)
    real_commit, failures = Projection.commit, [failure("database has been invalidated")]

    def commit_later(projection: Projection, applied_seq: int) -> None:
        if failures:
            raise failures.pop()
        real_commit(projection, applied_seq)

    monkeypatch.setattr(Projection, "commit", commit_later)
    prompt_id = samples.prompt(store, "durable")
    assert read_prompt(store, prompt_id).messages == samples.ask("durable")
    assert (store.health()["ok"], store.health()["reopened"]) == (True, 1)
    store.close()


@pytest.mark.parametrize(("cause", "seen"), [(duckdb.FatalException, Busy), (NoSpace, NoSpace)])
def test_while_the_tables_cannot_be_repaired_writes_are_refused_and_health_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: type[Exception], seen: type[HeedError]
) -> None:
    def fail_to_commit(*_: object) -> None:
        raise duckdb.FatalException("no")

    def fail_to_reopen(*_: object) -> None:
        raise cause("no")

    store = Store.open(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Projection, "commit", fail_to_commit)
        patch.setattr(Projection, "reopen", fail_to_reopen)
        patch.setattr("store.commit.REPAIR_PAUSE_S", 0.0)
        with pytest.raises(seen):
            samples.prompt(store, "in the journal")
        with pytest.raises(seen):
            samples.prompt(store, "refused")
        assert store.health()["ok"] is False
    samples.prompt(store, "afterwards")
    assert count_prompts(store) == 2
    assert store.health()["ok"] is True
    store.close()


def test_a_fatal_error_under_a_reader_is_repaired_by_the_next_write(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    samples.prompt(store, "before")
    with pytest.raises(Busy), store.read():
        raise duckdb.FatalException("database has been invalidated")
    samples.prompt(store, "after")
    assert count_prompts(store) == 2
    store.close()


def test_a_full_queue_says_busy() -> None:
    let_go, started = threading.Event(), threading.Event()

    def commit(group: list[Command]) -> None:
        started.set()
        let_go.wait(10)
        for command in group:
            command.answer.set_result(None)

    writer = Writer(commit, queue_size=2)
    writer.send(lambda _: Decision(None))
    assert started.wait(10)
    for _ in range(2):
        writer.send(lambda _: Decision(None))
    with pytest.raises(Busy, match="2 writes are waiting"):
        writer.send(lambda _: Decision(None))
    let_go.set()
    writer.close()
    with pytest.raises(HeedError, match="closed"):
        writer.send(lambda _: Decision(None))


def test_readers_in_many_threads_each_get_their_own_rows(store: Store) -> None:
    ids = [samples.prompt(store) for _ in range(20)]

    def read_often(prompt_id: str) -> bool:
        return all(read_prompt(store, prompt_id).prompt_id == prompt_id for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_often, ids))


def test_sessions_outlive_a_restart_but_not_a_rebuild(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    someone = samples.person(store)
    token = open_session(store, someone.person_id)
    store.close()
    store = Store.open(tmp_path)
    assert find_session(store, token) == someone
    store.close()
    (tmp_path / "heed.duckdb").unlink()
    store = Store.open(tmp_path)
    assert find_session(store, token) is None
    store.close()


def test_a_closed_store_says_so() -> None:
    store = Store.in_memory()
    store.close()
    store.close()
    with pytest.raises(HeedError, match="closed"):
        samples.prompt(store)
    with pytest.raises(Busy, match="closed"):
        read_people(store)
