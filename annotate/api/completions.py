"""The wire format of chat completions, as OpenAI's clients send and read it. No I/O."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotate.error_body import error_body
from annotate.services import WebSettings
from annotate.text import refuse_controls
from annotate.writing import Answer
from store.errors import BadValue
from store.records import MOST_STOPS, Message, Sampling, TokenLogprob

# Sent by common clients and without effect on the answer; anything else we do not know is refused by name.
HARMLESS = frozenset(("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"))
# Refused with any other value; with these they say what is so anyway.
NEUTRAL: dict[str, object] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "logit_bias": {},
    "modalities": ["text"],
}
# In a message: what replies of OpenAI's and of ours carry when they are sent back, and a speaker's name.
HARMLESS_IN_MESSAGES = frozenset(("name", "refusal", "annotations"))
MOST_ANSWERS = 8
MOST_TOP_LOGPROBS = 20
SMALLEST_LOGPROB = -9999.0  # what OpenAI sends for "very unlikely"; JSON has no infinity
MOST_SEED = 2**63
HALF_CHARACTER = "\ufffd"  # what a decoder shows for bytes that are no character
DONE = "data: [DONE]\n\n"


class TextPart(BaseModel):
    """A piece of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of the conversation; `developer` is OpenAI's newer word for system."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @model_validator(mode="after")
    def check_text(self) -> ChatMessage:
        if self.role != "assistant":  # what a model wrote may hold anything
            refuse_controls(self.text)
        return self

    @property
    def text(self) -> str:
        """The whole content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    def as_record(self) -> Message:
        """The message as it is kept."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text}


