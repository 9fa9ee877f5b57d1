"""The Quality tab without a browser: numbers, disputed tasks, gold, whose labels are trained on."""

from __future__ import annotations

from typing import Any

import pytest

from annotate.pages.admin.disputed import DisputedSection
from annotate.pages.admin.gold import GoldSection
from annotate.pages.admin.panels.quality import write_agreement, write_people, write_queue
from annotate.pages.admin.quality import QualitySection
from annotate.pages.admin.training import TrainingSection
from annotate.pages.admin.watching import EVERY_S, FIRST_S, Counted, QualityWatch
from store.adjudications import read_adjudications
from store.agreement import Measure
from store.database import Store
from store.effective import QualitySettings
from store.gold import read_gold
from store.judgements import save_judgement
from store.people import Credentials, add_person, read_person
from store.quality import PersonQuality, Quality
from store.queue_settings import QueueSettings
from store.records import Round, Task
from store.tasks import lease_task
from tests.annotate.conftest import TaskMaker
from tests.annotate.pages import as_person, lay_out
from tests.fakes import make_services

NONE = Measure(None, 0, why="undefined: nothing to count")


@pytest.fixture
def root(people: dict[str, Credentials]) -> Any:
    return as_person(people["admin"].person)


@pytest.fixture
def crowd(store: Store) -> list[str]:
    return [add_person(store, f"p{n}", "annotator", "long enough").person.person_id for n in range(3)]


def judge(store: Store, task: Task, person_id: str, chosen: int) -> None:
    held = lease_task(store, person_id, "pair", lambda task, _: task.completion_ids[0])
    assert held is not None
    assert held.task.task_id == task.task_id
    better, worse = task.completion_ids[chosen], task.completion_ids[1 - chosen]
    save_judgement(
        store, task.task_id, person_id, choice="prefer", chosen_id=better, rejected_id=worse, strength=1
    )


def dispute(store: Store, crowd: list[str]) -> Task:
    """A task on which two prefer the first answer and one the second."""
    task = TaskMaker(store).add(wanted=3)
    for person_id, chosen in zip(crowd, (0, 0, 1), strict=True):
        judge(store, task, person_id, chosen)
    return task


def value_of(update: dict[Any, Any], elem_id: str) -> Any:
    return next(value for block, value in update.items() if block.elem_id == elem_id)


def test_the_queue_says_what_is_drawn_at_random_and_how_much_is_off_policy() -> None:
    shown = write_queue(QueueSettings(random_share=0.3), 200, 10)
    assert "30 % come in any order" in shown
    assert "10 of 200 judgements (5 %) are off-policy" in shown


def test_undefined_agreement_is_explained_and_an_uneven_left_share_named() -> None:
    shown = write_agreement(Quality(NONE, 0, 0, Measure(0.8, 100, 0.71, 0.87), ()))
    assert "Undefined: nothing to count." in shown
    assert "<b>80.0 %</b> (71.0 % to 87.0 %)" in shown
    assert "uneven" in shown


def test_a_flag_is_a_sentence_and_a_name_is_escaped() -> None:
    flags = ("adversarial: right in 10% of 40",)
    share = Measure(0.1, 40, 0.04, 0.23)
    person = PersonQuality("u", "<b>", True, 40, 0, share, NONE, NONE, 0.1, 40, share, 900.0, 9.0, flags)
    shown = write_people([person])
    assert "Adversarial: right in 10% of 40" in shown
    assert "&lt;b&gt;" in shown
    assert "<b>&lt;b&gt;</b>" in shown


def test_numbers_of_a_store_are_shown_with_every_person(store: Store, crowd: list[str]) -> None:
    dispute(store, crowd)
    shown = str(lay_out(QualitySection, make_services(store)).read())
    assert all(f"<b>p{n}</b>" in shown for n in range(3))


def test_a_verdict_decides_the_task_by_what_stood_on_that_side(
    store: Store, root: Any, crowd: list[str]
) -> None:
    task = dispute(store, crowd)
    section = lay_out(DisputedSection, make_services(store))
    shown = section.read()
    assert value_of(shown, "disputed-id") == task.task_id
    assert not [person_id for person_id in crowd if person_id in str(shown)]
    left_text = value_of(shown, "disputed-a")
    said = section.decide(task.task_id, "", ("left", 2, " clearer ", False), root)
    assert "Saved." in str(said)
    (verdict,) = read_adjudications(store)
    texts = dict(zip(task.completion_ids, ("first answer", "second answer"), strict=True))
    assert texts[str(verdict.chosen_id)] == left_text
    assert (verdict.strength, verdict.comment) == (2, "clearer")
    assert "No task is disputed" in str(section.read())


