"""What a click means: sides to chosen and rejected, once, only while the task is held."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from annotate.services import Services, WebSettings
from annotate.session import Earlier, TaskView, judge, next_task, read_earlier, renew, undo
from annotate.settings import AnnotationSettings
from store.clock import utc
from store.completions import read_completion
from store.database import Store
from store.errors import BadValue, LeaseLost, NotAllowed, StateConflict
from store.judgements import read_judgements
from store.people import Credentials, add_person, set_active
from store.records import Person
from store.tasks import lease_task
from tests.annotate.conftest import TaskMaker
from tests.fakes import make_services


@pytest.fixture
def anna(store: Store) -> Person:
    return add_person(store, "anna", "annotator").person


def text(store: Store, completion_id: str | None) -> str:
    assert completion_id is not None
    return read_completion(store, completion_id).text


def take(services: Services, person: Person) -> TaskView:
    view = next_task(services, person, "pair")
    assert view is not None
    return view


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_that_is_clicked_is_chosen(
    services: Services, store: Store, tasks: TaskMaker, anna: Person, side: str
) -> None:
    for _ in range(6):  # both draws occur
        tasks.add()
        view = take(services, anna)
        saved = judge(services, anna, view.task_id, side, strength=2)
        wanted = view.left if side == "left" else view.right
        assert (text(store, saved.chosen_id), saved.strength) == (wanted, 2)
        assert text(store, saved.rejected_id) != wanted


@pytest.mark.parametrize("choice", ["tie", "both_bad", "skip"])
def test_other_choices_have_no_winner_and_no_strength(
    services: Services, tasks: TaskMaker, anna: Person, choice: str
) -> None:
    tasks.add()
    saved = judge(services, anna, take(services, anna).task_id, choice, strength=2)
    assert (saved.choice, saved.chosen_id, saved.rejected_id, saved.strength) == (choice, None, None, 0)


def test_a_single_answer_takes_up_down_or_skip_only(
    services: Services, tasks: TaskMaker, anna: Person
) -> None:
    tasks.add("single")
    view = next_task(services, anna, "single")
    assert view is not None
    assert (view.left, view.right) == ("only answer", None)
    for choice in ("left", "right", "tie", "both_bad"):
        with pytest.raises(BadValue, match="does not fit a single; choose one of up, down, skip"):
            judge(services, anna, view.task_id, choice)
    assert judge(services, anna, view.task_id, "up").choice == "up"


@pytest.mark.parametrize("choice", ["up", "down"])
def test_a_pair_takes_no_thumb(services: Services, tasks: TaskMaker, anna: Person, choice: str) -> None:
    tasks.add()
    with pytest.raises(BadValue, match="does not fit a pair"):
        judge(services, anna, take(services, anna).task_id, choice)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"choice": "best"}, "choice 'best' is unknown; choose one of left, right"),
        ({"choice": "left", "strength": 3}, "strength 3 is outside 1..2, what the scale of 5 points has"),
        ({"choice": "left", "active_ms": -1}, "active_ms -1 is below 0"),
        ({"choice": "left", "unsafe": ["middle"]}, "unsafe 'middle' is not left or right"),
        ({"choice": "left", "comment": "a\x00"}, "the comment: character 2 is U\\+0000"),
        ({"choice": "tie", "correction": "better"}, "a correction edits one answer"),
    ],
)
def test_a_value_that_can_never_be_right_is_named(
    services: Services, tasks: TaskMaker, anna: Person, given: dict[str, object], words: str
) -> None:
    tasks.add()
    with pytest.raises(BadValue, match=words):
        judge(services, anna, take(services, anna).task_id, **given)  # type: ignore[arg-type]
    assert not read_judgements(services.store)


def test_ten_clicks_at_once_are_one_judgement(services: Services, tasks: TaskMaker, anna: Person) -> None:
    tasks.add()
    task_id = take(services, anna).task_id
    with ThreadPoolExecutor(10) as pool:
        saved = list(pool.map(lambda _: judge(services, anna, task_id, "left", comment="x"), range(10)))
    assert len({judgement.judgement_id for judgement in saved}) == 1
    assert len(read_judgements(services.store)) == 1


@pytest.mark.parametrize(("first", "second"), [("left", "right"), ("left", "tie"), ("skip", "left")])
def test_a_different_click_on_a_judged_task_is_a_conflict(
    services: Services, tasks: TaskMaker, anna: Person, first: str, second: str
) -> None:
    tasks.add()
    task_id = take(services, anna).task_id
    kept = judge(services, anna, task_id, first)
    with pytest.raises(StateConflict):
        judge(services, anna, task_id, second)
    assert read_judgements(services.store) == [kept]


def test_a_task_that_is_not_held_cannot_be_judged(
    services: Services, store: Store, tasks: TaskMaker, anna: Person
) -> None:
    task = tasks.add()
    with pytest.raises(LeaseLost):
        judge(services, anna, task.task_id, "left")
    long_ago = utc() - timedelta(hours=1)
    assert lease_task(store, anna.person_id, "pair", lambda t, _p: t.completion_ids[0], 1.0, long_ago)
    with pytest.raises(LeaseLost, match="nothing was saved"):
        judge(services, anna, task.task_id, "left")
    with pytest.raises(LeaseLost):
        renew(services, anna, task.task_id)


def test_a_heartbeat_holds_the_task_for_another_lease_time(
    store: Store, tasks: TaskMaker, anna: Person
) -> None:
    services = make_services(store, settings=WebSettings(lease_s=120))
    tasks.add()
    view = take(services, anna)
    until = renew(services, anna, view.task_id)
    assert view.lease_expires_at <= until <= utc() + timedelta(seconds=120)


def test_undo_brings_the_task_back_with_the_same_sides(
    services: Services, tasks: TaskMaker, anna: Person
) -> None:
    assert undo(services, anna) is None
    tasks.add()
    tasks.add()
    view = take(services, anna)
    judge(services, anna, view.task_id, "left")
    take(services, anna)
    back = undo(services, anna)
    assert back is not None
    assert (back.task_id, back.left, back.right) == (view.task_id, view.left, view.right)
    assert judge(services, anna, view.task_id, "right").choice == "prefer"


def test_an_undone_judgement_does_not_answer_a_late_retry(
    services: Services, tasks: TaskMaker, anna: Person
) -> None:
    tasks.add()
    task_id = take(services, anna).task_id
    first = judge(services, anna, task_id, "left")
    undo(services, anna)
    again = judge(services, anna, task_id, "left")
    assert again.judgement_id != first.judgement_id


def test_a_correction_edits_the_preferred_answer(
    services: Services, store: Store, tasks: TaskMaker, anna: Person
) -> None:
    tasks.add()
    view = take(services, anna)
    saved = judge(services, anna, view.task_id, "right", correction="a better answer")
    assert saved.correction == "a better answer"
    assert text(store, saved.chosen_id) == view.right


@pytest.mark.parametrize(("scale", "most"), [(3, 1), (5, 2), (7, 3)])
def test_the_scale_decides_how_strong_a_preference_can_be(
    store: Store, tasks: TaskMaker, anna: Person, scale: int, most: int
) -> None:
    services = make_services(store, annotation=AnnotationSettings(scale=scale))
    for strength in range(1, most + 1):
        tasks.add()
        assert (
            judge(services, anna, take(services, anna).task_id, "left", strength=strength).strength
            == strength
        )
    tasks.add()
    with pytest.raises(BadValue, match=f"outside 1..{most}"):
        judge(services, anna, take(services, anna).task_id, "left", strength=most + 1)


@pytest.mark.parametrize("choice", ["left", "right", "tie", "both_bad", "skip"])
def test_an_unsafe_side_is_kept_as_its_completion_whatever_is_preferred(
    services: Services, store: Store, tasks: TaskMaker, anna: Person, choice: str
) -> None:
    for _ in range(4):  # both draws occur
        tasks.add()
        view = take(services, anna)
        saved = judge(services, anna, view.task_id, choice, unsafe=["right"])
        assert [text(store, unsafe_id) for unsafe_id in saved.unsafe_ids] == [view.right]
        assert judge(services, anna, view.task_id, choice, unsafe=["right"]) == saved


def test_a_single_answer_is_unsafe_on_the_left_only(
    services: Services, tasks: TaskMaker, anna: Person
) -> None:
    task = tasks.add("single")
    view = next_task(services, anna, "single")
    assert view is not None
    with pytest.raises(BadValue, match="a single has no right answer"):
        judge(services, anna, view.task_id, "up", unsafe=["right"])
    assert judge(services, anna, view.task_id, "up", unsafe=["left"]).unsafe_ids == task.completion_ids


def test_several_undos_go_further_back_and_each_brings_its_own_earlier_act(
    services: Services, tasks: TaskMaker, anna: Person
) -> None:
    said: list[tuple[str, str]] = []
    for choice in ("left", "tie", "right"):
        tasks.add()
        view = take(services, anna)
        judge(
            services,
            anna,
            view.task_id,
            choice,
            strength=2,
            reasons=["clarity"],
            comment=choice,
            unsafe=["left"],
        )
        said.append((view.task_id, choice))
    tasks.add()
    take(services, anna)
    for task_id, choice in reversed(said):
        back = undo(services, anna)
        assert back is not None
        assert back.task_id == task_id
        earlier = read_earlier(services, anna, task_id)
        assert isinstance(earlier, Earlier)
        strength = 0 if choice == "tie" else 2
        assert (earlier.choice, earlier.strength, earlier.comment) == (choice, strength, choice)
        assert (earlier.reasons, earlier.unsafe) == (("clarity",), ("left",))
    assert undo(services, anna) is None


def test_a_task_judged_again_has_nothing_taken_back(
    services: Services, tasks: TaskMaker, anna: Person
) -> None:
    tasks.add()
    task_id = take(services, anna).task_id
    assert read_earlier(services, anna, task_id) is None
    judge(services, anna, task_id, "left")
    undo(services, anna)
    judge(services, anna, task_id, "right")
    assert read_earlier(services, anna, task_id) is None


@pytest.mark.parametrize("choice", ["left", "right", "tie", "both_bad", "skip"])
def test_the_text_of_either_answer_is_no_correction(
    services: Services, tasks: TaskMaker, anna: Person, choice: str
) -> None:
    for side in ("left", "right"):
        tasks.add()
        view = take(services, anna)
        shown = f"{view.left if side == 'left' else view.right}\r\n "
        assert judge(services, anna, view.task_id, choice, correction=shown).correction is None


def test_an_edit_box_left_as_it_was_is_no_correction(
    services: Services, tasks: TaskMaker, anna: Person
) -> None:
    tasks.add()
    view = take(services, anna)
    saved = judge(services, anna, view.task_id, "left", correction=view.left)
    assert saved.correction is None
    assert judge(services, anna, view.task_id, "left", correction=view.left) == saved


def test_a_deactivated_annotator_loses_the_task(
    services: Services, store: Store, tasks: TaskMaker, people: dict[str, Credentials]
) -> None:
    task = tasks.add()
    annotator = people["annotator"].person
    take(services, annotator)
    set_active(store, annotator.person_id, False, "admin")
    with pytest.raises((LeaseLost, NotAllowed)):
        judge(services, annotator, task.task_id, "left")
    other = add_person(store, "ben", "annotator").person
    assert take(services, other).task_id == task.task_id
