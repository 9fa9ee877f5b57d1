"""What app.py tells whoever watches."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app import write_metrics
from store.backup_keeper import BackupKeeper
from store.database import Store
from tests.store import samples


def test_metrics_tell_how_old_the_backup_is_and_that_one_failed(tmp_path: Path) -> None:
    store, board = Store.open(tmp_path / "data"), SimpleNamespace(resolve=lambda _: "v0")
    keeper = BackupKeeper(store, tmp_path / "backups", timedelta(hours=1))

    def gauges(backups: BackupKeeper | None) -> dict[str, float]:
        asked: Any = board
        lines = write_metrics(store, asked, backups).splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if line[0] != "#")}

    assert gauges(keeper)["heed_backup_age_seconds"] == float("inf")
    samples.prompt(store)
    keeper.tick()
    assert 0 <= gauges(keeper)["heed_backup_age_seconds"] < 600
    assert gauges(keeper)["heed_backup_failed"] == 0
    assert "heed_backup_failed" not in gauges(None)
    store.close()
