"""A stand-in for the canary's router: starts and ends one in a real store, where no engine serves it."""

from __future__ import annotations

from store.canaries import end_canary, read_canary, start_canary
from store.canary_rows import Canary
from store.canary_settings import CanarySettings
from store.database import Store
from store.errors import StateConflict
from store.policies import promote
from store.records import Promotion


class StoreDesk:
    """Starts and ends canaries in the store alone: no version has to be loaded."""

    def __init__(self, store: Store, settings: CanarySettings | None = None) -> None:
        self.settings = settings or CanarySettings()
        self._store = store

    def start(self, version: str, share: float | None, actor: str, reason: str = "") -> Canary:
        return start_canary(self._store, version, share or self.settings.share, actor, reason)

    def stop(self, actor: str, reason: str = "") -> Canary:
        return end_canary(self._store, self._require().canary_id, "stopped", actor, reason)

    def promote(self, actor: str, reason: str = "") -> Promotion:
        return promote(self._store, self._require().version, actor, reason=reason)

    def _require(self) -> Canary:
        running = read_canary(self._store)
        if running is None:
            raise StateConflict("no canary runs; start one with a version and a share")
        return running
