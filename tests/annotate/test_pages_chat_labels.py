"""What the acts of the chat page show and save, without a browser: thumbs, edits, comparisons, paging."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from annotate.pages.chat_handlers import Handlers
from annotate.pages.chat_labels import VOTES, Labels
from annotate.pages.chat_rows import read_act, read_thumb
from annotate.pages.chat_screen import CHAT, SIDE_BY_SIDE, draw_left
from annotate.services import Services
from store.conversations import read_whole_conversation
from store.database import Store
from store.errors import BadValue
from store.judgements import read_judgements
from store.labels import STANDING_RATINGS, TrainingRows, build_rows
from store.people import Credentials
from store.records import Person
from tests.annotate.chatting import PARTS, Chatter
from tests.annotate.pages import as_person
from tests.fakes import ScriptedSample


@pytest.fixture
def labels(services: Services) -> Labels:
    return Labels(services, PARTS)


@pytest.fixture
def tess(services: Services, sample: ScriptedSample, person: Person) -> Chatter:
    return Chatter(Handlers(services, PARTS), as_person(person), sample)


@pytest.fixture
def person(people: dict[str, Credentials]) -> Person:
    return people["tester"].person


def thumb(index: object, liked: object) -> Any:
    return SimpleNamespace(index=index, liked=liked)


def press(name: str) -> Any:
    return SimpleNamespace(_data=name)


def spot(shown: dict[str, Any], mode: str = CHAT) -> tuple[str, str, str]:
    """What the page's hidden fields hold after that was shown."""
    return shown["conversation"], shown["at"], mode


def rows(store: Store) -> TrainingRows:
    with store.read() as cursor:
        return build_rows(cursor)


def is_shown(update: Any) -> bool:
    return "gone" not in update["elem_classes"]


def test_a_thumb_is_saved_shown_again_and_taken_back(labels: Labels, store: Store, tess: Chatter) -> None:
    at = spot(tess.send("Hi"))
    for liked, kept, value in ((False, "Dislike", [False]), (True, "Like", [True]), ("", None, [])):
        rated = labels.rate(*at, thumb(1, liked), tess.request)
        assert rated["chatbot"]["feedback_value"] == [kept]
        assert [row.desirable for row in rows(store).ratings] == value


def test_twenty_double_clicks_leave_one_standing_row(labels: Labels, store: Store, tess: Chatter) -> None:
    at = spot(tess.send("Hi"))
    for _ in range(20):
        labels.rate(*at, thumb(1, True), tess.request)
        labels.rate(*at, thumb(1, ""), tess.request)
    labels.rate(*at, thumb(1, True), tess.request)
    with store.read() as cursor:
        standing = cursor.execute(f"SELECT value FROM {STANDING_RATINGS}").fetchall()
    assert standing == [(1,)]
    assert len(rows(store).ratings) == 1


def test_the_keys_rate_the_last_answer_and_a_second_press_takes_it_back(
    labels: Labels, store: Store, tess: Chatter
) -> None:
    tess.send("Hi")
    at = spot(tess.send("And?"))
    shown = labels.rating_last(-1)(*at, tess.request)
    assert shown["chatbot"]["feedback_value"] == [None, "Dislike"]
    assert is_shown(shown["what_was_wrong"])
    assert labels.rating_last(-1)(*at, tess.request)["chatbot"]["feedback_value"] == [None, None]
    assert rows(store).ratings == []


def test_reasons_and_comment_are_shown_with_the_answer_until_the_thumb_changes(
    labels: Labels, tess: Chatter
) -> None:
    at = spot(tess.send("Hi"))
    down = labels.rate(*at, thumb(1, False), tess.request)
    assert is_shown(down["what_was_wrong"])
    saved = labels.add_reasons(down["rated"], ["Incorrect"], "not <b>so</b>", *at, tess.request)
    assert "Incorrect · “not &lt;b&gt;so&lt;/b&gt;”" in saved["chatbot"]["value"][1]["content"]
    assert tess.reload(at)["chatbot"] == saved["chatbot"]
    up = labels.rate(*at, thumb(1, True), tess.request)
    assert "Incorrect" not in up["chatbot"]["value"][1]["content"]
    assert not is_shown(up["what_was_wrong"])


