"""The service's side of the warm process: starts it, asks it for rounds, and watches those through it."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

ANSWER_S = 10.0  # a fork takes milliseconds; who takes longer is stuck
LOST = -signal.SIGTERM  # what ends a round whose warm process died; it can be resumed


class WarmStart:
    """At most one warm process. It is started ahead of need, and again after it was found gone."""

    def __init__(self, environment: Mapping[str, str], nice: int) -> None:
        self._environment, self._nice = environment, nice
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._has_loaded = False

    def begin(self) -> None:
        """Start the process unless it runs. Returns at once; loading takes it some seconds."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.warm", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=dict(self._environment),
                start_new_session=True,
            )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, self._nice)
        self._channel, self._has_loaded = Channel(ours), False

    @property
    def pid(self) -> int | None:
        """Of the warm process, None when there is none."""
        return self._process.pid if self._process else None

    @property
    def is_ready(self) -> bool:
        """Whether the libraries are loaded."""
        if self._channel is not None and not self._has_loaded:
            self._has_loaded = self._channel.read("ready", 0.0) is not None
        return self._has_loaded

    def fork(self, directory: Path) -> WarmRound | None:
        """A round process for the directory, or None when the warm process is not there or not ready."""
        if self._channel is None or not self.is_ready:
            return None
        self._channel.send(directory=str(directory))
        pid = self._channel.read("pid", ANSWER_S)
        if pid is None:  # it must not fork later: two rounds in one directory
            self.close()
            return None
        return WarmRound(pid, self._channel)

    def close(self) -> None:
        """End the process; a round it runs gets SIGTERM."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._channel, self._has_loaded = None, None, False


class WarmRound:
    """A round that the warm process forked, with as much of `subprocess.Popen` as a watcher needs."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid, self.returncode = pid, -1
        self._channel = channel
        self._has_ended = False

    def poll(self) -> int | None:
        """Its exit code (negative: killed by that signal), None while it runs."""
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. TimeoutExpired after `timeout` seconds."""
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("trainer.warm", timeout or 0.0)
        return code

    def _read(self, timeout: float | None) -> int | None:
        if not self._has_ended:
            code = self._channel.read("code", timeout)
            if code is None and self._channel.is_open:
                return None
            self.returncode = LOST if code is None else code
            if code is None:
                logger.warning("the warm process died; its round %d ends with it", self.pid)
                self._end()
            self._has_ended = True
        return self.returncode

    def _end(self) -> None:
        """Nobody is left who could say when it ended, so make sure that it did."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return
            time.sleep(0.5)


class Channel:
    """Lines of JSON over a socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket, self._rest = end, b""
        self.is_open = True

    def send(self, **what: str) -> None:
        """Say something. A closed other end shows in the next read."""
        try:
            self._socket.sendall(json.dumps(what).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            self.is_open = False

    def read(self, name: str, timeout: float | None) -> int | None:
        """The value of the next line if it is `name`; None when none came in time (None: however long)."""
        while b"\n" not in self._rest:
            if not self.is_open or not select.select([self._socket], [], [], timeout)[0]:
                return None
            came = self._socket.recv(4096)
            self.is_open = bool(came)
            self._rest += came
        line, _, self._rest = self._rest.partition(b"\n")
        value: int | None = json.loads(line).get(name)
        return value

    def close(self) -> None:
        """Hang up, which is what ends the other side."""
        self.is_open = False
        self._socket.close()
