"""Samples completions ahead of time, so that no annotator waits: keeps enough open tasks of the live policy.

One thread submits many background requests and reads them in turn; the engine batches them. Pairs the live
policy is least sure of can be given the lowest `priority`, so that they are judged first. Knows no engine: it
is handed `sample` and `score`.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from serving.drafts import CutOff, Draft, cancel, drop, find_least_alike, read_completion, similarity
from store.database import Store
from store.policies import live_version
from store.prompts import choose_prompts
from store.records import BASE_VERSION, Chunk, Message, Prompt, Sampling, TaskKind
from store.tasks import add_task, count_open_tasks, retire_tasks

logger = logging.getLogger(__name__)


class Sample(Protocol):
    """`PolicyBoard.sample`. Its chunks can be closed from any thread, and then end as cancelled."""

    def __call__(
        self, name: str, messages: Sequence[Message], sampling: Sampling, background: bool = False
    ) -> Iterator[Chunk]: ...


class Score(Protocol):
    """`PolicyBoard.score`."""

    def __call__(
        self, name: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]
    ) -> list[float]: ...


Order = Literal["uncertain", "random"]


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How many open tasks to keep and how their completions are drawn.

    For a pair `candidates` completions are drawn and the two least alike are kept; from a share of equal text
    of `similarity` on they count as the same, and more are drawn. `in_flight` tasks are written at a time;
    `wanted` is the number of judgements a task asks for. With `order` uncertain the pairs whose implicit
    rewards differ least come first; with random all pairs have the same priority.
    """

    ready_pairs: int = 32
    ready_singles: int = 8
    temperature: float = 0.5  # what is drawn sharper than the policy speaks teaches it to speak sharper
    top_p: float = 1.0
    max_tokens: int = 256
    candidates: int = (
        4  # with 2, up to 40 of 100 pairs of the starter differed in nothing the taste could tell
    )
    in_flight: int = 8
    max_tries: int = 6
    similarity: float = 0.88
    wanted: int = 1
    order: Order = "random"
    poll_s: float = 5.0
    max_backoff_s: float = 60.0

    def __post_init__(self) -> None:
        Sampling(self.temperature, self.top_p, self.max_tokens)  # refuses what cannot be sampled with
        for name, least in (
            ("ready_pairs", 0),
            ("ready_singles", 0),
            ("candidates", 2),
            ("in_flight", 1),
            ("max_tries", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} must be at least {least}")
        if self.order not in get_args(Order):
            raise ValueError(f"order {self.order!r} is not one of {', '.join(get_args(Order))}")
        if not 0.0 < self.similarity <= 1.0:
            raise ValueError(f"similarity {self.similarity} is outside (0, 1]")


@dataclass(slots=True)
class RolloutCounts:
    """What the filler has done since it began, for the metrics."""

    pairs: int = 0
    singles: int = 0
    empty: int = 0
    similar: int = 0
    skipped_prompts: int = 0
    retired: int = 0
    failures: int = 0


class RolloutFiller:
    """Keeps `ready_pairs` and `ready_singles` open tasks of the live policy in the store.

    `score` and `beta`, that of the training loss, are for pairs in the order of uncertainty.
    """

    def __init__(
        self,
        store: Store,
        sample: Sample,
        settings: RolloutSettings | None = None,
        *,
        score: Score | None = None,
        beta: float = 1.0,
    ) -> None:
        self.counts = RolloutCounts()
        self._store = store
        self._sample = sample
        self._score = score
        self._beta = beta
        self._settings = settings or RolloutSettings()
        self.writing: TaskKind | None = None  # what kind of task is being written right now
        self._version: str | None = None
        self._hopeless: set[str] = set()  # prompts this version answers the same way every time
        # The clock keeps a restart from drawing the very same completions again.
        self._seeds = (seed_of(time.time_ns(), count) for count in itertools.count())
        self._running: deque[Draft] = deque()
        self._is_stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Fill in a thread until `stop`."""
        self._is_stopping.clear()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; completions being written are cancelled and dropped."""
        self._is_stopping.set()
        self._wake.set()
        for draft in [*self._running]:
            cancel(draft)
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """Look now: a task was taken, prompts came in, or another version went live."""
        self._wake.set()

    def fill(self) -> int:
        """Bring the open tasks up to the wanted number, once; returns how many were made."""
        self._follow_live()
        missing_pairs = self._settings.ready_pairs - count_open_tasks(self._store, "pair")
        made = self._make_tasks("pair", missing_pairs)
        missing_singles = self._settings.ready_singles - count_open_tasks(self._store, "single")
        return made + self._make_tasks("single", missing_singles)

    def _run(self) -> None:
        backoff_s = 1.0
        while not self._is_stopping.is_set():
            try:
                self.fill()
            except Exception:
                # A thread that nobody watches must neither die nor be silent.
                self.counts.failures += 1
                logger.exception("rollouts failed; next try in %.0f s", backoff_s)
                self._is_stopping.wait(backoff_s)
                backoff_s = min(2 * backoff_s, self._settings.max_backoff_s)
            else:
                backoff_s = 1.0
                self._wake.wait(self._settings.poll_s)
                self._wake.clear()

    def _follow_live(self) -> None:
        """After a promotion, unjudged tasks of older versions are off-policy: close them."""
        version = live_version(self._store)
        if version == self._version:
            return
        retired = retire_tasks(self._store, version_kept=version)
        self.counts.retired += retired
        self._hopeless.clear()
        self._version = version
        logger.info("rollouts come from policy %s now; %d older tasks were closed", version, retired)

    def _make_tasks(self, kind: TaskKind, num_missing: int) -> int:
        if num_missing <= 0:
            return 0
        waiting = deque(Draft(prompt, kind) for prompt in self._choose(num_missing))
        running = self._running
        made = 0
        self.writing = kind if waiting else None
        try:
            while (waiting or running) and not self._must_stop():
                while waiting and len(running) < self._settings.in_flight:
                    running.append(waiting.popleft())
                    self._submit(running[-1])
                self._collect(running[0])
                draft = running.popleft()
                if draft.kept:
                    made += self._save(draft)
                elif self._has_hope(draft):
                    running.append(draft)
                    self._submit(draft)
        except CutOff:
            if not self._is_stopping.is_set():
                raise
        finally:
            self.writing = None
            drop(running)
            running.clear()
        return made

    def _must_stop(self) -> bool:
        """What is being written is off-policy as soon as another version is live."""
        return self._is_stopping.is_set() or live_version(self._store) != self._version

    def _choose(self, number: int) -> list[Prompt]:
        # Prompts given up on have the fewest tasks, so they would come back first: ask for that many more.
        chosen = choose_prompts(self._store, number + len(self._hopeless), seed=next(self._seeds))
        return [prompt for prompt in chosen if prompt.prompt_id not in self._hopeless][:number]

    def _submit(self, draft: Draft) -> None:
        assert self._version is not None
        settings = self._settings
        is_first_pair = draft.kind == "pair" and not draft.num_tries
        for _ in range(settings.candidates if is_first_pair else 1):
            seed = next(self._seeds)
            sampling = Sampling(settings.temperature, settings.top_p, settings.max_tokens, seed)
            chunks = self._sample(self._version, draft.prompt.messages, sampling, background=True)
            draft.pending.append((sampling, chunks))
            if self._is_stopping.is_set():  # `stop` may have looked at this draft before
                cancel(draft)
        draft.num_tries += 1

    def _collect(self, draft: Draft) -> None:
        """Wait for what the draft has asked for, and keep what makes a task."""
        while draft.pending:
            completion = read_completion(draft.prompt, *draft.pending[0])
            del draft.pending[0]
            if not completion.text.strip():
                self.counts.empty += 1
            else:
                draft.drawn.append(completion)
        if draft.kind == "single":
            draft.kept = draft.drawn[:1]
        elif len(draft.drawn) > 1:
            pair = find_least_alike(draft.drawn)
            if similarity(*pair) < self._settings.similarity:
                draft.kept = pair
            else:
                self.counts.similar += 1

    def _has_hope(self, draft: Draft) -> bool:
        if draft.num_tries < self._settings.max_tries:
            return True
        self._hopeless.add(draft.prompt.prompt_id)
        self.counts.skipped_prompts += 1
        logger.warning(
            "prompt %s was skipped: policy %s gave no %s of distinct answers in %d tries",
            draft.prompt.prompt_id,
            self._version,
            draft.kind,
            draft.num_tries,
        )
        return False

    def _save(self, draft: Draft) -> int:
        add_task(
            self._store,
            draft.kind,
            draft.prompt.prompt_id,
            draft.kept,
            wanted=self._settings.wanted,
            priority=self._find_priority(draft),
        )
        if draft.kind == "pair":
            self.counts.pairs += 1
        else:
            self.counts.singles += 1
        return 1

    def _find_priority(self, draft: Draft) -> float:
        """How sure the live policy is of a pair, 0 being not at all: |r(first) - r(second)| of its rewards.

        The implicit reward of an answer is beta * (log pi(y|x) - log pi_ref(y|x)), as in the DPO paper; the
        reference is the base. What the base itself writes has a margin of 0 by definition.
        """
        is_wanted = self._settings.order == "uncertain" and draft.kind == "pair"
        if not is_wanted or self._score is None or self._version == BASE_VERSION:
            return 0.0
        base = self._score(
            BASE_VERSION, draft.prompt.messages, [completion.token_ids for completion in draft.kept]
        )
        first, second = (
            completion.logprob_sum - reference for completion, reference in zip(draft.kept, base, strict=True)
        )
        return abs(self._beta * (first - second))


def seed_of(start: int, count: int) -> int:
    """The `count`-th seed of a run that began at `start`: 31 bits, as every client and column can hold."""
    return int.from_bytes(hashlib.sha256(f"{start}:{count}".encode()).digest()[:4], "big") >> 1