class StreamOptions(BaseModel):
    """Whether the last event of a stream tells the token counts."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A question to a policy: `live`, `base` or a version such as `v3`."""

    model_config = ConfigDict(extra="allow")

    model: str = "live"
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=500)]
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    conversation_id: Annotated[str, Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def check_stops(self) -> ChatRequest:
        for stop in self.stops:
            refuse_controls(stop)
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts, none of them when there is no option."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wanted_logprobs(self) -> int | None:
        """How many likeliest tokens to tell beside each written one; None for no log-probs at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def read_messages(request: ChatRequest) -> list[Message]:
    """The conversation as records."""
    return [message.as_record() for message in request.messages]


def read_samplings(request: ChatRequest, settings: WebSettings) -> list[Sampling]:
    """How to draw each answer; BadValue for an option that would be ignored or a length over the limit.

    A seed is that of the first answer, and the next ones count on from it: they are to differ. OpenAI takes
    any integer; outside 0 to 2^63 - 1 it counts modulo 2^63, and `heed.seed` tells what was used.
    """
    _refuse_unsupported(request)
    max_tokens = request.max_completion_tokens or request.max_tokens or settings.max_tokens
    if max_tokens > settings.max_tokens_limit:
        raise BadValue(f"max_tokens {max_tokens} is over the limit of {settings.max_tokens_limit}")
    seed = secrets.randbelow(2**31) if request.seed is None else request.seed
    try:
        return [
            Sampling(
                temperature=settings.temperature if request.temperature is None else request.temperature,
                top_p=settings.top_p if request.top_p is None else request.top_p,
                max_tokens=max_tokens,
                seed=(seed + number) % MOST_SEED,
                stop=request.stops,
            )
            for number in range(request.n or 1)
        ]
    except ValueError as error:
        raise BadValue(str(error)) from error


def write_completion(answers: Sequence[Answer], created: int, with_logprobs: bool) -> dict[str, object]:
    """The finished answers at once; the id of the whole is that of the first of them."""
    body = _envelope(answers[0], created, "chat.completion")
    body["choices"] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "finish_reason": answer.finish_reason,
            "logprobs": _logprobs(answer.logprobs) if with_logprobs else None,
            "heed": _how_drawn(answer),
        }
        for index, answer in enumerate(answers)
    ]
    body["usage"] = _usage(answers)
    ids = [answer.completion_id for answer in answers]
    body["heed"] = {**_how_drawn(answers[0]), "completion_ids": ids}
    return body


class StreamWriter:
    """Server-sent events of answers that grow: each call writes what is new since the last one."""

    def __init__(
        self, first: Answer, created: int, options: StreamOptions | None, with_logprobs: bool
    ) -> None:
        self._first = first
        self._created = created
        self._options = options
        self._with_logprobs = with_logprobs
        self._shown: dict[int, Answer] = {}

    def write(self, answers: Sequence[Answer]) -> str:
        """One event an answer that has grown, one more for each that has ended; empty when nothing is new."""
        return "".join(self._write_one(index, answer) for index, answer in enumerate(answers))

    def write_end(self, answers: Sequence[Answer]) -> str:
        """The token counts if they were asked for, and the end mark."""
        counted = self._options is not None and self._options.include_usage
        return (self._chunk([], usage=_usage(answers)) if counted else "") + DONE

    def write_place(self, answers: Sequence[Answer]) -> str:
        """A comment, which clients ignore: the place in the queue, or only that we are still here."""
        places = [answer.place for answer in answers if answer.place is not None]
        return f": place {max(places)}\n\n" if places else ": waiting\n\n"

    def _write_one(self, index: int, answer: Answer) -> str:
        shown = self._shown.get(index)
        if shown is answer:
            return ""
        delta: dict[str, str] = {} if shown else {"role": "assistant"}
        delta["content"] = answer.text[len(shown.text) if shown else 0 :]
        new = answer.logprobs[len(shown.logprobs) if shown else 0 :]
        ended = answer.finish_reason is not None
        if not (delta["content"] or new or (ended and shown is None)):
            return self._end(index, answer) if ended else ""
        self._shown[index] = answer
        choice = {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}
        if self._with_logprobs:
            choice["logprobs"] = _logprobs(new)
        if shown is None:
            choice["heed"] = {"completion_id": answer.completion_id}
        return self._chunk([choice]) + (self._end(index, answer) if ended else "")

    def _end(self, index: int, answer: Answer) -> str:
        self._shown[index] = answer
        choice = {"index": index, "delta": {}, "finish_reason": answer.finish_reason, "logprobs": None}
        return self._chunk([{**choice, "heed": _how_drawn(answer)}])

    def _chunk(self, choices: Sequence[object], usage: object = None) -> str:
        body = _envelope(self._first, self._created, "chat.completion.chunk")
        body["choices"] = choices
        return _event({**body, "usage": usage} if usage else body)


def write_break(kind: str, message: str) -> str:
    """The event that tells a client in mid-stream that the answer will not be finished."""
    return _event(error_body(kind, message))


def _refuse_unsupported(request: ChatRequest) -> None:
    given = {name: value for name, value in (request.model_extra or {}).items() if value is not None}
    unsupported = sorted(
        name for name, value in given.items() if name not in HARMLESS and NEUTRAL.get(name, given) != value
    )
    if unsupported:
        raise BadValue(f"not supported here: {', '.join(unsupported)}; leave it out")
    for number, message in enumerate(request.messages, start=1):
        extra = message.model_extra or {}
        if unread := sorted(name for name in extra if extra[name] and name not in HARMLESS_IN_MESSAGES):
            raise BadValue(f"message {number}: not supported here: {', '.join(unread)}; leave it out")
    if request.top_logprobs and not request.logprobs:
        raise BadValue("top_logprobs is only told with logprobs; set logprobs to true")


def _envelope(answer: Answer, created: int, kind: str) -> dict[str, object]:
    return {"id": answer.completion_id, "object": kind, "created": created, "model": answer.version}


def _event(body: object) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _how_drawn(answer: Answer) -> dict[str, object]:
    # OpenAI's format has no place for these, and whoever rates or evaluates an answer needs them.
    drawn: dict[str, object] = {
        "completion_id": answer.completion_id,
        "version": answer.version,
        "finish_reason": answer.finish_reason,
    }
    if answer.completion is not None:
        drawn["logprob_sum"] = answer.completion.logprob_sum
        drawn["num_tokens"] = len(answer.completion.token_ids)
        drawn["seed"] = answer.completion.sampling.seed
        drawn["num_left_out"] = answer.completion.num_left_out
    return drawn


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, object]:
    content = [
        {**_token(token.text, token.logprob), "top_logprobs": [_token(*likely) for likely in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, object]:
    # A token that is only part of a character has no text of its own, and so its bytes are not known here.
    known = None if HALF_CHARACTER in text else list(text.encode())
    return {"token": text, "logprob": max(logprob, SMALLEST_LOGPROB), "bytes": known}


def _usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Counts as OpenAI does: what was asked once, what was written for every answer."""
    kept = [answer.completion for answer in answers if answer.completion is not None]
    read = max((completion.num_prompt_tokens for completion in kept), default=0)
    written = sum(len(completion.token_ids) for completion in kept)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
