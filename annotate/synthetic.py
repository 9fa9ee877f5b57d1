"""Synthetic pairs: a policy answers under a good and a bad system prompt; the good answer is the chosen.

The two system prompts are not part of what is stored: the policy is to answer well without being told. Both
answers are drawn with the same seed, so where a system prompt changes nothing (some chat templates drop it)
the answers are equal and the pair is left out, rather than being a coin toss. Runs beside everything else in
the background.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from annotate.text import limit
from store.clock import utc
from store.database import Store
from store.errors import BadValue, HeedError, StateConflict
from store.outside import add_outside_labels
from store.prompts import choose_prompts
from store.records import Chunk, Message, OutsideLabel, Prompt, Sampling

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MOST_SYSTEM_CHARS = 4000
IN_FLIGHT = 8
CLOSE_S = 10.0


class Sample(Protocol):
    """Asks a version in the background and gives its answer in pieces."""

    def __call__(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Iterator[Chunk]: ...


@dataclass(frozen=True, slots=True)
class SyntheticOrder:
    """What is wanted: `num` prompts answered by `model` under both system prompts, as `synthetic:<name>`."""

    name: str
    good: str
    bad: str
    num: int
    model: str = "live"
    temperature: float = 0.8
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BadValue(f"name {self.name!r} must be 1 to 64 of a-z, 0-9, dot, dash and underscore")
        for what, text in (("good", self.good), ("bad", self.bad)):
            if not limit(text, MOST_SYSTEM_CHARS, f"the {what} system prompt").strip():
                raise BadValue(f"the {what} system prompt is empty")
        if self.good == self.bad:
            raise BadValue("the good and the bad system prompt are the same")
        if self.num < 1:
            raise BadValue(f"num {self.num} must be at least 1")
        Sampling(self.temperature, 1.0, self.max_tokens)

    @property
    def source(self) -> str:
        """What the pairs are stamped with."""
        return f"synthetic:{self.name}"


@dataclass(frozen=True, slots=True)
class SyntheticRun:
    """How far an order is: `prompts` were chosen, `done` are answered, and what came of those."""

    source: str
    prompts: int
    done: int = 0
    added: int = 0
    known: int = 0
    identical: int = 0
    empty: int = 0
    unfinished: int = 0
    started_at: datetime | None = None
    is_running: bool = True
    ended: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt whose two answers are being written."""

    prompt: Prompt
    sampling: Sampling
    good: Iterator[Chunk]
    bad: Iterator[Chunk]


