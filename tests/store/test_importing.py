"""An import is all or nothing, names what is wrong by its place, and takes no label twice."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.database import Store
from store.errors import BadValue, HeedError, NotFound
from store.formats import FORMATS
from store.formats.reading import Problem
from store.importing import import_file, preview
from store.outside import count_outside_labels, read_outside_labels
from store.prompts import count_prompts

PAIR = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}


def lines(rows: list[Any]) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())


def thousand(bad: bytes) -> io.BytesIO:
    good = [json.dumps(PAIR | {"prompt": f"question {n}"}).encode() for n in range(1000)]
    good[500] = bad
    return io.BytesIO(b"\r\n".join(good))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'{"prompt": "a", "chosen": }', "line 501, column 27: not JSON: Expecting value"),
        (b'{"prompt": "a", "chosen": "b"}', "line 501: field 'rejected' is missing"),
        (
            b'{"prompt": "a", "chosen": 7, "rejected": "c"}',
            "line 501: field 'chosen' must be text, not a number",
        ),
        (b'{"prompt": "a", "prompt": "b"}', "line 501: field 'prompt' is given twice"),
        (b'{"prompt": "a", "chosen": NaN}', "line 501: NaN is not a JSON value"),
        (b'{"prompt": "\xff"}', "line 501, column 13: byte 13 is not UTF-8"),
        (b'["a"]', "line 501: a row must be a JSON object, not a list"),
        (b"[" * 100_000, "line 501: this JSON is nested too deeply"),
        (b'{"x": ' + b"9" * 5000 + b"}", "line 501: a number of 5000 digits is too large"),
        (b'{"prompt": "a", "chosen": "\\u0000", "rejected": "c"}', "line 501: the chosen answer holds a NUL"),
        (b'{"prompt": "a", "chosen": "\\ud800", "rejected": "c"}', "half of a surrogate pair"),
        (
            b'{"prompt": "a", "chosen": "b", "rejected": "c", "x": "\\udfff"}',
            "extra fields of a label are not JSON",
        ),
        (b'{"prompt": " ", "chosen": "b", "rejected": "c"}', "line 501: field 'prompt' is empty"),
        (b'{"prompt": [{"role": "user"}], "chosen": "b", "rejected": "c"}', "'prompt[0]' must have a role"),
        (
            b'{"prompt": [{"role": "boss", "content": ""}], "chosen": "b", "rejected": "c"}',
            "has the role 'boss'",
        ),
    ],
)
def test_line_501_of_a_thousand_is_named_and_nothing_is_imported(
    store: Store, bad: bytes, words: str
) -> None:
    with pytest.raises(BadValue, match="nothing was imported") as refused:
        import_file(store, thousand(bad))
    assert words in str(refused.value)
    assert count_outside_labels(store) == {}


def test_what_is_bad_can_be_skipped_and_is_handed_over(store: Store) -> None:
    rejected: list[Problem] = []
    bad = b'{"prompt": "a", "chosen": "b"}'
    done = import_file(store, thousand(bad), skip_bad=True, on_reject=rejected.append)
    assert (done.added, done.num_rejected) == (999, 1)
    assert [(one.place, one.field, one.raw) for one in rejected] == [(501, "rejected", bad.decode())]


def test_the_same_file_twice_adds_nothing(store: Store) -> None:
    rows = [PAIR, PAIR, PAIR | {"chosen": "four"}]
    first = import_file(store, lines(rows))
    assert (first.added, first.known, first.kind) == (2, 1, "labels")
    again = import_file(store, lines(rows))
    assert (again.added, again.known) == (0, 3)
    assert count_outside_labels(store) == {"import:trl-preference": 2}


def test_the_source_can_be_named(store: Store) -> None:
    import_file(store, lines([PAIR]), source="spring survey")
    assert count_outside_labels(store) == {"import:spring survey": 1}


def test_a_preview_shows_five_rows_as_they_would_be_stored_and_saves_nothing(store: Store) -> None:
    rows: list[Any] = [PAIR | {"prompt": f"question {n}"} for n in range(30)]
    rows += [PAIR, PAIR, {"prompt": "a", "chosen": "b"}, PAIR | {"rejected": "4"}]
    shown = preview(lines(rows))
    assert [row.messages[0]["content"] for row in shown.rows] == [f"question {n}" for n in range(5)]
    assert (shown.counts, shown.num_repeated, shown.num_problems) == ({"pair": 32}, 1, 1)
    assert shown.skipped == {"the two answers are the same text": 1}
    assert str(shown.problems[0]) == "line 33: field 'rejected' is missing"
    assert count_outside_labels(store) == {}


def test_prompts_are_imported_as_prompts(store: Store) -> None:
    done = import_file(store, io.BytesIO("\ufeffWhy?\r\n\r\nHow?\r\n".encode()))
    assert (done.kind, done.added) == ("prompts", 2)
    assert count_prompts(store) == 2
    with pytest.raises(BadValue, match="'chosen' is a label, and this is read as a list of prompts"):
        import_file(store, lines([PAIR]), "prompts")


def test_a_document_names_the_line_of_its_row(store: Store) -> None:
    rows = [PAIR | {"prompt": f"q{n}"} for n in range(4)]
    rows[2] = {"prompt": "a", "chosen": "b"}
    text = json.dumps(rows, indent=2)
    with pytest.raises(BadValue, match="line 12: field 'rejected' is missing"):
        import_file(store, io.BytesIO(text.encode()))
    broken = text.replace('"prompt": "q3"', '"prompt": ')
    with pytest.raises(BadValue, match=r"line 17, column \d+: not JSON: Expecting value; nothing behind it"):
        import_file(store, io.BytesIO(broken.encode()), skip_bad=True)
    assert count_outside_labels(store) == {}


@pytest.mark.parametrize("wrap", ["data", "rows", "feedbacks"])
def test_a_list_inside_an_object_is_found(store: Store, wrap: str) -> None:
    document = {"version": 1, wrap: [PAIR]}
    for indent in (None, 2):
        found = preview(io.BytesIO(json.dumps(document, indent=indent).encode()), "trl-preference")
        assert found.counts == {"pair": 1}, indent
    assert import_file(store, io.BytesIO(json.dumps(document, indent=1).encode())).added == 1


def test_csv_and_parquet_give_what_json_lines_give(store: Store, tmp_path: Path) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text('\ufeffprompt,chosen,rejected\r\n"2 + 2?",4,5\r\n', "utf-8")
    table = tmp_path / "labels.parquet"
    pq.write_table(
        pa.table({"prompt": ["2 + 2?"], "chosen": ["4"], "rejected": ["5"], "score": [float("nan")]}), table
    )
    assert import_file(store, lines([PAIR])).added == 1
    for path in (csv, table):
        done = import_file(store, path)
        assert (done.format, done.added, done.known) == ("trl-preference", 0, 1)


def test_a_csv_row_is_named_by_the_line_it_begins_on(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('prompt,chosen,rejected\n"two\nlines",4,5\nq,only\n', "utf-8")
    with pytest.raises(BadValue, match="line 4, column 3: 2 cells stand under the 3 names"):
        import_file(store, path)
    path.write_text("prompt,prompt,rejected\na,b,c\n", "utf-8")
    with pytest.raises(BadValue, match="'prompt' is named twice"):
        import_file(store, path)
    path.write_text('prompt,chosen,rejected\na,"b,c\n', "utf-8")
    with pytest.raises(BadValue, match="line 2: not CSV: unexpected end of data"):
        import_file(store, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b\x08\x00", "this is gzip; unpack it first, with `gunzip`"),
        (b"PK\x03\x04", "this is zip"),
        (b"\xff\xfea\x00", "save it as UTF-8"),
        (b"PAR1 and then nothing of it", "not Parquet"),
        (b"", "there is nothing in this file"),
        (b"\n\n", "there is nothing in this file"),
        (b'{"a": 1}', "the format is not recognised: the first row has the fields 'a'; known formats: heed"),
        (
            b'{"prompt": "a", "chosen": "b", "rejected": "c", "completion": "d", "label": true}',
            "fit trl-preference and",
        ),
        (b"[1, 2]", "a row must be a JSON object, not a number"),
        (b'[{"prompt": "a"}', "a comma or the end of the list is missing"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_with_a_sentence(
    store: Store, content: bytes, words: str
) -> None:
    with pytest.raises(BadValue) as refused:
        import_file(store, io.BytesIO(content))
    assert words in str(refused.value)


def test_a_format_nobody_knows_lists_the_known_ones(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"format 'xml' is not known; known formats: heed .*; trl-preference"):
        import_file(store, lines([PAIR]), "xml")
    with pytest.raises(NotFound, match="there is no file"):
        import_file(store, tmp_path / "absent.jsonl")
    with pytest.raises(BadValue, match="cannot be read: Is a directory"):
        import_file(store, tmp_path)


def test_a_large_parquet_row_is_refused_by_its_type_not_by_a_crash(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "bytes.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "chosen": [b"b"], "rejected": [b"c"]}), path)
    with pytest.raises(BadValue, match="row 1: a value of the type bytes has no place in a label"):
        import_file(store, path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
FIELDS = """
    prompt chosen rejected completion label score_chosen score_rejected instruction completions
    history human_ref_A human_ref_B labels score_ratio message_id parent_id text role rank system
    question input rating fields responses data meta snapshot conversation_a conversation_b winner
    response_a response_b winner_model_a annotations id label_annotations messages tags format
    row_id annotators source created_at extra_json
