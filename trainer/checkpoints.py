"""The state of a round on disk: checkpoints and finished stages, each whole or not believed.

A folder is written under a draft's name, gets a manifest with the sha256 of each of its files, and is
renamed at the very end. What a reader finds torn, altered or made by another plan is removed aloud. Loads no
torch, so that the service can look too.

    work/<stage>/step-<n>/   weights, optimizer, schedule, random state, guards, trainer_state.json
    work/<stage>/finished/   weights and what the stage says of itself
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from store.errors import BadValue

logger = logging.getLogger(__name__)

WORK = "work"
FINISHED = "finished"
MANIFEST = "MANIFEST.json"
KEPT = 2  # the newest, and the one before it should the newest turn out torn
_STEP = "step-"


def draft_folder(stage: Path, name: str) -> Path:
    """A new, empty folder to write a state into; `seal` gives it its name."""
    draft = stage / f"{name}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def seal(draft: Path, origin: str) -> Path:
    """Write the manifest, put everything on disk and give the folder its name: from then on it counts."""
    target = draft.with_name(draft.name.removesuffix(".tmp"))
    files = {str(path.relative_to(draft)): _sha256(path) for path in _files(draft)}
    (draft / MANIFEST).write_text(json.dumps({"origin": origin, "files": files}, indent=2) + "\n", "utf-8")
    for path in (*_files(draft), draft):
        _fsync(path)
    shutil.rmtree(target, ignore_errors=True)  # left from before a resume that began earlier
    draft.rename(target)
    _fsync(target.parent)
    return target


def find_fault(folder: Path, origin: str | None = None) -> str | None:
    """What is wrong with a sealed folder; None when it is whole. Without an `origin` any plan's will do."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        files, made_by = manifest["files"], manifest["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest is missing or cannot be read"
    if origin is not None and made_by != origin:
        return "it was made by another plan, other data or other packages"
    for name, sha256 in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _sha256(folder / name) != sha256:
            return f"{name} is not what was written"
    return None


def step_name(step: int) -> str:
    """The name of the checkpoint after that many steps."""
    return f"{_STEP}{step}"


def step_of(checkpoint: Path) -> int:
    """How many steps a checkpoint is the state after."""
    return int(checkpoint.name.removeprefix(_STEP))


def find_checkpoint(stage: Path, origin: str | None = None) -> Path | None:
    """The newest whole checkpoint of a stage; None when there is none. Changes nothing."""
    return next((each for each in _newest_first(stage) if find_fault(each, origin) is None), None)


def sweep(stage: Path, origin: str) -> list[str]:
    """Remove what a kill left half written or what cannot be used; returns a sentence for each."""
    removed = [f"{draft.name} was never finished" for draft in sorted(stage.glob("*.tmp"))]
    for draft in stage.glob("*.tmp"):
        shutil.rmtree(draft)
    for folder in (*_newest_first(stage), stage / FINISHED):
        fault = find_fault(folder, origin) if folder.exists() else None
        if fault is not None:
            shutil.rmtree(folder)
            removed.append(f"{folder.name}: {fault}")
    for sentence in removed:
        logger.warning("%s: a state on disk was not believed and removed: %s", stage.name, sentence)
    return removed


def keep_newest(stage: Path, count: int = KEPT) -> None:
    """Remove all but the newest checkpoints."""
    for old in list(_newest_first(stage))[count:]:
        shutil.rmtree(old)


def remove_work(directory: Path) -> None:
    """The round is over: nothing will be continued."""
    shutil.rmtree(directory / WORK, ignore_errors=True)


def where_it_stands(directory: Path) -> str:
    """Where a stopped round goes on, in words: "step 12 of dpo", "the end of dpo", "its beginning"."""
    stages = [path for path in (directory / WORK).glob("*") if path.is_dir()]
    for stage in sorted(stages, key=lambda path: path.stat().st_mtime, reverse=True):
        if find_fault(stage / FINISHED) is None:
            return f"the end of {stage.name}"
        checkpoint = find_checkpoint(stage)
        if checkpoint is not None:
            return f"step {step_of(checkpoint)} of {stage.name}"
    return "its beginning"


def check_can_resume(directory: Path) -> None:
    """BadValue saying what is missing when a stopped round's directory cannot be continued."""
    if not (directory / "round.json").is_file():
        raise BadValue("its snapshot was not finished")
    if not (directory / "snapshot").is_dir():
        raise BadValue("its snapshot is gone")


def hash_origin(*parts: str) -> str:
    """One sha256 over everything that decides a training's tensors."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _newest_first(stage: Path) -> Iterator[Path]:
    named = [path for path in stage.glob(f"{_STEP}*") if path.name.removeprefix(_STEP).isdecimal()]
    yield from sorted(named, key=step_of, reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