class SyntheticDesk:
    """One order at a time, in a thread of its own."""

    def __init__(self, store: Store, sample: Sample) -> None:
        self._store = store
        self._sample = sample
        self._lock = threading.Lock()  # guards _run
        self._run: SyntheticRun | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, order: SyntheticOrder) -> SyntheticRun:
        """Begin in the background. StateConflict while another order runs, BadValue without prompts."""
        prompts = choose_prompts(self._store, order.num, seed=secrets.randbelow(2**31))
        if not prompts:
            raise BadValue("there are no prompts to answer; add some first")
        with self._lock:
            if self._run is not None and self._run.is_running:
                raise StateConflict(f"{self._run.source} is being made; wait for it or cancel it")
            self._run = begun = SyntheticRun(order.source, len(prompts), started_at=utc())
            self._stopping.clear()
        self._thread = threading.Thread(
            target=self._work, args=(order, prompts), name="synthetic-pairs", daemon=True
        )
        self._thread.start()
        return begun

    def cancel(self) -> SyntheticRun:
        """Ask nothing more; the pairs made so far stay. StateConflict when nothing is being made."""
        run = self.read_run()
        if run is None or not run.is_running:
            raise StateConflict("no synthetic pairs are being made")
        self._stop("cancelled")
        return run

    def read_run(self) -> SyntheticRun | None:
        """The order in the making or the last one; None before the first since the start."""
        with self._lock:
            return self._run

    def close(self) -> None:
        """Stop, and wait a moment for what is being saved."""
        self._stop("the service was stopped")
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _work(self, order: SyntheticOrder, prompts: Sequence[Prompt]) -> None:
        try:
            self._make(order, prompts)
        except Exception as error:
            # Nobody waits for this thread: without a record the order would seem to go on for ever.
            logger.exception("synthetic pairs %s failed", order.source)
            self._stop(f"it failed: {error}")
        with self._lock:
            assert self._run is not None
            self._run = replace(self._run, is_running=False, ended=self._run.ended or describe_end(self._run))
            logger.info("synthetic pairs ended: %s", self._run)

    def _make(self, order: SyntheticOrder, prompts: Sequence[Prompt]) -> None:
        waiting = deque(prompts)
        asked: deque[_Asked] = deque()
        while (waiting or asked) and not self._stopping.is_set():
            while waiting and len(asked) < IN_FLIGHT:
                asked.append(self._ask(order, waiting.popleft()))
            self._settle(order, asked.popleft())

    def _ask(self, order: SyntheticOrder, prompt: Prompt) -> _Asked:
        sampling = Sampling(order.temperature, 1.0, order.max_tokens, secrets.randbelow(2**31))
        good, bad = (
            self._sample(order.model, under(system, prompt.messages), sampling)
            for system in (order.good, order.bad)
        )
        return _Asked(prompt, sampling, good, bad)

    def _settle(self, order: SyntheticOrder, asked: _Asked) -> None:
        """Read both answers to their ends and save the pair, or count why it is none."""
        (chosen, ended), (rejected, other_ended) = read_answer(asked.good), read_answer(asked.bad)
        if not chosen.text.strip() or not rejected.text.strip():
            self._count(empty=1)
        elif not (ended and other_ended):
            self._count(unfinished=1)
        elif chosen.text.strip() == rejected.text.strip():
            self._count(identical=1)
        else:
            label = write_label(order, asked, chosen, rejected)
            saved = add_outside_labels(self._store, [label])
            self._count(added=saved.added, known=saved.known)

    def _count(self, **more: int) -> None:
        with self._lock:
            assert self._run is not None
            counts = {name: getattr(self._run, name) + number for name, number in more.items()}
            self._run = replace(self._run, done=self._run.done + 1, **counts)

    def _stop(self, why: str) -> None:
        with self._lock:
            if self._run is not None and self._run.is_running and not self._run.ended:
                self._run = replace(self._run, ended=why)
        self._stopping.set()


def under(system: str, messages: Sequence[Message]) -> list[Message]:
    """The messages with a system prompt before them, in one message with their own if they have one."""
    own = [message["content"] for message in messages[:1] if message["role"] == "system"]
    first = Message(role="system", content="\n\n".join([system, *own]))
    return [first, *messages[len(own) :]]


def read_answer(chunks: Iterator[Chunk]) -> tuple[Chunk, bool]:
    """The whole answer as one chunk, and whether it came to its own end. HeedError when it was cut off."""
    read = list(chunks)
    last = read[-1] if read else None
    if last is None or last.finish_reason is None or last.finish_reason == "cancelled":
        raise HeedError("an answer was cut off")
    whole = replace(last, text="".join(chunk.text for chunk in read))
    return whole, last.finish_reason == "stop"


def write_label(order: SyntheticOrder, asked: _Asked, chosen: Chunk, rejected: Chunk) -> OutsideLabel:
    """The pair as it is kept: the prompt's own messages, and how it came about beside it."""
    return OutsideLabel(
        label_id="",
        kind="pair",
        source=order.source,
        messages=asked.prompt.messages,
        chosen=chosen.text,
        created_at=utc(),
        rejected=rejected.text,
        extra={
            "prompt_id": asked.prompt.prompt_id,
            "good": order.good,
            "bad": order.bad,
            "version": chosen.version,
            "rejected_version": rejected.version,
            "temperature": order.temperature,
            "seed": asked.sampling.seed,
        },
    )


def describe_end(run: SyntheticRun) -> str:
    """Why an order that nobody stopped is at its end."""
    if run.identical == run.done:
        return (
            "all prompts are answered, each the same way under both system prompts: the model's chat template"
            " may leave system messages out"
        )
    return "all prompts are answered"
