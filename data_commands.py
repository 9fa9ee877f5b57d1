"""The commands that move labels: import, export and validate. Nothing heavy is imported at the top."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.formats.files import Source
    from store.formats.reading import Problem
    from store.importing import Preview


def export(argv: list[str]) -> None:
    """Write the labels in TRL's formats: JSON lines, Parquet, CSV or a dataset folder."""
    parser = argparse.ArgumentParser(prog="app.py export", description=export.__doc__)
    parser.add_argument("out", type=Path, help="the file to write, or the new folder of a dataset")
    formats = ("jsonl", "parquet", "csv", "dataset")
    parser.add_argument("--format", choices=formats, help="default: what the file's ending says, else jsonl")
    parser.add_argument(
        "--kind", choices=("preference", "unpaired"), help="only pairs, or only single answers"
    )
    parser.add_argument("--source", help="only labels of a source: human, import:, import:hh-rlhf, judge: …")
    parser.add_argument("--version", help="only labels about answers of this policy version")
    parser.add_argument("--annotator", help="only labels of this pseudonym")
    parser.add_argument("--since", type=_moment, help="only labels from this day or time on (UTC)")
    parser.add_argument("--until", type=_moment, help="only labels before this day or time (UTC)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder (default: data)")
    args = parser.parse_args(argv)
    from store import export_files
    from store.database import Store
    from store.exchange import ExportFilter, export_labels, read_guidelines_version

    wanted = ExportFilter(args.kind, args.source, args.version, args.annotator, args.since, args.until)
    with contextlib.closing(Store.open(args.data)) as store:
        rows = list(export_labels(store, wanted))
        guidelines = read_guidelines_version(store)
    format_ = args.format or (args.out.suffix[1:] if args.out.suffix[1:] in formats else "jsonl")
    if format_ == "dataset":
        export_files.write_dataset(rows, args.out, guidelines)
        print(f"{len(rows)} labels written to {args.out}")
    elif format_ == "jsonl":
        print(f"{export_files.write_json_lines(rows, args.out)} labels written to {args.out}")
    else:
        for path, written in export_files.write_by_kind(rows, args.out, format_).items():
            print(f"{written} labels written to {path}")


def import_labels(argv: list[str]) -> None:
    """Read labels or prompts from a file of any known format, all of it or nothing."""
    parser = argparse.ArgumentParser(
        prog="app.py import",
        description=import_labels.__doc__,
        epilog="formats: " + ", ".join(_format_names()),
    )
    _add_source_arguments(parser)
    parser.add_argument(
        "--skip-bad", type=Path, metavar="REJECTS", help="leave out bad rows, write them here"
    )
    parser.add_argument("--preview", action="store_true", help="show what would be imported, save nothing")
    parser.add_argument("--source", help="the name in the stamp `import:NAME` (default: the format's)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder (default: data)")
    args = parser.parse_args(argv)
    from store.database import Store
    from store.importing import import_file, preview

    file, names = _open_source(args)
    if args.preview:
        _print_preview(preview(file, args.format, names))
        return
    with contextlib.ExitStack() as parts:
        reject = parts.enter_context(_reject_file(args.skip_bad)) if args.skip_bad else None
        store = parts.enter_context(contextlib.closing(Store.open(args.data)))
        skip_bad = reject is not None
        done = import_file(store, file, args.format, skip_bad, args.source, names=names, on_reject=reject)
    print(f"{done.format}: {done.added} {done.kind} added, {done.known} were known")
    for reason, count in done.skipped.items():
        print(f"{count} left out: {reason}")
    if done.num_rejected:
        print(f"{done.num_rejected} rows could not be read; they are in {args.skip_bad}")


def validate(argv: list[str]) -> None:
    """Check a file of labels as training data; exits with 1 when something is bad."""
    parser = argparse.ArgumentParser(prog="app.py validate", description=validate.__doc__)
    _add_source_arguments(parser)
    args = parser.parse_args(argv)
    from store.data_report import from_outside, report_on
    from store.importing import read_labels
    from store.report_table import show_report

    file, names = _open_source(args)
    report = report_on([from_outside(label) for label in read_labels(file, args.format, names)])
    print(show_report(report))
    if report.verdict == "bad":
        raise SystemExit(1)


def _add_source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="JSON lines, JSON, CSV, Parquet or text; a dataset's name with --split")
    parser.add_argument(
        "--format", default="auto", help="the format's name (default: auto, from the first rows)"
    )
    parser.add_argument("--split", help="FILE is the name of a dataset for `datasets`, and this its split")
    parser.add_argument("--config", help="the dataset's configuration")
    parser.add_argument(
        "--names",
        default="",
        help="fields of Argilla, Label Studio or Potato: prompt=…,first=…,second=…,question=…",
    )


def _open_source(args: argparse.Namespace) -> tuple[Source, dict[str, str]]:
    from store.formats.sides import read_names

    names = read_names(args.names)
    return (_load_dataset(args) if args.split else Path(args.file)), names


def _load_dataset(args: argparse.Namespace) -> Source:
    """A dataset of the hub or of a folder; BadValue when it cannot be had, as without a network."""
    import datasets

    from store.errors import BadValue

    try:
        loaded: Source = datasets.load_dataset(args.file, args.config, split=args.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadValue(
            f"the dataset {args.file!r} could not be loaded: {why}. Without a network, download its files "
            "elsewhere and import those"
        ) from error
    return loaded


@contextlib.contextmanager
def _reject_file(path: Path) -> Iterator[Callable[[Problem], None]]:
    from store.errors import BadValue

    try:
        file = path.open("x", encoding="utf-8")
    except OSError as error:
        raise BadValue(f"the reject file {path} cannot be made: {error.strerror}") from None
    with file:

        def write(problem: Problem) -> None:
            file.write(json.dumps(dataclasses.asdict(problem)) + "\n")

        yield write


def _print_preview(shown: Preview) -> None:
    print(f"{shown.format}: {shown.reason}")
    for row in shown.rows:
        print(f"  {json.dumps(dataclasses.asdict(row), ensure_ascii=False, default=str)[:400]}")
    for verdict, count in shown.counts.items():
        print(f"{count} {verdict}")
    if shown.num_repeated:
        print(f"{shown.num_repeated} of them are in the file already")
    for reason, count in shown.skipped.items():
        print(f"{count} left out: {reason}")
    print(f"{shown.num_problems} rows could not be read" + (":" if shown.problems else ""))
    for problem in shown.problems:
        print(f"  {problem}")


def _format_names() -> list[str]:
    from store.formats import FORMATS

    return [format_.name for format_ in FORMATS]


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day like 2026-01-31 or an ISO time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


DATA_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "import": import_labels,
    "export": export,
    "validate": validate,
}
