"""Starts a round in its own process, watches it and takes what it brings: publish, promote or reject.

The round process never opens the store: it gets a directory with a plan and a frozen snapshot and gives back
files. Whatever happens to it (crash, kill, hang, cancel) ends as a state and a sentence in the store; serving
goes on.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.canary_rows import Canary
from store.database import Store
from store.effective import QualitySettings
from store.errors import BadValue, HeedError, StateConflict
from store.policies import add_policy, live_version, mark_policy, next_version
from store.records import RUNNING_STATES, Promotion, Round
from store.rounds import advance_round, create_round, read_round, read_rounds
from store.snapshots import write_snapshot
from trainer.planner import TriggerSettings, explain, guards
from trainer.round_process import RoundProcess, begin_round, explain_exit, signal_group, stop, warm_start
from trainer.settings import BaseModel, GateSettings, TrainerSettings

logger = logging.getLogger(__name__)

# What a round says in progress.jsonl decides the state people see.
STATE_OF_STAGE = {"prepare": "preparing", "dpo": "training", "kto": "training", "evaluate": "evaluating"}


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """How the round process is run. `launch` is put before the command (`torchrun --nproc_per_node 2` …).

    `warm` keeps a process with the training libraries loaded, which forks the rounds; not behind a `launch`.
    """

    threads: int = 1
    nice: int = 10
    holdout_share: float = 0.1
    silence_limit_s: float = 1800.0
    stop_grace_s: float = 15.0
    launch: tuple[str, ...] = ()
    warm: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1 or not 0 <= self.nice <= 19:
            raise ValueError(f"threads {self.threads} must be at least 1 and nice {self.nice} within 0..19")
        if not 0.0 <= self.holdout_share <= 0.5:
            raise ValueError(f"holdout_share {self.holdout_share} is outside 0..0.5")
        if self.silence_limit_s <= 0 or self.stop_grace_s <= 0:
            raise ValueError("silence_limit_s and stop_grace_s must be positive")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a round needs besides the labels: one record a section of round.json."""

    base: BaseModel
    trainer: TrainerSettings
    gate: GateSettings
    triggers: TriggerSettings
    rounds: RoundSettings
    quality: QualitySettings = field(default_factory=QualitySettings)


