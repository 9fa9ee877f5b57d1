"""What the annotate page's handlers show, without a browser."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from annotate import session
from annotate.pages.acts import build_acts
from annotate.pages.annotate_handlers import Handlers
from annotate.pages.annotate_parts import Given, Parts
from annotate.pages.annotate_text import write_empty, write_history, write_notices, write_status
from annotate.pages.desk import read_draft
from annotate.services import Services
from annotate.settings import AnnotationSettings
from store.database import Store
from store.guidelines import accept_guidelines, accepted_version, set_guidelines
from store.judgements import read_judgements
from store.pace import Pace
from store.people import Credentials
from store.tasks import lease_task
from tests.annotate.conftest import TaskMaker
from tests.annotate.pages import as_person
from tests.fakes import make_services

PARTS = Parts(**{name: name for name in Parts.__dataclass_fields__})  # names in place of components
NOTHING = Given("", "pair", [], "", "", False, False, False, 0, "", "", "", 1500.0, False)


@pytest.fixture
def handlers(services: Services) -> Handlers:
    return build_handlers(services)


@pytest.fixture
def ann(store: Store, people: dict[str, Credentials]) -> Any:
    """An annotator who has read the guidelines that ship with Heed."""
    accept_guidelines(store, people["annotator"].person.person_id, 0)
    return as_person(people["annotator"].person)


def build_handlers(services: Services) -> Handlers:
    return Handlers(services, PARTS, build_acts(services.annotation))


def given(task_id: str = "", **fields: Any) -> tuple[Any, ...]:
    """What stands on the page, in the order it is sent."""
    return tuple(Given(**{**asdict(NOTHING), "task_id": task_id, **fields}).__dict__.values())


def press(handlers: Handlers, button: str, task_id: str, request: Any, **fields: Any) -> Any:
    """A click on the button after 1.5 s."""
    return handlers.judging(handlers.acts.by_id[button])(request, *given(task_id, **fields))


def is_shown(update: Any) -> bool:
    return "gone" not in update["elem_classes"]


def cue(updates: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(updates["cue"])
    return read


SCALES = [
    (3, [("k1", "left", 1), ("k3", "right", 1)]),
    (5, [("k1", "left", 2), ("k2", "left", 1), ("k4", "right", 1), ("k5", "right", 2)]),
    (7, [("k1", "left", 3), ("k2", "left", 2), ("k3", "left", 1), ("k5", "right", 1), ("k7", "right", 3)]),
]


@pytest.mark.parametrize(("scale", "buttons"), SCALES)
def test_a_button_saves_the_side_and_strength_it_names_and_shows_the_next_item(
    store: Store, tasks: TaskMaker, ann: Any, scale: int, buttons: list[tuple[str, str, int]]
) -> None:
    handlers = build_handlers(make_services(store, annotation=AnnotationSettings(scale=scale)))
    for button, side, strength in buttons:
        tasks.add()
        tasks.add()
        shown = handlers.open(ann, *given())
        after = press(handlers, button, shown["task_id"], ann)
        judgement = read_judgements(store, limit=1)[0]
        assert (judgement.chosen_id == judgement.left_id) == (side == "left")
        assert (judgement.strength, judgement.active_ms) == (strength, 1500)
        assert after["task_id"] not in ("", shown["task_id"])
        assert cue(after)["done"] == shown["task_id"]
        assert "Saved: " + handlers.acts.by_id[button].label in after["status"]


@pytest.mark.parametrize(("button", "choice"), [("k3", "tie"), ("k0", "both_bad"), ("skip-0", "skip")])
def test_the_other_buttons_mean_what_they_say(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, button: str, choice: str
) -> None:
    tasks.add()
    press(handlers, button, handlers.open(ann, *given())["task_id"], ann)
    assert [judgement.choice for judgement in read_judgements(services.store)] == [choice]


def test_a_reason_to_skip_is_kept_with_the_chips(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    press(handlers, "skip-3", handlers.open(ann, *given())["task_id"], ann, reasons=["safety"])
    assert read_judgements(services.store)[0].reasons == ("wrong_language", "safety")


def test_the_scale_and_the_reasons_of_the_project_are_on_the_keys() -> None:
    acts = build_acts(AnnotationSettings(scale=3, skip_reasons=("no_idea",)))
    assert [act.label for act in acts.pair] == ["A better", "About the same", "B better"]
    assert acts.keymap()["1"] == ["skip-1", "k1", "down"]
    assert acts.keymap()["s"] == ["skip-0", "skip"]
    assert acts.keymap()["Shift+ArrowLeft"] == acts.keymap()["ArrowLeft"][:1] == ["k1"]
    assert "4" not in acts.keymap()
    pressed = {elem_id for ids in acts.keymap().values() for elem_id in ids}
    assert set(acts.by_id) <= pressed


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scale": 4}, "scale 4 is not one of 3, 5, 7"),
        ({"reasons": ("a", "a")}, "reasons lists one of them twice"),
        ({"skip_reasons": tuple("abcdefghij")}, "skip_reasons lists 10; at most 9"),
        ({"reasons": ("",)}, "must be 1 to 80 printable characters"),
        ({"diff_offer_ratio": 1.5}, "outside 0..1"),
        ({"break_after_minutes": float("nan")}, "must be 0 or more"),
    ],
)
def test_a_setting_that_no_page_could_show_stops_the_start(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AnnotationSettings(**wrong)


def test_nothing_on_the_page_tells_which_version_wrote_an_answer(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add(version="v7")
    assert "v7" not in str(handlers.open(ann, *given()))


def test_with_the_detail_panel_open_a_choice_only_selects_and_save_saves_it(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    shown = handlers.open(ann, *given())
    task_id = shown["task_id"]
    selected = press(handlers, "k4", task_id, ann, is_detail_open=True)
    assert (selected["selected"], selected["correction"]) == ("k4", shown["answer_b"])
    assert (cue(selected)["selected"], cue(selected)["task"]) == ("k4", task_id)
    assert read_judgements(services.store) == []
    typed = {
        "is_detail_open": True,
        "selected": "k4",
        "comment": "yes",
        "reasons": ["clarity"],
        "unsafe_a": True,
    }
    handlers.save(ann, *given(task_id, correction="better", **typed))
    (saved,) = read_judgements(services.store)
    assert (saved.choice, saved.strength, saved.comment) == ("prefer", 1, "yes")
    assert (saved.correction, saved.reasons, saved.unsafe_ids) == ("better", ("clarity",), (saved.left_id,))


def test_the_edit_box_follows_the_preferred_answer_until_something_is_typed(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    shown = handlers.open(ann, *given())

    def box_after(button: str, correction: str) -> str:
        updates = press(handlers, button, shown["task_id"], ann, is_detail_open=True, correction=correction)
        return str(updates["correction"])

    assert box_after("k1", "") == shown["answer_a"]
    assert box_after("k5", shown["answer_a"]) == shown["answer_b"]
    assert box_after("k3", shown["answer_b"]) == ""
    assert box_after("k5", "my own words") == "my own words"


def test_saving_before_choosing_asks_for_a_choice(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    task_id = handlers.open(ann, *given())["task_id"]
    assert "Choose an answer first" in handlers.save(ann, *given(task_id, is_detail_open=True))["status"]
    assert read_judgements(services.store) == []


def test_a_failed_save_keeps_the_item_and_offers_the_same_choice_again(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.add()
    task_id = handlers.open(ann, *given())["task_id"]
    with monkeypatch.context() as broken:
        broken.setattr(session, "judge", lambda *_, **__: 1 / 0)
        failed = press(handlers, "k5", task_id, ann)
    assert set(failed) == {"not_saved", "not_saved_says", "selected", "cue"}
    assert is_shown(failed["not_saved"])
    assert "Not saved: B much better." in failed["not_saved_says"]
    assert "ZeroDivisionError" not in failed["not_saved_says"]
    assert (cue(failed)["task"], cue(failed)["selected"], cue(failed)["done"]) == (task_id, "k5", "")
    after = handlers.retry(ann, *given(task_id, selected=failed["selected"]))
    assert not is_shown(after["not_saved"])
    assert [judgement.strength for judgement in read_judgements(services.store)] == [2]


def test_an_item_that_went_to_somebody_else_is_replaced_and_nothing_is_saved(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, people: dict[str, Credentials]
) -> None:
    task = tasks.add()
    other = people["admin"].person.person_id
    assert lease_task(services.store, other, "pair", lambda held, _: held.completion_ids[0])
    for lost in (
        press(handlers, "k1", task.task_id, ann),
        press(handlers, "k1", task.task_id, ann, is_detail_open=True),
        handlers.renew(ann, *given(task.task_id)),
        handlers.highlight(ann, *given(task.task_id, highlight=True)),
    ):
        assert "This item was reassigned; nothing was saved." in lost["status"]
        assert is_shown(lost["empty"])
    assert read_judgements(services.store) == []


def test_undo_brings_back_the_item_the_choice_and_all_that_was_said(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    shown = handlers.open(ann, *given())
    press(handlers, "k1", shown["task_id"], ann, comment="yes", reasons=["clarity"], unsafe_b=True)
    back = handlers.undo(ann, *given())
    assert (back["task_id"], back["answer_a"]) == (shown["task_id"], shown["answer_a"])
    assert (back["comment"], back["reasons"]) == ("yes", ["clarity"])
    assert (back["unsafe_a"], back["unsafe_b"]) == (False, True)
    assert (cue(back)["before"], cue(back)["selected"], cue(back)["detail"]) == ("k1", "k1", True)
    assert "Editing answer from <time" in back["status"]
    again = handlers.open(ann, *given())  # a reload keeps what was said
    assert (again["comment"], cue(again)["before"]) == ("yes", "k1")
    assert "Nothing to undo." in handlers.undo(ann, *given())["status"]


def test_undo_of_a_bare_choice_marks_it_and_leaves_one_key_enough(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    press(handlers, "skip-2", handlers.open(ann, *given())["task_id"], ann)
    back = cue(handlers.undo(ann, *given()))
    assert (back["before"], back["selected"], back["detail"]) == ("skip-2", "", False)


def test_a_skip_that_others_took_up_cannot_be_undone_and_the_page_says_so_quietly(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, people: dict[str, Credentials]
) -> None:
    tasks.add()
    press(handlers, "skip-0", handlers.open(ann, *given())["task_id"], ann)
    other = people["admin"].person.person_id
    assert lease_task(services.store, other, "pair", lambda held, _: held.completion_ids[0])
    said = handlers.undo(ann, *given())
    assert "has gone to others" in said["status"]
    assert "not_saved" not in said


def test_a_draft_comes_back_on_its_own_item_with_the_choice_that_was_not_saved(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add()
    task_id = handlers.open(ann, *given())["task_id"]
    kept = {
        "task_id": task_id, "reasons": ["clarity", "gone since"], "comment": "c", "correction": "",
        "unsafe_a": True, "unsafe_b": False, "choice": "k2",
    }  # fmt: skip
    back = handlers.restore(ann, *given(task_id, draft=json.dumps(kept)))
    assert (back["reasons"], back["comment"], back["unsafe_a"]) == (["clarity"], "c", True)
    assert "Not saved: A slightly better." in back["not_saved_says"]
    assert cue(back)["detail"] is True
    other = handlers.restore(ann, *given(task_id, draft=json.dumps({**kept, "task_id": "t_other"})))
    assert "comment" not in other


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", '{"task_id": 1}', '{"task_id": "t", "x": 1}', '"text"', "1e999"]
)
def test_whatever_else_a_browser_keeps_is_no_draft(text: str) -> None:
    assert read_draft(text, ["clarity"]) is None


def test_a_draft_of_the_wrong_types_is_no_draft() -> None:
    good = {
        "task_id": "t", "reasons": [], "comment": "", "correction": "", "unsafe_a": False, "unsafe_b": False,
        "choice": "",
    }  # fmt: skip
    assert read_draft(json.dumps(good), []) is not None
    for name in good:
        assert read_draft(json.dumps({**good, name: 5}), []) is None, name


def test_the_guidelines_come_first_and_a_new_version_once_more(
    handlers: Handlers, store: Store, tasks: TaskMaker, people: dict[str, Credentials]
) -> None:
    tasks.add()
    tasks.add()
    person = people["annotator"].person
    new = as_person(person)
    first = handlers.open(new, *given())
    assert (first["task_id"], first["guide"]["elem_classes"]) == ("", ["welcome"])
    assert not is_shown(first["vote_bar"])
    item = handlers.accept(new, *given(guide_version=0))
    assert item["task_id"]
    assert accepted_version(store, person.person_id) == 0
    set_guidelines(store, "Be <b>kind</b>.", "root")
    after = press(handlers, "k1", item["task_id"], new)
    assert (after["task_id"], after["guide_version"]) == ("", 1)
    assert "<b>" not in after["guide_text"]
    assert [judgement.task_id for judgement in read_judgements(store)] == [item["task_id"]]


def test_a_version_set_while_another_was_read_is_shown_before_it_counts(
    handlers: Handlers, store: Store, ann: Any, people: dict[str, Credentials]
) -> None:
    set_guidelines(store, "one", "root")
    assert handlers.open(ann, *given())["guide_version"] == 1
    set_guidelines(store, "two", "root")
    again = handlers.accept(ann, *given(guide_version=1))
    assert (again["guide_version"], again["guide"]["elem_classes"]) == (2, ["welcome"])
    assert accepted_version(store, people["annotator"].person.person_id) == 0


def test_an_empty_queue_looks_again_by_itself_and_only_then(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    empty = handlers.open(ann, *given())
    assert is_shown(empty["empty"])
    assert empty["look_again"]["active"] is True
    tasks.add()
    found = handlers.load(ann, *given())
    assert not is_shown(found["empty"])
    assert found["look_again"]["active"] is False


def test_an_empty_queue_leads_to_the_other_kind_when_that_has_something(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    assert handlers.open(ann, *given())["other_kind"]["visible"] is False
    tasks.add("single")
    other = handlers.load(ann, *given())["other_kind"]
    assert (other["visible"], other["value"]) == (True, "Rate single answers (1 ready)")
    assert handlers.load_other(ann, *given())["kind"] == "single"


def test_while_the_model_writes_the_page_says_so_and_looks_sooner(store: Store, ann: Any) -> None:
    writing = build_handlers(make_services(store, writing=lambda: "pair")).open(ann, *given())
    assert "The model is writing this pair" in writing["empty_says"]
    idle = build_handlers(make_services(store, writing=lambda: "single")).open(ann, *given())
    assert "All caught up: 0 today" in idle["empty_says"]
    assert writing["look_again"]["value"] < idle["look_again"]["value"]


def test_a_single_answer_is_shown_without_letters_and_rated_up(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any
) -> None:
    tasks.add("single")
    shown = handlers.open(ann, *given(kind="single"))
    assert "Answer A" not in shown["heading_a"]
    assert (is_shown(shown["pair_votes"]), is_shown(shown["single_votes"])) == (False, True)
    press(handlers, "up", shown["task_id"], ann, kind="single")
    assert [judgement.choice for judgement in read_judgements(services.store)] == ["up"]


def test_a_click_before_the_first_item_is_there_does_nothing(
    handlers: Handlers, services: Services, ann: Any
) -> None:
    press(handlers, "k1", "", ann)
    assert read_judgements(services.store) == []


def test_recent_decisions_are_told_in_the_words_of_the_buttons(
    handlers: Handlers, tasks: TaskMaker, ann: Any
) -> None:
    for button in ("k5", "k3", "skip-2", "skip-0"):
        tasks.add()
        press(handlers, button, handlers.open(ann, *given())["task_id"], ann)
    listed = handlers.list_recent(ann, *given())["recent"]
    words = ["Skipped</b>", "Skipped: bad prompt</b>", "About the same</b>", "B much better</b>"]
    places = [listed.index(word) for word in words]
    assert places == sorted(places)
    assert listed.count("<li>") == 4


def test_a_recent_decision_is_opened_again_and_the_others_stand(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any
) -> None:
    for button in ("k5", "k1", "k3"):
        tasks.add()
        press(handlers, button, handlers.open(ann, *given())["task_id"], ann)
    oldest = read_judgements(services.store)[-1]
    assert oldest.judgement_id in handlers.list_recent(ann, *given())["recent"]
    back = handlers.reopen(ann, *given(reopened=oldest.judgement_id))
    assert (back["task_id"], cue(back)["before"]) == (oldest.task_id, "k5")
    press(handlers, "k4", oldest.task_id, ann)
    standing = [j for j in read_judgements(services.store) if not j.undone]
    assert [(j.choice, j.strength) for j in standing] == [("prefer", 1), ("tie", 0), ("prefer", 2)]
    assert standing[0].task_id == oldest.task_id


def test_somebody_elses_decision_is_not_opened(
    handlers: Handlers, services: Services, tasks: TaskMaker, ann: Any, people: dict[str, Credentials]
) -> None:
    tasks.add()
    press(handlers, "k1", handlers.open(ann, *given())["task_id"], ann)
    theirs = read_judgements(services.store)[0]
    admin = as_person(people["admin"].person)
    assert "Nothing to undo." in handlers.reopen(admin, *given(reopened=theirs.judgement_id))["status"]
    assert not read_judgements(services.store)[0].undone


def test_earlier_turns_are_escaped_and_an_empty_history_takes_no_room() -> None:
    turns = write_history([{"role": "user", "content": "<i>hi</i>"}, {"role": "assistant", "content": "yes"}])
    assert "2 earlier turns" in turns
    assert "<i>" not in turns
    assert write_history([]) == ""


def test_only_who_may_chat_is_led_to_the_chat() -> None:
    assert "/chat/" in write_empty(2, "pair", False, "admin")
    assert "/chat/" not in write_empty(2, "pair", False, "annotator")


def test_the_numbers_leave_out_what_nothing_tells() -> None:
    assert "median" not in write_status(Pace(0, None, None, None), 3, "")
    told = write_status(Pace(7, 23.4, 154.0, None), 3, "")
    for words in ("<strong>7</strong> today", "<strong>23 s</strong> median", "<strong>154</strong>/h"):
        assert words in told
    assert write_notices(False, 3, None) == ""
