"""A file, an upload or any list of rows as rows with places; what kind of file it is, its first bytes say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, cast

from store.errors import BadValue, NotFound
from store.formats.lines import (
    MAX_LINE_BYTES,
    ReadRow,
    SourceRow,
    Unreadable,
    read_document,
    read_json_lines,
    read_text_lines,
)
from store.formats.tables import read_csv, read_parquet, to_plain

# A path, an open binary file that can seek, or rows that can be walked more than once (a `datasets.Dataset`).
Source = Path | IO[bytes] | Iterable[Mapping[str, Any]]
Kind = Literal["json-lines", "json", "csv", "tsv", "parquet", "text"]
SUFFIXES: dict[str, Kind] = {
    ".jsonl": "json-lines",
    ".ndjson": "json-lines",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
}
COLUMNS = frozenset(
    ("prompt", "messages", "chosen", "completion", "response_a", "conversation_a", "history", "question")
)
_PACKED = {
    b"\x1f\x8b": "gzip; unpack it first, with `gunzip`",
    b"PK\x03\x04": "zip; unpack it first, with `unzip`",
    b"BZh": "bzip2; unpack it first, with `bunzip2`",
    b"\xfd7zXZ": "xz; unpack it first, with `unxz`",
    b"(\xb5/\xfd": "zstd; unpack it first, with `unzstd`",
    b"\xff\xfe": "text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "text in UTF-16; save it as UTF-8",
}
_PEEK = 64 * 1024


def read_rows(source: Source) -> Iterator[ReadRow]:
    """Every row from the beginning, or why a place holds none; BadValue for a file we do not read."""
    if isinstance(source, Path):
        with _open(source) as file:
            yield from _read_file(file, source.suffix.lower())
    elif hasattr(source, "seek"):
        yield from _read_file(cast("IO[bytes]", source), "")
    else:
        for place, fields in enumerate(source, start=1):
            try:
                plain = {str(name): to_plain(value) for name, value in fields.items()}
            except BadValue as error:
                yield Unreadable(place, "row", None, str(error), "")
            else:
                yield SourceRow(place, "row", plain)


def _read_file(file: IO[bytes], suffix: str) -> Iterator[ReadRow]:
    file.seek(0)
    head = file.read(_PEEK)
    if b"\n" not in head:  # a long first line; what matters is whether another one follows
        head += file.readline(MAX_LINE_BYTES) + file.read(1)
    kind = find_kind(head, suffix)
    file.seek(0)
    match kind:
        case "parquet":
            return read_parquet(file)
        case "csv":
            return read_csv(file)
        case "tsv":
            return read_csv(file, "\t")
        case "json":
            return read_document(file)
        case "text":
            return read_text_lines(file)
        case "json-lines":
            return read_json_lines(file)


def find_kind(head: bytes, suffix: str = "") -> Kind:
    """What a file that begins like this is; BadValue when it is packed."""
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            raise BadValue(f"this is {what}")
    if head.startswith(b"PAR1"):
        return "parquet"
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return "json"
    if text.startswith((b"{", b'"')):
        return "json" if _is_document(text) else "json-lines"
    return "csv" if _names_columns(text) else "text"


def _is_document(text: bytes) -> bool:
    """Whether the value that begins here goes on after its first line, or is an object with nothing after."""
    first = text.split(b"\n", 1)[0].rstrip()
    return first.endswith((b"{", b"[", b",", b":")) or (text.startswith(b"{") and first == text.rstrip())


def _names_columns(text: bytes) -> bool:
    first = text.split(b"\n", 1)[0].decode(errors="replace")
    return bool(COLUMNS.intersection(cell.strip(' "\r') for cell in first.split(",")))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise BadValue(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    with file:
        yield file
