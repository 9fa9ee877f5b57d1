"""Carries a round to a machine that shares no disk with the service, and back, through a folder both reach.

    --rounds.launch python,-m,trainer.carry,s3://bucket/rounds,ssh,gpu-box,/opt/heed/.venv/bin/python

is a launch prefix like torchrun's: plan, snapshot and live adapter go to the folder, the command behind it
starts `trainer.carried` over there, and progress, checkpoints and the candidate come back as they are
written. Behind a `--` may stand the prefix to launch with over there. The service sees a round's directory
like any other. A round that was stopped, or whose line broke, goes on from the newest checkpoint that came
back. The base model must be found over there under the same name.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.errors import BadValue, HeedError
from trainer.heartbeat import hold_folder
from trainer.mirror import INDEX, Mirror, list_files
from trainer.round import follow_parent
from trainer.stopping import STOPPED

logger = logging.getLogger(__name__)

USAGE = "usage: python -m trainer.carry URL COMMAND ... [-- LAUNCH PREFIX] -m trainer.round DIRECTORY"
EVERY_S = 2.0
PATIENCE_S = 900.0  # a bucket that cannot be reached for so long is not coming back by itself
TOLD = "told.json"
LIVE = "live"  # the live adapter's folder inside a carried round's directory


@dataclass(slots=True)
class Transport:
    """Tries again what may fail for a while: a network does. Raises the last error after `patience_s`."""

    patience_s: float = PATIENCE_S
    every_s: float = EVERY_S
    _since: float | None = None

    def try_once(self, act: Callable[[], object]) -> bool:
        """Whether it was done; a failure is logged. A value that is wrong raises at once."""
        try:
            act()
        except HeedError:
            raise
        except Exception as error:  # every file system of fsspec has errors of its own
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > self.patience_s:
                raise
            logger.warning("the carried folder cannot be reached, trying again: %s", error)
            return False
        self._since = None
        return True

    def do(self, act: Callable[[], object]) -> None:
        """Try until it is done."""
        while not self.try_once(act):
            time.sleep(self.every_s)

    def read(self, mirror: Mirror, name: str) -> dict[str, Any] | None:
        """A small file of the folder; None while it is not there."""
        found: list[dict[str, Any] | None] = []
        self.do(lambda: found.append(mirror.read(name)))
        return found[-1]

    def glance(self, mirror: Mirror, name: str) -> dict[str, Any] | None:
        """The same at one try: None also while it cannot be reached."""
        found: list[dict[str, Any] | None] = []
        return found[-1] if self.try_once(lambda: found.append(mirror.read(name))) else None

    def fetch(self, mirror: Mirror, folder: Path) -> None:
        """Everything that was sent, whole. BadValue when it does not become whole in time."""
        ends_at, told = time.monotonic() + self.patience_s, list[object]()
        while True:
            self.do(lambda: told.append(mirror.pull(folder)))
            if told[-1] is not None:
                return
            if time.monotonic() > ends_at:
                raise BadValue(f"what was sent did not arrive whole within {self.patience_s:g} s")
            time.sleep(self.every_s)


@dataclass(slots=True)
class Carried:
    """A round in the folder: what goes there, what comes back, and who is told what."""

    url: str
    there: Mirror = field(init=False)
    back: Mirror = field(init=False)
    told: Mirror = field(init=False)

    def __post_init__(self) -> None:
        self.there, self.back, self.told = (
            Mirror(f"{self.url}/{part}") for part in ("there", "back", "told")
        )

    def tell(self, owner: str, number: int) -> None:
        """Say whose round it is, and a signal to pass on (0: none)."""
        self.told.write(TOLD, json.dumps({"owner": owner, "signal": number}))

    def remove(self) -> None:
        """Nothing of the round stays in the folder."""
        for part in (self.there, self.back, self.told):
            part.remove()


class Signals:
    """Which of SIGTERM and SIGINT came last; 0 while none did."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.number = number


@dataclass(frozen=True, slots=True)
class Errand:
    """Where a round's directory is carried; over there `command` starts Python and `launch` the round."""

    url: str
    command: tuple[str, ...]
    launch: tuple[str, ...]
    folder: Path


