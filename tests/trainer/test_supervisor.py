"""A round's process seen from outside: whatever becomes of it ends as a state and a sentence.

The process itself is played by short scripts here; the real one is in test_round.py and tests/e2e.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.canaries import read_canary, start_canary
from store.canary_rows import Canary
from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.people import read_people
from store.policies import live_version, promote, read_policy
from store.provenance import read_versions_trained_on
from store.records import Promotion, Round
from store.rounds import create_round, read_round
from tests.trainer.labelled import judge_pairs
from trainer.planner import TriggerSettings, explain
from trainer.settings import BaseModel, GateSettings, TrainerSettings
from trainer.supervisor import Plan, RoundSettings, RoundSupervisor

TRIGGERS = TriggerSettings(
    min_new_labels=4, max_wait_hours=0, min_labels=2, cooldown_minutes=0, min_free_mib=0
)
# Each gets the arguments of a round process after its own name: -m trainer.round DIRECTORY
VERDICT = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[-1])
(folder / "candidate").mkdir()
(folder / "candidate" / "weights").write_text("w")
(folder / "progress.jsonl").write_text('{"stage": "dpo", "step": 1, "max_steps": 2}\\n')
gate = {"decision": "DECISION", "reason": "the script says so", "checks": []}
(folder / "gate.json").write_text(json.dumps(gate))
"""
SCRIPTS = {
    "promote": VERDICT.replace("DECISION", "promote"),
    "reject": VERDICT.replace("DECISION", "reject"),
    "raise": "raise SystemExit('no memory left')",
    "silent": "",
    "hang": "import time\nprint('here', flush=True)\ntime.sleep(600)",
    "hang_deaf": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('here', flush=True)\ntime.sleep(600)",
}


