"""Which answers are on screen, and that no answer is ever out of reach."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from annotate.branches import Branches, Step, address, changes_of_version, write_context
from store.conversations import Answered, Conversation, Edit, Verdict
from store.records import Choice, Judgement, Message
from tests.store.samples import AT, answer


class Talk:
    """Builds a conversation the way a tester does, each act at the next place of the journal."""

    def __init__(self) -> None:
        self.answers: list[Answered] = []
        self.verdicts: list[Verdict] = []
        self._seq = itertools.count(1)

    def ask(self, question: str, after: Sequence[Step] = (), text: str | None = None) -> str:
        return self.draw(write_context(after, question), text)

    def draw(self, messages: Sequence[Message], text: str | None = None, **fields: object) -> str:
        seq = next(self._seq)
        drawn = answer(text or f"answer {seq}", messages=tuple(messages), completion_id=f"c_{seq}", **fields)
        self.answers.append(Answered(seq, drawn))
        return drawn.completion_id

    def edit(self, completion_id: str, text: str) -> str:
        seq = next(self._seq)
        place = [a.completion.completion_id for a in self.answers].index(completion_id)
        old = self.answers[place]
        edits = [replace(edit, stands=False) for edit in old.edits]
        self.answers[place] = replace(old, edits=(*edits, Edit(seq, f"r_{seq}", text, True)))
        return f"{completion_id}~r_{seq}"

    def judge(self, chosen_id: str | None, *ids: str, choice: Choice = "prefer") -> None:
        seq = next(self._seq)
        rejected = next(each for each in ids if each != chosen_id)
        judgement = Judgement(
            f"j_{seq}", "t", "p", choice, AT, chosen_id, rejected if chosen_id else None, ids[0], 1
        )
        self.verdicts.append(Verdict(seq, judgement, frozenset(ids)))

    @property
    def branches(self) -> Branches:
        return Branches(Conversation(tuple(self.answers), tuple(self.verdicts)))

    def shown(self, at: str = "") -> list[str]:
        return [step.sample.key for step in self.branches.walk(at)]

    def messages(self, completion_id: str) -> tuple[Message, ...]:
        return next(
            a.completion.messages for a in self.answers if a.completion.completion_id == completion_id
        )


def test_nothing_said_is_an_empty_path() -> None:
    assert Talk().shown() == []


def test_a_plain_conversation_is_shown_in_its_order() -> None:
    talk = Talk()
    first = talk.ask("hi")
    second = talk.ask("and?", talk.branches.walk())
    assert talk.shown() == [first, second]
    assert [step.question for step in talk.branches.walk()] == ["hi", "and?"]


def test_the_newest_of_several_answers_is_shown_and_the_others_are_paged_to() -> None:
    talk = Talk()
    old = talk.ask("hi")
    new = talk.draw(talk.messages(old))
    assert talk.shown() == [new]
    assert talk.shown(old) == [old]
    (step,) = talk.branches.walk(old)
    assert ([sample.key for sample in step.samples], step.which_sample) == ([old, new], 0)


def test_the_winner_of_a_comparison_goes_on_and_after_a_tie_the_left_one() -> None:
    talk = Talk()
    old = talk.ask("hi")
    new = talk.draw(talk.messages(old))
    talk.judge(old, new, old)
    assert talk.shown() == [old]
    talk.judge(None, new, old, choice="tie")
    assert talk.shown() == [new]


def test_an_answer_drawn_after_the_verdict_is_shown() -> None:
    talk = Talk()
    old = talk.ask("hi")
    new = talk.draw(talk.messages(old))
    talk.judge(old, new, old)
    third = talk.draw(talk.messages(old))
    assert talk.shown() == [third]
    (step,) = talk.branches.walk()
    pair = talk.branches.find_pair(step)
    assert pair is not None
    assert (pair.old.completion_id, pair.new.completion_id, pair.verdict) == (old, third, None)


def test_what_a_later_turn_went_on_from_is_shown_whatever_was_preferred() -> None:
    talk = Talk()
    old = talk.ask("hi")
    new = talk.draw(talk.messages(old))
    later = talk.ask("and?", talk.branches.walk(old))
    talk.judge(new, new, old)
    assert talk.shown() == [old, later]
    assert talk.shown(new) == [new]


def test_an_edited_answer_is_a_branch_of_its_own() -> None:
    talk = Talk()
    first = talk.ask("hi")
    later = talk.ask("and?", talk.branches.walk())
    edited = talk.edit(first, "what I would say")
    assert talk.shown() == [first, later], "the turn that was gone on from"
    assert talk.shown(edited) == [edited]
    after_edit = talk.ask("then?", talk.branches.walk(edited))
    assert talk.shown() == [edited, after_edit]
    assert talk.messages(after_edit)[1]["content"] == "what I would say"
    assert talk.shown(later) == [first, later]


def test_an_edit_taken_back_is_shown_only_where_the_conversation_went_on_from_it() -> None:
    talk = Talk()
    first = talk.ask("hi")
    edited = talk.edit(first, "one")
    later = talk.ask("and?", talk.branches.walk(edited))
    again = talk.edit(first, "two")
    talk.edit(first, "three")
    (step, _) = talk.branches.walk(later)
    assert again not in [sample.key for sample in step.samples]
    assert talk.shown(later) == [edited, later]


def test_a_question_asked_anew_leaves_the_later_turns_behind() -> None:
    talk = Talk()
    first = talk.ask("hi")
    later = talk.ask("and?", talk.branches.walk())
    anew = talk.ask("hello")
    assert talk.shown() == [anew]
    (step,) = talk.branches.walk()
    assert (step.questions, step.which_question) == ((first, anew), 1)
    assert talk.shown(step.questions[0]) == [first, later]


def test_only_finished_answers_are_a_pair() -> None:
    talk = Talk()
    old = talk.ask("hi")
    talk.draw(talk.messages(old), finish_reason="cancelled")
    (step,) = talk.branches.walk()
    assert talk.branches.find_pair(step) is None


def test_a_new_version_is_told_once() -> None:
    talk = Talk()
    talk.ask("hi")
    talk.draw(write_context(talk.branches.walk(), "and?"), version="v8")
    talk.draw(write_context(talk.branches.walk(), "and now?"), version="v8")
    assert changes_of_version(talk.branches.walk()) == [False, True, False]
    assert changes_of_version([]) == []


def test_a_conversation_begun_elsewhere_is_shown_from_its_first_answer() -> None:
    talk = Talk()
    before: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    one = talk.draw([*before, {"role": "user", "content": "c"}])
    assert talk.shown() == [one]


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["go on", "retry", "edit", "ask anew", "judge"]),
        st.integers(0, 50),
        st.sampled_from(["same", "one", "two"]),  # few texts, so that branches meet
    ),
    min_size=1,
    max_size=25,
)


def play(acts: list[tuple[str, int, str]]) -> Talk:
    """A conversation in which each act happens at some answer of before."""
    talk = Talk()
    talk.ask("hi", text="same")
    for act, where, text in acts:
        at = talk.answers[where % len(talk.answers)].completion.completion_id
        path = next(p for p in [talk.branches.walk(at)] if p)
        step = next(number for number, s in enumerate(path) if s.sample.key == at)
        if act == "go on":
            talk.ask(f"{text}?", path[: step + 1], text)
        elif act == "retry":
            talk.draw(talk.messages(at), text)
        elif act == "edit":
            talk.edit(at, f"{text}, edited")
        elif act == "ask anew":
            talk.ask(f"{text}!", path[:step], text)
        elif (pair := talk.branches.find_pair(path[step])) is not None:
            talk.judge(pair.old.completion_id, pair.new.completion_id, pair.old.completion_id)
    return talk


@given(ACTS)
def test_every_answer_can_be_reached_by_paging(acts: list[tuple[str, int, str]]) -> None:
    talk = play(acts)
    branches = talk.branches
    waiting, seen = [""], {""}
    while waiting:
        for step in branches.walk(waiting.pop()):
            for key in (*(sample.key for sample in step.samples), *step.questions):
                if key not in seen:
                    seen.add(key)
                    waiting.append(key)
    assert {answered.completion.completion_id for answered in talk.answers} <= seen


@given(ACTS, st.integers(0, 50))
def test_a_path_holds_what_the_model_was_told(acts: list[tuple[str, int, str]], where: int) -> None:
    talk = play(acts)
    at = talk.answers[where % len(talk.answers)].completion.completion_id
    path = talk.branches.walk(at)
    assert at in [step.sample.key for step in path]
    assert talk.branches.walk(address(path[:-1], path[-1].sample.key)) == path
    for number, step in enumerate(path):
        assert step.samples[step.which_sample] == step.sample
        told = list(step.sample.completion.messages)
        assert told == write_context(path[:number], step.question)
