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
    from trainer.preferences import Notice

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
EAGER_OOM_SCORE = 800


def run_round(folder: Path, plan: RoundPlan, stopping: Stopping, heartbeat: Heartbeat) -> None:
    """Train the candidate of one round and judge it, from where a killed process left it.

    Raises when no verdict can be reached.
    """
    from trainer.answers import prepare_answers
    from trainer.gate import run_gate
    from trainer.guarded import begin_guarded
    from trainer.library import leave_group
    from trainer.preferences import (
        count_notices,
        prepare_pairs,
        prepare_ratings,
        read_pairs,
        read_ratings,
    )
    from trainer.probes import choose_prompts
    from trainer.progress import ProgressLog, ProgressTeller
    from trainer.proving import make_proof
    from trainer.publish import Training, publish_candidate, read_packages, save_adapter, write_json
    from trainer.qlora import load_base
    from trainer.stages import plan_stages, train
    from trainer.tally import tally

    if has_verdict(folder):
        return
    progress = (
        ProgressLog(folder / "progress.jsonl", ProgressTeller())
        if is_first_process()
        else ProgressLog(Path(os.devnull))
    )
    progress.start("prepare")
    settings, snapshot = plan.trainer, folder / "snapshot"
    base = load_base(plan.base, settings.sharding)
    base.model.get_input_embeddings().register_forward_hook(heartbeat.beat)
    live = check_live_adapter(plan, base.fingerprint, folder)
    logger.info("base %s is loaded (%s, %s)", base.name, base.quantization, base.dtype)

    pair_rows, holdout_rows = read_pairs(snapshot / "pairs.parquet"), read_pairs(snapshot / "holdout.parquet")
    rating_rows = read_ratings(snapshot / "ratings.parquet")
    pairs = prepare_pairs(pair_rows, base.tokenizer, settings.max_length)
    holdout = prepare_pairs(holdout_rows, base.tokenizer, settings.max_length)
    ratings = prepare_ratings(
        rating_rows, base.tokenizer, settings.max_length, settings.kto_batch_size, settings.seed
    )
    answers = prepare_answers(pair_rows, rating_rows, base.tokenizer, settings)
    for name, num_rows, notices in (
        ("pairs", len(pairs.rows), pairs.notices),
        ("holdout", len(holdout.rows), holdout.notices),
        ("ratings", len(ratings.rows), ratings.notices),
        ("answers", len(answers.rows), answers.notices),
    ):
        log_notices(name, notices)
        progress.note("prepare", "rows", set=name, used=num_rows, notices=count_notices(notices))

    stages = plan_stages(settings, base.tokenizer, pairs, ratings, answers)
    if is_first_process():
        accounts = {stage.name: stage.account for stage in stages}
        accounts["holdout"] = tally([row.row_id for row in holdout.rows], holdout.notices)
        report = {name: account.as_json() for name, account in accounts.items()}
        write_json(folder / "training_report.json", report)
    packages, data_sha256 = read_packages(), hash_snapshot(snapshot)
    told = progress, stopping, holdout.rows, pairs.rows
    guarded = begin_guarded(folder, plan, base.fingerprint, data_sha256, packages, *told, live=live)
    policy = train(plan, base, live, stages, guarded)
    says = {stage.name: guarded.say(stage.name, stage.describe()) for stage in stages}
    progress.note("trained", "stages", **says)
    leave_group()
    if not is_first_process():
        return
    draft = folder / "candidate.tmp"
    save_adapter(policy, draft)
    policy.unload()  # the gate measures the files, not what happens to be in memory
    if settings.sharding != "none":
        base = load_base(plan.base)  # the others have left: a share of the base answers nothing

    progress.start("evaluate")
    asked = [row.messages for row in (*holdout_rows, *pair_rows)] + [row.messages for row in rating_rows]
    prompts = choose_prompts(asked, base.tokenizer, plan.gate, settings.max_length)
    verdict = run_gate(
        base,
        draft,
        live,
        holdout.rows,
        prompts,
        plan.gate,
        lambda done, of: progress.step("evaluate", done, of),
    )
    training = Training(says, data_sha256, packages)
    proof = make_proof(base, draft)
    publish_candidate(draft, folder / "candidate", plan, base, training, verdict, proof)
    write_json(folder / "round.json", asdict(plan) | {"packages": packages})
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


def log_notices(name: str, notices: tuple[Notice, ...]) -> None:
    """Name every row that was cut or left out, and count the reasons."""
    from trainer.preferences import count_notices

    for notice in notices:
        logger.info("%s: row %s %s", name, notice.row_id, notice.what)
    for what, count in count_notices(notices).items():
        logger.warning("%s: %d times %s", name, count, what)


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