def read_arguments(arguments: Sequence[str]) -> Errand:
    """The errand of a command line behind the prefix. BadValue."""
    if len(arguments) < 5 or list(arguments[-3:-1]) != ["-m", "trainer.round"]:
        raise BadValue(USAGE)
    prefix = list(arguments[1:-3])
    split = prefix.index("--") if "--" in prefix else len(prefix)
    if split == 0:
        raise BadValue(f"no command that starts Python over there; {USAGE}")
    folder = Path(arguments[-1]).absolute()
    return Errand(arguments[0].rstrip("/"), tuple(prefix[:split]), tuple(prefix[split + 1 :]), folder)


def carry(errand: Errand, signals: Signals, transport: Transport) -> int:
    """Run the round over there; returns its exit code, STOPPED when it can go on later."""
    folder = errand.folder
    carried = Carried(f"{errand.url}/{folder.name}")
    fetch_left(carried, folder, transport)
    if (folder / "gate.json").exists():
        transport.do(carried.remove)
        return 0
    owner = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as scratch:
        files = pack(folder, Path(scratch))
        transport.do(lambda: carried.tell(owner, signals.number))
        transport.do(lambda: carried.there.push(files, owner=owner))
    # In a session of its own: a signal for this process is told to the round, and must not cut the line.
    process = subprocess.Popen(
        [*errand.command, "-m", "trainer.carried", carried.url, owner, *errand.launch],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    passed = 0
    while process.poll() is None:
        number = signals.number
        if number != passed and transport.try_once(lambda: carried.tell(owner, number)):  # noqa: B023
            passed = number
        transport.try_once(lambda: carried.back.pull(folder))
        wait(process, transport.every_s)
    code = read_code(fetch_end(carried, folder, owner, transport), process.returncode)
    if code != STOPPED:
        transport.do(carried.remove)
    return code


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let some seconds go by, or fewer when the process ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def pack(folder: Path, scratch: Path) -> dict[str, Path]:
    """What goes there: the directory's files and the live adapter, which the plan then names from within."""
    plan = json.loads((folder / "round.json").read_text("utf-8"))
    files = list_files(folder)
    if plan.get("live_adapter"):
        adapter = Path(plan["live_adapter"])
        files |= {f"{LIVE}/{name}": path for name, path in list_files(adapter).items()}
        plan["live_adapter"] = LIVE
    (scratch / "round.json").write_text(json.dumps(plan), "utf-8")
    return files | {"round.json": scratch / "round.json"}


def fetch_left(carried: Carried, folder: Path, transport: Transport) -> None:
    """What an earlier process's round got done and nobody fetched: its newest checkpoints, or its end."""
    if transport.read(carried.back, INDEX) is not None:
        transport.fetch(carried.back, folder)
        keep_packages(folder)


def fetch_end(carried: Carried, folder: Path, owner: str, transport: Transport) -> int | None:
    """Fetch the last of what came back; the round's exit code, None when it never said how it ended."""
    facts = transport.read(carried.back, INDEX) or {}
    if facts.get("owner") != owner or facts["code"] is None:
        return None
    transport.fetch(carried.back, folder)
    keep_packages(folder)
    return int(facts["code"])


def keep_packages(folder: Path) -> None:
    """round.json stays the service's own; what the round wrote into it for the record is added."""
    came = folder / "round.back.json"
    if not came.exists():
        return
    packages = json.loads(came.read_text("utf-8")).get("packages", {})
    plan = json.loads((folder / "round.json").read_text("utf-8"))
    draft = folder / "round.json.tmp"
    draft.write_text(json.dumps(plan | {"packages": packages}, indent=2) + "\n", "utf-8")
    draft.replace(folder / "round.json")
    came.unlink()


def read_code(code: int | None, command_code: int) -> int:
    """The exit code to give: the round's own, or STOPPED when it was ended from outside or the line broke."""
    if code is None:
        logger.error(
            "the command ended with %d and the round over there never said how it ended; it can go on from"
            " what came back", command_code,
        )  # fmt: skip
        return STOPPED if command_code else 1
    if code < 0:
        logger.error("the round was killed over there by signal %d", -code)
        return STOPPED
    return code


def main(arguments: Sequence[str]) -> int:
    """The process: the round's exit code, 1 without one, 2 for a wrong command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signals = Signals()
    follow_parent()
    try:
        errand = read_arguments(arguments)
    except BadValue as error:
        logger.error("%s", error)
        return 2
    try:
        with hold_folder(errand.folder, True):
            return carry(errand, signals, Transport())
    except Exception as error:
        logger.exception("the round was not carried")
        logger.error("no verdict: %s: %s", type(error).__name__, " ".join(str(error).split()))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
