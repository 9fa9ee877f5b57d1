"""A state on disk is believed whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from store.errors import BadValue
from trainer.checkpoints import (
    MANIFEST,
    check_can_resume,
    draft_folder,
    find_checkpoint,
    find_fault,
    hash_origin,
    keep_newest,
    remove_work,
    seal,
    step_name,
    sweep,
    where_it_stands,
)

ORIGIN = hash_origin("plan", "data")


def save(stage: Path, name: str, origin: str = ORIGIN) -> Path:
    draft = draft_folder(stage, name)
    (draft / "weights").write_bytes(b"w" * 1000)
    (draft / "optimizer").write_bytes(b"o" * 1000)
    return seal(draft, origin)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "dpo"
    for step in (9, 10, 11):
        save(folder, step_name(step))
    return folder


def test_the_newest_by_number_is_found(stage: Path) -> None:
    assert find_checkpoint(stage, ORIGIN) == stage / "step-11"


def test_every_cut_of_every_file_is_recognised(stage: Path) -> None:
    for name in ("weights", "optimizer", MANIFEST):
        for length in (0, 1, 200, -1):
            folder = save(stage, "step-20")
            whole = (folder / name).read_bytes()
            (folder / name).write_bytes(whole[:length])
            # A manifest lacks only its last newline then, and still says everything.
            is_whole = name == MANIFEST and length == -1
            assert (find_fault(folder, ORIGIN) is None) == is_whole, (name, length)
            assert find_checkpoint(stage, ORIGIN) == (folder if is_whole else stage / "step-11")


def test_one_flipped_bit_is_recognised(stage: Path) -> None:
    path = stage / "step-11" / "weights"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(bytes(content))
    assert find_fault(stage / "step-11") == "weights is not what was written"


def test_a_missing_file_is_named(stage: Path) -> None:
    (stage / "step-11" / "optimizer").unlink()
    assert find_fault(stage / "step-11") == "optimizer is missing"


def test_drafts_torn_and_foreign_states_are_swept_aloud_and_the_rest_stays(stage: Path) -> None:
    draft_folder(stage, "step-12")
    save(stage, "step-10", origin=hash_origin("another plan"))
    (stage / "step-11" / MANIFEST).unlink()
    assert sweep(stage, ORIGIN) == [
        "step-12.tmp was never finished",
        "step-11: its manifest is missing or cannot be read",
        "step-10: it was made by another plan, other data or other packages",
    ]
    assert [path.name for path in stage.iterdir()] == ["step-9"]


def test_a_checkpoint_written_again_replaces_the_one_before(stage: Path) -> None:
    (stage / "step-11" / "weights").write_bytes(b"")
    save(stage, "step-11")
    assert find_fault(stage / "step-11", ORIGIN) is None


def test_only_the_newest_two_are_kept(stage: Path) -> None:
    keep_newest(stage)
    assert sorted(path.name for path in stage.iterdir()) == ["step-10", "step-11"]


def test_where_a_round_stands_is_said_in_words(tmp_path: Path, stage: Path) -> None:
    assert where_it_stands(tmp_path / "elsewhere") == "its beginning"
    assert where_it_stands(tmp_path) == "step 11 of dpo"
    save(stage, "finished")
    assert where_it_stands(tmp_path) == "the end of dpo"
    save(stage.with_name("kto"), "step-2")
    assert where_it_stands(tmp_path) == "step 2 of kto"
    remove_work(tmp_path)
    assert where_it_stands(tmp_path) == "its beginning"


def test_a_directory_without_a_plan_or_a_snapshot_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="its snapshot was not finished"):
        check_can_resume(tmp_path)
    (tmp_path / "round.json").write_text(json.dumps({}))
    with pytest.raises(BadValue, match="its snapshot is gone"):
        check_can_resume(tmp_path)
    (tmp_path / "snapshot").mkdir()
    check_can_resume(tmp_path)
