"""Takes what a round brings: publish, register, then promote or reject.

Each step may have been done already by a service that was killed in between, and is then not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from store.canaries import read_canary
from store.canary_rows import Canary
from store.database import Store
from store.errors import HeedError, NotFound
from store.policies import add_policy, live_version, mark_policy, read_policy
from store.records import Promotion, Round, RoundState

Publish = Callable[[Path, str], str]
Promote = Callable[[str, str, str], Promotion | Canary]


def take(
    store: Store, done: Round, directory: Path, verdict: dict[str, Any], publish: Publish, promote: Promote
) -> RoundState:
    """Files first, then the row, then the swap: a kill between any two leaves the old policy serving. Returns
    the round's last state."""
    assert done.version is not None
    reason = str(verdict["reason"])
    sha256 = publish(directory / "candidate", done.version)
    if not _is_registered(store, done.version):
        add_policy(store, done.version, parent=done.parent, round_id=done.round_id, weights_sha256=sha256)
    if verdict["decision"] != "promote":
        mark_policy(store, done.version, "rejected", reason=reason)
        return "rejected"
    if live_version(store) == done.version:
        return "promoted"
    running = read_canary(store)
    if running is not None and running.version == done.version:
        return "canary"
    try:
        taken = promote(done.version, f"round {done.round_id}", reason)
    except HeedError as error:
        mark_policy(store, done.version, "failed", reason=str(error))
        raise
    return "canary" if isinstance(taken, Canary) else "promoted"


def _is_registered(store: Store, version: str) -> bool:
    try:
        read_policy(store, version)
    except NotFound:
        return False
    return True
