"""The queue against the tables, whatever people do: never more than wanted, no task lost, the best first."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from store import people as store_people
from store.database import Store
from store.errors import HeedError, LeaseLost, NoSpace, NotAllowed
from store.events import new_event
from store.filling import read_filling
from store.gold import drop_gold, set_gold
from store.journal import MemoryJournal
from store.judgements import save_judgement, undo_last
from store.lease_log import LeaseLog
from store.people import add_person, set_active
from store.projection import Projection
from store.queue import TaskQueue
from store.queue_settings import QueueSettings
from store.records import Lease
from store.shelf import Entry
from store.tasks import lease_task, read_lease, renew_lease, retire_tasks
from store.writer import Decision
from tests.store import samples

PEOPLE = 4
SETTINGS = QueueSettings(
    random_share=0.3, gold_share=0.3, repeat_share=0.3, repeat_after=2, skips_to_adjudicate=2, seed=5
)
people = st.integers(0, PEOPLE - 1)


class Annotation(RuleBasedStateMachine):
    """A store whose journal outlives it, with the queue's file on disk, under an injected clock."""

    @initialize()
    def open_store(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.journal = MemoryJournal()
        self.now, self.num_tasks = samples.AT, 0
        self.held: dict[tuple[int, str], Lease] = {}
        self.store = self.open_again()
        self.people = [
            add_person(self.store, f"person {n}", "annotator", "long enough") for n in range(PEOPLE)
        ]
        self.ids = [made.person.person_id for made in self.people]

    def open_again(self) -> Store:
        queue = TaskQueue(SETTINGS, LeaseLog(Path(self.folder.name) / "leases.jsonl"))
        return Store(Path("/dev/null"), self.journal, Projection(None, self.journal), None, queue)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(wanted=st.integers(1, 3), priority=st.integers(0, 2), version=st.sampled_from(["v0", "v1"]))
    def add_task(self, wanted: int, priority: int, version: str) -> None:
        n, self.num_tasks = self.num_tasks, self.num_tasks + 1
        event = new_event(
            "task_added", self.now, task_id=f"t_{n:030}", kind="pair", prompt_id="p", first_id=f"c{n}a",
            second_id=f"c{n}b", version=version, wanted=wanted, priority=float(priority),
        )  # fmt: skip
        self.store.write(lambda _: Decision(None, [event]))

    @rule(who=people)
    def lease(self, who: int) -> None:
        try:
            held = lease_task(self.store, self.ids[who], "pair", samples.show_first, 60.0, self.now)
        except NotAllowed:
            return
        if held is not None:
            self.held[who, held.task.task_id] = held

    @rule(
        who=people, choice=st.sampled_from(["prefer", "tie", "skip", "skip", "both_bad"]), pick=st.integers(0)
    )
    def judge(self, who: int, choice: str, pick: int) -> None:
        """Also what ran out meanwhile, which must be refused, and what was judged, which must be the same."""
        mine = sorted(task_id for person, task_id in self.held if person == who)
        if not mine:
            return
        held = self.held[who, mine[pick % len(mine)]]
        chosen, rejected = held.task.completion_ids if choice == "prefer" else (None, None)
        try:
            was_held = read_lease(self.store, held.task.task_id, self.ids[who], self.now)
        except LeaseLost:
            was_held = None
        try:
            saved = save_judgement(
                self.store, held.task.task_id, self.ids[who], choice=choice, chosen_id=chosen,
                rejected_id=rejected, strength=int(choice == "prefer"), now=self.now,
            )  # fmt: skip
        except HeedError:
            assert was_held is None
        else:
            again = save_judgement(
                self.store, held.task.task_id, self.ids[who], choice=choice, chosen_id=chosen,
                rejected_id=rejected, strength=int(choice == "prefer"), now=self.now,
            )  # fmt: skip
            assert again == saved

    @rule(who=people)
    def renew(self, who: int) -> None:
        for person, task_id in self.held:
            if person == who:
                try:
                    renew_lease(self.store, task_id, self.ids[who], 60.0, self.now)
                except LeaseLost:
                    continue

    @rule(who=people)
    def undo(self, who: int) -> None:
        try:
            held = undo_last(self.store, self.ids[who], self.now, 60.0)
        except HeedError:
            return
        if held is not None:
            assert read_lease(self.store, held.task.task_id, self.ids[who], self.now) == held
            self.held[who, held.task.task_id] = held

    @rule(who=people)
    def undo_on_a_full_disk(self, who: int) -> None:
        def refuse(_: object) -> None:
            raise NoSpace("the disk is full")

        self.journal.append = refuse  # type: ignore[method-assign]
        try:
            undo_last(self.store, self.ids[who], self.now, 60.0)
        except HeedError:
            pass
        finally:
            del self.journal.append  # type: ignore[method-assign]

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(who=people, active=st.booleans())
    def switch(self, who: int, active: bool) -> None:
        set_active(self.store, self.ids[who], active, "admin")

    @precondition(lambda self: self.num_tasks)
    @rule(pick=st.integers(0))
    def adjudicate(self, pick: int) -> None:
        event = new_event(
            "adjudicated", self.now, adjudication_id=f"a_{pick}_{self.journal.last_seq}", choice="tie",
            task_id=f"t_{pick % self.num_tasks:030}", person_id=self.ids[0], chosen_id=None, rejected_id=None,
            strength=0, comment="",
        )  # fmt: skip
        self.store.write(lambda _: Decision(None, [event]))

    @precondition(lambda self: self.num_tasks)
    @rule(pick=st.integers(0), known=st.booleans())
    def mark_gold(self, pick: int, known: bool) -> None:
        task_id = f"t_{pick % self.num_tasks:030}"
        try:
            if known:
                set_gold(self.store, task_id, "tie", source="test")
            else:
                drop_gold(self.store, task_id, "admin")
        except HeedError:
            return

    @rule()
    def retire(self) -> None:
        retire_tasks(self.store, "v1")

    @rule(tables_only=st.booleans())
    def restart(self, tables_only: bool) -> None:
        """kill -9: nothing is given back; the journal and the queue's file are what is left."""
        before = {(h.lease.person_id, h.lease.task.task_id, h.lease.lease_id) for h in self.tasks().holds}
        if tables_only:
            self.store.write(lambda _: Decision(None))
            self.store._memory.rebuild()
        else:
            self.store._writer.close()
            self.store = self.open_again()
        after = {(h.lease.person_id, h.lease.task.task_id, h.lease.lease_id) for h in self.tasks().holds}
        assert after <= before
        lost = {task_id for _, task_id, _ in before - after}
        assert all(self.is_over(task_id) for task_id in lost)

    def tasks(self) -> object:
        return self.store.queue._tasks  # type: ignore[no-any-return]

    def is_over(self, task_id: str) -> bool:
        """Retired or adjudicated: a hold on it may end with a restart."""
        sql = """SELECT retired OR task_id IN (SELECT task_id FROM adjudications)
            OR num_accepted >= wanted FROM tasks WHERE task_id = ?"""
        with self.store.read() as cursor:
            return bool(cursor.execute(sql, [task_id]).fetchone()[0])

    @invariant()
    def the_queue_is_what_the_tables_say(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.read() as cursor:
            expected = {entry.task.task_id: entry for entry in read_filling(cursor).entries}
            accepted = dict(
                cursor.execute(
                    "SELECT task_id, count(*) FROM judgements "
                    "WHERE NOT undone AND choice <> 'skip' AND counts GROUP BY task_id"
                ).fetchall()
            )
            rows = cursor.execute("SELECT task_id, wanted, num_accepted FROM tasks").fetchall()
        for task_id, wanted, num_accepted in rows:
            assert num_accepted == accepted.get(task_id, 0) <= wanted
        tasks = self.tasks()
        assert expected.keys() <= tasks.entries.keys()
        for task_id, entry in tasks.entries.items():
            assert entry.promised >= 0
            if task_id in expected:
                assert facts(entry) == facts(expected[task_id])
            else:
                assert entry.pool is None
                assert entry.holders or entry in tasks._over  # forgotten with the next commit
        self.every_open_task_can_be_handed_out(expected)

    def every_open_task_can_be_handed_out(self, expected: dict[str, Entry]) -> None:
        self.store.queue.count_open("pair", self.now)  # lets go of what ran out
        tasks = self.tasks()
        counting = [held.lease.task.task_id for held in tasks.holds if held.counts]
        is_open = {
            task_id
            for task_id, entry in expected.items()
            if entry.accepted + counting.count(task_id) < entry.task.wanted
            and not entry.is_closed and not entry.is_gold and entry.num_skips < 2
            and entry.task.purpose == "label"
        }  # fmt: skip
        shelf = tasks.shelves["pair"]
        assert {entry.task.task_id for entry in tasks.entries.values() if entry.pool is shelf} == is_open
        for task_id, entry in expected.items():
            assert entry.accepted + counting.count(task_id) <= entry.task.wanted
        for person_id in self.ids:
            mine = [e for e in tasks.entries.values() if e.pool is shelf and e.is_open_to(person_id)]
            value = [(0 if e.accepted else 1, e.task.priority, e.age) for e in mine]
            first = shelf.first(person_id)
            assert (first.key if first else None) == min(value, default=None)


def facts(entry: Entry) -> tuple[object, ...]:
    acted = sorted(entry.acted)
    return entry.task, entry.age, entry.accepted, entry.num_skips, acted, entry.is_gold, entry.is_closed


@pytest.mark.parametrize("examples", [5, pytest.param(150, marks=pytest.mark.slow)])
def test_whatever_people_do_the_queue_keeps_its_promises(
    monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    monkeypatch.setattr(store_people, "_SCRYPT_N", 2)
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Annotation,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=checks
        ),
    )
