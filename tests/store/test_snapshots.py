"""Snapshots: the same bytes from the same events, no prompt on both sides, every label accounted for."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from store.completions import save_completion
from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.exchange import export_labels
from store.judgements import save_judgement, undo_last
from store.labels import prompt_digest
from store.outside import add_outside_labels
from store.people import set_trained_on
from store.policies import add_policy, promote
from store.ratings import save_rating
from store.records import Message, OutsideLabel
from store.replay import ReplaySettings
from store.rounds import advance_round, create_round
from store.shares import pseudonym
from store.snapshots import LabelCounts, count_labels, count_new_labels, is_held_out, write_snapshot
from tests.store import samples


def read_rows(path: Path) -> list[dict[str, object]]:
    return [dict(row) for row in pq.read_table(path).to_pylist()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def judge_some(store: Store, num_pairs: int = 12) -> str:
    """Preferences on prompts that differ in the number alone; returns who judged."""
    ann = samples.person(store).person_id
    for _ in range(num_pairs):
        samples.task(store)
        samples.prefer_first(store, samples.lease(store, ann))
    return ann


def end_round(store: Store, state: str, snapshot_seq: int | None = None) -> str:
    started = create_round(store, "by hand", "v0")
    advance_round(store, started.round_id, state, snapshot_seq=snapshot_seq)  # type: ignore[arg-type]
    return started.round_id


def test_a_rebuilt_store_writes_the_same_bytes(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    samples.fill(store)
    judge_some(store)
    first = write_snapshot(store, tmp_path / "one", holdout_share=0.3)
    store.close()
    (tmp_path / "data" / "heed.duckdb").unlink()
    store = Store.open(tmp_path / "data")
    second = write_snapshot(store, tmp_path / "two", holdout_share=0.3)
    store.close()
    assert first == second
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_the_seal_lists_every_file_with_its_hash(store: Store, tmp_path: Path) -> None:
    judge_some(store, 2)
    report = write_snapshot(store, tmp_path / "snapshot")
    files = bytes_of(tmp_path / "snapshot")
    listing = files.pop("SHA256")
    assert sorted(files) == ["holdout.parquet", "pairs.parquet", "ratings.parquet", "report.json"]
    expected = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    assert listing.decode() == expected
    assert report.sha256 == hashlib.sha256(listing).hexdigest()


def test_no_prompt_is_on_both_sides_of_the_split(store: Store, tmp_path: Path) -> None:
    for text in ("What is  a Cat?", "what is a cat?", "WHAT IS A CAT?\n"):
        ann = samples.person(store).person_id
        samples.task(store, asked=text)
        samples.prefer_first(store, samples.lease(store, ann))
    judge_some(store, 30)
    report = write_snapshot(store, tmp_path / "snapshot", holdout_share=0.4)
    sides = {}
    for name in ("pairs", "holdout"):
        rows = read_rows(tmp_path / "snapshot" / f"{name}.parquet")
        sides[name] = {prompt_digest(json.loads(str(row["messages_json"]))) for row in rows}
    assert report.num_pairs + report.num_holdout == 33
    assert report.num_pairs > 0
    assert report.num_holdout > 0
    assert sides["pairs"].isdisjoint(sides["holdout"])
    assert len(sides["pairs"] | sides["holdout"]) == 31


def test_a_prompt_once_held_out_stays_held_out() -> None:
    prompts = [samples.ask(f"question {n}") for n in range(300)]
    held = {
        share: {n for n, prompt in enumerate(prompts) if is_held_out(prompt, share)} for share in (0.1, 0.3)
    }
    assert held[0.1] < held[0.3]
    assert 60 < len(held[0.3]) < 120


def test_every_sort_of_label_becomes_the_rows_it_should(store: Store, tmp_path: Path) -> None:
    ann = samples.person(store).person_id

    def judge(kind: str, **act: object) -> None:
        samples.task(store, kind)  # type: ignore[arg-type]
        held = samples.lease(store, ann, kind)  # type: ignore[arg-type]
        save_judgement(store, held.task.task_id, ann, **act)  # type: ignore[arg-type]

    samples.task(store)
    preferred = samples.prefer_first(store, samples.lease(store, ann))
    judge("pair", choice="both_bad")
    judge("pair", choice="tie")
    judge("pair", choice="skip")
    judge("single", choice="up")
    judge("single", choice="down", correction="a better answer")
    thumbs = [save_completion(store, samples.answer(f"chat {n}")).completion_id for n in range(3)]
    save_rating(store, thumbs[0], ann, 1)
    save_rating(store, thumbs[0], ann, -1)
    save_rating(store, thumbs[1], ann, 1)
    save_rating(store, thumbs[2], ann, 1)
    save_rating(store, thumbs[2], ann, 0)

    report = write_snapshot(store, tmp_path / "snapshot", holdout_share=0.0)

    pairs = {str(row["row_id"]): row for row in read_rows(tmp_path / "snapshot" / "pairs.parquet")}
    ratings = read_rows(tmp_path / "snapshot" / "ratings.parquet")
    assert (report.num_pairs, report.num_ratings, report.num_holdout) == (2, 6, 0)
    assert pairs[preferred.judgement_id]["chosen_ids"] == [1, 2, 3]
    assert pairs[preferred.judgement_id]["strength"] == 1
    [edit] = [row for row in pairs.values() if row["chosen_version"] == "edited"]
    assert (edit["chosen"], edit["rejected"], edit["chosen_ids"]) == ("a better answer", "only answer", [])
    by_text = sorted((str(row["completion"]), row["desirable"]) for row in ratings)
    assert by_text == [
        ("chat 0", False),
        ("chat 1", True),
        ("first answer", False),
        ("only answer", False),
        ("only answer", True),
        ("second answer", False),
    ]
    assert report.counts_by_reason == {
        "both_bad": 1,
        "correction": 1,
        "down": 1,
        "prefer": 1,
        "rating_replaced": 2,
        "skip": 1,
        "thumb_down": 1,
        "thumb_taken_back": 1,
        "thumb_up": 1,
        "tie": 1,
        "up": 1,
    }
    assert count_labels(store) == LabelCounts(pairs=2, ratings=5, total=7)
    assert len(list(export_labels(store))) == report.num_pairs + report.num_ratings


def test_a_pair_of_equal_texts_is_left_out_aloud(store: Store, tmp_path: Path) -> None:
    ann = samples.person(store).person_id
    samples.task(store)
    held = samples.lease(store, ann)
    chosen_id, rejected_id = held.task.completion_ids
    act = {"choice": "prefer", "chosen_id": chosen_id, "rejected_id": rejected_id, "strength": 2}
    save_judgement(store, held.task.task_id, ann, correction="first answer", **act)  # type: ignore[arg-type]
    report = write_snapshot(store, tmp_path / "snapshot", holdout_share=0.0)
    assert (report.num_pairs, report.counts_by_reason["same_text"]) == (1, 1)


def test_an_undone_label_leaves_the_next_snapshot(store: Store, tmp_path: Path) -> None:
    ann = judge_some(store, 3)
    assert write_snapshot(store, tmp_path / "before", holdout_share=0.0).num_pairs == 3
    undo_last(store, ann)
    report = write_snapshot(store, tmp_path / "after", holdout_share=0.0)
    assert (report.num_pairs, report.counts_by_reason["undone"]) == (2, 1)


def test_a_label_that_arrives_during_the_export_belongs_to_the_next_round(
    store: Store, tmp_path: Path
) -> None:
    judge_some(store, 5)
    stop = threading.Event()

    def keep_judging() -> None:
        while not stop.is_set():
            judge_some(store, 1)

    writer = threading.Thread(target=keep_judging)
    writer.start()
    reports = [write_snapshot(store, tmp_path / str(n), holdout_share=0.0) for n in range(5)]
    stop.set()
    writer.join()
    for number, report in enumerate(reports):
        rows = read_rows(tmp_path / str(number) / "pairs.parquet")
        with store.read() as cursor:
            sql = "SELECT judgement_id FROM judgements WHERE seq <= ? ORDER BY judgement_id"
            expected = [row_id for (row_id,) in cursor.execute(sql, [report.seq]).fetchall()]
        assert [row["row_id"] for row in rows] == expected


def test_only_a_round_that_decided_consumes_labels(store: Store, tmp_path: Path) -> None:
    judge_some(store, 4)
    assert count_new_labels(store, None).total == 4
    for state in ("failed", "cancelled", "interrupted"):
        end_round(store, state)
        assert count_new_labels(store, None).total == 4
    seq = write_snapshot(store, tmp_path / "snapshot").seq
    judge_some(store, 2)
    decided = end_round(store, "rejected", snapshot_seq=seq)
    assert count_new_labels(store, None).total == 2
    assert count_new_labels(store, decided) == LabelCounts(pairs=2, ratings=0, total=2)
    assert count_labels(store).total == 6
    end_round(store, "promoted")
    assert count_new_labels(store, None).total == 0
    with pytest.raises(NotFound):
        count_new_labels(store, "rd_none")


def test_a_snapshot_is_never_overwritten_and_impossible_shares_are_refused(
    store: Store, tmp_path: Path
) -> None:
    write_snapshot(store, tmp_path / "snapshot")
    with pytest.raises(StateConflict, match="never written twice"):
        write_snapshot(store, tmp_path / "snapshot")
    with pytest.raises(BadValue, match=r"holdout_share 1.0 is outside \[0, 1\)"):
        write_snapshot(store, tmp_path / "other", holdout_share=1.0)


def test_labels_of_every_version_are_exported_without_names(store: Store) -> None:
    add_policy(store, "v1", "v0", None, None)
    promote(store, "v1", "admin")
    ann = samples.person(store)
    samples.task(store, version="v1")
    samples.prefer_first(store, samples.lease(store, ann.person_id))
    [row] = export_labels(store)
    assert row["chosen"] == [Message(role="assistant", content="first answer")]
    assert (row["chosen_version"], row["format"]) == ("v1", "preference")
    assert ann.person_id not in json.dumps(row)
    assert ann.name not in json.dumps(row)


def test_a_slight_preference_counts_half_of_a_strong_one(store: Store, tmp_path: Path) -> None:
    ann = samples.person(store).person_id
    for strength in (1, 2):
        samples.task(store)
        held = samples.lease(store, ann)
        chosen, rejected = held.task.completion_ids
        save_judgement(
            store,
            held.task.task_id,
            ann,
            choice="prefer",
            chosen_id=chosen,
            rejected_id=rejected,
            strength=strength,
        )
    write_snapshot(store, tmp_path / "snapshot", holdout_share=0.0)
    weights = {row["strength"]: row["weight"] for row in read_rows(tmp_path / "snapshot" / "pairs.parquet")}
    assert weights == {1: 0.5, 2: 1.0}


def judge_together(store: Store, people: list[str], verdicts: str) -> None:
    """One pair judged by these people; 1 and 2 say which answer each prefers."""
    task = samples.task(store, wanted=len(people))
    for person_id, verdict in zip(people, verdicts, strict=True):
        samples.lease(store, person_id)
        chosen, rejected = task.completion_ids if verdict == "1" else task.completion_ids[::-1]
        both = {"chosen_id": chosen, "rejected_id": rejected}
        save_judgement(store, task.task_id, person_id, choice="prefer", strength=2, **both)


def test_several_people_on_one_task_give_one_row_that_names_them_all(store: Store, tmp_path: Path) -> None:
    people = [samples.person(store).person_id for _ in range(3)]
    for verdicts in ("111", "222", "112"):
        judge_together(store, people, verdicts)
    report = write_snapshot(store, tmp_path / "snapshot", holdout_share=0.0)
    rows = read_rows(tmp_path / "snapshot" / "pairs.parquet")
    assert report.num_pairs == 3
    assert all(row["person_ids"] == people for row in rows)
    assert all(len(row["label_ids"]) == 3 for row in rows)  # type: ignore[arg-type]
    assert sorted(str(row["chosen"]) for row in rows) == ["first answer", "first answer", "second answer"]
    by_certainty = sorted(rows, key=lambda row: float(str(row["probability"])))
    assert by_certainty[0]["weight"] <= by_certainty[1]["weight"]  # type: ignore[operator]
    assert report.counts_by_reason["combined"] == 9
    assert count_labels(store).pairs == 3


def test_a_person_is_left_out_for_good_or_for_one_round_and_counted(store: Store, tmp_path: Path) -> None:
    ann, bob, eve = judge_some(store, 2), judge_some(store, 3), judge_some(store, 4)
    set_trained_on(store, eve, False, "admin")
    assert count_labels(store).pairs == 5
    report = write_snapshot(store, tmp_path / "one", holdout_share=0.0, without=[bob])
    assert report.num_pairs == 2
    assert report.counts_by_reason["person_left_out"] == 4
    assert report.counts_by_reason["person_left_out_of_this_round"] == 3
    assert {row["person_ids"][0] for row in read_rows(tmp_path / "one" / "pairs.parquet")} == {ann}  # type: ignore[index]
    assert write_snapshot(store, tmp_path / "two", holdout_share=0.0).num_pairs == 5


def test_the_report_tells_sources_shares_and_agreement_without_names(store: Store, tmp_path: Path) -> None:
    people = [judge_some(store, 1) for _ in range(11)]
    flood = judge_some(store, 60)
    write_snapshot(store, tmp_path / "snapshot", holdout_share=0.0)
    report = json.loads((tmp_path / "snapshot" / "report.json").read_text("utf-8"))
    assert report["pairs_by_source"] == {"human": 71}
    assert list(report["pair_shares"]["capped"]) == [pseudonym(flood)]
    assert report["pair_shares"]["shares"][pseudonym(flood)] == pytest.approx(60 / 71)
    assert report["alpha"]["why"].startswith("undefined: no task has been judged by two people")
    rows = read_rows(tmp_path / "snapshot" / "pairs.parquet")
    total = sum(float(str(row["weight"])) for row in rows)
    theirs = sum(float(str(row["weight"])) for row in rows if row["person_ids"] == [flood])
    assert theirs / total == pytest.approx(0.1)
    assert not any(person_id in json.dumps(report) for person_id in people)


def test_an_outside_label_reserved_for_the_holdout_takes_its_whole_prompt_there(
    store: Store, tmp_path: Path
) -> None:
    ann = samples.person(store).person_id
    samples.task(store, asked="shared prompt")
    samples.prefer_first(store, samples.lease(store, ann))
    label = OutsideLabel(
        "", "pair", "import:x", samples.ask("Shared  PROMPT"), "good", samples.AT, "bad", split="holdout"
    )
    free = replace(label, messages=samples.ask("another"), split=None)
    add_outside_labels(store, [label, free])
    report = write_snapshot(store, tmp_path / "snapshot", holdout_share=0.0)
    assert (report.num_pairs, report.num_holdout) == (1, 2)
    assert count_labels(store).pairs == 2


def test_a_synthetic_pair_is_never_a_yardstick_unless_it_was_reserved_for_that(
    store: Store, tmp_path: Path
) -> None:
    labels = [
        OutsideLabel(
            "", "pair", "synthetic:x", samples.ask(f"question {n}"), "good", samples.AT, "bad",
            split="holdout" if n == 0 else None,
        )
        for n in range(40)
    ]  # fmt: skip
    add_outside_labels(store, labels)
    report = write_snapshot(store, tmp_path / "snapshot", holdout_share=0.5)
    assert report.num_holdout == 1
    assert report.counts_by_reason["held_out_outside"] + report.num_pairs == 39
    assert report.counts_by_reason["held_out_outside"] > 5


def make_live(store: Store, version: str, parent: str, round_id: str | None) -> None:
    add_policy(store, version, parent, round_id, None)
    promote(store, version, "admin")


def since(store: Store, folder: Path) -> int:
    """Where the old labels end for a snapshot that is taken now."""
    write_snapshot(store, folder, holdout_share=0.0, replay=ReplaySettings("equal"))
    return int(json.loads((folder / "report.json").read_text("utf-8"))["recipe"]["since"])


def test_labels_of_a_rejected_round_are_new_to_the_adapter_that_is_continued(
    store: Store, tmp_path: Path
) -> None:
    """They once counted as old, and the next round trained on its few new ones and as many replayed."""
    judge_some(store, 4)
    learned = write_snapshot(store, tmp_path / "first")
    make_live(store, "v1", "v0", end_round(store, "promoted", learned.seq))
    judge_some(store, 6)
    refused = write_snapshot(store, tmp_path / "second")
    end_round(store, "rejected", refused.seq)
    judge_some(store, 1)
    assert count_new_labels(store).pairs == 1
    report = write_snapshot(store, tmp_path / "third", holdout_share=0.0, replay=ReplaySettings("equal"))
    replayed = json.loads((tmp_path / "third" / "report.json").read_text("utf-8"))["replay"]["pairs"]
    assert (replayed["num_new"], replayed["old_by_version"]) == (7, {"v0": 4})
    assert report.num_pairs == 11


def test_old_labels_end_where_the_live_versions_own_round_took_its_snapshot(
    store: Store, tmp_path: Path
) -> None:
    assert since(store, tmp_path / "base") == 0
    make_live(store, "v1", "v0", end_round(store, "promoted", 3))
    make_live(store, "v2", "v1", end_round(store, "promoted", 7))
    end_round(store, "canary", 9)  # on trial, so that nobody continues from it yet
    assert since(store, tmp_path / "newest") == 7
    promote(store, "v1", "admin", kind="rollback")
    assert since(store, tmp_path / "rolled_back") == 3
    make_live(store, "v3", "v1", None)
    assert since(store, tmp_path / "of_no_round") == 0
