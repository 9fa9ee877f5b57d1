"""The one thread that writes: it takes whatever waits in the queue and commits it as one group.

A command brings a function `decide` that looks at the tables and says what shall be written. Because only
this thread decides, nobody can come between checking and writing. How a group becomes durable is `commit.py`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import duckdb

from store.errors import Busy, HeedError
from store.events import Event

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
GROUP_SIZE = 64
QUEUE_SIZE = 2048


@dataclass(frozen=True, slots=True)
class Decision(Generic[Result]):
    """What a command came to: the events to write (none: nothing new happened) and what its caller gets."""

    result: Result
    events: Sequence[Event] = ()


# Refuses with a HeedError before it changes anything. It may change `sessions` and `sign_in_links` directly,
# facts only through the events it returns. It may be called twice when its group is taken apart.
Decide = Callable[[duckdb.DuckDBPyConnection], Decision[Result]]


@dataclass(frozen=True, slots=True)
class Command:
    """One caller's wish and where they wait for the answer."""

    decide: Decide[Any]
    sees_tables: bool = True
    answer: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Alone:
    """Work for the writer's thread that is no transaction; everybody behind it waits."""

    act: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future)


class Writer:
    """Owns the thread and its bounded queue."""

    def __init__(self, commit: Callable[[list[Command]], None], *, queue_size: int = QUEUE_SIZE) -> None:
        self._commit = commit
        self._queue: queue.Queue[Command | Alone | None] = queue.Queue(queue_size)
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, decide: Decide[Result], *, sees_tables: bool = True) -> Result:
        """Wait until the command is decided and durable; Busy when too many wait already."""
        assert threading.current_thread() is not self._thread, (
            "a decision must not write through the store again"
        )
        answer: Future[Result] = self.send(decide, sees_tables=sees_tables)
        return answer.result()

    def send(self, decide: Decide[Result], *, sees_tables: bool = True) -> Future[Result]:
        """Queue the command without waiting for it."""
        return self._put(Command(decide, sees_tables))

    def run_alone(self, act: Callable[[], Result]) -> Result:
        """Run `act` in the writer's thread between two groups: nothing is written meanwhile."""
        answer: Future[Result] = self._put(Alone(act))
        return answer.result()

    def _put(self, wish: Command | Alone) -> Future[Any]:
        with self._closing:
            if self._closed:
                raise HeedError("the store is closed")
            try:
                self._queue.put_nowait(wish)
            except queue.Full:
                raise Busy(f"{self._queue.maxsize} writes are waiting; try again shortly") from None
        return wish.answer

    def num_waiting(self) -> int:
        """How many commands wait in the queue."""
        return self._queue.qsize()

    def close(self) -> None:
        """Finish what was queued, then end the thread."""
        with self._closing:
            already, self._closed = self._closed, True
        if not already:
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            group, last = self._take_group()
            commands: list[Command] = []
            for wish in group:
                if isinstance(wish, Command):
                    commands.append(wish)
                else:
                    self._commit_group(commands)
                    commands = []
                    _run_alone(wish)
            self._commit_group(commands)

    def _take_group(self) -> tuple[list[Command | Alone], bool]:
        """Everything that waits, up to a group, and whether the end was reached."""
        group: list[Command | Alone] = []
        wish = self._queue.get()
        while wish is not None:
            group.append(wish)
            if len(group) == GROUP_SIZE:
                return group, False
            try:
                wish = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit_group(self, group: list[Command]) -> None:
        if not group:
            return
        try:
            self._commit(group)
        except Exception as error:  # the thread must outlive anything, or every later caller waits for ever
            logger.exception("a group of %d writes failed", len(group))
            for command in group:
                if not command.answer.done():
                    command.answer.set_exception(error)


def _run_alone(work: Alone) -> None:
    try:
        work.answer.set_result(work.act())
    except Exception as error:  # the thread must outlive anything; the caller raises it again
        work.answer.set_exception(error)
