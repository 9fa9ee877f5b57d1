"""What `/metrics` tells whoever watches, read back with Prometheus's own parser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metrics import Metrics
from store.backup_keeper import BackupKeeper
from store.database import Store
from store.engine_stats import FIRST_TOKEN_BUCKETS_S, EngineStats, VersionStats
from store.policies import add_policy, promote
from tests.store import samples

BUSY = EngineStats(
    versions={
        "v0": VersionStats(),
        "v1": VersionStats(
            waiting=3, waiting_background=5, running=8, finished=40, cancelled=2, failed=1, tokens=1900,
            tokens_per_s=61.5, first_token_counts=(10, 20, 5, 0, 0, 0, 0, 0, 0, 0, 8),
            first_token_sum_s=250.5, adapter_bytes=2048,
        ),
    },
    slots=8, parked=4, cache_tokens=900, cache_tokens_limit=4096, cache_bytes=77, base_bytes=5000,
)  # fmt: skip
Found = dict[tuple[str, ...], float]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


def read(source: Metrics) -> Found:
    """Values by name and label values."""
    families = text_string_to_metric_families(source.write())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def scrape(store: Store, stats: EngineStats = BUSY, num_degraded: int = 0) -> Found:
    return read(Metrics(store, lambda: stats, live=lambda: "v1", count_degraded=lambda: num_degraded))


def test_each_version_has_its_own_figures(store: Store) -> None:
    found = scrape(store)
    assert found["heed_tokens_total", "v1"] == 1900
    assert found["heed_tokens_total", "v0"] == 0
    assert found["heed_tokens_per_second", "v1"] == 61.5
    assert found["heed_requests_waiting", "v1"] == 3
    assert found["heed_background_waiting", "v1"] == 5
    assert found["heed_requests_running", "v1"] == 8
    ended = [found[f"heed_answers_{how}_total", "v1"] for how in ("finished", "cancelled", "failed")]
    assert ended == [40, 2, 1]
    assert found["heed_adapter_bytes", "v1"] == 2048


def test_the_first_token_histogram_is_cumulative_and_ends_in_infinity(store: Store) -> None:
    found = scrape(store)
    upto = {key[1]: value for key, value in found.items() if key[0].endswith("_bucket") and key[2] == "v1"}
    assert len(upto) == len(FIRST_TOKEN_BUCKETS_S) + 1
    assert [upto[bound] for bound in ("0.025", "0.05", "0.1", "30.0", "+Inf")] == [10, 30, 35, 35, 43]
    assert found["heed_first_token_seconds_count", "v1"] == 43
    assert found["heed_first_token_seconds_sum", "v1"] == 250.5


def test_the_engine_as_a_whole_and_what_is_degraded(store: Store) -> None:
    found = scrape(store, num_degraded=2)
    assert found["heed_engine_slots",] == 8
    assert found["heed_engine_parked",] == 4
    assert found["heed_cache_tokens",] == 900
    assert found["heed_cache_tokens_limit",] == 4096
    assert found["heed_base_bytes",] == 5000
    assert found["heed_degraded",] == 2
    assert found["heed_live_version", "v1"] == 1


def test_swaps_are_counted_by_kind_from_the_first_scrape_on(store: Store) -> None:
    assert scrape(store)["heed_swaps_total", "promote"] == 0
    add_policy(store, "v1", "v0", None, "0" * 64)
    promote(store, "v1", "root")
    promote(store, "v0", "root", kind="rollback")
    promote(store, "v1", "root")
    found = scrape(store)
    assert (found["heed_swaps_total", "promote"], found["heed_swaps_total", "rollback"]) == (2, 1)


def test_metrics_tell_how_old_the_backup_is_and_that_one_failed(store: Store, tmp_path: Path) -> None:
    keeper = BackupKeeper(store, tmp_path / "backups", timedelta(hours=1))
    source = Metrics(store, EngineStats, lambda: "v0", lambda: 0, keeper.read_status)
    assert read(source)["heed_backup_age_seconds",] == float("inf")
    samples.prompt(store)
    keeper.tick()
    assert 0 <= read(source)["heed_backup_age_seconds",] < 600
    assert read(source)["heed_backup_failed",] == 0
    assert ("heed_backup_failed",) not in scrape(store)
