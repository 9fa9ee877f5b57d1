"""Runs a command and takes its whole process group down when stdin closes.

However Heed ends, even by a kill, no model server stays behind holding the memory. Run as a script; imports
nothing of ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0


def main() -> None:
    """`vllm_leash.py COMMAND …`, as the leader of its own process group."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to the group, it is for the others
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_listen_again)
    threading.Thread(target=_wait_for_owner, args=(child,), daemon=True).start()
    code = child.wait()
    sys.stderr.write(f"the server ended with code {code}\n")
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)  # whoever of the group is left, this process included


def _listen_again() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _wait_for_owner(child: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
