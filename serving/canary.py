"""A canary's traffic: which conversations the candidate answers, and the way back when it fails them.

Above the board, which knows only versions. Who is routed where is decided from memory; the store is asked
when something was rated, started or ended. How sure a verdict must be stands in `store/canary_verdict.py`.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from serving.policies import PolicyBoard
from store.canaries import end_canary, read_canary, read_sides, start_canary
from store.canary_rows import Canary
from store.canary_settings import CanarySettings
from store.canary_verdict import explain_gap, judge_sides
from store.database import Store
from store.errors import BadValue, Busy, HeedError, StateConflict
from store.policies import read_policy
from store.records import Chunk, Message, Promotion, Sampling

logger = logging.getLogger(__name__)

ON_TRIAL = "canary"  # a name like "live": whatever is on trial, and live once nothing is any more
ITSELF = "heed"  # who ends a canary when nobody did

Figure = tuple[str, str, dict[str, str], float]
Promote = Callable[[str, str, str], Promotion]


class CanaryRouter:
    """Starts, watches and ends the one canary that may run. Safe to use from any thread."""

    def __init__(self, store: Store, board: PolicyBoard, settings: CanarySettings, promote: Promote) -> None:
        """`promote(version, actor, reason)` makes a version live; whoever does so calls `refresh` then."""
        self.settings = settings
        self._store = store
        self._board = board
        self._promote = promote
        self._running: Canary | None = None
        self._kept: str | None = None  # the version the board holds in memory for us
        self._changing = threading.Lock()  # guards the writing of the two above

    def version_for(self, conversation_id: str) -> str | None:
        """The version on trial when this conversation is one of its; None when live answers it."""
        canary = self._running
        return canary.version if canary is not None and canary.takes(conversation_id) else None

    def route(self, model: str, conversation_id: str) -> str:
        """The name to sample from for `model`: only who asks for live can be given the canary."""
        return ON_TRIAL if model == "live" and self.version_for(conversation_id) else model

    def sample(
        self, name: str, messages: Sequence[Message], sampling: Sampling, **options: Any
    ) -> Iterator[Chunk]:
        """As `PolicyBoard.sample`. Where the version on trial fails, it is withdrawn and live answers."""

        def ask_live() -> Iterator[Chunk]:
            return self._board.sample("live", messages, sampling, **options)

        canary = self._running
        if name != ON_TRIAL:
            return self._board.sample(name, messages, sampling, **options)
        if canary is None:
            return ask_live()
        try:
            chunks = self._board.sample(canary.version, messages, sampling, **options)
        except (Busy, BadValue):
            raise  # live would say the same
        except HeedError as error:
            self._fail(canary, str(error))
            return ask_live()
        return _WatchedStream(chunks, lambda why: self._fail(canary, why), ask_live)

    def start(
        self, version: str, share: float | None, actor: str, reason: str = "", supersede: bool = False
    ) -> Canary:
        """Give `version` that share of conversations (None: the setting) once it has proved itself.

        Raises as `PolicyBoard.keep` and `store.canaries.start_canary`; then nothing has changed.
        """
        read_policy(self._store, version)  # NotFound, also for a name like "live"
        live = self._board.live  # read before the slow part: a flip meanwhile must be noticed
        with self._changing:
            if self._running is not None and not supersede:
                raise StateConflict(
                    f"{self._running.version} is on trial as a canary; one runs at a time, stop it first"
                )
            self._board.keep(version)
            try:
                share = self.settings.share if share is None else share
                made = start_canary(self._store, version, share, actor, reason, live, supersede)
            except BaseException:
                self._board.let_go(version)
                raise
            self._take(made)
        logger.info("policy %s is a canary beside %s with a share of %g (%s)", version, live, share, actor)
        return made

    def take(self, version: str, actor: str, reason: str) -> Promotion | Canary:
        """What passed a round's gate: live at once, or on trial in place of what is, where that is set."""
        if not self.settings.after_gate:
            return self._promote(version, actor, reason)
        return self.start(version, self.settings.after_gate, actor, reason, supersede=True)

    def stop(self, actor: str, reason: str = "") -> Canary:
        """End the canary that runs, without a verdict; StateConflict when none does."""
        ended = end_canary(self._store, self._require().canary_id, "stopped", actor, reason)
        self.refresh()
        return ended

    def promote(self, actor: str, reason: str = "") -> Promotion:
        """Make the version on trial live; raises as `PolicyBoard.promote`, StateConflict when none is."""
        return self._promote(self._require().version, actor, reason)

    def rated(self) -> None:
        """Somebody rated an answer: look whether that settles it. Never fails: the thumb is saved already."""
        try:
            self._judge()
        except HeedError:
            logger.exception("the canary could not be judged; the next rating or tick tries again")

    def tick(self) -> None:
        """What a missed call left undone: agree with the store, and judge."""
        self.refresh()
        self._judge()

    def refresh(self) -> None:
        """Agree with the store about what runs: at the start, and after a promotion may have ended it."""
        with self._changing:
            found = read_canary(self._store)
            if found is None or self._running is None or found.canary_id != self._running.canary_id:
                self._take_up(found)

    def read_figures(self) -> list[Figure]:
        """(name, help, labels, value) for the metrics."""
        canary = self._running
        found: list[Figure] = [
            ("canary_running", "1 while a version is on trial", {}, float(canary is not None))
        ]
        if canary is None:
            return found
        sides = read_sides(self._store, canary)
        found.append(("canary_share", "the share that was set", {"version": canary.version}, canary.share))
        for role, version, side in (
            ("candidate", canary.version, sides.candidate),
            ("live", canary.live, sides.live),
        ):
            labels = {"side": role, "version": version}
            found.append(("canary_conversations", "conversations", labels, side.conversations))
            for thumb, count in (("up", side.up), ("down", side.down)):
                found.append(("canary_ratings", "thumbs that count", labels | {"thumb": thumb}, count))
        worse_by = judge_sides(sides, self.settings).worse_by
        for end in ("lower", "upper"):
            text = "bound on live's up-rate minus the candidate's"
            found.append(("canary_worse_by", text, {"bound": end}, getattr(worse_by, end)))
        return found

    def _judge(self) -> None:
        canary = self._running
        if canary is None:
            return
        verdict = judge_sides(read_sides(self._store, canary), self.settings)
        if verdict.decision == "worse":
            self._withdraw(canary, explain_gap(verdict.worse_by), reject=True)

    def _require(self) -> Canary:
        if self._running is None:
            raise StateConflict("no canary runs; start one with a version and a share")
        return self._running

    def _fail(self, canary: Canary, why: str) -> None:
        """The version on trial failed somebody: nobody else is sent there. Never fails itself."""
        with self._changing:
            if self._running is canary:
                self._take(None)
        try:
            self._withdraw(canary, f"it failed: {why}")
        except HeedError:
            logger.exception("the end of canary %s could not be saved; the next tick tries", canary.version)

    def _withdraw(self, canary: Canary, reason: str, *, reject: bool = False) -> None:
        try:
            end_canary(self._store, canary.canary_id, "withdrawn", ITSELF, reason, reject=reject)
        except StateConflict as error:
            logger.info("%s", error)  # two thumbs at once, or a promotion came first
        else:
            logger.warning("the canary %s is withdrawn: %s", canary.version, reason)
        self.refresh()

    def _take_up(self, found: Canary | None) -> None:
        """Serve what the store says is on trial, or withdraw it when it cannot be served. Holds the lock."""
        if found is not None:
            try:
                self._board.keep(found.version)
            except Busy:
                raise  # says nothing about the version; the next tick tries again
            except HeedError as error:
                reason = f"it cannot be served: {error}"
                logger.error("the canary %s is withdrawn: %s", found.version, reason)
                end_canary(self._store, found.canary_id, "withdrawn", ITSELF, reason)
                found = None
        self._take(found)

    def _take(self, canary: Canary | None) -> None:
        """Route to it from now on; it is kept by the board already. Holds the lock."""
        self._running = canary
        earlier, self._kept = self._kept, canary.version if canary else None
        if earlier is not None:
            self._board.let_go(earlier)


