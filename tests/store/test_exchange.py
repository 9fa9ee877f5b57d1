"""What goes out comes back: nothing of a label is lost on the way, and no spreadsheet computes anything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import datasets
import pytest

from store.clock import utc
from store.database import Store
from store.errors import BadValue, StateConflict
from store.exchange import ExportFilter, export_labels
from store.export_files import (
    to_csv_lines,
    to_json_lines,
    write_by_kind,
    write_dataset,
    write_json_lines,
)
from store.importing import import_file
from store.judgements import save_judgement
from store.outside import add_outside_labels, count_outside_labels, read_outside_labels
from store.records import OutsideLabel
from store.shares import pseudonym
from store.snapshots import is_held_out
from tests.store import samples

FIXTURES = Path(__file__).parent / "formats" / "fixtures"
LABELS = sorted(path.name for path in FIXTURES.iterdir() if not path.name.startswith("prompts"))


@pytest.fixture
def other() -> Iterator[Store]:
    opened = Store.in_memory()
    yield opened
    opened.close()


def read(store: Store) -> list[OutsideLabel]:
    """Every outside label without the id, which each store makes for itself, in an order of their own."""
    with store.read() as cursor:
        labels = [replace(label, label_id="") for label in read_outside_labels(cursor)]
    return sorted(
        labels,
        key=lambda label: (
            label.source,
            label.kind,
            label.messages[-1]["content"],
            label.chosen,
            str(label.rejected),
        ),
    )


def judge(store: Store) -> str:
    """A pair judged by a new person, whose id comes back."""
    person_id = samples.person(store).person_id
    samples.task(store)
    held = samples.lease(store, person_id)
    chosen, rejected = held.task.completion_ids
    save_judgement(
        store,
        held.task.task_id,
        person_id,
        choice="prefer",
        chosen_id=chosen,
        rejected_id=rejected,
        strength=2,
        active_ms=4200,
    )
    return person_id


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("format_", ["jsonl", "parquet", "dataset"])
def test_a_label_of_every_format_survives_export_and_import(
    store: Store, other: Store, tmp_path: Path, name: str, format_: str
) -> None:
    import_file(store, FIXTURES / name)
    rows = list(export_labels(store))
    if format_ == "jsonl":
        files = [tmp_path / "labels.jsonl"]
        assert write_json_lines(rows, files[0]) == len(rows)
    elif format_ == "parquet":
        files = list(write_by_kind(rows, tmp_path / "labels.parquet", "parquet"))
    else:
        written = write_dataset(rows, tmp_path / "set", guidelines_version=3)
        files = [tmp_path / "set" / path for path in written]
    for file in files:
        assert import_file(other, file).format == "heed"
    assert read(other) == read(store)
    assert len(read(other)) == len(rows) > 0
    for file in files:
        assert import_file(store, file).added == 0  # where they came from they are known


def test_everything_an_outside_label_can_hold_survives(store: Store, other: Store, tmp_path: Path) -> None:
    full = OutsideLabel(
        "",
        "pair",
        "judge:some-model",
        samples.ask("=1+1"),
        "=cmd|' /C calc'!A0",
        samples.AT,
        rejected="",
        strength=3,
        weight=0.25,
        annotator="judge",
        task_id="t_1",
        split="holdout",
        extra={"Ü": [1, 2.5, None, {"a": True}], "text": "line\nline"},
    )
    rating = replace(
        full, kind="rating", rejected=None, desirable=False, split=None, source="synthetic", strength=1
    )
    add_outside_labels(store, [full, rating])
    write_json_lines(export_labels(store), tmp_path / "labels.jsonl")
    import_file(other, tmp_path / "labels.jsonl")
    assert read(other) == read(store)


def test_a_persons_label_comes_back_stamped_as_an_import(store: Store, other: Store, tmp_path: Path) -> None:
    person_id = judge(store)
    [row] = export_labels(store)
    assert (row["source"], row["active_ms"], row["strength"], row["weight"]) == ("human", 4200, 2, 1.0)
    write_json_lines([row], tmp_path / "labels.jsonl")
    assert import_file(other, tmp_path / "labels.jsonl").added == 1
    [label] = read(other)
    assert (label.source, label.annotator, label.strength) == ("import:heed", pseudonym(person_id), 2)
    assert label.created_at.isoformat() == row["created_at"]
    assert (label.extra["active_ms"], label.extra["chosen_version"]) == (4200, "v0")
    again = list(export_labels(other))
    assert again[0]["prompt"] == row["prompt"]
    assert json.loads(again[0]["extra_json"])["row_id"] == row["row_id"]


def test_the_split_is_that_of_the_snapshots_unless_the_source_gave_one(store: Store) -> None:
    given = OutsideLabel(
        "", "pair", "import:x", samples.ask("given"), "a", utc(), rejected="b", split="holdout"
    )
    labels = [replace(given, messages=samples.ask(f"q{n}"), split=None) for n in range(40)]
    add_outside_labels(store, [given, *labels])
    rows = list(export_labels(store, holdout_share=0.3))
    assert {row["split"] for row in rows} == {"train", "holdout"}
    for row in rows[1:]:
        assert row["split"] == ("holdout" if is_held_out(row["prompt"], 0.3) else "train")
    assert rows[0]["split"] == "holdout"


def test_labels_can_be_chosen_by_kind_source_version_person_and_time(store: Store) -> None:
    person_id = judge(store)
    import_file(store, FIXTURES / "open-webui.json")
    now = utc()

    def count(**wanted: object) -> int:
        return sum(1 for _ in export_labels(store, ExportFilter(**wanted)))  # type: ignore[arg-type]

    assert count() == 4
    assert count(kind="unpaired") == 2
    assert count(source="human") == 1
    assert count(source="import:") == 3
    assert count(version="v0") == 1
    assert count(annotator=pseudonym(person_id)) == 1
    assert count(since=now - timedelta(minutes=1)) == 1
    assert count(until=now - timedelta(minutes=1)) == 3
    with pytest.raises(BadValue, match="neither preference nor unpaired"):
        ExportFilter(kind="both")  # type: ignore[arg-type]


def test_no_cell_of_the_csv_begins_as_a_formula(store: Store) -> None:
    evil = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "plain", 'a,"b"\nc')
    for text in evil:
        add_outside_labels(
            store,
            [
                OutsideLabel(
                    "", "pair", "import:x", samples.ask(text), text, utc(), rejected="b", annotator=text
                )
            ],
        )
    rows = list(export_labels(store))
    cells = list(csv.reader(io.StringIO("".join(to_csv_lines(rows, "preference")))))
    assert len(cells) == len(evil) + 1
    assert not [cell for line in cells for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    at = cells[0].index("annotators")
    assert json.loads(cells[1][at]) == ["=1+1"]
    assert "'=1+1" not in "".join(to_json_lines(rows))  # only spreadsheets need it


def test_a_cell_that_would_be_a_formula_gets_a_quote() -> None:
    from store.export_files import escape_formula

    assert [escape_formula(text) for text in ("=x", "-x", "x=")] == ["'=x", "'-x", "x="]


def test_a_dataset_folder_is_opened_by_its_name_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    judge(store)
    for name in ("open-webui.json", "hh-rlhf.jsonl", "oasst1.jsonl"):
        import_file(store, FIXTURES / name)
    rows = list(export_labels(store, holdout_share=0.5))
    folder = tmp_path / "set"
    written = write_dataset(rows, folder, guidelines_version=2)
    assert sum(written.values()) == len(rows)
    for kind in ("preference", "unpaired"):
        opened = datasets.load_dataset(str(folder), kind, cache_dir=str(tmp_path / "cache"))
        assert {split: len(opened[split]) for split in opened} == {
            path.stem: count for path, count in written.items() if path.parent.name == kind
        }
    card = (folder / "README.md").read_text("utf-8")
    assert "size_categories:\n- n<1K" in card
    assert "Guidelines of the annotators: version 2." in card
    assert "| import:oasst1 | 4 |" in card
    with pytest.raises(StateConflict, match="is there already"):
        write_dataset(rows, folder, None)
    with pytest.raises(BadValue, match="no label"):
        write_dataset([], tmp_path / "empty", None)
    assert count_outside_labels(store)["import:hh-rlhf"] == 2
