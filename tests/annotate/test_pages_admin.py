"""What the admin page writes from records, and what its forms do, without a browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from annotate.pages.admin.overview import OverviewSection
from annotate.pages.admin.panels.rounds import (
    explain_start,
    write_gate,
    write_log,
    write_progress,
    write_round,
)
from annotate.pages.admin.panels.versions import write_versions
from annotate.pages.admin.people import PeopleSection
from annotate.pages.admin.prompts import PromptSection
from annotate.pages.admin.rounds import RoundSection
from annotate.pages.admin.versions import VersionSection, list_choices
from store.database import Store
from store.people import Credentials, read_people
from store.policies import add_policy, mark_policy, promote, read_policies
from store.prompts import count_prompts
from store.records import Condition, Policy, Promotion, Round, Why
from store.rounds import create_round
from tests.annotate.pages import as_person, lay_out
from tests.fakes import make_services

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
TRAINING = Round("rd_1", "training", "labels", "v0", "v1", 40, 3, "", NOW - timedelta(seconds=60))


@pytest.fixture
def root(people: dict[str, Credentials]) -> Any:
    return as_person(people["admin"].person)


def condition(kind: Any, holds: bool, says: str) -> Condition:
    return Condition(says, kind, 1, 2, holds, says)


def test_the_sentence_names_the_guard_that_holds_a_round_back() -> None:
    why = Why(False, (condition("trigger", True, "enough labels"), condition("guard", False, "disk is full")))
    assert explain_start(why) == "Held back: disk is full."


def test_the_sentence_names_what_a_round_waits_for() -> None:
    why = Why(False, (condition("trigger", False, "3 of 9 labels"), condition("guard", True, "disk is free")))
    assert explain_start(why) == "Waiting: 3 of 9 labels."


def test_a_round_that_will_start_says_so() -> None:
    assert explain_start(Why(True)) == "A round starts by itself with the next check."


def test_progress_shows_the_step_the_numbers_and_the_time_left() -> None:
    row = {"stage": "dpo", "step": 20, "max_steps": 60, "loss": 0.5, "rewards/accuracies": None}
    shown = write_progress(TRAINING, [{"stage": "dpo", "event": "start"}, row], NOW)
    assert "20/60" in shown
    assert "loss <b>0.500</b>" in shown
    assert "accuracy" not in shown
    assert "about <b>2 min</b> left" in shown


def test_what_the_guards_say_and_a_resume_do_not_disturb_the_progress() -> None:
    rows: list[dict[str, object]] = [
        {"stage": "dpo", "step": 20, "max_steps": 60, "loss": 0.5},
        {"stage": "dpo", "event": "resumed", "at_step": 18},
        {"stage": "dpo", "event": "evaluation", "at_step": 20, "loss": 9.0, "accuracy": 0.5},
        {"stage": "dpo", "event": "step_skipped", "at_step": 21, "skipped": 1},
        {"stage": "dpo", "event": "stopped_early", "at_step": 21, "says": "held-out loss was best at step 2"},
    ]
    shown = write_progress(TRAINING, rows, NOW)
    assert "20/60" in shown
    assert "loss <b>0.500</b>" in shown


def test_a_stage_without_steps_is_named() -> None:
    rows: list[dict[str, object]] = [{"stage": "dpo", "step": 60, "max_steps": 60}, {"stage": "evaluate"}]
    assert "evaluate" in write_progress(TRAINING, rows, NOW)


def test_without_a_round_the_page_says_when_one_comes() -> None:
    assert "It starts when the conditions beside hold" in write_round(None, [], NOW)


def test_what_comes_from_files_and_people_is_escaped() -> None:
    gate = {"decision": "reject", "reason": "<u>", "checks": [{"says": "<i>", "value": 0.5, "passed": False}]}
    policy = Policy("v1", "rejected", "v0", "rd_1", None, NOW, "<script>")
    shown = write_gate("rd_1", gate) + write_log(["<img src=x>"]) + write_versions([policy])
    assert not [tag for tag in ("<u>", "<i>", "<script", "<img") if tag in shown]
    assert "&lt;u&gt;" in shown


def test_the_time_left_is_what_the_training_itself_measured() -> None:
    row = {"stage": "dpo", "step": 20, "max_steps": 60, "eta_s": 300.0}
    assert "about <b>5 min</b> left" in write_progress(TRAINING, [row], NOW)


def test_a_held_out_loss_does_not_hide_the_numbers_of_the_last_step() -> None:
    rows: list[dict[str, object]] = [
        {"stage": "dpo", "step": 20, "max_steps": 60, "loss": 0.5},
        {"stage": "dpo", "step": 20, "max_steps": 60, "eval_loss": 0.6},
    ]
    assert "loss <b>0.500</b>" in write_progress(TRAINING, rows, NOW)


def test_curves_are_drawn_again_only_when_something_was_logged(store: Store) -> None:
    made = create_round(store, "test", "v0")
    rows: list[dict[str, object]] = [{"stage": "dpo", "step": 1, "max_steps": 2, "loss": 0.6}]
    drawn: list[str] = []

    def draw(round_id: str) -> str:
        drawn.append(round_id)
        return f"<p>{len(rows)}</p>"

    services = make_services(store, read_progress=lambda _: rows, draw_curves=draw)
    section = lay_out(RoundSection, services)
    first = section.read()
    assert first[section._curves] == "<p>1</p>"
    again = section.read("newest", first[section._drawn])
    assert section._curves not in again
    rows.append({"stage": "dpo", "step": 2, "max_steps": 2, "loss": 0.5})
    assert section.read("newest", first[section._drawn])[section._curves] == "<p>2</p>"
    assert drawn == [made.round_id] * 2


def test_the_round_that_is_shown_links_to_its_report() -> None:
    assert 'href="/v1/rounds/rd_1/report"' in write_round(TRAINING, [], NOW)


def test_only_what_can_become_live_is_offered(store: Store) -> None:
    for version in ("v1", "v2", "v3"):
        add_policy(store, version, "v0", None, "0" * 64)
    mark_policy(store, "v2", "rejected", "worse")
    promote(store, "v3", "root")
    assert [version for _, version in list_choices(read_policies(store))] == ["v1", "v0"]


def test_a_promotion_asks_first_and_then_names_actor_and_reason(store: Store, root: Any) -> None:
    add_policy(store, "v1", "v0", None, "0" * 64)
    asked: list[tuple[str, str, str]] = []

    def note(version: str, actor: str, reason: str) -> Promotion:
        asked.append((version, actor, reason))
        return promote(store, version, actor, reason=reason)

    section = lay_out(VersionSection, make_services(store, promote=note))
    assert "Make v1 (candidate) live in place of v0?" in str(section.ask_promote("v1", root))
    assert asked == []
    assert "v1 is live; before it was v0." in str(section.promote("v1", " better ", root))
    assert asked == [("v1", "admin", "better")]


def test_asking_to_promote_nothing_says_what_to_do(store: Store, root: Any) -> None:
    section = lay_out(VersionSection, make_services(store))
    assert "Pick a version first." in str(section.ask_promote(None, root))


def test_a_round_that_cannot_start_says_why(store: Store, root: Any) -> None:
    section = lay_out(OverviewSection, make_services(store))  # its `start_round` fails
    assert "Could not start a round" in str(section.train_now(root))
    assert "No round is running." in str(section.cancel(root))


def test_a_new_persons_secrets_are_shown_and_nobody_can_lock_themselves_out(store: Store, root: Any) -> None:
    section = lay_out(PeopleSection, make_services(store))
    made = str(section.create("Zoë <b>", "annotator", root))
    assert "shown once" in made
    assert "Zoë &lt;b&gt;" in made
    zoe = next(person for person in read_people(store) if person.name.startswith("Zoë"))
    assert "is deactivated" in str(section.deactivate(zoe.person_id, root))
    myself = next(person for person in read_people(store) if person.role == "admin")
    assert "your own account" in str(section.deactivate(myself.person_id, root))


def test_prompts_are_added_one_a_line_and_known_ones_counted(store: Store, root: Any) -> None:
    section = lay_out(PromptSection, make_services(store))
    assert "2 added, 1 already known." in str(section.add("one?\n\n two? \none?", root))
    assert count_prompts(store) == 2
    assert "Write at least one prompt" in str(section.add(" \n", root))
