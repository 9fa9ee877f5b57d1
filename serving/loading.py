"""Puts registered versions into the engine and takes them out again; what is loaded is what was promoted.

Knows the registry, the files and the engine, not which version is live. Not for two threads at once.
"""

from __future__ import annotations

import logging
from pathlib import Path

from serving.adapters import WEIGHTS, BadAdapter, hash_files
from serving.engine import Engine
from serving.proving import check_base, prove, require_proof
from serving.watching import FileWatch, read_stamp
from store.database import Store
from store.errors import Busy, NotFound, StateConflict
from store.policies import read_policies
from store.proof import Proof
from store.records import BASE_VERSION, Policy

logger = logging.getLogger(__name__)


class VersionLoader:
    """Loads, proves and unloads versions. `base_problem` says what speaks against the base that is served."""

    def __init__(self, store: Store, engine: Engine, adapters_dir: Path, base_name: str) -> None:
        self._store = store
        self._engine = engine
        self._adapters_dir = adapters_dir
        self._base_name = base_name
        self._proofs: dict[str, Proof | None] = {}
        self.base_problem: str | None = None
        self.files = FileWatch()

    def adapter_of(self, version: str) -> Path | None:
        """The folder of a version's files; None for the base."""
        return None if version == BASE_VERSION else self._adapters_dir / version

    def load(self, version: str) -> None:
        """Load and prove a version, or leave no trace of it. NotFound, StateConflict, BadAdapter."""
        policy, folder = self._require_retained(version), self.adapter_of(version)
        self._proofs[version] = self._load_adapter(policy, folder) if folder else self._load_base()

    def prove(self, version: str) -> None:
        """Prove a loaded version once more. BadAdapter. Where the engine is busy its first proof holds."""
        try:
            prove(self._engine, version, self._proofs[version])
        except Busy as error:
            logger.warning("policy %s is held to be what it was when it was loaded: %s", version, error)

    def unload(self, version: str) -> None:
        """Take a version out of memory once nothing of it is in flight."""
        self.files.end(version)
        self._engine.unload(version)

    def require_files(self, version: str) -> None:
        """What goes live must be there after a restart too. NotFound, StateConflict, BadAdapter."""
        self._require_retained(version)
        problem = self.files.problem_of(version)
        if problem is not None:
            raise BadAdapter(f"policy {version}: {problem}; restore them from a backup")

    def require_servable(self, version: str) -> None:
        """Nobody is answered by what was rejected, in memory or not. NotFound, StateConflict."""
        policy = self._find(version)
        if policy.state == "rejected":
            raise StateConflict(
                f"policy {version} was rejected ({policy.reason or 'no reason kept'}) and answers nobody; ask"
                " live, base or another version"
            )

    def _require_retained(self, version: str) -> Policy:
        policy = self._find(version)
        folder = self.adapter_of(version)
        if folder is not None and not folder.is_dir():
            raise StateConflict(f"policy {version} is not retained: {folder.parent.name}/ no longer holds it")
        return policy

    def _find(self, version: str) -> Policy:
        known = {policy.version: policy for policy in read_policies(self._store)}
        if version not in known:
            raise NotFound(f"policy {version!r} is unknown; known: live, base, {', '.join(known)}")
        return known[version]

    def _load_base(self) -> Proof:
        self._engine.load(BASE_VERSION, None)
        proof, self.base_problem = check_base(self._engine, self._adapters_dir, self._base_name)
        if self.base_problem:
            logger.error("%s", self.base_problem)
        return proof

    def _load_adapter(self, policy: Policy, folder: Path) -> Proof | None:
        version, stamp, hashes = policy.version, read_stamp(folder), hash_files(folder)
        if hashes[WEIGHTS] != policy.weights_sha256:
            raise BadAdapter(f"policy {version}: its weights are not those registered (sha256)")
        proof = require_proof(folder, policy.round_id is not None)
        self._engine.load(version, folder)
        try:
            if read_stamp(folder) != stamp:  # the engine read the files a second time
                raise BadAdapter(f"policy {version}: its files changed while they were being loaded")
            prove(self._engine, version, proof)
        except BaseException:
            self._engine.unload(version)
            raise
        self.files.begin(version, folder, hashes, stamp)
        return proof
