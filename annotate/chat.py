"""What a tester sends and what a thumb means. No Gradio, no HTTP: pages and API call the same functions."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from annotate.services import Services
from annotate.text import MOST_COMMENT, MOST_CORRECTION, limit, limit_reasons
from store.completions import new_completion_id, read_completion, save_completion
from store.errors import BadValue, NotFound
from store.ratings import save_rating
from store.records import Chunk, Completion, FinishReason, Message, Person, Rating, Sampling


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
    draft = _Draft(
        completion_id=new_completion_id(),
        person_id=person.person_id,
        messages=_check_messages(messages, services.settings.max_message_chars),
        sampling=sampling,
        conversation_id=conversation_id,
    )
    services.slots.take(person.person_id, draft.completion_id)
    try:
        chunks = services.sample(model, draft.messages, sampling)
    except BaseException:
        services.slots.free(person.person_id)
        raise
    answers = _write(services, draft, chunks)
    next(answers)  # started, so that closing it at any later moment runs its `finally`
    return answers


def rate(
    services: Services,
    person: Person,
    completion_id: str,
    value: int,
    reasons: Sequence[str] = (),
    comment: str = "",
    correction: str | None = None,
) -> Rating:
    """Save this person's thumb on an answer to them: 1, -1, or 0 to take it back; the newest counts.

    Raises BadValue while the answer is unfinished (or was broken off), NotFound for somebody else's.
    """
    thumb = _check_value(value)
    if services.slots.is_writing(completion_id):
        raise BadValue(f"answer {completion_id} is still being written; rate it when it is finished")
    completion = read_completion(services.store, completion_id)
    if completion.person_id != person.person_id:
        raise NotFound(f"there is no answer {completion_id!r} to you")
    if completion.finish_reason == "cancelled":
        raise BadValue(f"answer {completion_id} was stopped before its end, so it cannot be rated")
    edited = limit(correction, MOST_CORRECTION, "the correction") if correction else None
    return save_rating(
        services.store,
        completion_id,
        person.person_id,
        thumb,
        reasons=limit_reasons(tuple(reasons)),
        comment=limit(comment, MOST_COMMENT, "the comment"),
        correction=None if edited == completion.text else edited,
    )


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
        services.slots.free(draft.person_id)


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


def _check_value(value: int) -> Literal[-1, 0, 1]:
    if value is True or value is False or value not in (-1, 0, 1):
        raise BadValue(f"rating {value!r} is not 1, -1 or 0")
    return 1 if value == 1 else -1 if value == -1 else 0
