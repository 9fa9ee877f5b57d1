"""What the annotate page's handlers show, without a browser."""

from __future__ import annotations

from typing import Any

import pytest

from annotate import session
from annotate.pages.acts import ACTS, map_keys
from annotate.pages.annotate_handlers import Handlers, Parts, write_empty, write_history
from annotate.services import Services
from store.judgements import read_judgements
from store.people import Credentials
from store.tasks import lease_task
from tests.annotate.conftest import TaskMaker
from tests.annotate.pages import as_person

PARTS = Parts(**{name: name for name in Parts.__dataclass_fields__})  # names in place of components


@pytest.fixture
def handlers(services: Services) -> Handlers:
    return Handlers(services, PARTS)


@pytest.fixture
def ann(people: dict[str, Credentials]) -> Any:
    return as_person(people["annotator"].person)


def press(handlers: Handlers, button: str, task_id: str, request: Any) -> Any:
    """A click on the button with nothing more said, after 1.5 s."""
    return handlers.judging(ACTS[button])(task_id, "pair", [], "", "", 1500.0, request)


def is_shown(update: Any) -> bool:
    return "gone" not in update["elem_classes"]


@pytest.mark.parametrize(
    ("button", "side", "strength"),
    [("k1", "left", 2), ("k2", "left", 1), ("k4", "right", 1), ("k5", "right", 2)],
)
def test_a_button_saves_the_side_it_names_and_shows_the_next_item(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, button: str, side: str, strength: int
) -> None:
    first, second = tasks.add(), tasks.add()
    shown = handlers.open("pair", ann)
    after = press(handlers, button, shown["task_id"], ann)
    (judgement,) = read_judgements(services.store)
    assert (judgement.chosen_id == judgement.left_id) == (side == "left")
    assert (judgement.strength, judgement.active_ms) == (strength, 1500)
    assert {shown["task_id"], after["task_id"]} == {first.task_id, second.task_id}
    assert "Saved: " + ACTS[button].label in after["status"]


@pytest.mark.parametrize(("button", "choice"), [("k3", "tie"), ("k0", "both_bad"), ("skip", "skip")])
def test_the_other_buttons_mean_what_they_say(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, button: str, choice: str
) -> None:
    tasks.add()
    press(handlers, button, handlers.open("pair", ann)["task_id"], ann)
    assert [judgement.choice for judgement in read_judgements(services.store)] == [choice]


def test_nothing_on_the_page_tells_which_version_wrote_an_answer(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add(version="v7")
    assert "v7" not in str(handlers.open("pair", ann))


def test_a_failed_save_keeps_the_item_and_offers_the_same_choice_again(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.add()
    task_id = handlers.open("pair", ann)["task_id"]
    with monkeypatch.context() as broken:
        broken.setattr(session, "judge", lambda *_, **__: 1 / 0)
        failed = press(handlers, "k5", task_id, ann)
    assert set(failed) == {"not_saved", "not_saved_says", "pending"}
    assert is_shown(failed["not_saved"])
    assert "Not saved: B much better." in failed["not_saved_says"]
    assert "ZeroDivisionError" not in failed["not_saved_says"]
    after = handlers.retry(failed["pending"], task_id, "pair", [], "", "", None, ann)
    assert not is_shown(after["not_saved"])
    assert [judgement.strength for judgement in read_judgements(services.store)] == [2]


def test_an_item_that_went_to_somebody_else_is_replaced_and_nothing_is_saved(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, people: dict[str, Credentials]
) -> None:
    task = tasks.add()
    other = people["admin"].person.person_id
    assert lease_task(services.store, other, "pair", lambda held, _: held.completion_ids[0])
    after = press(handlers, "k1", task.task_id, ann)
    assert "given to someone else; nothing was saved" in after["status"]
    assert read_judgements(services.store) == []
    assert is_shown(after["empty"])


def test_undo_brings_the_item_back_and_with_nothing_left_says_so(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    shown = handlers.open("pair", ann)
    press(handlers, "k1", shown["task_id"], ann)
    back = handlers.undo("pair", ann)
    assert (back["task_id"], back["answer_a"]) == (shown["task_id"], shown["answer_a"])
    assert "Nothing to undo." in handlers.undo("pair", ann)["status"]


def test_an_empty_queue_looks_again_by_itself_and_only_then(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    empty = handlers.open("pair", ann)
    assert is_shown(empty["empty"])
    assert empty["look_again"]["active"] is True
    tasks.add()
    found = handlers.load("pair", ann)
    assert not is_shown(found["empty"])
    assert found["look_again"]["active"] is False


def test_a_single_answer_is_shown_without_letters_and_rated_up(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add("single")
    shown = handlers.open("single", ann)
    assert "Answer A" not in shown["heading_a"]
    assert (is_shown(shown["pair_votes"]), is_shown(shown["single_votes"])) == (False, True)
    press(handlers, "up", shown["task_id"], ann)
    assert [judgement.choice for judgement in read_judgements(services.store)] == ["up"]


def test_a_click_before_the_first_item_is_there_does_nothing(
    handlers: Handlers, services: Services, ann: Any
) -> None:
    press(handlers, "k1", "", ann)
    assert read_judgements(services.store) == []


def test_every_button_has_a_key_and_1_serves_pairs_and_singles() -> None:
    pressed = {elem_id for ids in map_keys().values() for elem_id in ids}
    assert set(ACTS) <= pressed
    assert map_keys()["1"] == ["k1", "down"]


def test_earlier_turns_are_escaped_and_an_empty_history_takes_no_room() -> None:
    turns = write_history([{"role": "user", "content": "<i>hi</i>"}, {"role": "assistant", "content": "yes"}])
    assert "2 earlier turns" in turns
    assert "<i>" not in turns
    assert write_history([]) == ""


def test_the_empty_page_counts_in_english() -> None:
    assert "1 item today" in write_empty(1, "pair")
    assert "2 items today" in write_empty(2, "single")
