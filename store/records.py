"""The nouns: frozen records that pass between folders. No I/O, no torch, nothing of ours imported.

`left` and `right` exist only on the screen; here a pair is `first` and `second` (the order in which it was
sampled) and, once judged, chosen and rejected. Times are UTC. Ids are made by the store, never by a person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypedDict

Role = Literal["annotator", "tester", "admin"]
TaskKind = Literal["pair", "single"]
Choice = Literal["prefer", "tie", "both_bad", "skip", "up", "down"]
# label: wanted for training; repeat: one person's earlier task again, sides swapped; chat: made in a chat
Purpose = Literal["label", "repeat", "chat"]
Split = Literal["train", "holdout"]
FinishReason = Literal["stop", "length", "cancelled"]
PolicyState = Literal["candidate", "live", "retired", "rejected", "failed"]
RoundState = Literal[
    "queued",
    "preparing",
    "training",
    "evaluating",
    "promoted",
    "canary",
    "rejected",
    "failed",
    "cancelled",
    "interrupted",
]
STRENGTHS = (1, 2, 3)
MOST_STOPS = 4  # as many as OpenAI's API takes
RUNNING_STATES: tuple[RoundState, ...] = ("queued", "preparing", "training", "evaluating")
BASE_VERSION = "v0"  # "no adapter": the base model itself, always a valid target of a rollback


class Message(TypedDict):
    """One chat message, as the chat template and the HTTP API take it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is drawn. `temperature` 0 is greedy; `seed` fixes the draw for this request alone.

    The answer ends before the first of the `stop` texts that appears in it, at most MOST_STOPS of them.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 5.0:
            raise ValueError(f"temperature {self.temperature} is outside 0..5")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p {self.top_p} is outside (0, 1]")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens {self.max_tokens} must be at least 1")
        if len(self.stop) > MOST_STOPS or "" in self.stop:
            raise ValueError(f"stop {list(self.stop)} must be at most {MOST_STOPS} texts, none of them empty")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One written token: its text, its log-prob in nats under the raw logits, and the likeliest tokens there.

    `top` is (text, log-prob), the likeliest first; the written one need not be among them.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer as it is generated.

    `text` is what is new since the last chunk, `logprobs` its tokens when they were asked for. While a
    request waits for a slot, chunks without text tell its `place` in the queue, 1 being next.
    `finish_reason` is set on the last chunk only, which carries the whole answer too: `token_ids` (with the
    end token when the model wrote one), `logprob_sum` (nats, over `token_ids`, under the raw logits of
    `version` before temperature and top-p), `num_prompt_tokens`, and `num_left_out`: how many of the oldest
    messages did not fit the context and were not read.
    """

    text: str
    version: str
    finish_reason: FinishReason | None = None
    token_ids: tuple[int, ...] = ()
    logprob_sum: float = 0.0
    num_prompt_tokens: int = 0
    num_left_out: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who signs in. `active` is False once an admin has deactivated them.

    `trained_on` is False while an admin leaves this person's labels out of rounds; the labels stay.
    """

    person_id: str
    name: str
    role: Role
    active: bool
    created_at: datetime
    trained_on: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: a message list that ends with the user, with where it came from."""

    prompt_id: str
    messages: tuple[Message, ...]
    source: str
    tags: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer, stamped with the policy version that wrote it and how it was drawn.

    `messages` is the whole context it was asked in; the oldest `num_left_out` of them (system messages not
    counted) did not fit the model's context. `prompt_id` is None for chat, `conversation_id` for rollouts.
    """

    completion_id: str
    messages: tuple[Message, ...]
    text: str
    version: str
    sampling: Sampling
    token_ids: tuple[int, ...]
    logprob_sum: float
    finish_reason: FinishReason
    num_prompt_tokens: int
    created_at: datetime
    prompt_id: str | None = None
    conversation_id: str | None = None
    person_id: str | None = None
    num_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """Something to judge: a pair (two completions) or a single one, wanted `wanted` times.

    Lower `priority` is handed out first. A repeat asks `only_for` again what they said of `repeat_of`; it is
    wanted once, never trained on, and shows that person the two sides swapped.
    """

    task_id: str
    kind: TaskKind
    prompt_id: str
    completion_ids: tuple[str, ...]
    version: str
    wanted: int
    created_at: datetime
    purpose: Purpose = "label"
    priority: float = 0.0
    repeat_of: str | None = None
    only_for: str | None = None

    def __post_init__(self) -> None:
        expected = 2 if self.kind == "pair" else 1
        if len(set(self.completion_ids)) != expected:
            raise ValueError(f"task {self.task_id}: a {self.kind} needs {expected} distinct completions")


@dataclass(frozen=True, slots=True)
class Lease:
    """An annotator's short hold on a task. `left_id` was drawn for the left side (None for a single)."""

    lease_id: str
    task: Task
    person_id: str
    left_id: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Judgement:
    """One annotator's act on a task; append-only. `undone` is True once a later event took it back.

    `prefer` carries `chosen_id`, `rejected_id` and `strength` (1 slightly, 2 better, 3 much better on a scale
    of seven; 1 and 2 on one of five); the other choices carry neither. `unsafe_ids` are the completions this
    person flagged as unsafe. `active_ms` is the time the page was in use, in milliseconds.
    """

    judgement_id: str
    task_id: str
    person_id: str
    choice: Choice
    created_at: datetime
    chosen_id: str | None = None
    rejected_id: str | None = None
    left_id: str | None = None
    strength: int = 0
    reasons: tuple[str, ...] = ()
    comment: str = ""
    correction: str | None = None
    active_ms: int | None = None
    unsafe_ids: tuple[str, ...] = ()
    undone: bool = False

    def __post_init__(self) -> None:
        if self.choice != "prefer":
            return
        if not self.chosen_id or not self.rejected_id or self.chosen_id == self.rejected_id:
            raise ValueError(
                f"judgement {self.judgement_id}: chosen and rejected must be two different completions"
            )
        if self.strength not in STRENGTHS:
            raise ValueError(f"judgement {self.judgement_id}: strength {self.strength} is not 1, 2 or 3")


