"""One round as a story: read the plan, prepare the labels, train, compare, and leave a candidate with a
verdict.

Runs as `python -m trainer.round DIRECTORY` in a process of its own. It gets files and gives back files; it
never opens the store and promotes nothing. Exit code 0 means that a verdict was reached, whichever; 75 that
it was told to stop and goes on when it is started again in the same directory.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import BadValue
from trainer.checkpoints import WORK, remove_work
from trainer.heartbeat import Heartbeat, hold_folder
from trainer.report import describe_round
from trainer.round_process import library_environment
from trainer.settings import RoundPlan, read_plan
from trainer.stopping import STOPPED, Stopped, Stopping

# Libraries that load torch are imported inside functions: a cancel must work, and threads and the hub must be
# settled, in the seconds before they are there.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.labels import Labels
    from trainer.progress import ProgressLog
    from trainer.publish import Training
    from trainer.qlora import LoadedBase
    from trainer.stages import Stage

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
EAGER_OOM_SCORE = 800


def run_round(folder: Path, plan: RoundPlan, stopping: Stopping, heartbeat: Heartbeat) -> None:
    """Train the candidate of one round and judge it, from where a killed process left it.

    Raises when no verdict can be reached.
    """
    from trainer.guarded import begin_guarded
    from trainer.labels import read_labels
    from trainer.library import leave_group
    from trainer.publish import Training, read_packages, save_adapter
    from trainer.qlora import load_base
    from trainer.stages import plan_stages, train

    if has_verdict(folder):
        return
    progress = open_progress(folder)
    progress.start("prepare")
    base = load_base(plan.base, plan.trainer.sharding)
    base.model.get_input_embeddings().register_forward_hook(heartbeat.beat)
    live = check_live_adapter(plan, base.fingerprint, folder)
    logger.info("base %s is loaded (%s, %s)", base.name, base.quantization, base.dtype)
    labels = read_labels(folder / "snapshot", base.tokenizer, plan.trainer)
    labels.tell(progress)

    stages = plan_stages(plan.trainer, base.tokenizer, labels.pairs, labels.ratings, labels.answers)
    account_for_rows(folder, stages, labels)
    packages, data_sha256 = read_packages(), hash_snapshot(folder / "snapshot")
    told = progress, stopping, labels.holdout.rows, labels.pairs.rows
    guarded = begin_guarded(folder, plan, base.fingerprint, data_sha256, packages, *told, live=live)
    policy = train(plan, base, live, stages, guarded)
    says = {stage.name: guarded.say(stage.name, stage.describe()) for stage in stages}
    progress.note("trained", "stages", **says)

    leave_group()
    if not is_first_process():
        return
    save_adapter(policy, folder / "candidate.tmp")
    policy.unload()  # the gate measures the files, not what happens to be in memory
    if plan.trainer.sharding != "none":
        base = load_base(plan.base)  # the others have left: a share of the base answers nothing
    judge_candidate(folder, plan, base, live, labels, Training(says, data_sha256, packages), progress)


def open_progress(folder: Path) -> ProgressLog:
    """Where a round says how far it is; only the first of several processes is heard."""
    from trainer.progress import ProgressLog, ProgressTeller

    if is_first_process():
        return ProgressLog(folder / "progress.jsonl", ProgressTeller())
    return ProgressLog(Path(os.devnull))


def account_for_rows(folder: Path, stages: Sequence[Stage], labels: Labels) -> None:
    """Write training_report.json: of each stage what it uses, and what became of every other row."""
    from trainer.publish import write_json

    if is_first_process():
        report = {stage.name: stage.account.as_json() for stage in stages}
        write_json(folder / "training_report.json", report | {"holdout": labels.account_for_holdout()})


def judge_candidate(
    folder: Path,
    plan: RoundPlan,
    base: LoadedBase,
    live: Path | None,
    labels: Labels,
    training: Training,
    progress: ProgressLog,
) -> None:
    """Compare candidate.tmp with the live policy and leave both: the candidate, then the verdict on it."""
    from trainer.gate import run_gate
    from trainer.probes import choose_prompts
    from trainer.proving import make_proof
    from trainer.publish import publish_candidate, write_json

    progress.start("evaluate")
    draft = folder / "candidate.tmp"
    prompts = choose_prompts(labels.asked, base.tokenizer, plan.gate, plan.trainer.max_length)

    def tell(done: int, of: int) -> None:
        progress.step("evaluate", done, of)

    verdict = run_gate(base, draft, live, labels.holdout.rows, prompts, plan.gate, tell)
    proof = make_proof(base, draft)
    publish_candidate(draft, folder / "candidate", plan, base, training, verdict, proof)
    write_json(folder / "round.json", asdict(plan) | {"packages": training.packages})
    write_json(folder / "gate.json", verdict.as_json())
    remove_work(folder)
    logger.info("round %s: %s: %s", plan.round_id, verdict.decision, verdict.reason)


def has_verdict(folder: Path) -> bool:
    """Whether an earlier process got to the end. A candidate without a verdict is judged again, but only
    where this round's own work lies beside it: a directory is used once."""
    if not (folder / "candidate").exists():
        return False
    if (folder / "gate.json").exists():
        logger.info("the verdict is there already")
        remove_work(folder)
        return True
    if not (folder / WORK).is_dir():
        raise BadValue(f"{folder / 'candidate'} exists already: a round's directory is used once")
    if is_first_process():
        shutil.rmtree(folder / "candidate")
    return False


