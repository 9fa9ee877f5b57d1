"""Which version is live: a pointer above the engine, flipped once the store has the row. Knows no tensors.

A request holds the version it began with, so a swap or an unload never reaches into an answer. A version
whose files or answers are not those that were registered is not served, and `problems` says so.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from serving.adapters import BadAdapter, sweep_unfinished
from serving.engine import Engine
from serving.loading import VersionLoader
from serving.streaming import HeldStream
from serving.trail import find_earlier_versions
from store.database import Store
from store.errors import Busy, HeedError, StateConflict
from store.policies import live_version, promote, read_promotions
from store.records import BASE_VERSION, Chunk, Message, Promotion, Sampling

logger = logging.getLogger(__name__)

Kind = Literal["promote", "rollback"]


class PolicyBoard:
    """Loads, promotes and rolls back versions, and samples from them by name ("live", "base", "v3").

    Besides the base, `keep_loaded` versions stay in memory: live, the one before it, and the last asked for.
    `base_name` is what the operator calls the model.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        adapters_dir: Path,
        keep_loaded: int = 3,
        base_name: str = "the base model",
    ) -> None:
        if keep_loaded < 2:
            raise ValueError(f"keep_loaded {keep_loaded} must be at least 2: live and the one before it")
        self._store = store
        self._engine = engine
        self._adapters_dir = adapters_dir
        self._keep_loaded = keep_loaded
        self._live = self._previous = BASE_VERSION
        self._start_problem: str | None = None
        self._refused: dict[str, str] = {}  # version -> why, since the last promotion or rollback
        self._loaded: dict[str, None] = {}  # least recently used first
        self._uses: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards all of the above; never held while something slow happens
        self._loader = VersionLoader(store, engine, adapters_dir, base_name)
        self._loading = threading.Lock()  # one load or unload at a time
        self._flipping = threading.Lock()  # the order of the rows is the order of the flips

    @property
    def live(self) -> str:
        """The version that answers as "live"."""
        with self._lock:
            return self._live

    def problems(self) -> tuple[str, ...]:
        """What is not as it was promoted, a sentence each with what to do; empty when all is well."""
        changed = self._loader.files.problems()
        with self._lock:
            found = [self._loader.base_problem, self._start_problem]
            found += [f"{version} was refused: {why}" for version, why in self._refused.items()]
            found += [
                f"{what}; {version} {'still answers from' if version == self._live else 'stays in'} memory;"
                f" restore its files from a backup, or promote another version"
                for version, what in changed.items()
            ]
        return tuple(problem for problem in found if problem)

    def look_at_files(self) -> None:
        """Notice files that changed under a loaded version. Meant to be called every few seconds."""
        self._loader.files.look()

    def start(self) -> None:
        """Serve what the store says is live, or the newest earlier version that can be served.

        An engine that cannot be reached is an error, and what is live stays recorded as it was.
        """
        for orphan in sweep_unfinished(self._adapters_dir):
            logger.warning("removed the unfinished adapter folder %s", orphan)
        try:
            self._load(BASE_VERSION)
        except HeedError as error:
            raise HeedError(f"not even the base model can be served: {error}") from error
        recorded = live_version(self._store)
        problems: list[str] = []
        earlier = find_earlier_versions(read_promotions(self._store))
        self._begin_with(self._find_good((recorded, *earlier), problems), recorded, problems)

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

    def keep(self, version: str) -> None:
        """Load a version, have it prove itself, and hold it in memory until `let_go`. Raises as `promote`."""
        self._hold(version)
        try:
            self._loader.require_files(version)
            self._loader.prove(version)
        except BaseException:
            self._release(version)
            self._drop(version)
            raise

    def let_go(self, version: str) -> None:
        """Undo one `keep`: the version stays as long as others that were asked for do."""
        self._release(version)

    def resolve(self, name: str) -> str:
        """The version behind a name, loaded if it was not. NotFound with the known names."""
        version = self._hold(name)
        self._release(version)
        return version

    def sample(
        self,
        name: str,
        messages: Sequence[Message],
        sampling: Sampling,
        background: bool = False,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]:
        """Submit a request now to the version behind `name` at this moment; see `Engine.generate`.

        StateConflict for a version that was rejected.
        """
        if name not in ("live", "base", self.live):  # what is live was not rejected
            self._loader.require_servable(name)
        version = self._hold(name)
        try:
            chunks = self._engine.generate(version, messages, sampling, background, top_logprobs)
        except BaseException:
            self._release(version)
            raise
        return HeldStream(chunks, partial(self._release, version))

    def score(self, name: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]) -> list[float]:
        """How likely the version behind `name` finds these answers; see `Engine.score`."""
        with self._held(name) as version:
            return self._engine.score(version, messages, answers)

    def loaded_versions(self) -> list[str]:
        """What is in memory, least recently used first."""
        with self._lock:
            return list(self._loaded)

    def is_ready(self) -> bool:
        """Whether the live version can answer now."""
        with self._lock:
            return self._live in self._loaded

    def adapter_of(self, version: str) -> Path | None:
        """The folder of a version's files; None for the base."""
        return self._loader.adapter_of(version)

    def _flip(self, version: str, actor: str, reason: str, kind: Kind) -> Promotion:
        expected = self.live  # read before the slow part: of two racing flips the second finds it changed
        if version == expected:
            raise StateConflict(f"policy {version} is live already")
        # What is in memory proved itself when it was loaded: a rollback must not wait behind other work, so
        # the pointer moves first and the proof is repeated after it.
        was_loaded = version in self.loaded_versions()
        try:
            with self._held(version):
                self._loader.require_files(version)
                flipped = self._record(version, expected, actor, reason, kind)
        except HeedError:
            self._drop(version)
            raise
        logger.info("policy %s is live instead of %s (%s by %s: %s)", version, expected, kind, actor, reason)
        if was_loaded:
            self._prove_live(flipped)
        self._trim_soon()
        return flipped

    def _record(self, version: str, expected: str, actor: str, reason: str, kind: Kind) -> Promotion:
        """The row first, then the pointer: a kill between the two loses nothing."""
        with self._flipping:
            flipped = promote(self._store, version, actor, kind=kind, reason=reason, expected_live=expected)
            with self._lock:
                self._previous, self._live = expected, version
                self._start_problem = None
                self._refused.clear()
        return flipped

    def _prove_live(self, flipped: Promotion) -> None:
        """Prove what went live from memory; where that fails, go back by ourselves and raise BadAdapter."""
        try:
            with self._held(flipped.version) as version:
                self._loader.prove(version)
        except BadAdapter as error:
            good = self._find_way_back(flipped.previous)
            self._record(good, flipped.version, "heed", f"went back: {error}", "rollback")
            with self._lock:  # the bad one is not what a rollback returns to
                self._previous = find_earlier_versions(read_promotions(self._store))[0]
            self._refuse(flipped.version, error)
            self._drop(flipped.version)
            raise BadAdapter(f"{error}; {good} is live again") from error

    def _find_way_back(self, previous: str) -> str:
        earlier = find_earlier_versions(read_promotions(self._store))
        try:
            return self._find_good((previous, *earlier), [])
        except Busy as error:  # the bad version must not stay live, and the base is always in memory
            logger.error("no earlier version can be loaded now, the base answers: %s", error)
            return BASE_VERSION

    def _find_good(self, versions: Sequence[str], problems: list[str]) -> str:
        """The first of these versions that proves itself; why the others did not is added to `problems`. Busy
        says nothing of a version, so it is raised."""
        for version in dict.fromkeys(versions):
            try:
                self._loader.require_servable(version)
                with self._held(version):
                    self._loader.prove(version)
            except Busy:  # an engine that is away for a moment must not change what is live for good
                raise
            except HeedError as error:
                self._drop(version)
                logger.error("policy %s cannot be served: %s", version, error)
                problems.append(f"{version}: {error}")
            else:
                return version
        raise HeedError(f"not even the base model can be served: {'; '.join(problems)}")

    def _begin_with(self, version: str, recorded: str, problems: Sequence[str]) -> None:
        problem = None
        if version != recorded:
            problem = f"serving {version} instead of {recorded}: {'; '.join(problems)}"
            logger.error("%s", problem)
            promote(self._store, version, "heed", kind="rollback", reason=problem, expected_live=recorded)
        earlier = find_earlier_versions(read_promotions(self._store))
        with self._lock:
            self._live, self._previous, self._start_problem = version, earlier[0], problem
            self._refused.clear()  # it is all in the problem

    @contextmanager
    def _held(self, name: str) -> Iterator[str]:
        version = self._hold(name)
        try:
            yield version
        finally:
            self._release(version)

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
            try:
                self._loader.load(version)
            except BadAdapter as error:
                self._refuse(version, error)
                raise
            with self._lock:
                self._refused.pop(version, None)
                self._loaded[version] = None

    def _refuse(self, version: str, error: BadAdapter) -> None:
        logger.error("policy %s is refused: %s", version, error)
        with self._lock:
            self._refused[version] = str(error)

    def _drop(self, version: str) -> None:
        """Unload a version that failed, unless it serves somebody."""
        with self._loading:
            with self._lock:
                is_pinned = version in (BASE_VERSION, self._live, self._previous)
                if is_pinned or self._uses[version] or version not in self._loaded:
                    return
                del self._loaded[version]
            self._loader.unload(version)

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
                self._loader.unload(version)

    def _find_surplus(self) -> list[str]:
        pinned = {BASE_VERSION, self._live, self._previous}
        recent = [version for version in reversed(self._loaded) if version not in pinned]
        room = self._keep_loaded - len(pinned - {BASE_VERSION})
        return [version for version in recent[room:] if not self._uses[version]]
