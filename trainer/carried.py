"""The far half of `trainer.carry`: fetches a round's directory, runs it, and sends back what it writes.

    python -m trainer.carried URL OWNER [LAUNCH PREFIX]

Started over there by the near half. Whoever was told last owns the round: an older far half that finds
another owner stops its round and sends nothing more. Everything lies under HEED_CARRIED (the temporary
folder) until the round has ended.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store.errors import BadValue
from trainer.carry import TOLD, Carried, Signals, Transport, wait
from trainer.heartbeat import is_held
from trainer.mirror import list_files
from trainer.round_process import round_command, signal_group
from trainer.stopping import STOPPED

logger = logging.getLogger(__name__)

USAGE = "usage: python -m trainer.carried URL OWNER [LAUNCH PREFIX]"


def make_scratch(url: str, owner: str) -> Path:
    """An empty folder for this run. What earlier runs of the round left is removed, unless one still works
    there."""
    round_id = url.rsplit("/", 1)[-1]
    above = Path(os.environ.get("HEED_CARRIED", tempfile.gettempdir())) / "heed-carried"
    for left in above.glob(f"{round_id}.*"):
        if not is_held(left):
            shutil.rmtree(left)
    folder = above / f"{round_id}.{owner}"
    folder.mkdir(parents=True)
    return folder


def run(url: str, owner: str, launch: Sequence[str], signals: Signals, transport: Transport) -> int:
    """Run the round here; returns its exit code, negative when a signal ended it."""
    carried, folder = Carried(url), make_scratch(url, owner)
    transport.fetch(carried.there, folder)
    process = subprocess.Popen(
        round_command(folder, launch), stdin=subprocess.DEVNULL, start_new_session=True
    )
    passed = 0
    while process.poll() is None:
        number = read_signal(transport.glance(carried.told, TOLD), owner) or signals.number
        if number and number != passed:
            signal_group(process, number)
            passed = number
        transport.try_once(lambda: _send(carried, folder, owner, None))
        wait(process, transport.every_s)
    told = transport.read(carried.told, TOLD)
    if told is not None and told["owner"] != owner:
        logger.warning("the round has another owner by now: nothing of this run is sent")
        return STOPPED
    transport.do(lambda: _send(carried, folder, owner, process.returncode))
    shutil.rmtree(folder)
    return process.returncode


def read_signal(told: dict[str, Any] | None, owner: str) -> int:
    """The signal to pass on: what the near half says, or SIGTERM when the round is another's by now."""
    if told is None:
        return 0
    return int(told["signal"]) if told["owner"] == owner else signal.SIGTERM


def _send(carried: Carried, folder: Path, owner: str, code: int | None) -> None:
    files = {name: path for name, path in list_files(folder).items() if is_of_the_round(name)}
    if code is not None:
        files["round.back.json"] = folder / "round.json"
    carried.back.push(files, owner=owner, code=code)


def is_of_the_round(name: str) -> bool:
    """Whether a file is what the round wrote: plan, snapshot and live adapter are what it was given."""
    return name != "round.json" and name.split("/", 1)[0] not in ("snapshot", "live")


def main(arguments: Sequence[str]) -> int:
    """The process: the round's exit code, 1 when it could not be run, 2 for a wrong command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signals = Signals()
    if len(arguments) < 2:
        logger.error("%s", USAGE)
        return 2
    url, owner, *launch = arguments
    try:
        code = run(url, owner, launch, signals, Transport())
    except (BadValue, OSError) as error:
        logger.error("no verdict: %s", error)
        return 1
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
