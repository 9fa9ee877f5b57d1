"""The wire format of chat completions, as OpenAI's clients send and read it. No I/O."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotate.chat import Answer
from annotate.error_body import error_body
from annotate.services import WebSettings
from annotate.text import refuse_controls
from store.errors import BadValue
from store.records import Completion, Message, Sampling

# Sent by common clients and without effect on the answer; anything else we do not know is refused by name.
HARMLESS = frozenset(("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"))
DONE = "data: [DONE]\n\n"


class TextPart(BaseModel):
    """A piece of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant"]
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
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    n: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    conversation_id: Annotated[str, Field(max_length=100)] | None = None


def read_messages(request: ChatRequest) -> list[Message]:
    """The conversation as records."""
    return [{"role": message.role, "content": message.text} for message in request.messages]


def read_sampling(request: ChatRequest, settings: WebSettings) -> Sampling:
    """How to draw the answer; BadValue for an option that would be ignored or a length over the limit."""
    _refuse_unsupported(request)
    max_tokens = request.max_completion_tokens or request.max_tokens or settings.max_tokens
    if max_tokens > settings.max_tokens_limit:
        raise BadValue(f"max_tokens {max_tokens} is over the limit of {settings.max_tokens_limit}")
    return Sampling(
        temperature=settings.temperature if request.temperature is None else request.temperature,
        top_p=settings.top_p if request.top_p is None else request.top_p,
        max_tokens=max_tokens,
        seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
    )


def write_completion(answer: Answer, created: int) -> dict[str, object]:
    """The whole answer at once."""
    message = {"role": "assistant", "content": answer.text}
    body = _envelope(answer, created, "chat.completion")
    body["choices"] = [
        {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
    ]
    body["usage"] = _usage(answer.completion)
    body["heed"] = _how_drawn(answer)
    return body


def write_delta(answer: Answer, created: int, text: str, *, is_first: bool) -> str:
    """One event of a stream: the text that is new."""
    delta: dict[str, str] = {"role": "assistant"} if is_first else {}
    delta["content"] = text
    return _chunk(answer, created, [{"index": 0, "delta": delta, "finish_reason": None}])


def write_end(answer: Answer, created: int, options: StreamOptions | None) -> str:
    """The last events of a stream: why it ended, the token counts if asked for, and the end mark."""
    end = _chunk(answer, created, [{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}])
    counts = _chunk(answer, created, [], usage=_usage(answer.completion))
    return end + (counts if options and options.include_usage else "") + DONE


def write_break(kind: str, message: str) -> str:
    """The event that tells a client in mid-stream that the answer will not be finished."""
    return _event(error_body(kind, message))


def _refuse_unsupported(request: ChatRequest) -> None:
    if request.n not in (None, 1):
        raise BadValue(f"n {request.n} is not supported; one answer is given to a request")
    given = (name for name, value in (request.model_extra or {}).items() if value is not None)
    unsupported = sorted(name for name in given if name not in HARMLESS)
    if unsupported:
        raise BadValue(f"not supported here: {', '.join(unsupported)}; leave it out")


def _envelope(answer: Answer, created: int, kind: str) -> dict[str, object]:
    return {"id": answer.completion_id, "object": kind, "created": created, "model": answer.version}


def _chunk(answer: Answer, created: int, choices: Sequence[object], usage: object = None) -> str:
    body = _envelope(answer, created, "chat.completion.chunk")
    body["choices"] = choices
    return _event({**body, "usage": usage} if usage else body)


def _event(body: object) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _how_drawn(answer: Answer) -> dict[str, object]:
    # OpenAI's format has no place for these, and whoever evaluates a policy needs them.
    drawn: dict[str, object] = {"version": answer.version, "finish_reason": answer.finish_reason}
    if answer.completion is not None:
        drawn["logprob_sum"] = answer.completion.logprob_sum
        drawn["num_tokens"] = len(answer.completion.token_ids)
        drawn["seed"] = answer.completion.sampling.seed
    return drawn


def _usage(completion: Completion | None) -> dict[str, int]:
    read = completion.num_prompt_tokens if completion else 0
    written = len(completion.token_ids) if completion else 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