"""
field_names = st.sampled_from(FIELDS.split())
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": st.text()})
)
rows = st.dictionaries(field_names, json_values | messages, max_size=7)


@settings(deadline=None, max_examples=25)
@given(given_rows=st.lists(rows, min_size=1, max_size=4), name=st.sampled_from([f.name for f in FORMATS]))
def test_no_row_however_wrong_raises_anything_but_ours_or_is_half_imported(
    given_rows: list[dict[str, Any]], name: str
) -> None:
    store = Store.in_memory()
    try:
        try:
            done = import_file(store, lines(given_rows), name)
        except HeedError:
            assert count_outside_labels(store) == {}
            assert count_prompts(store) == 0
        else:
            stored = sum(count_outside_labels(store).values()) + count_prompts(store)
            assert stored == done.added
    finally:
        store.close()


@settings(deadline=None, max_examples=60)
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from([b"", b"{", b"[", b'[{"prompt":', b"PAR1", b"prompt,chosen\n"]),
)
def test_no_bytes_however_wrong_raise_anything_but_ours(content: bytes, start: bytes) -> None:
    with contextlib.suppress(HeedError):
        preview(io.BytesIO(start + content))


@settings(deadline=None, max_examples=40)
@given(
    at=st.integers(0, 400),
    byte=st.binary(min_size=1, max_size=2),
    name=st.sampled_from([f.name for f in FORMATS]),
)
def test_a_good_file_with_a_flipped_byte_raises_nothing_but_ours(at: int, byte: bytes, name: str) -> None:
    folder = Path(__file__).parent / "formats" / "fixtures"
    for path in sorted(folder.glob(f"{name}.*")):
        content = path.read_bytes()
        place = at % len(content)
        with contextlib.suppress(HeedError):
            preview(io.BytesIO(content[:place] + byte + content[place + 1 :]), name)


def test_an_imported_label_says_where_it_comes_from(store: Store) -> None:
    import_file(store, lines([PAIR | {"created_at": "2024-05-06T07:08:09Z", "model": "m"}]))
    with store.read() as cursor:
        [label] = read_outside_labels(cursor)
    assert (label.source, label.created_at.year) == ("import:trl-preference", 2024)
    assert label.extra == {"created_at": "2024-05-06T07:08:09Z", "model": "m"}