@pytest.mark.parametrize("index", [0, 2, 3, -1, True, "1", None, (1, 1)])
def test_a_forged_place_in_the_conversation_is_refused(labels: Labels, tess: Chatter, index: object) -> None:
    at = spot(tess.send("Hi"))
    refused = labels.rate(*at, thumb(index, True), tess.request)
    assert "no finished answer at that place" in refused["says"]
    assert refused["chatbot"]["feedback_value"] == [None]


def test_nobody_rates_or_compares_in_the_conversation_of_somebody_else(
    labels: Labels, store: Store, tess: Chatter, people: dict[str, Credentials]
) -> None:
    at = spot(tess.send("Hi"))
    pair = tess.retry(at)["pair"]
    root = as_person(people["admin"].person)
    assert "no finished answer" in labels.rate(*at, thumb(1, True), root)["says"]
    assert "there is no answer" in labels.better("new")(pair, *at, root)["says"].lower()
    assert "you" in labels.save_edit("mine", pair.split()[0], *at, root)["says"]
    assert (rows(store).ratings, rows(store).pairs) == ([], [])


def test_which_is_better_is_asked_after_a_retry_and_the_winner_is_shown(
    labels: Labels, store: Store, tess: Chatter
) -> None:
    at = spot(tess.send("Hi"))
    again = tess.retry(at, "Bonjour.")
    assert is_shown(again["better"])
    assert "2 of 2" in again["chatbot"]["value"][1]["content"]
    assert "Bonjour." in again["chatbot"]["value"][1]["content"]
    assert rows(store).pairs == [], "trying again is no label"
    said = labels.better("old")(again["pair"], *spot(again), tess.request)
    assert "Hello, world." in said["chatbot"]["value"][1]["content"]
    assert said["better_old"]["variant"] == "primary"
    assert [(pair.chosen, pair.rejected) for pair in rows(store).pairs] == [("Hello, world.", "Bonjour.")]
    other = labels.better("new")(said["pair"], *spot(said), tess.request)
    assert [(pair.chosen, pair.rejected) for pair in rows(store).pairs] == [("Bonjour.", "Hello, world.")]
    undone = labels.better("new")(other["pair"], *spot(other), tess.request)
    assert "taken back" in undone["says"]
    assert rows(store).pairs == []


def test_an_edited_answer_is_gone_on_from(labels: Labels, store: Store, tess: Chatter) -> None:
    at = spot(tess.send("Hi"))
    opened = labels.act(*at, press("edit-0-0"), tess.request)
    assert opened["edited"] == "Hello, world."
    saved = labels.save_edit("Good day.", opened["editing"], *at, tess.request)
    assert "edited by you" in saved["chatbot"]["value"][1]["content"]
    assert tess.reload(spot(saved))["chatbot"] == saved["chatbot"]
    tess.send("And?", spot(saved))
    assert [message["content"] for message in tess.sample.asked[-1][1]] == ["Hi", "Good day.", "And?"]
    assert [(pair.chosen, pair.rejected) for pair in rows(store).pairs] == [("Good day.", "Hello, world.")]
    assert rows(store).ratings == []


def test_a_thumb_on_the_testers_own_text_is_refused(labels: Labels, store: Store, tess: Chatter) -> None:
    at = spot(tess.send("Hi"))
    editing = labels.act(*at, press("edit-0-0"), tess.request)["editing"]
    saved = labels.save_edit("Good day.", editing, *at, tess.request)
    refused = labels.rate(*spot(saved), thumb(1, True), tess.request)
    assert "You wrote this text" in refused["says"]
    assert refused["chatbot"]["feedback_value"] == [None]
    assert rows(store).ratings == []


def test_a_question_asked_anew_is_a_branch_that_can_be_left_again(labels: Labels, tess: Chatter) -> None:
    tess.send("Hi")
    at = spot(tess.send("And?"))
    opened = labels.act(*at, press("ask-0-0"), tess.request)
    assert opened["edited"] == "Hi"
    anew = tess.ask_anew("Hello", opened["editing"], at)
    assert len(anew["chatbot"]["value"]) == 2
    assert "2 of 2" in anew["chatbot"]["value"][0]["content"]
    back = labels.act(*spot(anew), press("question-0-0"), tess.request)
    assert [row["content"].split()[-1] for row in back["chatbot"]["value"]][::2] == ["Hi", "And?"]


