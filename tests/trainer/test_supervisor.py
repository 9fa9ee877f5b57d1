"""A round's process seen from outside: whatever becomes of it ends as a state and a sentence.

The process itself is played by short scripts here; the real one is in test_round.py and tests/e2e.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.canaries import read_canary, start_canary
from store.canary_rows import Canary
from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.people import read_people
from store.policies import add_policy, live_version, promote, read_policy
from store.provenance import read_versions_trained_on
from store.records import Promotion, Round
from store.rounds import advance_round, create_round, read_round
from tests.trainer.labelled import judge_pairs
from trainer.checkpoints import draft_folder, seal, step_name
from trainer.limits import GateSettings
from trainer.planner import TriggerSettings, explain
from trainer.resuming import check_may_resume, leave_for_later, note_resume
from trainer.round_settings import Plan, RoundSettings
from trainer.settings import BaseModel, TrainerSettings
from trainer.supervisor import RoundSupervisor

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
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(600)",
    # Is killed by the kernel as often as the number in front of it says, then gets to a verdict.
    "die": "import os, pathlib, sys\nlog = pathlib.Path(sys.argv[-1]) / 'starts'\n"
    "count = len(log.read_text()) if log.exists() else 0\nlog.write_text('x' * (count + 1))\n"
    "if count < TIMES: os.kill(os.getpid(), 9)\n" + VERDICT.replace("DECISION", "promote"),
    "die late": VERDICT.replace("DECISION", "promote") + "import os\nos.kill(os.getpid(), 9)",
    "busy": "print('here', flush=True)\nwhile True: pass",
}


class Bench:
    """A supervisor whose round process is a script that the test chooses."""

    def __init__(self, store: Store, folder: Path, trainer: TrainerSettings | None = None) -> None:
        self.store = store
        self.script = folder / "round.py"
        self.published: list[str] = []
        self.trial_share = 0.0
        self.rounds = RoundSettings(
            launch=(sys.executable, str(self.script)), stop_grace_s=0.5, silence_limit_s=2.0, nice=0
        )
        self.trainer = trainer or TrainerSettings()
        self.restart()

    def restart(self, **changes: Any) -> None:
        """The supervisor of a service that has just started, with some settings changed."""
        rounds = dataclasses.replace(self.rounds, **changes)
        plan = Plan(BaseModel("nowhere"), self.trainer, GateSettings(), TRIGGERS, rounds)
        self.supervisor = RoundSupervisor(self.store, plan, self._publish, self._promote, lambda _: None)

    def _publish(self, candidate: Path, version: str) -> str:
        assert (candidate / "weights").exists()
        self.published.append(version)
        return "0" * 64

    def _promote(self, version: str, actor: str, reason: str) -> Promotion | Canary:
        if self.trial_share:
            return start_canary(self.store, version, self.trial_share, actor, reason)
        return promote(self.store, version, actor, reason=reason)

    def start(self, script: str, times: int = 0) -> Round:
        self.script.write_text(SCRIPTS[script].replace("TIMES", str(times)))
        return self.supervisor.start("test")

    def run(self, script: str, times: int = 0) -> Round:
        started = self.start(script, times)
        self.supervisor.wait(30)
        return read_round(self.store, started.round_id)

    def wait_for_log(self, round_id: str) -> None:
        deadline = time.monotonic() + 20
        while not self.supervisor.files.read_log(round_id, 1):
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


def test_a_killed_round_is_failed_and_the_next_one_works_where_resuming_is_off(bench: Bench) -> None:
    bench.restart(resume=False)
    started = bench.start("hang")
    bench.wait_for_log(started.round_id)
    assert bench.supervisor._process is not None
    os.kill(bench.supervisor._process.pid, signal.SIGKILL)
    bench.supervisor.wait(20)
    failed = read_round(bench.store, started.round_id)
    assert failed.state == "failed"
    assert "signal 9 (SIGKILL)" in failed.reason
    assert bench.supervisor.files.read_log(started.round_id, 5) == ["here"]
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


def test_a_round_that_is_killed_is_resumed_and_says_so(bench: Bench) -> None:
    done = bench.run("die", times=2)
    assert done.state == "promoted"
    path = bench.supervisor.files.folder / done.round_id / "resumes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["from"], line["why"]) for line in lines] == [
        ("its beginning", "the round process was killed by signal 9 (SIGKILL); it wrote no log")
    ] * 2


def test_a_round_that_is_killed_again_and_again_fails_in_the_end(bench: Bench) -> None:
    done = bench.run("die", times=99)
    assert done.state == "failed"
    assert "signal 9 (SIGKILL)" in done.reason
    assert len((bench.supervisor.files.folder / done.round_id / "starts").read_text()) == 1 + 3


def test_a_round_that_is_killed_after_its_verdict_is_not_tried_again_but_taken(bench: Bench) -> None:
    done = bench.run("die late")
    assert (done.state, done.version) == ("promoted", "v1")
    assert not (bench.supervisor.files.folder / done.round_id / "resumes.jsonl").exists()


def resumable(bench: Bench) -> Path:
    """The directory of a round that ran when the service went."""
    started = create_round(bench.store, trigger="test", parent="v0")
    directory = bench.supervisor.files.folder / started.round_id
    (directory / "snapshot").mkdir(parents=True)
    (directory / "round.json").write_text("{}")
    advance_round(bench.store, started.round_id, "training", version="v1")
    return directory


def test_a_verdict_is_taken_however_often_the_round_was_resumed(bench: Bench) -> None:
    directory = resumable(bench)
    for _ in range(3):
        note_resume(directory, "killed")
    bench.script.write_text(SCRIPTS["promote"])
    subprocess.run([sys.executable, str(bench.script), str(directory)], check=True)
    bench.restart(resume=False)
    bench.supervisor.recover()
    bench.supervisor.wait(30)
    assert read_round(bench.store, directory.name).state == "promoted"


def test_orderly_stops_of_the_service_are_not_counted(bench: Bench) -> None:
    """A round that lived through three releases failed at the fourth."""
    directory = resumable(bench)
    for _ in range(9):
        leave_for_later(directory)
        check_may_resume(directory, 3)
        note_resume(directory, "the service was stopped while it ran")
    for _ in range(3):
        check_may_resume(directory, 3)
        note_resume(directory, "killed")
    with pytest.raises(BadValue, match="resumed from its beginning 3 times already and got no further"):
        check_may_resume(directory, 3)
    leave_for_later(directory)
    check_may_resume(directory, 0)


def test_a_round_that_gets_further_between_kills_goes_on(bench: Bench) -> None:
    directory = resumable(bench)
    for step in range(1, 9):
        check_may_resume(directory, 1)
        note_resume(directory, "killed")
        seal(draft_folder(directory / "work" / "dpo", step_name(step)), "origin")


def test_a_process_that_is_gone_before_it_gets_its_priority_says_why_it_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_gone(*_: int) -> None:
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(os, "setpriority", is_gone)
    done = bench.run("raise")
    assert "exit code 1; last log line: no memory left" in done.reason


def test_what_fails_by_itself_is_not_tried_again(bench: Bench) -> None:
    done = bench.run("raise")
    assert done.state == "failed"
    assert not (bench.supervisor.files.folder / done.round_id / "resumes.jsonl").exists()


def test_a_round_survives_a_stop_of_the_service_and_goes_on_at_the_next_start(bench: Bench) -> None:
    started = bench.start("hang")
    bench.wait_for_log(started.round_id)
    bench.supervisor.close()
    left = read_round(bench.store, started.round_id)
    assert (left.state, left.reason) == (
        "preparing",
        "the service was stopped; the round goes on from its beginning at the next start",
    )
    bench.script.write_text(SCRIPTS["promote"])
    bench.restart()
    assert bench.supervisor.recover() == [started.round_id]
    bench.supervisor.wait(30)
    assert read_round(bench.store, started.round_id).state == "promoted"
    assert live_version(bench.store) == "v1"


def test_a_service_that_does_not_resume_leaves_a_running_round_interrupted(bench: Bench) -> None:
    bench.restart(resume=False)
    started = bench.start("hang")
    bench.wait_for_log(started.round_id)
    bench.supervisor.close()
    done = read_round(bench.store, started.round_id)
    assert done.state == "interrupted"
    assert "rounds.resume is off" in done.reason


def test_a_round_that_died_with_the_service_before_its_snapshot_is_named_at_the_next_start(
    bench: Bench,
) -> None:
    left = create_round(bench.store, trigger="test", parent="v0")
    assert bench.supervisor.recover() == [left.round_id]
    found = read_round(bench.store, left.round_id)
    assert found.state == "interrupted"
    assert "its snapshot was not finished" in found.reason
    assert bench.run("promote").state == "promoted"


@pytest.mark.parametrize("decision", ["promote", "reject"])
@pytest.mark.parametrize("killed_after", ["verdict", "publish", "register", "swap"])
def test_a_service_killed_while_it_takes_a_verdict_takes_it_at_the_next_start(
    bench: Bench, decision: str, killed_after: str
) -> None:
    """Every write up to the kill is there, and none after it."""
    started = create_round(bench.store, trigger="test", parent="v0")
    directory = bench.supervisor.files.folder / started.round_id
    (directory / "snapshot").mkdir(parents=True)
    (directory / "round.json").write_text("{}")
    advance_round(bench.store, started.round_id, "evaluating", version="v1")
    bench.script.write_text(SCRIPTS[decision])
    subprocess.run([sys.executable, str(bench.script), str(directory)], check=True)
    if killed_after in ("register", "swap"):
        add_policy(bench.store, "v1", parent="v0", round_id=started.round_id, weights_sha256="0" * 64)
    if killed_after == "swap" and decision == "promote":
        promote(bench.store, "v1", "test")
    bench.supervisor.recover()
    bench.supervisor.wait(30)
    done = read_round(bench.store, started.round_id)
    assert done.state == {"promote": "promoted", "reject": "rejected"}[decision]
    assert live_version(bench.store) == {"promote": "v1", "reject": "v0"}[decision]


def test_a_round_that_computes_is_slow_and_not_hung_until_its_own_limit(bench: Bench) -> None:
    bench.restart(silence_limit_s=600.0, slow_limit_s=2.0)
    done = bench.run("busy")
    assert done.state == "failed"
    assert "no step for 2 s, though it computed" in done.reason


def test_a_progress_line_still_being_written_is_left_for_next_time(bench: Bench) -> None:
    done = bench.run("reject")
    path = bench.supervisor.files.folder / done.round_id / "progress.jsonl"
    path.write_text(json.dumps({"stage": "dpo", "step": 1}) + '\n{"stage": "dp')
    assert bench.supervisor.files.read_progress(done.round_id) == [{"stage": "dpo", "step": 1}]


@pytest.mark.parametrize(
    ("ask", "start", "mode"),
    [({}, "previous", "equal"), ({"fresh": True}, "fresh", "all"), ({"without": ["bob"]}, "fresh", "all")],
)
def test_a_round_from_scratch_trains_a_new_adapter_on_every_label_whatever_the_settings_say(
    bench: Bench, tmp_path: Path, ask: dict[str, Any], start: str, mode: str
) -> None:
    store = bench.store
    bench = Bench(store, tmp_path, TrainerSettings(start="previous", reference="previous"))
    judge_pairs(store, 3, name="bob")
    bench.script.write_text(SCRIPTS["promote"])
    people = {person.name: person.person_id for person in read_people(store)}
    ask = ask | ({"without": [people["bob"]]} if "without" in ask else {})
    started = bench.supervisor.start("test", **ask)
    bench.supervisor.wait()
    folder = bench.supervisor.files.folder / started.round_id
    trainer = json.loads((folder / "round.json").read_text("utf-8"))["trainer"]
    assert trainer["start"] == start
    assert trainer["reference"] == ("base" if start == "fresh" else "previous")
    report = json.loads((folder / "snapshot" / "report.json").read_text("utf-8"))
    assert report["recipe"]["replay"]["mode"] == mode
    assert ("from scratch" in started.trigger) == ("fresh" in ask)


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
    report = bench.supervisor.files.folder / done.round_id / "snapshot" / "report.json"
    assert json.loads(report.read_text("utf-8"))["counts_by_reason"]["person_left_out_of_this_round"] == 4
    with pytest.raises(NotFound, match="no person has the id 'u_none'"):
        bench.supervisor.start("test", without=["u_none"])


def test_a_round_leaves_a_report_however_it_ended(bench: Bench) -> None:
    for script, state in (("promote", "promoted"), ("raise", "failed")):
        done = bench.run(script)
        page = (bench.supervisor.files.folder / done.round_id / "report.html").read_text("utf-8")
        assert state in page
        assert done.reason in page
        assert bench.supervisor.files.write_report(done) == page


def test_curves_are_drawn_from_what_is_logged_so_far(bench: Bench) -> None:
    done = bench.run("reject")
    path = bench.supervisor.files.folder / done.round_id / "progress.jsonl"
    assert bench.supervisor.files.draw_curves(done.round_id) == ""  # its one step had no loss
    path.write_text(json.dumps({"stage": "dpo", "step": 1, "max_steps": 9, "loss": 0.69}) + "\n")
    assert "DPO on pairs: step 1 of 9" in bench.supervisor.files.draw_curves(done.round_id)
    with pytest.raises(NotFound):
        bench.supervisor.files.draw_curves("../elsewhere")
