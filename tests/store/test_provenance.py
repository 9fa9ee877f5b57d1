"""Which versions learned from somebody, read from real snapshots of real rounds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.database import Store
from store.policies import add_policy
from store.provenance import TrainedVersion, count_rows_of, read_versions_trained_on
from store.rounds import advance_round, create_round
from store.snapshots import write_snapshot
from tests.store import samples


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


def trained(
    store: Store, version: str, parent: str = "v0", start: str = "fresh", without: tuple[str, ...] = ()
) -> str:
    """A round that ended as a version, with the snapshot it trained on."""
    started = create_round(store, "test", "v0", without)
    folder = store.data_dir / "rounds" / started.round_id
    folder.mkdir(parents=True)
    write_snapshot(store, folder / "snapshot", holdout_share=0.0, without=started.without)
    (folder / "round.json").write_text(json.dumps({"trainer": {"start": start}}), "utf-8")
    add_policy(store, version, parent, started.round_id, "ab" * 32)
    advance_round(store, started.round_id, "rejected", reason="test")
    return started.round_id


def judge(store: Store, person_id: str, count: int) -> None:
    for _ in range(count):
        samples.task(store)
        samples.prefer_first(store, samples.lease(store, person_id))


def test_versions_name_who_they_learned_from(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    judge(store, ann, 2)
    first = trained(store, "v1")
    judge(store, bob, 3)
    second = trained(store, "v2")
    assert read_versions_trained_on(store, ann) == [
        TrainedVersion("v1", first, 2, "candidate"),
        TrainedVersion("v2", second, 2, "candidate"),
    ]
    assert read_versions_trained_on(store, bob) == [TrainedVersion("v2", second, 3, "candidate")]
    assert read_versions_trained_on(store, "u_none") == []


def test_a_round_without_a_person_learned_nothing_from_them_unless_it_went_on_from_one_that_did(
    store: Store,
) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    judge(store, ann, 1)
    judge(store, bob, 1)
    trained(store, "v1")
    trained(store, "v2", without=(ann,))
    third = trained(store, "v3", parent="v1", start="previous", without=(ann,))
    assert [found.version for found in read_versions_trained_on(store, ann)] == ["v1", "v3"]
    assert read_versions_trained_on(store, ann)[1] == TrainedVersion(
        "v3", third, 0, "candidate", inherited=True
    )


def test_a_version_whose_snapshot_is_gone_is_named_because_nobody_can_tell(store: Store) -> None:
    judge(store, samples.person(store).person_id, 1)
    round_id = trained(store, "v1")
    shutil.rmtree(store.data_dir / "rounds" / round_id)
    [found] = read_versions_trained_on(store, "u_anyone")
    assert (found.version, found.num_rows) == ("v1", None)


def test_a_snapshot_of_before_is_read_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"person_id": ["u_1", "u_2", "u_1"]}), tmp_path / "pairs.parquet")
    assert count_rows_of(tmp_path, "u_1") == 2
    assert count_rows_of(tmp_path / "none", "u_1") is None
