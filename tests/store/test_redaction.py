"""What erasing does to each kind of event: decided for all of them, and true for any order of acts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.applying import APPLY
from store.errors import HeedError
from store.events import Event, new_event, to_json
from store.exchange import pseudonym
from store.outside import content_sha256
from store.records import OutsideLabel
from store.redaction import RULES, Mode, Redaction
from tests.store import samples

DOCS = (Path(__file__).parents[2] / "docs" / "erasure.md").read_text("utf-8")
ANN, BOB = "u_ann", "u_bob"
CHOICES: dict[str, Any] = {"choice": "tie", "chosen_id": None, "rejected_id": None, "strength": 0}


def test_every_kind_of_event_has_a_decision_and_a_line_in_the_docs() -> None:
    assert set(RULES) == set(APPLY)
    rows = re.findall(r"^\| `(\w+)` \|", DOCS, flags=re.MULTILINE)
    assert sorted(rows) == sorted({type_ for type_, _ in APPLY})


def redact(event: Event, mode: Mode = "delete", name: str = "Ann", person_id: str = ANN) -> Event:
    done: Event = json.loads(Redaction(person_id, name, mode, "u_new", samples.AT)(to_json(event).encode()))
    return done


def event(type_: str, **fields: Any) -> Event:
    return new_event(type_, samples.AT, **fields)


def test_an_event_nobody_has_thought_of_stops_the_erasure() -> None:
    with pytest.raises(HeedError, match="nobody has decided what erasing does to a 'invented'"):
        redact(event("invented"))


def test_the_name_goes_where_it_says_who_acted_and_where_the_service_wrote_it() -> None:
    started = event("round_created", round_id="r", parent="v0", trigger="by hand: Ann", without=[ANN, BOB])
    assert redact(started) == started | {"trigger": "by hand: erased", "without": ["u_new", BOB]}
    rolled = event("promoted", version="v1", previous="v2", kind="rollback", actor="Ann", reason="it swears")
    assert redact(rolled) == rolled | {"actor": "erased", "reason": ""}
    by_round = rolled | {"actor": "round r", "reason": "Ann's labels, not Annette's"}
    assert redact(by_round)["reason"] == "erased's labels, not Annette's"


def test_words_of_others_stay_and_are_counted() -> None:
    said = event("prompt_added", prompt_id="p", messages=[{"role": "user", "content": "Who is Ann?"}])
    said |= {"source": "Ann", "tags": [], "content_sha256": ""}
    redaction = Redaction(ANN, "Ann", "delete", "u_new")
    done = json.loads(redaction(to_json(said).encode()))
    assert done == said | {"source": "erased"}
    assert redaction.mentions == 1
    redaction(to_json(said | {"messages": [], "source": "Annette"}).encode())
    assert redaction.mentions == 1


@pytest.mark.parametrize("annotator", ["Ann", ANN, pseudonym(ANN), f"a_0+{pseudonym(ANN)}"])
def test_an_outside_label_of_theirs_is_known_by_name_id_or_pseudonym(annotator: str) -> None:
    label = OutsideLabel(
        "o_1", "rating", "import:x", samples.ask("a"), "b", samples.AT, desirable=True, annotator=annotator
    )
    named = ("label_id", "kind", "source", "chosen", "rejected", "desirable", "strength", "weight", "task_id")
    fields = {name: getattr(label, name) for name in (*named, "split", "annotator")}
    added = event(
        "outside_label_added", **fields, content_sha256=content_sha256(label), messages=label.messages
    )
    added["extra"] = {"who": {"name": annotator.removeprefix("a_0+"), "n": 1}}
    assert redact(added)["type"] == "erased"
    kept = redact(added, "pseudonymise")
    assert kept["annotator"] == annotator.replace(annotator.removeprefix("a_0+"), "erased u_new")
    assert annotator.removeprefix("a_0+") not in to_json(kept)
    assert kept["content_sha256"] != added["content_sha256"]
    other = redact(added | {"annotator": "w7", "extra": {}})
    assert other["type"] == "outside_label_added"


def test_awkward_names_are_found_as_they_lie_in_json() -> None:
    for name in ('Ann "Q" \\ O’Neil', "Ä.*(ß", "名前"):
        set_by = event("guidelines_set", version=1, text="t", actor=name)
        assert redact(set_by, name=name)["actor"] == "erased"


people = st.sampled_from((ANN, BOB))
number = st.integers(0, 3)
acts = st.lists(
    st.tuples(st.sampled_from(("chat", "chat_task", "repeat", "judge", "undo", "rate")), people, number)
)


def to_journal(acts: list[tuple[str, str, int]]) -> list[Event]:
    """A journal whose events refer only to earlier ones; four shared tasks come first."""
    events = [event("task_added", task_id=f"t{n}", first_id=f"c{n}", second_id=f"d{n}") for n in range(4)]
    tasks, judged, chats = [f"t{n}" for n in range(4)], list[Event](), ["c0"]
    for place, (what, who, n) in enumerate(acts):
        if what == "chat":
            chats.append(f"x{place}")
            by = who if n else None  # an answer of a conversation may name nobody; the first names its owner
            ids = {"completion_id": f"x{place}", "conversation_id": f"cv_{who}", "person_id": by}
            if by is None and not any(e.get("conversation_id") == ids["conversation_id"] for e in events):
                ids["person_id"] = who
            events.append(event("completion_saved", **ids))
        elif what == "chat_task" and len(chats) > 1:
            tasks.append(f"k{place}")
            about = {"first_id": chats[-1], "second_id": chats[n % len(chats)]}
            events.append(event("task_added", task_id=tasks[-1], **about))
        elif what == "repeat":
            tasks.append(f"k{place}")
            of = {"repeat_of": tasks[n % (len(tasks) - 1)], "only_for": who}
            events.append(event("task_added", task_id=tasks[-1], first_id="c1", second_id="d1", **of))
        elif what == "judge":
            ids = {"judgement_id": f"j{place}", "task_id": tasks[-1 - n % len(tasks)], "person_id": who}
            judged.append(event("judgement_saved", **ids, comment=f"by {who}", **CHOICES))
            events.append(judged[-1])
        elif what == "undo" and judged:
            last = judged.pop()
            undone = {name: last[name] for name in ("judgement_id", "task_id", "person_id", "choice")}
            events.append(event("judgement_undone", **undone))
        elif what == "rate":
            ids = {"rating_id": f"r{place}", "completion_id": chats[n % len(chats)], "person_id": who}
            events.append(event("rating_saved", **ids, comment=f"by {who}"))
    return events


@given(acts, st.sampled_from(("delete", "pseudonymise")))
def test_nothing_that_stays_names_them_or_refers_to_what_is_gone(
    acts: list[tuple[str, str, int]], mode: Mode
) -> None:
    before = to_journal(acts)
    redaction = Redaction(ANN, "Ann", mode, "u_new")
    after: list[Event] = [json.loads(redaction(to_json(event).encode())) for event in before]
    assert len(after) == len(before)
    assert ANN not in to_json(after)
    gone = [old for old, new in zip(before, after, strict=True) if new["type"] == "erased"]
    assert mode == "delete" or not gone
    lost = {e["task_id"] for e in gone if e["type"] == "task_added"}
    lost |= {e["completion_id"] for e in gone if e["type"] == "completion_saved"}
    lost |= {e["judgement_id"] for e in gone if e["type"] == "judgement_saved"}
    refers = ("task_id", "completion_id", "judgement_id", "first_id", "second_id", "repeat_of")
    for old, new in zip(before, after, strict=True):
        assert lost.isdisjoint(new.get(name) for name in refers)
        if old.get("person_id") == BOB and new["type"] != "erased":
            assert new == old
        if new["type"] == "erased" and old.get("person_id") == BOB:
            assert not lost.isdisjoint(old.get(name) for name in refers)
