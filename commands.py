"""The commands that work on a data folder while the service is stopped, and on files.

Each takes its own arguments, as `app.py COMMAND …` got them. Nothing heavy is imported at the top.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from settings import ServeSettings


def add_person(argv: list[str]) -> None:
    """Create a person while the service is stopped; prints the password and the API token once."""
    parser = argparse.ArgumentParser(prog="app.py add-person", description=add_person.__doc__)
    parser.add_argument("name")
    parser.add_argument("role", choices=["annotator", "tester", "admin"])
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder (default: data)")
    args = parser.parse_args(argv)
    from store import people
    from store.database import Store

    with contextlib.closing(Store.open(args.data)) as store:
        made = people.add_person(store, args.name, args.role)
    print(
        json.dumps(
            {"name": made.person.name, "role": args.role, "password": made.password, "token": made.token}
        )
    )


def export(argv: list[str]) -> None:
    """Write every label as JSON lines in TRL's formats, while the service is stopped."""
    parser = argparse.ArgumentParser(prog="app.py export", description=export.__doc__)
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder (default: data)")
    args = parser.parse_args(argv)
    from store.database import Store
    from store.exchange import export_labels

    with contextlib.closing(Store.open(args.data)) as store, args.out.open("w", encoding="utf-8") as out:
        written = sum(
            out.write(json.dumps(row, ensure_ascii=False) + "\n") > 0 for row in export_labels(store)
        )
    print(f"{written} labels written to {args.out}")


def back_up(argv: list[str]) -> None:
    """Copy every label, person and promotion (not the adapters) to a new folder, and check the copy."""
    parser = argparse.ArgumentParser(prog="app.py backup", description=back_up.__doc__)
    parser.add_argument(
        "folder", type=Path, help="a folder that does not exist yet; it can be served with --data"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder (default: data)")
    args = parser.parse_args(argv)
    from store import backup
    from store.database import Store

    with contextlib.closing(Store.open(args.data)) as store:
        made = backup.back_up(store, args.folder)
    print(f"event {made.seq} and all before it are in {made.folder}; the copy was opened and compared")


def judge(argv: list[str]) -> None:
    """Let the AI judge judge pairs while the service is stopped; prints what came of it."""
    parser = argparse.ArgumentParser(
        prog="app.py judge",
        description=judge.__doc__,
        epilog="Every setting of serve is taken too: --data, --judge.url, --judge.model and so on.",
    )
    parser.add_argument("--limit", type=int, default=100, help="most pairs to judge (default: 100)")
    args, others = parser.parse_known_args(argv)
    settings = read_settings(others, "judge")
    from annotate.judge.desk import JudgeDesk
    from store.database import Store

    with contextlib.closing(Store.open(settings.data)) as store:
        desk = JudgeDesk(store, settings.judging())
        desk.run(args.limit)
        status = desk.read_status()
    print(json.dumps(asdict(status), indent=2, default=str))


def read_settings(argv: list[str], command: str) -> ServeSettings:
    """Flags over environment over the TOML file; a bad value ends the process with the reason."""
    from settings import ServeSettings, SettingsRefused

    try:
        return ServeSettings.read(argv, command)
    except SettingsRefused as error:
        stop(str(error))


def stop(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(2)


OFFLINE: dict[str, Callable[[list[str]], None]] = {
    "add-person": add_person,
    "export": export,
    "backup": back_up,
    "judge": judge,
}
