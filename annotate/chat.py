"""What a tester asks and how the answer is written. No Gradio, no HTTP: pages and API call the same."""

from __future__ import annotations

from collections.abc import Sequence

from annotate.errors import TooManyRequests
from annotate.services import Services
from annotate.text import limit
from annotate.writing import Draft, Writing
from store.completions import new_completion_id
from store.errors import BadValue, Busy
from store.records import Message, Person, Sampling


def answer(
    services: Services,
    person: Person,
    model: str,
    messages: Sequence[Message],
    sampling: Sampling,
    conversation_id: str | None = None,
) -> Writing:
    """Ask `model` ("live", "base" or a version) one question; refused as `answer_all` says."""
    return answer_all(services, person, model, messages, [sampling], conversation_id)[0]


def answer_all(
    services: Services,
    person: Person,
    model: str,
    messages: Sequence[Message],
    samplings: Sequence[Sampling],
    conversation_id: str | None = None,
    *,
    most_in_flight: int = 1,
    top_logprobs: int | None = None,
) -> list[Writing]:
    """One answer a sampling to the same messages, written side by side; all of them or none.

    Each is kept as a completion of its own; closing one stops it and keeps what was written as "cancelled".
    Raises at once: BadValue for messages that cannot be answered, NotFound for the model, TooManyRequests
    when this person would have more than `most_in_flight` answers (see `ChatSlots.take`), Busy when the
    engine's queue is full; the last two say when to come back.
    """
    checked = _check_messages(messages, services.settings.max_message_chars)
    drafts = [
        Draft(new_completion_id(), person.person_id, checked, sampling, conversation_id)
        for sampling in samplings
    ]
    try:
        services.slots.take(person.person_id, [draft.completion_id for draft in drafts], most_in_flight)
    except TooManyRequests as error:
        error.retry_after_s = services.patience.until_answered_s()
        raise
    return _start(services, model, drafts, top_logprobs)


def _start(
    services: Services, model: str, drafts: Sequence[Draft], top_logprobs: int | None
) -> list[Writing]:
    writings: list[Writing] = []
    try:
        # Once for a question: all its answers come from one version, of which the reply names only one.
        routed = services.route(model, drafts[0].conversation_id or drafts[0].completion_id)
        for draft in drafts:
            chunks = services.sample(routed, draft.messages, draft.sampling, top_logprobs=top_logprobs)
            writings.append(Writing(services, draft, chunks))
    except BaseException as error:
        for writing in writings:
            writing.close()
        for draft in drafts[len(writings) :]:
            services.slots.free(draft.person_id, draft.completion_id)
        if isinstance(error, Busy):
            error.retry_after_s = services.patience.until_room_s(services.slots.count())
        raise
    return writings


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