class RoundSupervisor:
    """One round at a time.

    `publish(candidate, version)` makes the files servable and returns the weights' sha256; `promote(version,
    actor, reason)` swaps the version in or puts it on trial; `adapter_of(version)` is its folder, None
    for v0. All are handed in: this room knows no engine.
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
        self._watcher: threading.Thread | None = None
        self._is_closing = False

    @property
    def folder(self) -> Path:
        """Where the rounds' directories are."""
        return self._store.data_dir / "rounds"

    def recover(self) -> list[str]:
        """After a restart: a round that was running died with the service; say so and keep its directory."""
        interrupted = [r.round_id for r in read_rounds(self._store) if r.state in RUNNING_STATES]
        for round_id in interrupted:
            reason = "the service stopped while this round ran; its labels count for the next round"
            advance_round(self._store, round_id, "interrupted", reason=reason)
            logger.warning("round %s: %s", round_id, reason)
        return interrupted

    def tick(self) -> Round | None:
        """Start a round if the store says one is due."""
        why = explain(self._store, self._plan.triggers)
        if not why.starts:
            return None
        held = [c.name for c in why.conditions if c.kind == "trigger" and c.holds]
        return self.start(trigger=", ".join(held))

    def start(self, trigger: str, without: Sequence[str] = ()) -> Round:
        """Start a round now, without the labels of some people (their ids).

        StateConflict when one runs, BadValue when another guard fails, NotFound for an unknown person.
        """
        for guard in guards(self._store, self._plan.triggers):
            if not guard.holds:
                raise (StateConflict if guard.name == "none_running" else BadValue)(
                    f"no round was started: {guard.says}"
                )
        started = create_round(self._store, trigger, live_version(self._store), without)
        # The snapshot can take seconds: the watcher takes it, and the caller gets the queued round at once.
        self._watcher = threading.Thread(
            target=self._run, args=(started,), name=f"round-{started.round_id}", daemon=True
        )
        self._watcher.start()
        return started

    def cancel(self, round_id: str, actor: str) -> Round:
        """Stop a running round. StateConflict when it is over already."""
        found = read_round(self._store, round_id)
        if found.state not in RUNNING_STATES:
            raise StateConflict(f"round {round_id} is already {found.state}; there is nothing to cancel")
        with self._lock:
            self._cancelled_by[round_id] = actor
            if self._process is not None:
                signal_group(self._process, signal.SIGTERM)
        return found

    def close(self) -> None:
        """Stop the round process, if any, and wait until its end is recorded."""
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

    def read_progress(self, round_id: str) -> list[dict[str, object]]:
        """The round's progress lines so far, in order. A line still being written is left for next time."""
        path = self._directory_of(round_id) / "progress.jsonl"
        if not path.exists():
            return []
        whole, _, _ = path.read_text("utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def read_gate(self, round_id: str) -> dict[str, object] | None:
        """gate.json, or None until there is a verdict."""
        path = self._directory_of(round_id) / "gate.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def read_log(self, round_id: str, lines: int) -> list[str]:
        """The last `lines` lines of the round's log."""
        path = self._directory_of(round_id) / "log.txt"
        return path.read_text("utf-8", errors="replace").splitlines()[-lines:] if path.exists() else []

    def _directory_of(self, round_id: str) -> Path:
        read_round(self._store, round_id)  # NotFound, so that no text from outside becomes a path
        return self.folder / round_id

    def _run(self, started: Round) -> None:
        """The life of one round. Catches broadly: a round must always end as a state and a sentence."""
        try:
            directory = self._prepare(started)
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

    def _prepare(self, started: Round) -> Path:
        round_id = started.round_id
        advance_round(self._store, round_id, "preparing")
        directory = self.folder / round_id
        directory.mkdir(parents=True)
        snapshot = write_snapshot(
            self._store,
            directory / "snapshot",
            holdout_share=self._plan.rounds.holdout_share,
            quality=self._plan.quality,
            without=started.without,
        )
        version = next_version(self._store)
        advance_round(
            self._store,
            round_id,
            "preparing",
            version=version,
            num_pairs=snapshot.num_pairs,
            num_ratings=snapshot.num_ratings,
            snapshot_seq=snapshot.seq,
        )
        live_adapter = self._adapter_of(started.parent)
        plan = {
            "round_id": round_id,
            "version": version,
            "parent": started.parent,
            "live_adapter": str(live_adapter) if live_adapter else None,
            "threads": self._plan.rounds.threads,
            "base": dataclasses.asdict(self._plan.base),
            "trainer": dataclasses.asdict(self._plan.trainer),
            "gate": dataclasses.asdict(self._plan.gate),
        }
        (directory / "round.json").write_text(json.dumps(plan, indent=2) + "\n", "utf-8")
        return directory

    def _watch(self, round_id: str, directory: Path) -> int:
        """Run the round process to its end; returns its exit code (negative: killed by that signal)."""
        with (directory / "log.txt").open("ab") as log, self._lock:
            if self._is_stopped(round_id):
                return -signal.SIGTERM
            self._process = begin_round(directory, self._plan.rounds, self._warm, log)
        process = self._process
        # Before its threads exist, so that they inherit it: serving comes first on shared cores.
        os.setpriority(os.PRIO_PROCESS, process.pid, self._plan.rounds.nice)
        logger.info("round %s runs as process %d", round_id, process.pid)
        while process.poll() is None:
            self._follow(round_id)
            if self._is_stopped(round_id):
                stop(process, self._plan.rounds.stop_grace_s)
            elif self._is_silent(directory):
                stop(process, self._plan.rounds.stop_grace_s)
                raise StateConflict(
                    f"no progress for {self._plan.rounds.silence_limit_s:g} s; the process was stopped"
                )
            time.sleep(0.25)
        return process.returncode

    def _is_stopped(self, round_id: str) -> bool:
        return self._is_closing or round_id in self._cancelled_by

    def _is_silent(self, directory: Path) -> bool:
        """No sign of life in any file the process writes for longer than the limit."""
        signs = [
            p.stat().st_mtime
            for n in ("progress.jsonl", "log.txt", "round.json")
            if (p := directory / n).exists()
        ]
        return time.time() - max(signs) > self._plan.rounds.silence_limit_s

    def _follow(self, round_id: str) -> None:
        lines = self.read_progress(round_id)
        state = STATE_OF_STAGE.get(str(lines[-1].get("stage"))) if lines else None
        if state is not None and read_round(self._store, round_id).state != state:
            advance_round(self._store, round_id, state)  # type: ignore[arg-type]

    def _conclude(self, round_id: str, directory: Path, code: int) -> None:
        actor = self._cancelled_by.get(round_id)
        if actor is not None:
            self._finish(round_id, "cancelled", f"cancelled by {actor}")
            return
        if self._is_closing and code != 0:
            self._finish(
                round_id, "interrupted", "the service was stopped; its labels count for the next round"
            )
            return
        verdict = self.read_gate(round_id)
        if code != 0 or verdict is None:
            self._finish(round_id, "failed", explain_exit(code, self.read_log(round_id, 200)))
            return
        self._take(read_round(self._store, round_id), directory, verdict)

    def _take(self, done: Round, directory: Path, verdict: dict[str, Any]) -> None:
        """Files first, then the row, then the swap: a kill between any two leaves the old policy serving."""
        assert done.version is not None
        sha256 = self._publish(directory / "candidate", done.version)
        add_policy(
            self._store, done.version, parent=done.parent, round_id=done.round_id, weights_sha256=sha256
        )
        reason = str(verdict["reason"])
        if verdict["decision"] != "promote":
            mark_policy(self._store, done.version, "rejected", reason=reason)
            self._finish(done.round_id, "rejected", reason)
            return
        try:
            taken = self._promote(done.version, f"round {done.round_id}", reason)
        except HeedError as error:
            mark_policy(self._store, done.version, "failed", reason=str(error))
            raise
        self._finish(done.round_id, "canary" if isinstance(taken, Canary) else "promoted", reason)

    def _finish(self, round_id: str, state: str, reason: str) -> None:
        advance_round(self._store, round_id, state, reason=reason)  # type: ignore[arg-type]
        logger.info("round %s: %s (%s)", round_id, state, reason)
