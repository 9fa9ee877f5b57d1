"""Starts a round in its own process, watches it, resumes it where it stopped, and takes what it brings.

The round process never opens the store: it gets a directory with a plan and a frozen snapshot and gives back
files. Whatever happens to it (crash, kill, hang, cancel) ends as a state and a sentence in the store; serving
goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from store.canary_rows import Canary
from store.database import Store
from store.errors import BadValue, HeedError, StateConflict
from store.policies import live_version, next_version
from store.records import RUNNING_STATES, Promotion, Round, RoundState
from store.rounds import advance_round, create_round, read_round, read_rounds
from trainer.adopting import copy_round, read_snapshot_report
from trainer.checkpoints import remove_work, where_it_stands
from trainer.curves import say_progress
from trainer.heartbeat import Pulse
from trainer.planner import explain, guards
from trainer.preparing import prepare
from trainer.report import describe_round
from trainer.resuming import check_may_resume, leave_for_later, note_resume, was_interrupted
from trainer.round_files import RoundFiles
from trainer.round_process import (
    RoundProcess,
    begin_round,
    explain_exit,
    signal_group,
    stop,
    warm_start,
)
from trainer.round_settings import Plan
from trainer.taking import take

logger = logging.getLogger(__name__)

TELL_EVERY_S = 60.0  # in the service's log; the round's own has more
# What a round says in progress.jsonl decides the state people see.
STATE_OF_STAGE: dict[str, RoundState] = {
    "prepare": "preparing",
    "sft": "training",
    "dpo": "training",
    "kto": "training",
    "evaluate": "evaluating",
}
SIGNS_OF_WORK = ("progress.jsonl", "log.txt", "round.json")


class RoundSupervisor:
    """One round at a time.

    `publish(candidate, version)` makes the files servable and returns the weights' sha256; `promote(version,
    actor, reason)` swaps the version in or puts it on trial; `adapter_of(version)` is its folder, None
    for v0. All are handed in: this room knows no engine. `files` reads what the rounds left.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        publish: Callable[[Path, str], str],
        promote: Callable[[str, str, str], Promotion | Canary],
        adapter_of: Callable[[str], Path | None],
    ) -> None:
        self._store = store
        self._plan = plan
        self._publish = publish
        self._promote = promote
        self._adapter_of = adapter_of
        self._lock = threading.Lock()
        self._process: RoundProcess | None = None
        self._warm = warm_start(plan.rounds, plan.base.model)
        self._cancelled_by: dict[str, str] = {}
        self._from_scratch: set[str] = set()
        self._watcher: threading.Thread | None = None
        self._is_closing = False
        self.files = RoundFiles(store)
        self._told = time.monotonic()

    def recover(self) -> list[str]:
        """After a restart: a round that was running died with the service. It goes on where it stopped; one
        that cannot is named, and keeps its directory. A verdict that is there is taken. Returns the ids of
        the rounds that were found running.
        """
        found = [r for r in read_rounds(self._store) if r.state in RUNNING_STATES]
        for each in found:
            if self.files.read_gate(each.round_id) is not None:
                self._start_watcher(each, lambda done: self.files.folder / done.round_id)
                continue
            try:
                self._check_may_resume(self.files.folder / each.round_id)
            except HeedError as error:
                reason = (
                    f"the service stopped while this round ran; its labels count for the next round ({error})"
                )
                self._finish(each.round_id, "interrupted", reason)
            else:
                self._start_watcher(each, self._resume)
        return [each.round_id for each in found]

    def tick(self) -> Round | None:
        """Start a round if the store says one is due."""
        why = explain(self._store, self._plan.triggers)
        if not why.starts:
            return None
        held = [c.name for c in why.conditions if c.kind == "trigger" and c.holds]
        return self.start(trigger=", ".join(held))

    def start(self, trigger: str, without: Sequence[str] = (), fresh: bool = False) -> Round:
        """Start a round now, without the labels of some people (their ids).

        A `fresh` one, and one without somebody, trains a new adapter on all labels whatever the settings say:
        the live adapter has learned from what is to be left out.

        StateConflict when one runs, BadValue when another guard fails, NotFound for an unknown person.
        """
        for guard in guards(self._store, self._plan.triggers):
            if not guard.holds:
                raise (StateConflict if guard.name == "none_running" else BadValue)(
                    f"no round was started: {guard.says}"
                )
        trigger = f"{trigger}, from scratch" if fresh else trigger
        started = create_round(self._store, trigger, live_version(self._store), without)
        if fresh or without:
            self._from_scratch.add(started.round_id)
        # The snapshot can take seconds: the watcher takes it, and the caller gets the queued round at once.
        self._start_watcher(started, self._prepare)
        return started

    def adopt(self, finished: Path, trigger: str) -> Round:
        """Take the candidate of a directory that a sweep left, as if a round had just brought it.

        StateConflict when another version is live by now than the one its gate compared it with.
        """
        plan, live = json.loads((finished / "round.json").read_text("utf-8")), live_version(self._store)
        if plan["parent"] != live:
            raise StateConflict(
                f"{finished.name} was compared with {plan['parent']}, and {live} is live by now; sweep again"
            )
        started = create_round(self._store, trigger, live)
        try:
            version, held = next_version(self._store), read_snapshot_report(finished)
            advance_round(
                self._store,
                started.round_id,
                "preparing",
                version=version,
                num_pairs=held.get("num_pairs"),
                num_ratings=held.get("num_ratings"),
                snapshot_seq=held.get("seq"),
            )
            directory = self.files.folder / started.round_id
            copy_round(finished, directory, started.round_id, version)
            self._take(started.round_id, directory, json.loads((directory / "gate.json").read_text("utf-8")))
        except Exception as error:
            self._finish(started.round_id, "failed", f"{type(error).__name__}: {error}")
            raise
        return read_round(self._store, started.round_id)

    def cancel(self, round_id: str, actor: str) -> Round:
        """Stop a running round. StateConflict when it is over already."""
        found = read_round(self._store, round_id)
        if found.state not in RUNNING_STATES:
            raise StateConflict(f"round {round_id} is already {found.state}; there is nothing to cancel")
        with self._lock:
            self._cancelled_by[round_id] = actor
            if self._process is not None:
                signal_group(self._process, signal.SIGINT)
        return found

    def close(self) -> None:
        """Stop the round process, if any, and wait until its end is recorded: it saves, to go on later."""
        self._is_closing = True
        with self._lock:
            if self._process is not None:
                signal_group(self._process, signal.SIGTERM)
        if self._watcher is not None:
            self._watcher.join(timeout=self._plan.rounds.stop_grace_s + 15)
        if self._warm is not None:
            self._warm.close()

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until the round that runs now is over."""
        if self._watcher is not None:
            self._watcher.join(timeout_s)

    def _start_watcher(self, started: Round, begin: Callable[[Round], Path]) -> None:
        self._watcher = threading.Thread(
            target=self._run, args=(started, begin), name=f"round-{started.round_id}", daemon=True
        )
        self._watcher.start()

    def _run(self, started: Round, begin: Callable[[Round], Path]) -> None:
        """The life of one round. Catches broadly: a round must always end as a state and a sentence."""
        try:
            directory = begin(started)
            code = 0 if self.files.read_gate(started.round_id) else self._watch(started.round_id, directory)
            while self._goes_on(started.round_id, directory, code):
                code = self._watch(started.round_id, directory)
            self._conclude(started.round_id, directory, code)
        except HeedError as error:
            self._finish(started.round_id, "failed", str(error))
        except Exception as error:
            logger.exception("round %s failed in the service", started.round_id)
            self._finish(started.round_id, "failed", f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._process = None

    def _check_resumes(self) -> None:
        if not self._plan.rounds.resume:
            raise BadValue("rounds.resume is off")

    def _check_may_resume(self, directory: Path) -> None:
        self._check_resumes()
        check_may_resume(directory, self._plan.rounds.max_resumes)

    def _resume(self, stopped: Round) -> Path:
        return self._note_resume(stopped.round_id, "the service was stopped while it ran")

    def _note_resume(self, round_id: str, why: str) -> Path:
        directory = self.files.folder / round_id
        says = note_resume(directory, why)
        advance_round(self._store, round_id, read_round(self._store, round_id).state, reason=says)
        logger.info("round %s: %s", round_id, says)
        return directory

    def _goes_on(self, round_id: str, directory: Path, code: int) -> bool:
        """Whether a process that ended is started again, which is then on record."""
        if self._is_stopped(round_id) or self.files.read_gate(round_id) or not was_interrupted(code):
            return False
        try:
            self._check_may_resume(directory)
        except HeedError as error:
            logger.info("round %s is not resumed: %s", round_id, error)
            return False
        self._note_resume(round_id, explain_exit(code, ()))
        return True

    def _prepare(self, started: Round) -> Path:
        directory = self.files.folder / started.round_id
        is_fresh = started.round_id in self._from_scratch
        prepare(self._store, self._plan, started, directory, self._adapter_of(started.parent), is_fresh)
        return directory

    def _watch(self, round_id: str, directory: Path) -> int:
        """Run the round process to its end; returns its exit code (negative: killed by that signal)."""
        with (directory / "log.txt").open("ab") as log, self._lock:
            if self._is_stopped(round_id):
                return -signal.SIGTERM
            self._process = begin_round(directory, self._plan.rounds, self._warm, log)
        process = self._process
        # Before its threads exist, so that they inherit it: serving comes first on shared cores.
        with contextlib.suppress(ProcessLookupError):  # it is over already; its exit code says why
            os.setpriority(os.PRIO_PROCESS, process.pid, self._plan.rounds.nice)
        logger.info("round %s runs as process %d", round_id, process.pid)
        grace_s = self._plan.rounds.stop_grace_s
        pulse = Pulse(self._plan.rounds.silence_limit_s, self._plan.rounds.slow_limit_s)
        while process.poll() is None:
            self._follow(round_id)
            if self._is_stopped(round_id):
                is_cancelled = round_id in self._cancelled_by
                stop(process, signal.SIGINT if is_cancelled else signal.SIGTERM, grace_s)
            elif fault := pulse.read(directory, SIGNS_OF_WORK, time.monotonic()):
                stop(process, signal.SIGINT, grace_s)
                raise StateConflict(fault)
            time.sleep(0.25)
        return process.returncode

    def _is_stopped(self, round_id: str) -> bool:
        return self._is_closing or round_id in self._cancelled_by

    def _follow(self, round_id: str) -> None:
        lines = self.files.read_progress(round_id)
        if lines and "step" in lines[-1] and time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            logger.info("round %s: %s", round_id, say_progress(lines[-1]))
        state = STATE_OF_STAGE.get(str(lines[-1].get("stage"))) if lines else None
        now = read_round(self._store, round_id).state
        # One that was resumed prepares and trains again, and stays as far as it was.
        if state is not None and RUNNING_STATES.index(state) > RUNNING_STATES.index(now):
            advance_round(self._store, round_id, state)

    def _conclude(self, round_id: str, directory: Path, code: int) -> None:
        actor = self._cancelled_by.get(round_id)
        if actor is not None:
            self._finish(round_id, "cancelled", f"cancelled by {actor}")
            return
        verdict = self.files.read_gate(round_id)
        if verdict is not None:  # it is the last thing a round writes: what it speaks of is there
            self._take(round_id, directory, verdict)
        elif self._is_closing and code != 0:
            self._leave_for_later(round_id, directory)
        else:
            self._finish(round_id, "failed", explain_exit(code, self.files.read_log(round_id, 200)))

    def _take(self, round_id: str, directory: Path, verdict: dict[str, Any]) -> None:
        done = read_round(self._store, round_id)
        state = take(self._store, done, directory, verdict, self._publish, self._promote)
        self._finish(round_id, state, str(verdict["reason"]))

    def _leave_for_later(self, round_id: str, directory: Path) -> None:
        """The service stops: the round stays a running one, which the next start resumes."""
        try:
            self._check_resumes()
            leave_for_later(directory)
        except HeedError as error:
            says = f"the service was stopped; its labels count for the next round ({error})"
            self._finish(round_id, "interrupted", says)
            return
        says = (
            f"the service was stopped; the round goes on from {where_it_stands(directory)} at the next start"
        )
        advance_round(self._store, round_id, read_round(self._store, round_id).state, reason=says)

    def _finish(self, round_id: str, state: RoundState, reason: str) -> None:
        advance_round(self._store, round_id, state, reason=reason)
        remove_work(self.files.folder / round_id)
        logger.info("round %s: %s (%s)", round_id, state, reason)
        describe_round(self.files.folder / round_id, state, reason)