@dataclass(frozen=True, slots=True)
class Rating:
    """A tester's thumb on one completion: 1 desirable, -1 undesirable, 0 retracted; the newest counts."""

    rating_id: str
    completion_id: str
    person_id: str
    value: Literal[-1, 0, 1]
    created_at: datetime
    reasons: tuple[str, ...] = ()
    comment: str = ""
    correction: str | None = None


@dataclass(frozen=True, slots=True)
class Adjudication:
    """An admin's verdict on a task people could not agree on; the newest of a task supersedes their votes.

    A newest one with the choice `skip` takes the verdict back: the votes hold again.
    """

    adjudication_id: str
    task_id: str
    person_id: str
    choice: Choice
    created_at: datetime
    chosen_id: str | None = None
    rejected_id: str | None = None
    strength: int = 0
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Gold:
    """The known answer of a task that is slipped in silently to measure people; never trained on.

    `source` says where the answer comes from: unanimous, adjudicated, imported or an admin's name.
    """

    task_id: str
    choice: Choice
    chosen_id: str | None
    source: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Guidelines:
    """What annotators are asked to do, in Markdown. Versions count from 1; the newest holds."""

    version: int
    text: str
    actor: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OutsideLabel:
    """A label nobody gave here: imported, an AI judge's, or synthetic. `source` is e.g. `import:hh-rlhf`.

    A pair has `chosen` and `rejected`; a rating has `chosen` (the answer) and `desirable`. `annotator` is
    whatever pseudonym the source gives. `task_id` is set when it is about a task of ours. `extra` keeps the
    fields of the source that we have no column for.
    """

    label_id: str
    kind: Literal["pair", "rating"]
    source: str
    messages: tuple[Message, ...]
    chosen: str
    created_at: datetime
    rejected: str | None = None
    desirable: bool | None = None
    strength: int = 1
    weight: float = 1.0
    annotator: str = ""
    task_id: str | None = None
    split: Split | None = None
    extra: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind == "pair" and (self.rejected is None or self.desirable is not None):
            raise ValueError(f"outside label {self.label_id}: a pair has chosen and rejected only")
        if self.kind == "rating" and (self.rejected is not None or self.desirable is None):
            raise ValueError(f"outside label {self.label_id}: a rating has one answer and desirable")


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """What an AI judge said of a pair of ours, asked in both orders; `source` is `judge:<model>`.

    `first` and `second` name the better completion; a judge that changes its mind with the order says `tie`.
    `unreadable`: a reply was none of those asked for. `failed`: an order got no reply, so it may be asked
    again. `replies` are the raw texts in the two orders, `num_calls` every request sent for this pair.
    """

    task_id: str
    source: str
    content_sha256: str
    verdict: Literal["first", "second", "tie", "unreadable", "failed"]
    replies: tuple[str, ...]
    num_calls: int
    created_at: datetime
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PairRow:
    """A preference pair as a round trains on it: the very token ids the policy sampled; one row a task.

    `probability` is P(chosen beats rejected), `source` human, edit, adjudicated or an outside label's. The
    people and labels behind it are empty where nobody here gave it. `opening` is the digest of what was asked
    first, also when the model could no longer read it; both it and `conversation_id` may be empty. The
    log-probs are those of the versions that sampled the answers (nats), None where nobody sampled them.
    """

    row_id: str
    prompt_id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_version: str
    rejected_version: str
    strength: int
    weight: float
    person_ids: tuple[str, ...]
    label_ids: tuple[str, ...]
    source: str
    probability: float
    created_at: datetime
    conversation_id: str = ""
    opening: str = ""
    chosen_logprob: float | None = None
    rejected_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class RatingRow:
    """One answer with a desirable / undesirable label as a round trains on it; fields as in PairRow."""

    row_id: str
    prompt_id: str
    messages: tuple[Message, ...]
    completion: str
    completion_ids: tuple[int, ...]
    version: str
    desirable: bool
    weight: float
    person_ids: tuple[str, ...]
    label_ids: tuple[str, ...]
    source: str
    created_at: datetime
    conversation_id: str = ""
    opening: str = ""
    completion_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy version in the registry. `round_id` and `weights_sha256` are None for `v0`."""

    version: str
    state: PolicyState
    parent: str | None
    round_id: str | None
    weights_sha256: str | None
    created_at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A row of the append-only history; the newest says what is live."""

    version: str
    previous: str
    kind: Literal["promote", "rollback"]
    actor: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Round:
    """One round as the store knows it; the directory `rounds/<round_id>` holds the rest.

    `without` are the people whose labels this round alone leaves out.
    """

    round_id: str
    state: RoundState
    trigger: str
    parent: str
    version: str | None
    num_pairs: int
    num_ratings: int
    reason: str
    created_at: datetime
    finished_at: datetime | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange of a conversation: the completion and this person's newest thumb on it."""

    completion: Completion
    rating: Literal[-1, 0, 1]


@dataclass(frozen=True, slots=True)
class Condition:
    """One line of "why does a round start or not", with its value, threshold and verdict."""

    name: str
    kind: Literal["trigger", "guard"]
    value: float | str | None
    threshold: float | str | None
    holds: bool
    says: str


@dataclass(frozen=True, slots=True)
class Why:
    """Whether a round starts now, and every condition behind the answer."""

    starts: bool
    conditions: tuple[Condition, ...] = field(default_factory=tuple)