def test_votes_are_counts_that_match_the_sides_on_screen(store: Store, crowd: list[str]) -> None:
    dispute(store, crowd)
    shown = lay_out(DisputedSection, make_services(store)).read()
    first_side = "A" if value_of(shown, "disputed-a") == "first answer" else "B"
    assert f">{first_side}</span> <b>2</b>" in value_of(shown, "disputed-votes")


def test_a_verdict_is_taken_back_and_the_task_waits_again(store: Store, root: Any, crowd: list[str]) -> None:
    task = dispute(store, crowd)
    section = lay_out(DisputedSection, make_services(store))
    section.decide(task.task_id, "", ("tie", 0, "", False), root)
    shown = section.take_back(task.task_id, "", root)
    assert "Taken back" in str(shown)
    assert value_of(shown, "disputed-id") == task.task_id
    assert "There is no verdict" in str(section.take_back("", "", root))


def test_a_task_passed_over_is_not_shown_again_at_once(store: Store, root: Any, crowd: list[str]) -> None:
    task = dispute(store, crowd)
    section = lay_out(DisputedSection, make_services(store))
    shown = section.pass_over(task.task_id, "", root)
    assert value_of(shown, "disputed-id") == ""
    assert "You passed over 1 task" in str(shown)


def test_a_verdict_can_make_gold_and_must_fit_the_task(store: Store, root: Any, crowd: list[str]) -> None:
    task = dispute(store, crowd)
    section = lay_out(DisputedSection, make_services(store))
    assert "does not fit a pair" in str(section.decide(task.task_id, "", ("up", 0, "", False), root))
    assert "No task is shown" in str(section.decide("", "", ("left", 1, "", False), root))
    section.decide(task.task_id, "", ("right", 1, "", True), root)
    assert [(gold.task_id, gold.source) for gold in read_gold(store)] == [(task.task_id, "adjudicated")]


def test_unanimous_tasks_become_gold_after_the_question(store: Store, root: Any, crowd: list[str]) -> None:
    task = TaskMaker(store).add(wanted=3)
    for person_id in crowd:
        judge(store, task, person_id, 0)
    section = lay_out(GoldSection, make_services(store))
    assert "No gold tasks yet" in str(section.read())
    assert "Make 1 task gold?" in str(section.ask_promote(3, root))
    assert read_gold(store) == []
    assert "1 task made gold." in str(section.promote("3", root))
    assert "first answer" in str(section.read())
    assert "is not gold any more" in str(section.drop(task.task_id, root))
    assert "no task was judged alike by 4 people" in str(section.ask_promote(4, root)).lower()


def test_a_person_is_left_out_with_a_reason_and_taken_in_again(
    store: Store, root: Any, crowd: list[str]
) -> None:
    section = lay_out(lambda services: TrainingSection(services, "person"), make_services(store))
    assert "Pick a person first." in str(section.ask_leave_out(None, root))
    assert "Leave the labels of p0 out of the next rounds?" in str(section.ask_leave_out(crowd[0], root))
    assert read_person(store, crowd[0]).trained_on
    assert "p0 is left out of the next rounds." in str(section.leave_out(crowd[0], "too fast", root))
    assert "p0 · left out" in str(section.read())
    assert "p0 is trained on again." in str(section.take_in(crowd[0], root))


def test_a_round_without_somebody_starts_in_the_admins_name(
    store: Store, root: Any, crowd: list[str]
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def start(actor: str, without: list[str]) -> Round:
        asked.append((actor, without))
        return Round(
            "rd_9", "queued", "by hand", "v0", None, 0, 0, "", read_person(store, crowd[0]).created_at
        )

    services = make_services(store, start_round=start)
    section = lay_out(lambda given: TrainingSection(given, "quality"), services)
    assert "without the labels of p1?" in str(section.ask_without(crowd[1], root))
    assert asked == []
    assert "Round rd_9 started without p1" in str(section.retrain_without(crowd[1], root))
    assert asked == [("admin", [crowd[1]])]


def test_what_takes_long_is_counted_after_the_page_has_opened_and_once_a_minute(
    store: Store, crowd: list[str]
) -> None:
    moments = iter((0.0, FIRST_S, FIRST_S + 1, FIRST_S + EVERY_S + 1))
    watch = QualityWatch(store, QualitySettings(), lambda: next(moments))
    assert watch.read() is None
    assert watch.read() == Counted(0, 0)
    dispute(store, crowd)
    assert watch.read() == Counted(0, 0)
    assert watch.read() == Counted(1, 0)
