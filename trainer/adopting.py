"""Turns a finished round-like directory, such as a sweep's point, into a round's own. Knows no store."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any


def read_snapshot_report(finished: Path) -> dict[str, int]:
    """What a snapshot says of itself: its counts, and the last event it covers as `seq`."""
    report: dict[str, int] = json.loads((finished / "snapshot" / "report.json").read_text("utf-8"))
    return report


def copy_round(finished: Path, directory: Path, round_id: str, version: str) -> None:
    """Copy everything but checkpoints to a new directory, its snapshot as files of its own. Plan, card and
    manifest say the new name; the weights stay what the gate measured."""
    shutil.copytree(finished, directory, ignore=shutil.ignore_patterns("work", "*.tmp", "report.html"))
    plan = json.loads((directory / "round.json").read_text("utf-8"))
    _write(directory / "round.json", plan | {"round_id": round_id, "version": version})
    candidate = directory / "candidate"
    card, manifest = candidate / "README.md", json.loads((candidate / "MANIFEST.json").read_text("utf-8"))
    text = card.read_text("utf-8").replace(f"# Policy {plan['version']}\n", f"# Policy {version}\n")
    card.write_text(text, "utf-8")
    content = text.encode()
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    files = manifest["files"] | {card.name: facts}
    _write(
        candidate / "MANIFEST.json",
        manifest | {"round_id": round_id, "version": version, "files": files},
        sort_keys=True,
    )


def _write(path: Path, value: dict[str, Any], sort_keys: bool = False) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=sort_keys) + "\n", "utf-8")