class _WatchedStream(Iterator[Chunk]):
    """An answer of the version on trial. What goes wrong is told; before its first chunk live takes over.

    Not later: an answer is of one version.
    """

    def __init__(
        self, chunks: Iterator[Chunk], fail: Callable[[str], None], ask_live: Callable[[], Iterator[Chunk]]
    ) -> None:
        self._chunks = chunks
        self._fail: Callable[[str], None] | None = fail
        self._ask_live = ask_live
        self._has_begun = self._is_closed = False

    def __next__(self) -> Chunk:
        try:
            chunk = next(self._chunks)
        except (StopIteration, Busy, BadValue):
            raise
        except Exception as error:
            why = str(error) if isinstance(error, HeedError) else f"{type(error).__name__}: {error}"
            if not self._tell(why) or self._has_begun:
                raise
            self._chunks = self._ask_live()
            if self._is_closed:  # by another thread, meanwhile
                self.close()
            return next(self._chunks)
        self._has_begun = True
        if not math.isfinite(chunk.logprob_sum):
            self._tell("an answer's log-prob is not finite")
        return chunk

    def close(self) -> None:
        """As the stream inside; from any thread."""
        self._is_closed = True
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()

    def _tell(self, why: str) -> bool:
        """Once; False when it was told before, or live answers already."""
        fail, self._fail = self._fail, None
        if fail is not None:
            fail(why)
        return fail is not None