def check_live_adapter(plan: RoundPlan, fingerprint: str, directory: Path) -> Path | None:
    """The live adapter's folder, None while the base is live; a relative one lies in the round's `directory`.
    BadValue when it belongs to another base."""
    folder = plan.find_live_adapter(directory)
    if folder is None:
        return None
    manifest = json.loads((folder / "MANIFEST.json").read_text("utf-8"))
    trained_on = manifest["base"]["fingerprint"]
    if trained_on != fingerprint:
        raise BadValue(
            f"the live adapter {plan.parent} was trained on base {trained_on[:12]}, but the base now is"
            f" {fingerprint[:12]}; roll back to v0 or restore the base model"
        )
    return folder


def hash_snapshot(snapshot: Path) -> str:
    """One sha256 over the names and bytes of the snapshot's tables."""
    digest = hashlib.sha256()
    for path in sorted(snapshot.glob("*.parquet")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def is_first_process() -> bool:
    """Of the processes a launcher started, the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def prepare_process(plan: RoundPlan) -> None:
    """Settle what must be settled before torch and the hub's client are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(plan.threads)
    os.environ |= library_environment()
    if Path(plan.base.model).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"


def volunteer_for_oom_killer() -> None:
    """When memory runs out, the round is to go and not the service."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(EAGER_OOM_SCORE))
    except OSError as error:
        logger.info("this process cannot volunteer for the out-of-memory killer: %s", error)


def follow_parent() -> None:
    """End with the service that started this process, where the kernel offers that."""
    if os.environ.get("ROUND_PARENT_PID") == str(os.getppid()) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def reach_verdict(folder: Path, stopping: Stopping | None = None) -> int:
    """Read the plan and run it: 0 with a verdict, 75 when stopped, 1 without; the last line of the log then
    says why."""
    try:
        plan = read_plan(folder)
        prepare_process(plan)
        import torch

        torch.set_num_threads(plan.threads)
        with hold_folder(folder, is_first_process()), Heartbeat(folder) as heartbeat:
            run_round(folder, plan, stopping or Stopping(), heartbeat)
    except Stopped as stop:
        logger.info("%s", stop)
        return STOPPED
    except Exception as error:
        logger.exception("the round failed")
        logger.error("no verdict: %s: %s", type(error).__name__, " ".join(str(error).split()))
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """The process. Signals come first: the libraries take seconds to load, and a cancel must not wait for
    them."""
    started = time.monotonic()
    stopping = Stopping()
    stopping.listen()
    follow_parent()
    volunteer_for_oom_killer()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if len(arguments) != 1:
        logger.error("usage: python -m trainer.round DIRECTORY")
        return 2
    code = reach_verdict(Path(arguments[0]), stopping)
    if is_first_process():
        describe_round(Path(arguments[0]))
    if code == 0:
        logger.info("done in %.1f s", time.monotonic() - started)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