class Bench:
    """A supervisor whose round process is a script that the test chooses."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.script = folder / "round.py"
        self.published: list[str] = []
        self.trial_share = 0.0
        rounds = RoundSettings(
            launch=(sys.executable, str(self.script)), stop_grace_s=0.5, silence_limit_s=2.0, nice=0
        )
        plan = Plan(BaseModel("nowhere"), TrainerSettings(), GateSettings(), TRIGGERS, rounds)
        self.supervisor = RoundSupervisor(store, plan, self._publish, self._promote, lambda _: None)

    def _publish(self, candidate: Path, version: str) -> str:
        assert (candidate / "weights").exists()
        self.published.append(version)
        return "0" * 64

    def _promote(self, version: str, actor: str, reason: str) -> Promotion | Canary:
        if self.trial_share:
            return start_canary(self.store, version, self.trial_share, actor, reason)
        return promote(self.store, version, actor, reason=reason)

    def start(self, script: str) -> Round:
        self.script.write_text(SCRIPTS[script])
        return self.supervisor.start("test")

    def run(self, script: str) -> Round:
        started = self.start(script)
        self.supervisor.wait(30)
        return read_round(self.store, started.round_id)

    def wait_for_log(self, round_id: str) -> None:
        deadline = time.monotonic() + 20
        while not self.supervisor.read_log(round_id, 1):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = Store.open(tmp_path / "data")
    judge_pairs(store, 4)
    bench = Bench(store, tmp_path)
    yield bench
    bench.supervisor.close()
    store.close()


def test_a_passed_gate_publishes_registers_and_promotes(bench: Bench) -> None:
    done = bench.run("promote")
    assert (done.state, done.reason, done.version) == ("promoted", "the script says so", "v1")
    assert bench.published == ["v1"]
    assert live_version(bench.store) == "v1"
    assert done.num_pairs > 0


def test_what_passed_the_gate_may_go_on_trial_and_its_labels_are_used_up(bench: Bench) -> None:
    bench.trial_share = 0.2
    done = bench.run("promote")
    running = read_canary(bench.store)
    assert running is not None
    assert (done.state, running.version, running.actor) == ("canary", "v1", f"round {done.round_id}")
    assert (live_version(bench.store), read_policy(bench.store, "v1").state) == ("v0", "candidate")
    new_labels = next(c for c in explain(bench.store, TRIGGERS).conditions if c.name == "new_labels")
    assert new_labels.value == 0


def test_a_failed_gate_keeps_the_candidate_as_rejected_and_the_old_policy_live(bench: Bench) -> None:
    done = bench.run("reject")
    assert done.state == "rejected"
    assert read_policy(bench.store, "v1").state == "rejected"
    assert live_version(bench.store) == "v0"


@pytest.mark.parametrize(
    ("script", "says"),
    [("raise", "exit code 1; last log line: no memory left"), ("silent", "without a verdict")],
)
def test_a_round_without_a_verdict_fails_with_its_last_words(bench: Bench, script: str, says: str) -> None:
    done = bench.run(script)
    assert done.state == "failed"
    assert says in done.reason
    assert live_version(bench.store) == "v0"


def test_a_killed_round_is_failed_and_the_next_one_works(bench: Bench) -> None:
    started = bench.start("hang")
    bench.wait_for_log(started.round_id)
    assert bench.supervisor._process is not None
    os.kill(bench.supervisor._process.pid, signal.SIGKILL)
    bench.supervisor.wait(20)
    failed = read_round(bench.store, started.round_id)
    assert failed.state == "failed"
    assert "signal 9 (SIGKILL)" in failed.reason
    assert bench.supervisor.read_log(started.round_id, 5) == ["here"]
    assert bench.run("promote").state == "promoted"


@pytest.mark.parametrize("script", ["hang", "hang_deaf"])
def test_cancel_ends_a_round_even_a_deaf_one(bench: Bench, script: str) -> None:
    started = bench.start(script)
    bench.wait_for_log(started.round_id)
    bench.supervisor.cancel(started.round_id, "root")
    bench.supervisor.wait(20)
    done = read_round(bench.store, started.round_id)
    assert (done.state, done.reason) == ("cancelled", "cancelled by root")
    with pytest.raises(StateConflict, match="already cancelled"):
        bench.supervisor.cancel(started.round_id, "root")


def test_a_round_that_falls_silent_is_stopped(bench: Bench) -> None:
    done = bench.run("hang")
    assert done.state == "failed"
    assert "no progress for 2 s" in done.reason


def test_a_second_round_is_refused_while_one_runs(bench: Bench) -> None:
    started = bench.start("hang")
    with pytest.raises(StateConflict, match=started.round_id):
        bench.start("promote")


def test_a_round_with_too_few_labels_is_refused_with_the_number(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    with pytest.raises(BadValue, match="0 usable labels in all; a round needs 2"):
        Bench(store, tmp_path).start("promote")
    store.close()


def test_a_tick_starts_what_is_due_and_nothing_else(bench: Bench) -> None:
    bench.script.write_text(SCRIPTS["promote"])
    assert bench.supervisor.tick() is not None
    bench.supervisor.wait(20)
    assert bench.supervisor.tick() is None


def test_closing_the_service_leaves_a_running_round_interrupted(bench: Bench) -> None:
    started = bench.start("hang")
    bench.wait_for_log(started.round_id)
    bench.supervisor.close()
    assert read_round(bench.store, started.round_id).state == "interrupted"


def test_a_round_that_died_with_the_service_is_named_at_the_next_start(bench: Bench) -> None:
    left = create_round(bench.store, trigger="test", parent="v0")
    assert bench.supervisor.recover() == [left.round_id]
    assert read_round(bench.store, left.round_id).state == "interrupted"
    assert bench.run("promote").state == "promoted"


def test_a_progress_line_still_being_written_is_left_for_next_time(bench: Bench) -> None:
    done = bench.run("reject")
    path = bench.supervisor.folder / done.round_id / "progress.jsonl"
    path.write_text(json.dumps({"stage": "dpo", "step": 1}) + '\n{"stage": "dp')
    assert bench.supervisor.read_progress(done.round_id) == [{"stage": "dpo", "step": 1}]


def test_a_round_can_leave_a_person_out_and_remembers_whom(bench: Bench) -> None:
    [ann] = read_people(bench.store)
    judge_pairs(bench.store, 3, name="bob")
    bench.script.write_text(SCRIPTS["promote"])
    started = bench.supervisor.start("test", without=[ann.person_id])
    assert started.without == (ann.person_id,)
    bench.supervisor.wait()
    done = read_round(bench.store, started.round_id)
    assert (done.state, done.without) == ("promoted", (ann.person_id,))
    assert read_versions_trained_on(bench.store, ann.person_id) == []
    report = bench.supervisor.folder / done.round_id / "snapshot" / "report.json"
    assert json.loads(report.read_text("utf-8"))["counts_by_reason"]["person_left_out_of_this_round"] == 4
    with pytest.raises(NotFound, match="no person has the id 'u_none'"):
        bench.supervisor.start("test", without=["u_none"])


def test_a_round_leaves_a_report_however_it_ended(bench: Bench) -> None:
    for script, state in (("promote", "promoted"), ("raise", "failed")):
        done = bench.run(script)
        page = (bench.supervisor.folder / done.round_id / "report.html").read_text("utf-8")
        assert state in page
        assert done.reason in page
        assert bench.supervisor.write_report(done) == page


def test_curves_are_drawn_from_what_is_logged_so_far(bench: Bench) -> None:
    done = bench.run("reject")
    path = bench.supervisor.folder / done.round_id / "progress.jsonl"
    assert bench.supervisor.draw_curves(done.round_id) == ""  # its one step had no loss
    path.write_text(json.dumps({"stage": "dpo", "step": 1, "max_steps": 9, "loss": 0.69}) + "\n")
    assert "DPO on pairs: step 1 of 9" in bench.supervisor.draw_curves(done.round_id)
    with pytest.raises(NotFound):
        bench.supervisor.draw_curves("../elsewhere")
