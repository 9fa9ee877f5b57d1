"""The commands that work on a data folder while the service is stopped (import and export: data_commands.py).

Each takes its own arguments, as `app.py COMMAND …` got them. Nothing heavy is imported at the top.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from data_commands import DATA_COMMANDS
from training_commands import TRAINING_COMMANDS

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


def back_up(argv: list[str]) -> None:
    """Copy every label, person and promotion and the served adapters to a new folder; check the copy."""
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


def rebuild_snapshot(argv: list[str]) -> None:
    """Write a round's snapshot again from the journal alone and compare; exits with 1 when they differ."""
    parser = argparse.ArgumentParser(prog="app.py rebuild-snapshot", description=rebuild_snapshot.__doc__)
    parser.add_argument("round_id", metavar="ROUND")
    parser.add_argument("--out", type=Path, help="keep the new one here, a folder that does not exist yet")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder (default: data)")
    args = parser.parse_args(argv)
    from store.rebuilding import rebuild_round

    with tempfile.TemporaryDirectory() as scratch:
        made = rebuild_round(args.data, args.round_id, args.out or Path(scratch) / "snapshot")
    print(
        f"event {made.report.seq} and all before it gave {made.report.num_pairs} pairs,"
        f" {made.report.num_ratings} ratings and {made.report.num_holdout} held-out pairs"
    )
    if made.differing:
        stop(f"not the round's snapshot: {', '.join(made.differing)} differ")
    print(f"byte for byte the round's snapshot: {made.report.sha256}")


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
    print(json.dumps(dataclasses.asdict(status), indent=2, default=str))


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


def erase_person(argv: list[str]) -> None:
    """Erase a person for good, out of everything in the data folder; docs/erasure.md says what that means."""
    parser = argparse.ArgumentParser(prog="app.py erase-person", description=erase_person.__doc__)
    parser.add_argument("name")
    parser.add_argument("--mode", choices=["delete", "pseudonymise"], default="delete")
    parser.add_argument("--yes", action="store_true", help="do not ask for the name again")
    parser.add_argument("--also-backups", action="store_true", help="delete the backups made before, too")
    parser.add_argument(
        "--backup-folder", type=Path, help="where they are (default: backups in the data folder)"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder (default: data)")
    args = parser.parse_args(argv)
    from store import erasure
    from store.database import Store
    from store.people import find_by_name

    with contextlib.closing(Store.open(args.data)) as store:
        person = find_by_name(store, args.name)
        ask = f"This cannot be undone. Type {person.name!r} to go on: "
        done = erasure.erase_person(
            store,
            person.person_id,
            args.mode,
            actor="the command line",
            confirm=person.name if args.yes else input(ask),
            backup_folder=args.backup_folder or args.data / "backups",
            also_backups=args.also_backups,
        )
    print(f"{done.num_removed} events removed, {done.num_changed} changed; the new id is {done.person_id}")
    trained = [f"{affected.version} ({affected.state})" for affected in done.versions]
    print(f"versions trained on them: {', '.join(trained) or 'none'}")
    print("\n".join((*(f"deleted backup {name}" for name in done.backups_deleted), *done.advice)))


def sweep(argv: list[str]) -> None:
    """Train a grid of settings from one snapshot and compare them on the same held-out pairs."""
    parser = argparse.ArgumentParser(
        prog="app.py sweep",
        allow_abbrev=False,
        description=f"{sweep.__doc__} Several axes make a grid. A point that is done is not trained again, so"
        " the same command goes on where it was stopped.",
        epilog="Every setting of serve is taken too (--data, --model, --trainer.*, --gate.*): it is what the"
        " points have in common. Results: sweep.json and sweep.html in the sweep's folder.",
    )
    for axis, example in AXES.items():
        parser.add_argument(f"--{axis}", metavar="V,V", help=f"values to try, such as {example}")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="NAME=V,V", help="values of any other trainer setting"
    )
    parser.add_argument("--snapshot", type=Path, help="an existing snapshot (default: one is taken, once)")
    parser.add_argument("--out", type=Path, help="the sweep's folder (default: rounds/sweep-… in --data)")
    parser.add_argument("--promote-best", action="store_true", help="take the best as a round's candidate")
    args, others = parser.parse_known_args(argv)
    settings = read_settings(others, "sweep")
    from sweeping import run_sweep, take_best

    axes = {axis: given for axis in AXES if (given := getattr(args, axis.replace("-", "_")))}
    for one in args.vary:
        name, _, values = one.partition("=")
        axes[name] = values
    done, best = run_sweep(settings, axes, args.snapshot, args.out)
    if best is None:
        stop("heed: no point passed the gate; sweep.html says why")
    if args.promote_best:
        print(take_best(settings, done, best))


AXES = {
    "beta": "0.01,0.05,0.1,0.2,0.5",
    "learning-rate": "5e-6,2e-5,5e-5",
    "loss": "cdpo,ipo",
    "epochs": "1,2",
}
OFFLINE: dict[str, Callable[[list[str]], None]] = {
    "add-person": add_person,
    **DATA_COMMANDS,
    "backup": back_up,
    "rebuild-snapshot": rebuild_snapshot,
    "judge": judge,
    "erase-person": erase_person,
    "sweep": sweep,
    **TRAINING_COMMANDS,
}
