"""One round as a story: read the plan, prepare the labels, train, compare, and leave a candidate with a
verdict.

Runs as `python -m trainer.round DIRECTORY` in a process of its own. It gets files and gives back files; it
never opens the store and promotes nothing. Exit code 0 means that a verdict was reached, whichever.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import BadValue
from trainer.round_process import library_environment
from trainer.settings import RoundPlan, read_plan

# Libraries that load torch are imported inside functions: a cancel must work, and threads and the hub must be
# settled, in the seconds before they are there.
if TYPE_CHECKING:
    from trainer.preferences import Notice

logger = logging.getLogger(__name__)

CANCELLED = 143  # what a shell reports for SIGTERM
PR_SET_PDEATHSIG = 1
EAGER_OOM_SCORE = 800


def run_round(folder: Path, plan: RoundPlan) -> None:
    """Train the candidate of one round and judge it. Raises when no verdict can be reached."""
    from trainer.gate import run_gate
    from trainer.preferences import prepare_pairs, prepare_ratings, read_pairs, read_ratings
    from trainer.probes import choose_prompts
    from trainer.progress import ProgressLog
    from trainer.proving import make_proof
    from trainer.publish import Training, publish_candidate, read_packages, save_adapter, write_json
    from trainer.qlora import load_base
    from trainer.stages import train

    if (folder / "candidate").exists():
        raise BadValue(f"{folder / 'candidate'} exists already: a round's directory is used once")
    progress = ProgressLog(folder / "progress.jsonl" if is_first_process() else Path(os.devnull))
    progress.start("prepare")
    settings, snapshot = plan.trainer, folder / "snapshot"
    base = load_base(plan.base)
    live = check_live_adapter(plan, base.fingerprint)
    logger.info("base %s is loaded (%s, %s)", base.name, base.quantization, base.dtype)

    pair_rows, holdout_rows = read_pairs(snapshot / "pairs.parquet"), read_pairs(snapshot / "holdout.parquet")
    rating_rows = read_ratings(snapshot / "ratings.parquet")
    pairs = prepare_pairs(pair_rows, base.tokenizer, settings.max_length)
    holdout = prepare_pairs(holdout_rows, base.tokenizer, settings.max_length)
    ratings = prepare_ratings(
        rating_rows, base.tokenizer, settings.max_length, settings.kto_batch_size, settings.seed
    )
    for name, notices in (
        ("pairs", pairs.notices),
        ("holdout", holdout.notices),
        ("ratings", ratings.notices),
    ):
        log_notices(name, notices)

    policy, stages = train(folder, plan, base, live, pairs, ratings, progress)
    if not is_first_process():
        return
    draft = folder / "candidate.tmp"
    save_adapter(policy, draft)
    policy.unload()  # the gate measures the files, not what happens to be in memory

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
    packages = read_packages()
    training = Training(stages, hash_snapshot(snapshot), packages)
    proof = make_proof(base, draft)
    publish_candidate(draft, folder / "candidate", plan, base, training, verdict, proof)
    write_json(folder / "round.json", asdict(plan) | {"packages": packages})
    write_json(folder / "gate.json", verdict.as_json())
    logger.info("round %s: %s: %s", plan.round_id, verdict.decision, verdict.reason)


def log_notices(name: str, notices: tuple[Notice, ...]) -> None:
    """Name every row that was cut or left out, and count the reasons."""
    from trainer.preferences import count_notices

    for notice in notices:
        logger.info("%s: row %s %s", name, notice.row_id, notice.what)
    for what, count in count_notices(notices).items():
        logger.warning("%s: %d times %s", name, count, what)


def check_live_adapter(plan: RoundPlan, fingerprint: str) -> Path | None:
    """The live adapter's folder, None while the base is live. BadValue when it belongs to another base."""
    if plan.live_adapter is None:
        return None
    folder = Path(plan.live_adapter)
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


def cancel(_signal: int, _frame: object) -> None:
    """Leave at once: whatever is half written is swept by its name, and nothing needs saving."""
    os.write(2, b"cancelled by SIGTERM\n")
    os._exit(CANCELLED)


def reach_verdict(folder: Path) -> int:
    """Read the plan and run it: 0 with a verdict, 1 without; the last line of the log then says why."""
    try:
        plan = read_plan(folder)
        prepare_process(plan)
        import torch

        torch.set_num_threads(plan.threads)
        run_round(folder, plan)
    except Exception as error:
        logger.exception("the round failed")
        logger.error("no verdict: %s: %s", type(error).__name__, " ".join(str(error).split()))
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """The process. Signals come first: the libraries take seconds to load, and a cancel must not wait for
    them."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, cancel)
    follow_parent()
    volunteer_for_oom_killer()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if len(arguments) != 1:
        logger.error("usage: python -m trainer.round DIRECTORY")
        return 2
    code = reach_verdict(Path(arguments[0]))
    if code == 0:
        logger.info("done in %.1f s", time.monotonic() - started)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