@pytest.mark.parametrize("vote", VOTES, ids=[vote.elem_id for vote in VOTES])
def test_a_vote_side_by_side_means_what_it_says_on_the_side_it_was_shown(
    labels: Labels, store: Store, tess: Chatter, vote: Any
) -> None:
    shown = tess.send("Hi", mode=SIDE_BY_SIDE)
    left_id, right_id = shown["pair"].split()
    voted = labels.voting(vote)(shown["pair"], *spot(shown, SIDE_BY_SIDE), 1234.0, tess.request)
    (judgement,) = read_judgements(store)
    expected = {"left": ("prefer", left_id), "right": ("prefer", right_id)}
    assert (judgement.choice, judgement.chosen_id) == expected.get(vote.choice, (vote.choice, None))
    assert (judgement.left_id, judgement.active_ms) == (left_id, 1234)
    assert judgement.strength == (vote.strength if judgement.chosen_id else 0)
    assert voted["at"] == (judgement.chosen_id or left_id), "without a winner the left one goes on"
    assert not is_shown(voted["duel"])
    assert is_shown(voted["voted"])


def test_no_version_is_shown_before_the_vote(labels: Labels, tess: Chatter) -> None:
    tess.sample.version = "v7"
    frames = tess.frames("Hi", mode=SIDE_BY_SIDE)
    assert "v7" not in str([{**frame, "account": None} for frame in frames])
    shown = frames[-1]
    voted = labels.voting(VOTES[0])(shown["pair"], *spot(shown, SIDE_BY_SIDE), None, tess.request)
    assert "v7" in voted["chatbot"]["value"][1]["content"]


def test_an_unvoted_pair_is_there_after_a_reload_on_the_same_sides(tess: Chatter) -> None:
    frames = tess.frames("Hi", mode=SIDE_BY_SIDE)
    shown = frames[-1]
    assert is_shown(shown["duel"])
    again = tess.reload(spot(shown, SIDE_BY_SIDE))
    assert (again["pair"], again["left"], again["right"]) == (shown["pair"], shown["left"], shown["right"])


def test_a_vote_taken_back_shows_the_two_again(labels: Labels, store: Store, tess: Chatter) -> None:
    shown = tess.send("Hi", mode=SIDE_BY_SIDE)
    voted = labels.voting(VOTES[4])(shown["pair"], *spot(shown, SIDE_BY_SIDE), None, tess.request)
    undone = labels.undo_vote(voted["pair"], *spot(voted, SIDE_BY_SIDE), tess.request)
    assert is_shown(undone["duel"])
    assert undone["pair"] == shown["pair"]
    assert all(judgement.undone for judgement in read_judgements(store))


def test_the_sides_are_fair_and_the_same_in_any_order(person: Person) -> None:
    drawn = [draw_left(f"c_{n}", f"d_{n}", person).startswith("c") for n in range(2000)]
    assert 850 < sum(drawn) < 1150
    assert all(draw_left(f"d_{n}", f"c_{n}", person).startswith("c") == drawn[n] for n in range(50))


@pytest.mark.parametrize("name", ["", "edit", "edit-0", "sample-0-x", "drop-0-0", "edit--1-0", None, 7])
def test_an_unknown_button_is_refused(labels: Labels, tess: Chatter, name: object) -> None:
    at = spot(tess.send("Hi"))
    assert "unknown here" in labels.act(*at, SimpleNamespace(_data=name), tess.request)["says"]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sample-0-5", "question-0-3", "edit-4-0"])
def test_a_place_that_is_not_there_is_refused(labels: Labels, tess: Chatter, name: str) -> None:
    at = spot(tess.send("Hi"))
    assert "reload the page" in labels.act(*at, press(name), tess.request)["says"]


def test_words_that_are_no_thumb_are_refused() -> None:
    assert [read_thumb(liked) for liked in (True, False, "")] == [1, -1, 0]
    with pytest.raises(BadValue, match="a thumb is up, down or taken back, not 'Great'"):
        read_thumb("Great")
    assert read_act("sample-2-1").which == 1


def test_every_answer_of_the_conversation_is_kept(services: Services, tess: Chatter, person: Person) -> None:
    at = spot(tess.send("Hi"))
    for _ in range(3):
        at = spot(tess.retry(at))
    held = read_whole_conversation(services.store, at[0], person.person_id)
    assert len(held.answers) == 4
