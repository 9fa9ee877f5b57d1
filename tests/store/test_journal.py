"""The journal: what survives a cut, what is refused, what a full disk leaves behind."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from store.errors import HeedError, NoSpace
from store.journal import FileJournal, encode_line


def write_events(folder: Path, num_events: int, **settings: int) -> list[dict[str, object]]:
    journal = FileJournal(folder, **settings)
    journal.append([b'{"n":%d,"text":"%s"}' % (n, b"x" * (n % 40)) for n in range(num_events)])
    events = [event for _, event in journal.read_after(0)]
    journal.close()
    return events


def test_a_journal_cut_at_any_byte_opens_to_an_exact_prefix(tmp_path: Path) -> None:
    events = write_events(tmp_path, 60)
    path = tmp_path / "000001.jsonl"
    whole, draw = path.read_bytes(), random.Random(3)
    for _ in range(200):
        cut = draw.randrange(len(whole))
        path.write_bytes(whole[:cut])
        journal = FileJournal(tmp_path)
        assert [event for _, event in journal.read_after(0)] == events[: whole[:cut].count(b"\n")]
        assert journal.last_seq == whole[:cut].count(b"\n")
        journal.close()


def test_what_is_cut_off_is_kept_aside_and_appending_goes_on(tmp_path: Path) -> None:
    write_events(tmp_path, 2)
    path = tmp_path / "000001.jsonl"
    path.write_bytes(path.read_bytes() + b"0badc0de 3 {")
    journal = FileJournal(tmp_path)
    journal.append([b'{"n":"next"}'])
    assert [seq for seq, _ in journal.read_after(0)] == [1, 2, 3]
    assert [aside.read_bytes() for aside in tmp_path.glob("*.torn-*")] == [b"0badc0de 3 {"]
    journal.close()


def test_one_flipped_bit_in_the_middle_is_refused_with_its_byte(tmp_path: Path) -> None:
    write_events(tmp_path, 10)
    path = tmp_path / "000001.jsonl"
    damaged = bytearray(path.read_bytes())
    line_start = damaged.index(b"\n") + 1
    damaged[line_start + 20] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(HeedError, match=rf"000001\.jsonl is damaged at byte {line_start}: .*newest backup"):
        FileJournal(tmp_path)
    assert path.read_bytes() == bytes(damaged)


@pytest.mark.parametrize("damage", ["remove a line", "repeat a line"])
def test_a_missing_or_doubled_event_is_refused(tmp_path: Path, damage: str) -> None:
    write_events(tmp_path, 5)
    path = tmp_path / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:] if damage == "remove a line" else lines[:2] + lines[1:]))
    with pytest.raises(HeedError, match="was expected here"):
        FileJournal(tmp_path)


def test_files_rotate_and_a_missing_one_is_named(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, rotate_bytes=200)
    for n in range(10):
        journal.append([b'{"n":%d,"padding":"%s"}' % (n, b"y" * 60)])
    journal.close()
    assert len(journal.files()) > 2
    again = FileJournal(tmp_path, rotate_bytes=200)
    assert [event["n"] for _, event in again.read_after(4)] == [4, 5, 6, 7, 8, 9]
    again.close()
    journal.files()[0].unlink()
    with pytest.raises(HeedError, match=r"000001\.jsonl is missing"):
        FileJournal(tmp_path)


def test_a_full_disk_takes_the_half_written_group_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(tmp_path)
    journal.append([b'{"n":1}'])
    before, real_write = (tmp_path / "000001.jsonl").read_bytes(), os.write
    room = [5]

    def write_until_full(file: int, data: memoryview) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(file, data[: room.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_until_full)
        with pytest.raises(NoSpace, match="the disk is full; nothing was saved"):
            journal.append([b'{"n":2}'])
    assert (tmp_path / "000001.jsonl").read_bytes() == before
    journal.append([b'{"n":2}'])
    assert journal.last_seq == 2
    journal.close()


def test_after_a_failed_fsync_nothing_more_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal = FileJournal(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(HeedError, match="nothing was acknowledged"):
            journal.append([b"{}"])
    with pytest.raises(HeedError, match="restart Heed"):
        journal.append([b"{}"])
    journal.close()


def test_below_the_free_space_floor_nothing_is_written(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, min_free_bytes=2**62)
    with pytest.raises(NoSpace, match="free some space"):
        journal.append([b"{}"])
    assert (tmp_path / "000001.jsonl").stat().st_size == 0
    journal.close()


def test_a_line_is_its_checksum_its_number_and_its_event() -> None:
    assert encode_line(7, b"{}") == b"968af458 7 {}\n"
