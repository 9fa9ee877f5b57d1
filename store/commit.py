"""How a group of commands becomes durable: decide, journal, commit, and only then answer.

The journal line is the fact. When the tables fail after it was written they are reopened and caught up from
the journal; when the journal fails nothing has happened and everybody in the group is told so.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import duckdb

from store.applying import apply_event
from store.errors import Busy, HeedError, NoSpace
from store.events import Event, to_json
from store.journal import Journal
from store.projection import Projection
from store.tables import Tables
from store.writer import Command, Decision

logger = logging.getLogger(__name__)

REPAIR_PAUSE_S = 1.0  # a full disk stays full for a while, and a repair reads every table
_REPAIRING = "the tables have to be repaired first; try the same again shortly"


class Memory(Protocol):
    """What is kept in memory beside the tables; called in the writer thread, before anyone is answered."""

    def apply(self, events: list[Event], first_seq: int) -> None:
        """These events are in the tables now."""

    def abandon(self) -> None:
        """What was decided since the last call will not happen."""

    def rebuild(self) -> None:
        """The tables were opened again and may hold more than was told."""


class _SpoiledError(Exception):
    """A command broke the transaction it shared with others; `__cause__` says how."""


@dataclass(slots=True)
class _Group:
    """What a transaction has come to so far: an outcome a command, and the events as journal bytes."""

    outcomes: list[tuple[Command, Decision[Any] | HeedError]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)


class GroupCommit:
    """Commits groups to one journal and one projection; called by the writer thread alone."""

    def __init__(self, journal: Journal, projection: Projection, memory: Memory) -> None:
        self.reopened = 0
        self.is_behind = False  # the journal holds events that the tables do not show yet
        self._journal = journal
        self._projection = projection
        self._memory = memory
        self._next_repair_at = 0.0  # monotonic seconds
        self._trouble: HeedError = Busy(_REPAIRING)

    def commit(self, commands: list[Command]) -> None:
        """Answer every command; when one breaks the shared transaction only its own caller fails."""
        if not self._is_ready(commands):
            return
        try:
            self._commit_together(commands)
        except _SpoiledError:
            for command in commands:
                self._commit_alone(command)

    def require_ready(self) -> None:
        """HeedError when the journal is broken or the tables lag behind it."""
        if self._journal.broken:
            raise HeedError(f"the store takes no more writes ({self._journal.broken}); restart Heed")
        if self.is_behind and not self._catch_up():
            raise self._trouble

    def _commit_alone(self, command: Command) -> None:
        if not self._is_ready([command]):
            return
        try:
            self._commit_together([command])
        except _SpoiledError as spoiled:
            logger.error("a write failed", exc_info=spoiled.__cause__)
            command.answer.set_exception(spoiled.__cause__ or spoiled)

    def _is_ready(self, commands: list[Command]) -> bool:
        """False, with everyone told, when nothing can be written now."""
        if self._journal.broken:
            why = f"the store takes no more writes ({self._journal.broken}); restart Heed"
            _refuse(commands, HeedError(why))
            return False
        if self.is_behind and (time.monotonic() < self._next_repair_at or not self._catch_up()):
            _refuse(commands, self._trouble)
            return False
        return True

    def _commit_together(self, commands: list[Command]) -> None:
        group = self._decide_all(commands)
        try:
            if group.encoded:
                self._journal.append(group.encoded)
        except HeedError as error:
            self._projection.rollback()
            self._memory.abandon()
            _refuse(commands, error)
            return
        try:
            self._projection.commit(self._journal.last_seq)
            self._memory.apply(group.events, self._journal.last_seq - len(group.events) + 1)
        except duckdb.Error:
            logger.exception("the tables failed after the journal was written; reopening them")
            self._answer_after_failure(group)
            return
        _answer(group)

    def _decide_all(self, commands: list[Command]) -> _Group:
        group = _Group()
        try:
            cursor = self._projection.begin()
            tables = Tables(cursor)
            for command in commands:
                if command.sees_tables:
                    tables.flush()
                group.outcomes.append((command, self._decide(command, cursor, tables, group)))
            tables.flush()
        except Exception as error:
            self._projection.rollback()
            self._memory.abandon()
            self.is_behind = self.is_behind or isinstance(error, duckdb.FatalException)
            raise _SpoiledError from error
        return group

    def _decide(
        self, command: Command, cursor: duckdb.DuckDBPyConnection, tables: Tables, group: _Group
    ) -> Decision[Any] | HeedError:
        try:
            decision = command.decide(cursor)
        except HeedError as error:
            return error
        lines = [to_json(event).encode() for event in decision.events]
        for seq, event in enumerate(decision.events, start=self._journal.last_seq + len(group.encoded) + 1):
            apply_event(tables, seq, event)
        group.encoded.extend(lines)
        group.events.extend(decision.events)
        return decision

    def _answer_after_failure(self, group: _Group) -> None:
        """The events are on disk: whoever brought some gets their answer once the tables show them."""
        caught_up = self._catch_up()
        for command, outcome in group.outcomes:
            if isinstance(outcome, HeedError):
                command.answer.set_exception(outcome)
            elif caught_up and outcome.events:
                command.answer.set_result(outcome.result)
            else:
                _refuse([command], Busy(_REPAIRING) if caught_up else self._trouble)

    def _catch_up(self) -> bool:
        self.is_behind = True
        try:
            self._projection.reopen()
            self._memory.rebuild()
        except (HeedError, duckdb.Error, OSError) as error:
            logger.exception("the tables could not be reopened")
            self._trouble = error if isinstance(error, NoSpace) else Busy(_REPAIRING)
            self._next_repair_at = time.monotonic() + REPAIR_PAUSE_S
            return False
        self.reopened += 1
        self.is_behind = False
        return True


def _answer(group: _Group) -> None:
    for command, outcome in group.outcomes:
        if isinstance(outcome, HeedError):
            command.answer.set_exception(outcome)
        else:
            command.answer.set_result(outcome.result)


def _refuse(commands: list[Command], error: HeedError) -> None:
    for command in commands:
        command.answer.set_exception(type(error)(*error.args))  # one each: a raised one collects tracebacks
