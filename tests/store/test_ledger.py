"""Nothing vanishes: each label of a random store is used, held out, or left out for a reason with a name."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from store.effective import QualitySettings
from store.events import new_event, to_json
from store.journal import MemoryJournal
from store.ledger import UNEXPLAINED
from store.projection import Projection
from store.replay import ReplaySettings
from store.shares import pseudonym
from store.snapshots import Recipe, write_from_tables
from tests.store import samples
from tests.store.random_labels import random_events

LABEL_TABLES = ("judgements", "ratings", "adjudications", "outside_labels")
# No shrinking: a failing case is a seed, and each try builds every table anew.
FEW = settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@FEW
@given(
    seed=st.integers(0, 2**32),
    holdout_share=st.sampled_from([0.0, 0.3]),
    without=st.sampled_from([(), ("ann",)]),
    mode=st.sampled_from(["all", "equal", "none"]),
)
def test_every_label_is_accounted_for(
    seed: int, holdout_share: float, without: tuple[str, ...], mode: str
) -> None:
    events = [new_event("store_created", samples.AT), *random_events(Random(seed), 30)]
    journal = MemoryJournal()
    journal.append([to_json(event).encode() for event in events])
    recipe = Recipe(
        seq=len(events),
        since=len(events) // 2,
        holdout_share=holdout_share,
        without=tuple(pseudonym(name) for name in without),
        quality=QualitySettings(),
        replay=ReplaySettings(mode),  # type: ignore[arg-type]
    )
    with contextlib.closing(Projection(None, journal)) as tables, tables.read() as cursor:
        counts = [cursor.execute(f"SELECT count(*) FROM {table}").fetchone() for table in LABEL_TABLES]
        report, rows = take(cursor, recipe)
    for account in (report["labels"], report["corrections"]):
        assert account["in"] == account["used"] + account["held_out"] + sum(account["left_out"].values())
        assert UNEXPLAINED not in account["left_out"], account
    assert report["labels"]["in"] == sum(count[0] for count in counts if count)
    trained = {label_id for row in (*rows["pairs"], *rows["ratings"]) for label_id in row["label_ids"]}
    held = {label_id for row in rows["holdout"] for label_id in row["label_ids"]} - trained
    assert report["labels"]["used"] == len(trained)
    assert report["labels"]["held_out"] == len(held)


def take(cursor: Any, recipe: Recipe) -> tuple[Any, dict[str, list[dict[str, Any]]]]:
    """The report and the rows of a snapshot of these tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "snapshot"
        write_from_tables(cursor, folder, recipe)
        names = ("pairs", "ratings", "holdout")
        rows = {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in names}
        return json.loads((folder / "report.json").read_text("utf-8")), rows
