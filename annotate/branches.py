"""Which of a conversation's answers are on screen, and where one can go from there. Pure: no store, no page.

A conversation is a tree: a question asked anew, an answer drawn anew and an edited answer each open a branch.
What is shown is one path through it; where there were several answers or questions, each can be paged to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from store.conversations import Answered, Conversation, Verdict
from store.records import Completion, Message, Rating

Context = tuple[tuple[str, str], ...]  # (role, content) of each message, oldest first


@dataclass(frozen=True, slots=True)
class Sample:
    """What the model's turn can say: a completion as it was drawn, or as the tester edited it."""

    key: str  # names it in a page's address
    seq: int
    completion: Completion
    text: str
    is_edited: bool
    is_kept: bool  # False for an edit that was taken back
    rating: Rating | None


@dataclass(frozen=True, slots=True)
class Step:
    """One exchange of the path: the answer shown, those it can be changed for, and the other questions."""

    sample: Sample
    samples: tuple[Sample, ...]  # answers to the same messages, oldest first, `sample` among them
    questions: tuple[str, ...]  # a key for each question asked at this place, oldest first
    which_question: int  # the place in `questions` of the one shown

    @property
    def question(self) -> str:
        """What was asked."""
        return self.sample.completion.messages[-1]["content"]

    @property
    def which_sample(self) -> int:
        """The place in `samples` of the one shown."""
        return self.samples.index(self.sample)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to the same messages that can be compared, in the order they were drawn."""

    old: Completion
    new: Completion
    verdict: Verdict | None  # None while nobody has said which is better


class Branches:
    """The tree of one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self._verdicts = conversation.verdicts
        samples = sorted(_list_samples(conversation.answers), key=lambda sample: sample.seq)
        contexts = {context_of(sample.completion.messages) for sample in samples}
        asked_after = {context[:-1] for context in contexts}
        samples = [s for s in samples if s.is_kept or after(s) in asked_after]
        self._samples: defaultdict[Context, list[Sample]] = defaultdict(list)
        for sample in samples:
            self._samples[context_of(sample.completion.messages)].append(sample)
        self._origins: defaultdict[Context, list[Sample]] = defaultdict(list)  # who said that, at that place
        for sample in samples:
            self._origins[after(sample)].append(sample)
        self._questions: defaultdict[Context | None, list[Context]] = defaultdict(list)
        for context in self._samples:  # in the order of their first answer
            self._questions[self._place(context)].append(context)
        self._newest = self._find_newest()

    def walk(self, at: str = "") -> list[Step]:
        """The path at that address (see `address`), and on from there; without one the path last used."""
        key, *twins = at.split(",")
        found = next((s for each in self._samples.values() for s in each if s.key == key), None)
        path = self._climb(found, twins) if found else []
        place: Context | None = after(path[-1]) if path else None
        while questions := self._questions.get(place, []):
            path.append(self._select(max(questions, key=self._newest.__getitem__)))
            place = after(path[-1])
        return [self._step(sample) for sample in path]

    def find_pair(self, step: Step) -> Pair | None:
        """The newest answer and the best of those before it; None unless two were finished."""
        drawn = [s for s in step.samples if not s.is_edited and s.completion.finish_reason != "cancelled"]
        if len(drawn) < 2:
            return None
        old, new = self._best(drawn[:-1]), drawn[-1]
        both = {old.completion.completion_id, new.completion.completion_id}
        verdict = next((v for v in reversed(self._verdicts) if v.completion_ids == both), None)
        return Pair(old.completion, new.completion, verdict)

    def _place(self, context: Context) -> Context | None:
        """After which words the question came; None where nothing of ours was said before it."""
        before = context[:-1]
        return before if before in self._origins else None

    def _find_newest(self) -> dict[Context, int]:
        """When something last happened under each context; the longest contexts are the leaves."""
        newest: dict[Context, int] = {}
        for context in sorted(self._samples, key=len, reverse=True):
            below = (newest[q] for s in self._samples[context] for q in self._questions.get(after(s), []))
            newest[context] = max((*(s.seq for s in self._samples[context]), *below))
        return newest

    def _climb(self, sample: Sample, twins: Sequence[str]) -> list[Sample]:
        """What led to the sample; `twins` says which of several that said the very same."""
        path = [sample]
        while origins := self._origins.get(context_of(path[0].completion.messages)[:-1], []):
            named = [origin for origin in origins if origin.key in twins]
            earlier = [origin for origin in origins if origin.seq < path[0].seq]
            path.insert(0, (named or earlier or origins)[-1])
        return path

    def _select(self, context: Context) -> Sample:
        """The answer that was gone on from, else the winner of a comparison, else the newest."""
        samples = self._samples[context]

        def last_used(sample: Sample) -> int:
            asked = self._questions.get(after(sample), [])
            return max((self._newest[question] for question in asked), default=0)

        gone_on = max(samples, key=lambda sample: (last_used(sample), sample.seq))
        return gone_on if last_used(gone_on) else self._best(samples)

    def _best(self, samples: Sequence[Sample]) -> Sample:
        """What the newest verdict among them leaves to go on from, unless something came after it."""
        by_id = {s.completion.completion_id: s for s in samples if not s.is_edited}
        verdict = next((v for v in reversed(self._verdicts) if v.completion_ids <= by_id.keys()), None)
        if verdict is None or samples[-1].seq > verdict.seq:
            return samples[-1]
        goes_on = verdict.judgement.chosen_id or verdict.judgement.left_id
        return by_id[goes_on] if goes_on else samples[-1]

    def _step(self, sample: Sample) -> Step:
        context = context_of(sample.completion.messages)
        questions = self._questions[self._place(context)]
        keys = tuple(self._select(question).key for question in questions)
        return Step(sample, tuple(self._samples[context]), keys, questions.index(context))


def context_of(messages: Iterable[Message]) -> Context:
    """Messages as a value that can be looked up."""
    return tuple((message["role"], message["content"]) for message in messages)


def after(sample: Sample) -> Context:
    """Everything said up to and with this sample."""
    return (*context_of(sample.completion.messages), ("assistant", sample.text))


def address(path: Sequence[Step], key: str) -> str:
    """Where `walk` finds the sample called `key` below that path.

    An answer's context tells what was said before it, not by which of two answers with the same text; those
    are named too.
    """
    twins = [
        step.sample.key
        for step in path
        if any(s.text == step.sample.text and s != step.sample for s in step.samples)
    ]
    return ",".join((key, *twins))


def write_context(path: Sequence[Step], question: str) -> list[Message]:
    """The path as the model gets it, ending with the new question."""
    asked = Message(role="user", content=question)
    if not path:
        return [asked]
    last = path[-1].sample
    return [*last.completion.messages, Message(role="assistant", content=last.text), asked]


def changes_of_version(path: Sequence[Step]) -> list[bool]:
    """For each step, whether another policy version answers than in the step before."""
    versions = [step.sample.completion.version for step in path]
    return [False, *(one != other for one, other in pairwise(versions))] if versions else []


def _list_samples(answers: Iterable[Answered]) -> Iterable[Sample]:
    for answer in answers:
        completion, rating = answer.completion, answer.rating
        own_id = completion.completion_id
        yield Sample(own_id, answer.seq, completion, completion.text, False, True, rating)
        for edit in answer.edits:
            key = f"{own_id}~{edit.rating_id}"
            yield Sample(key, edit.seq, completion, edit.text, True, edit.stands, rating)
