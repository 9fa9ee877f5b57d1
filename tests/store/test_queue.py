"""Which task comes next, what is slipped in between, and what a restart leaves of the holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from store import people as store_people
from store.database import Store
from store.erasure import erase_person
from store.errors import BadValue, LeaseLost, NotFound, StateConflict
from store.gold import drop_gold, promote_unanimous, propose_unanimous, read_gold, set_gold
from store.judgements import read_judgements, save_judgement, undo_last
from store.people import add_person, set_active
from store.queue_settings import PLAIN, QueueSettings
from store.records import Choice, Judgement, Lease, Task
from store.sessions import end_session, find_known_session, find_session, open_session
from store.tasks import (
    add_task,
    count_off_policy,
    count_open_tasks,
    lease_task,
    read_lease,
    retire_tasks,
)
from tests.store import samples


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_people, "_SCRYPT_N", 2)


@contextmanager
def open_with(**changes: object) -> Iterator[Store]:
    store = Store.in_memory(replace(PLAIN, **changes))  # type: ignore[arg-type]
    yield store
    store.close()


def judge(store: Store, person_id: str, choice: Choice = "tie") -> Lease:
    held = samples.lease(store, person_id)
    save_judgement(store, held.task.task_id, person_id, choice=choice)
    return held


def make_task(store: Store, priority: float = 0.0, wanted: int = 1) -> Task:
    prompt_id = samples.prompt(store)
    answers = [samples.answer("one"), samples.answer("two")]
    return add_task(store, "pair", prompt_id, answers, wanted, priority)


def test_the_most_valuable_comes_first_and_what_was_begun_before_it(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    late = make_task(store, 2.0, wanted=2)
    soon, sooner, soon_too = (make_task(store, priority, wanted=2) for priority in (1.0, -0.5, 1.0))
    handed = [judge(store, ann).task for _ in range(4)]
    assert handed == [sooner, soon, soon_too, late]
    undo_last(store, ann)
    assert [judge(store, bob).task for _ in range(4)] == [sooner, soon, soon_too, late]


def test_a_share_at_random_reaches_every_task_alike_and_repeats_with_its_seed() -> None:
    def draw(seed: int) -> list[int]:
        with open_with(random_share=1.0, seed=seed) as store:
            samples.many_tasks(store, 4)
            ann = samples.person(store).person_id
            drawn = []
            for _ in range(200):
                held = samples.lease(store, ann)
                drawn.append(int(held.task.task_id[2:]))
                store.queue.let_go(ann)
            return drawn

    assert draw(3) == draw(3) != draw(4)
    assert min(Counter(draw(3)).values()) > 30  # 50 expected, standard deviation 6


def test_gold_measures_beyond_what_a_task_wants_and_is_never_accepted() -> None:
    with open_with(gold_share=1.0) as store:
        ann, bob = (samples.person(store).person_id for _ in range(2))
        gold = samples.task(store)
        judge(store, bob)
        set_gold(store, gold.task_id, "tie", source="admin")
        open_task = samples.task(store)
        assert judge(store, ann, "both_bad").task == gold
        assert judge(store, ann).task == open_task  # nobody is asked the same gold twice
        with store.read() as cursor:
            accepted = cursor.execute("SELECT num_accepted FROM tasks ORDER BY seq").fetchall()
        assert accepted == [(1,), (1,)]
        back = undo_last(store, ann), undo_last(store, ann)
        assert [held.task for held in back if held] == [open_task, gold]
        judge(store, ann)
        assert count_open_tasks(store, "pair") == 1


def test_nobody_who_waits_for_work_is_fed_the_gold() -> None:
    with open_with(gold_share=1.0) as store:
        ann = samples.person(store).person_id
        gold = samples.task(store)
        set_gold(store, gold.task_id, "tie", source="admin")
        assert lease_task(store, ann, "pair", samples.show_first) is None
        assert count_open_tasks(store, "pair") == 0
        drop_gold(store, gold.task_id, "admin")
        assert judge(store, ann).task == gold
        with pytest.raises(NotFound, match="is no gold task"):
            drop_gold(store, gold.task_id, "admin")


def test_gold_must_fit_its_task(store: Store) -> None:
    pair, single = samples.task(store), samples.task(store, "single")
    for task, choice, chosen_id in (
        (pair, "up", None), (single, "tie", None), (pair, "prefer", "c_none"), (pair, "tie", "c_x"),
    ):  # fmt: skip
        with pytest.raises(BadValue):
            set_gold(store, task.task_id, choice, chosen_id, source="admin")  # type: ignore[arg-type]
    assert read_gold(store) == []
    first = set_gold(store, pair.task_id, "prefer", pair.completion_ids[0], source="imported")
    again = set_gold(store, pair.task_id, "both_bad", source="ann")
    assert first != again
    assert read_gold(store) == [again]


def test_what_three_people_say_alike_can_become_gold(store: Store) -> None:
    people = [samples.person(store).person_id for _ in range(3)]
    alike, split, tied, few = [samples.task(store, wanted=3) for _ in range(4)]
    for n, person_id in enumerate(people):
        for task in (alike, split, tied, few)[: 4 if n else 3]:
            held = samples.lease(store, person_id)
            assert held.task == task
            if task is tied:
                save_judgement(store, task.task_id, person_id, choice="tie")
            elif task is split and n == 2:
                save_judgement(store, task.task_id, person_id, choice="both_bad")
            else:
                samples.prefer_first(store, held)
    found = propose_unanimous(store)
    assert [(gold.task_id, gold.choice, gold.chosen_id) for gold in found] == [
        (alike.task_id, "prefer", alike.completion_ids[0])
    ]
    assert [gold.task_id for gold in promote_unanimous(store, min_votes=2)] == [alike.task_id, few.task_id]
    assert {gold.source for gold in read_gold(store)} == {"unanimous"}
    assert promote_unanimous(store) == []


def test_a_hidden_repeat_swaps_the_sides_and_comes_once_for_one_person() -> None:
    with open_with(repeat_share=1.0, repeat_after=2) as store:
        ann, bob = (samples.person(store).person_id for _ in range(2))
        for _ in range(6):
            samples.task(store)
        first = {held.task.task_id: held for held in (judge(store, ann), judge(store, ann))}
        repeat = samples.lease(store, ann)
        assert (repeat.task.purpose, repeat.task.only_for, repeat.task.wanted) == ("repeat", ann, 1)
        original = first[repeat.task.repeat_of or ""]
        assert repeat.left_id != original.left_id
        assert set(repeat.task.completion_ids) == set(original.task.completion_ids)
        assert len(repeat.task.task_id) == len(original.task.task_id)
        made_at = {held.task_id[:-16] for held in store.queue.read_head("pair", 9)}
        assert repeat.task.task_id[:-16] in made_at  # its id does not tell that it was made just now
        assert judge(store, bob).task.purpose == "label"
        save_judgement(store, repeat.task.task_id, ann, choice="tie")
        asked = [judge(store, ann).task for _ in range(5)]
        originals = [task.repeat_of for task in asked if task.purpose == "repeat"]
        assert len(originals) == len({*originals, repeat.task.repeat_of}) - 1


def test_a_repeat_that_was_left_lying_is_offered_again_with_the_same_sides() -> None:
    with open_with(repeat_share=1.0, repeat_after=1) as store:
        ann = samples.person(store).person_id
        samples.task(store)
        samples.task(store)
        judge(store, ann)
        repeat = samples.lease(store, ann)
        store.queue.let_go(ann)
        again = samples.lease(store, ann)
        assert (again.task, again.left_id) == (repeat.task, repeat.left_id)


def test_what_several_people_skip_is_handed_to_nobody_until_one_takes_it_back() -> None:
    with open_with(skips_to_adjudicate=2) as store:
        ann, bob, cid = (samples.person(store).person_id for _ in range(3))
        task = samples.task(store)
        judge(store, ann, "skip")
        assert count_open_tasks(store, "pair") == 1
        judge(store, bob, "skip")
        assert count_open_tasks(store, "pair") == 0
        assert lease_task(store, cid, "pair", samples.show_first) is None
        assert undo_last(store, bob)
        store.queue.let_go(bob)
        assert judge(store, cid).task == task
        with pytest.raises(StateConflict):
            undo_last(store, ann)


def test_pairs_of_a_retired_version_stay_when_the_settings_say_so() -> None:
    with open_with(off_policy="keep") as store:
        ann = samples.person(store).person_id
        samples.task(store, version="v0")
        samples.task(store, version="v1")
        assert retire_tasks(store, "v0") == 0
        judge(store, ann)
        judge(store, ann)
        assert count_off_policy(store) == (2, 1)


@pytest.mark.parametrize(
    "bad",
    [{"random_share": 1.1}, {"gold_share": -0.1}, {"repeat_after": 0}, {"skips_to_adjudicate": 0}],
)
def test_an_impossible_queue_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        QueueSettings(**bad)  # type: ignore[arg-type]


def test_an_open_page_survives_a_restart(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    ann, bob, cid = (samples.person(store).person_id for _ in range(3))
    judged, task, late = (samples.task(store) for _ in range(3))
    judge(store, cid)
    held = lease_task(store, ann, "pair", lambda t, _: t.completion_ids[1])
    assert lease_task(store, bob, "pair", samples.show_first, lease_s=-1.0)
    store.close()
    with (tmp_path / "leases.jsonl").open("a") as file:
        file.write('["l_torn", "t_')  # the last line of a power cut
    store = Store.open(tmp_path)
    assert read_lease(store, task.task_id, ann) == held
    assert samples.lease(store, cid).task == late
    with pytest.raises(LeaseLost):
        save_judgement(store, late.task_id, bob, choice="tie")
    saved = save_judgement(store, task.task_id, ann, choice="tie")
    assert saved.left_id == task.completion_ids[1]
    assert {act.task_id for act in read_judgements(store)} == {task.task_id, judged.task_id}
    store.close()


def test_the_note_of_holds_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.lease_log.LINES_BEFORE_REWRITE", 20)
    store = Store.open(tmp_path)
    ann, bob = (samples.person(store).person_id for _ in range(2))
    samples.many_tasks(store, 3)
    kept = samples.lease(store, bob)
    for _ in range(50):
        samples.lease(store, ann)
        store.queue.let_go(ann)
    assert len((tmp_path / "leases.jsonl").read_bytes().splitlines()) < 30
    store.close()
    store = Store.open(tmp_path)
    assert read_lease(store, kept.task.task_id, bob) == kept
    store.close()


def test_a_session_that_is_kept_in_memory_ends_at_once(store: Store) -> None:
    made = add_person(store, "Ann", "annotator", "long enough")
    ann = made.person.person_id
    tokens = [open_session(store, ann, now=samples.AT) for _ in range(2)]
    assert all(find_session(store, token, now=samples.AT) for token in tokens)
    assert find_known_session(store, tokens[0], now=samples.AT) == made.person
    assert find_known_session(store, tokens[0], now=samples.AT + timedelta(days=8)) is None
    end_session(store, tokens[0])
    assert find_session(store, tokens[0], now=samples.AT) is None
    assert find_known_session(store, tokens[1], now=samples.AT) == made.person
    set_active(store, ann, False, "admin")
    assert find_known_session(store, tokens[1], now=samples.AT) is None
    assert find_session(store, tokens[1], now=samples.AT) is None


def test_somebody_who_was_erased_leaves_no_hold_behind(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    root, ann, bob = (samples.person(store, role) for role in ("admin", "annotator", "annotator"))
    task, other = samples.task(store), samples.task(store)
    samples.lease(store, ann.person_id)
    kept = samples.lease(store, bob.person_id)
    erase_person(store, ann.person_id, actor=root.name, confirm=ann.name)
    assert read_lease(store, other.task_id, bob.person_id) == kept
    assert count_open_tasks(store, "pair") == 1
    assert samples.lease(store, root.person_id).task == task
    assert ann.person_id not in (tmp_path / "leases.jsonl").read_text("utf-8")
    store.close()


def test_the_place_of_a_skip_that_is_being_taken_back_is_handed_to_nobody(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    samples.task(store)
    skipped = judge(store, ann, "skip")
    (act,) = read_judgements(store)
    assert store.queue.plan_return(act, skipped, True, store.queue.now())
    assert lease_task(store, bob, "pair", samples.show_first) is None
    store.queue.abandon()  # the disk was full
    assert samples.lease(store, bob).task == skipped.task


def test_a_hold_whose_judgement_is_being_written_does_not_run_out(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    samples.task(store)
    held = samples.lease(store, ann, now=samples.AT)
    act = Judgement("j_1", held.task.task_id, ann, "tie", samples.AT)
    store.queue.pin(act, samples.AT)
    late = samples.AT + timedelta(hours=1)
    assert lease_task(store, bob, "pair", samples.show_first, now=late) is None
    store.queue.abandon()
    assert samples.lease(store, bob, now=late).task == held.task
