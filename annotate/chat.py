"""What a tester asks and how the answer is written. No Gradio, no HTTP: pages and API call the same."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from annotate.services import Services
from annotate.text import limit
from store.completions import new_completion_id, save_completion
from store.errors import BadValue
from store.records import Chunk, Completion, FinishReason, Message, Person, Sampling


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it grows, `text` being all of it so far; the last has `finish_reason` and `completion`."""

    text: str
    completion_id: str
    version: str
    finish_reason: FinishReason | None = None
    completion: Completion | None = None


@dataclass(slots=True)
class _Draft:
    """An answer being written: what is known before it is finished."""

    completion_id: str
    person_id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    conversation_id: str | None
    text: str = ""
    version: str = ""

    def finish(self, last: Chunk | None) -> Completion:
        # Without a last chunk the writing was broken off: the text was seen, its tokens are not known.
        return Completion(
            completion_id=self.completion_id,
            messages=self.messages,
            text=self.text,
            version=self.version,
            sampling=self.sampling,
            token_ids=last.token_ids if last else (),
            logprob_sum=last.logprob_sum if last else 0.0,
            finish_reason=(last.finish_reason if last else None) or "cancelled",
            num_prompt_tokens=last.num_prompt_tokens if last else 0,
            created_at=datetime.now(UTC),
            conversation_id=self.conversation_id,
            person_id=self.person_id,
        )


def answer(
    services: Services,
    person: Person,
    model: str,
    messages: Sequence[Message],
    sampling: Sampling,
    conversation_id: str | None = None,
) -> Generator[Answer, None, None]:
    """Ask `model` ("live", "base" or a version); it grows until it has a `finish_reason` and is saved.

    Closing the generator early stops the engine and saves what was written as "cancelled". Raises at once,
    before the first answer: BadValue for messages that cannot be answered, NotFound for the model,
    TooManyRequests while another answer to this person is being written.
    """
    return _start(services, person, model, messages, [sampling], conversation_id)[0]


def answer_twice(
    services: Services,
    person: Person,
    model: str,
    messages: Sequence[Message],
    samplings: tuple[Sampling, Sampling],
    conversation_id: str | None = None,
) -> Generator[tuple[Answer, Answer], None, None]:
    """Two answers to the same messages, written side by side; each is kept and refused as `answer` says.

    Both grow until both have a `finish_reason`; closing early stops both.
    """
    first, second = _start(services, person, model, messages, samplings, conversation_id)
    pairs = _side_by_side(first, second)
    next(pairs)  # started, as the writers are
    return pairs


def _start(
    services: Services,
    person: Person,
    model: str,
    messages: Sequence[Message],
    samplings: Sequence[Sampling],
    conversation_id: str | None,
) -> list[Generator[Answer, None, None]]:
    """One started writer a sampling; all or none."""
    checked = _check_messages(messages, services.settings.max_message_chars)
    drafts = [
        _Draft(new_completion_id(), person.person_id, checked, sampling, conversation_id)
        for sampling in samplings
    ]
    services.slots.take(person.person_id, [draft.completion_id for draft in drafts])
    writers: list[Generator[Answer, None, None]] = []
    try:
        for draft in drafts:
            writer = _write(services, draft, services.sample(model, draft.messages, draft.sampling))
            next(writer)  # started, so that closing it at any later moment runs its `finally`
            writers.append(writer)
    except BaseException:
        for writer in writers:
            writer.close()
        for draft in drafts[len(writers) :]:
            services.slots.free(person.person_id, draft.completion_id)
        raise
    return writers


def _side_by_side(
    first: Generator[Answer, None, None], second: Generator[Answer, None, None]
) -> Generator[tuple[Answer, Answer], None, None]:
    """Both as far as they have come, a piece of each in turn: the engine writes them in one batch anyway."""
    nothing = Answer("", "", "")
    shown = [nothing, nothing]
    with closing(first), closing(second):
        yield nothing, nothing  # taken by `answer_twice`, never seen outside
        writing = [(0, first), (1, second)]
        while writing:
            for entry in tuple(writing):
                place, answers = entry
                grown = next(answers, None)
                if grown is None:
                    writing.remove(entry)
                else:
                    shown[place] = grown
            if writing:
                yield shown[0], shown[1]


def _write(services: Services, draft: _Draft, chunks: Iterator[Chunk]) -> Generator[Answer, None, None]:
    last: Chunk | None = None
    try:
        yield Answer("", draft.completion_id, "")  # taken by `answer`, never seen outside
        for chunk in chunks:
            draft.text += chunk.text
            draft.version = chunk.version
            if chunk.finish_reason is not None:
                last = chunk
                break
            yield Answer(draft.text, draft.completion_id, draft.version)
    finally:
        completion = _keep(services, draft, chunks, last)
    if completion is not None:
        yield Answer(draft.text, draft.completion_id, draft.version, completion.finish_reason, completion)


def _keep(
    services: Services, draft: _Draft, chunks: Iterator[Chunk], last: Chunk | None
) -> Completion | None:
    """Stop the engine, save what was written (nothing when no chunk came) and let the person ask again."""
    try:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
        return save_completion(services.store, draft.finish(last)) if draft.version else None
    finally:
        services.slots.free(draft.person_id, draft.completion_id)


def _check_messages(messages: Sequence[Message], most_chars: int) -> tuple[Message, ...]:
    if not messages or messages[-1]["role"] != "user":
        raise BadValue("the messages must end with one from the user")
    for number, message in enumerate(messages, start=1):
        # What the model wrote comes back as context and may hold anything; the store has the last word on it.
        if message["role"] != "assistant":
            limit(message["content"], most_chars, f"message {number}")
    if not messages[-1]["content"].strip():
        raise BadValue("the last message is empty")
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)
