"""Which version is live: a pointer above the engine, flipped once the store has the row. Knows no tensors.

A request holds the version it began with, so a swap or an unload never reaches into an answer. The files of a
version lie in `adapters_dir/<version>`; its row in the store says whose weights they must be.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from serving.adapters import BadAdapter, sweep_unfinished, weights_sha256
from serving.engine import Engine
from serving.streaming import HeldStream
from store.database import Store
from store.errors import HeedError, NotFound, StateConflict
from store.policies import live_version, promote, read_policies, read_promotions
from store.records import BASE_VERSION, Chunk, Message, Policy, Promotion, Sampling

logger = logging.getLogger(__name__)

PROOF: tuple[Message, ...] = ({"role": "user", "content": "Hello, how are you?"},)
PROOF_SAMPLING = Sampling(temperature=0.0, max_tokens=8)


class PolicyBoard:
    """Loads, promotes and rolls back versions, and samples from them by name ("live", "base", "v3").

    Besides the base, `keep_loaded` versions stay in memory: live, the one before it, and the last ones asked
    for.
    """

    def __init__(self, store: Store, engine: Engine, adapters_dir: Path, keep_loaded: int = 3) -> None:
        if keep_loaded < 2:
            raise ValueError(f"keep_loaded {keep_loaded} must be at least 2: live and the one before it")
        self._store = store
        self._engine = engine
        self._adapters_dir = adapters_dir
        self._keep_loaded = keep_loaded
        self._live = self._previous = BASE_VERSION
        self._degraded: str | None = None
        self._loaded: dict[str, None] = {}  # least recently used first
        self._uses: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards the five above; never held while something slow happens
        self._loading = threading.Lock()  # one load or unload at a time
        self._flipping = threading.Lock()  # the order of the rows is the order of the flips

    @property
    def live(self) -> str:
        """The version that answers as "live"."""
        with self._lock:
            return self._live

    @property
    def degraded(self) -> str | None:
        """Why `start` had to serve another version than the recorded one; None when it did not."""
        return self._degraded

    def start(self) -> None:
        """Serve what the store says is live, or the newest earlier version that can be served."""
        for orphan in sweep_unfinished(self._adapters_dir):
            logger.warning("removed the unfinished adapter folder %s", orphan)
        recorded = live_version(self._store)
        problems: list[str] = []
        earlier = find_earlier_versions(read_promotions(self._store))
        for version in dict.fromkeys((recorded, *earlier)):
            try:
                with self._held(version):
                    prove(self._engine, version)
            except HeedError as error:
                self._drop(version)
                logger.error("policy %s cannot be served: %s", version, error)
                problems.append(f"{version}: {error}")
            else:
                self._begin_with(version, recorded, problems)
                return
        raise HeedError(f"not even the base model can be served: {'; '.join(problems)}")

    def promote(self, version: str, actor: str, reason: str) -> Promotion:
        """Make a version live once it has proved itself beside the old one, which serves until then.

        NotFound, BadAdapter, or StateConflict: live already, not retained, or another promotion came first.
        """
        return self._flip(version, actor, reason, "promote")

    def roll_back(self, actor: str, version: str | None = None, reason: str = "") -> Promotion:
        """Return to a version, or to the one live before this one; "v0" always works. Raises as `promote`."""
        if version is None:
            version = find_earlier_versions(read_promotions(self._store))[0]
        return self._flip(version, actor, reason or f"rolled back by {actor}", "rollback")

    def resolve(self, name: str) -> str:
        """The version behind a name, loaded if it was not. NotFound with the known names."""
        version = self._hold(name)
        self._release(version)
        return version

    def sample(
        self, name: str, messages: Sequence[Message], sampling: Sampling, background: bool = False
    ) -> Iterator[Chunk]:
        """Submit a request now to the version behind `name` at this moment; see `Engine.generate`."""
        version = self._hold(name)
        try:
            chunks = self._engine.generate(version, messages, sampling, background=background)
        except BaseException:
            self._release(version)
            raise
        return HeldStream(chunks, partial(self._release, version))

    def score(self, name: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]) -> list[float]:
        """How likely the version behind `name` finds these answers; see `Engine.score`."""
        with self._held(name) as version:
            return self._engine.score(version, messages, answers)

    def loaded_versions(self) -> list[str]:
        """What is in memory, the least recently used first."""
        with self._lock:
            return list(self._loaded)

    def is_ready(self) -> bool:
        """Whether the live version can answer now."""
        with self._lock:
            return self._live in self._loaded

    def adapter_of(self, version: str) -> Path | None:
        """The folder of a version's files; None for the base."""
        return None if version == BASE_VERSION else self._adapters_dir / version

    def _flip(self, version: str, actor: str, reason: str, kind: Literal["promote", "rollback"]) -> Promotion:
        expected = self.live  # read before the slow part: of two racing flips the second finds it changed
        if version == expected:
            raise StateConflict(f"policy {version} is live already")
        try:
            with self._held(version):
                prove(self._engine, version)
                flipped = self._record(version, expected, actor, reason, kind)
        except HeedError:
            self._drop(version)
            raise
        logger.info("policy %s is live instead of %s (%s by %s: %s)", version, expected, kind, actor, reason)
        self._trim_soon()
        return flipped

    def _record(
        self, version: str, expected: str, actor: str, reason: str, kind: Literal["promote", "rollback"]
    ) -> Promotion:
        """The row first, then the pointer: a kill between the two loses nothing."""
        with self._flipping:
            flipped = promote(self._store, version, actor, kind=kind, reason=reason, expected_live=expected)
            with self._lock:
                self._previous, self._live, self._degraded = expected, version, None
        return flipped

    def _begin_with(self, version: str, recorded: str, problems: Sequence[str]) -> None:
        self._load(BASE_VERSION)
        if version != recorded:
            self._degraded = f"serving {version} instead of {recorded}: {'; '.join(problems)}"
            logger.error("%s", self._degraded)
            promote(
                self._store, version, "heed", kind="rollback", reason=self._degraded, expected_live=recorded
            )
        earlier = find_earlier_versions(read_promotions(self._store))
        with self._lock:
            self._live, self._previous = version, earlier[0]

    @contextmanager
    def _held(self, name: str) -> Iterator[str]:
        version = self._hold(name)
        try:
            yield version
        finally:
            self._release(version)

    def _require_retained(self, version: str) -> Policy:
        known = {policy.version: policy for policy in read_policies(self._store)}
        if version not in known:
            raise NotFound(f"policy {version!r} is unknown; known: live, base, {', '.join(known)}")
        folder = self.adapter_of(version)
        if folder is not None and not folder.is_dir():
            raise StateConflict(f"policy {version} is not retained: {folder.parent.name}/ no longer holds it")
        return known[version]

    def _hold(self, name: str) -> str:
        """Resolve a name and keep its version from being unloaded until `_release`."""
        with self._lock:
            version = {"live": self._live, "base": BASE_VERSION}.get(name, name)
            self._uses[version] += 1
            if version in self._loaded:
                self._loaded[version] = self._loaded.pop(version)  # now the most recently used
                return version
        try:
            self._load(version)
        except BaseException:
            self._release(version)
            raise
        return version

    def _release(self, version: str) -> None:
        with self._lock:
            self._uses[version] -= 1
            if not self._uses[version]:
                del self._uses[version]
        self._trim_soon()

    def _load(self, version: str) -> None:
        with self._loading:
            with self._lock:
                if version in self._loaded:
                    return
            policy = self._require_retained(version)
            folder = self.adapter_of(version)
            if folder is not None and weights_sha256(folder) != policy.weights_sha256:
                raise BadAdapter(f"policy {version}: its weights are not those registered (sha256)")
            self._engine.load(version, folder)
            with self._lock:
                self._loaded[version] = None

    def _drop(self, version: str) -> None:
        """Unload a version that failed, unless it serves somebody."""
        with self._loading:
            with self._lock:
                is_pinned = version in (BASE_VERSION, self._live, self._previous)
                if is_pinned or self._uses[version] or version not in self._loaded:
                    return
                del self._loaded[version]
            self._engine.unload(version)

    def _trim_soon(self) -> None:
        """Unload what is no longer kept, without making anybody wait for it."""
        with self._lock:
            surplus = self._find_surplus()
        if surplus:
            threading.Thread(target=self._trim, name="unload-policies", daemon=True).start()

    def _trim(self) -> None:
        # A version leaves `_loaded` before the engine drops it: whoever asks now waits here and reloads.
        with self._loading:
            with self._lock:
                surplus = self._find_surplus()
                for version in surplus:
                    del self._loaded[version]
            for version in surplus:
                self._engine.unload(version)

    def _find_surplus(self) -> list[str]:
        pinned = {BASE_VERSION, self._live, self._previous}
        recent = [version for version in reversed(self._loaded) if version not in pinned]
        room = self._keep_loaded - len(pinned - {BASE_VERSION})
        return [version for version in recent[room:] if not self._uses[version]]


def prove(engine: Engine, version: str) -> None:
    """Raise BadAdapter unless the version writes a finite answer to a fixed prompt."""
    chunks = list(engine.generate(version, PROOF, PROOF_SAMPLING))
    last = chunks[-1] if chunks else None
    if last is None or last.finish_reason not in ("stop", "length") or not math.isfinite(last.logprob_sum):
        raise BadAdapter(f"policy {version} did not finish an answer to the proof prompt")
    if any(chunk.version != version for chunk in chunks):
        raise BadAdapter(f"policy {version} was answered for by another version")


def find_earlier_versions(promotions: Sequence[Promotion]) -> list[str]:
    """Versions that were live before the present one, newest first and the base last; `promotions` newest
    first.

    What was rolled back from is not among them: two rollbacks in a row go two versions back.
    """
    trail: list[str] = [BASE_VERSION]
    for promotion in reversed(promotions):
        if promotion.kind == "rollback" and promotion.version in trail:
            del trail[trail.index(promotion.version) + 1 :]
            continue
        if promotion.kind == "rollback" and len(trail) > 1:
            trail.pop()
        trail.append(promotion.version)
    before = reversed(trail[1:-1])
    return [*dict.fromkeys(version for version in before if version != trail[-1]), BASE_VERSION]
