"""Proves that a loaded version is what its round made, and that the base is the one the project began with.

The weights' hash says which file was read; the log-prob fingerprint says that it was applied to the right
base with the right scale. Knows engines and manifests, not which version is live.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serving.adapters import BadAdapter, read_manifest
from serving.engine import Engine
from serving.manifest import is_before_proofs, read_proof
from store.errors import BadValue, Busy, HeedError, NotFound, StateConflict
from store.proof import QUESTIONS, UNKNOWN, Proof, ProofRow, check_proof
from store.records import BASE_VERSION, Chunk, Message, Sampling

logger = logging.getLogger(__name__)

ASKED: tuple[tuple[Message, ...], ...] = tuple(({"role": "user", "content": text},) for text, _ in QUESTIONS)
GREEDY = Sampling(temperature=0.0, max_tokens=12)
BASE_FILE = "base.json"


def require_proof(adapter: Path, is_of_a_round: bool) -> Proof | None:
    """What the round recorded; None for an adapter that no round made, or one of a release before proofs: an
    update must not take a live version away. BadAdapter: it must have one."""
    manifest = read_manifest(adapter)
    proof = read_proof(adapter.name, manifest)
    if proof is None and is_of_a_round and not is_before_proofs(manifest):
        raise BadAdapter(
            f"adapter {adapter.name} has no proof, and its round recorded one: restore its files from a"
            " backup, promote a version that has one, or start a round"
        )
    if proof is None:
        logger.warning("adapter %s has no proof; only its hashes are known", adapter.name)
    return proof


def prove(engine: Engine, version: str, proof: Proof | None) -> None:
    """Raise BadAdapter unless the version's log-probs are those recorded; without a proof, unless it answers.

    Only scores where there is a proof: a score does not wait for a slot behind the people who chat.
    """
    if proof is None:
        _answer(engine, version, ASKED[0])
        return
    try:
        sums = [engine.score(version, row.messages, [row.answer_ids])[0] for row in proof.rows]
    except (Busy, NotFound, StateConflict):
        raise  # they say nothing of the version
    except HeedError as error:
        raise BadAdapter(f"policy {version} cannot be proved: {error}") from error
    problem = check_proof(proof, sums)
    if problem is not None:
        raise BadAdapter(f"policy {version}: {problem}")


def check_base(engine: Engine, folder: Path, name: str) -> tuple[Proof, str | None]:
    """The base's proof, recorded in `folder` at the first start, and what speaks against this base (None:
    nothing). `name` is what the operator calls the model."""
    path = folder / BASE_FILE
    if not path.exists():
        proof = _record_base(engine)
        _write(path, {"model": name, "fingerprint": engine.base_fingerprint, "proof": proof.as_json()})
        logger.info("recorded base %s, fingerprint %.12s", name, engine.base_fingerprint)
        return proof, None
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        proof = Proof.from_json(record["proof"])
        fingerprint, known = str(record["fingerprint"]), str(record["model"])
    except (OSError, RecursionError, ValueError, KeyError, TypeError, BadValue) as error:
        return _record_base(engine), f"{path.name} in the policies folder cannot be read: {error}"
    if fingerprint != engine.base_fingerprint:
        return _record_base(engine), _tell_other_base(known, fingerprint, name, engine.base_fingerprint)
    try:
        prove(engine, BASE_VERSION, proof)
    except BadAdapter as error:
        return _record_base(
            engine
        ), f"the base model's files are the same but it answers differently: {error}"
    return proof, None


def _tell_other_base(known: str, fingerprint: str, name: str, now: str) -> str:
    return (
        f"the base model is not the one this data folder began with: then {known} ({fingerprint:.12}), now"
        f" {name} ({now:.12}), so its files, its chat template or its precision changed. This base is served;"
        f" adapters trained over the other one are refused. To have them back, start with model, template and"
        f" precision as they were; to go on with this base and train anew, delete policies/{BASE_FILE} and"
        f" restart"
    )


def _record_base(engine: Engine) -> Proof:
    rows = []
    for messages in ASKED:
        ids = _answer(engine, BASE_VERSION, messages).token_ids
        rows.append(ProofRow(messages, tuple(ids), engine.score(BASE_VERSION, messages, [ids])[0]))
    return Proof(UNKNOWN, tuple(rows))


def _answer(engine: Engine, version: str, messages: Iterable[Message]) -> Chunk:
    chunks = list(engine.generate(version, [*messages], GREEDY))
    last = chunks[-1] if chunks else None
    if last is None or last.finish_reason not in ("stop", "length") or not math.isfinite(last.logprob_sum):
        raise BadAdapter(f"policy {version} did not finish an answer to the proof prompt")
    if any(chunk.version != version for chunk in chunks):
        raise BadAdapter(f"policy {version} was answered for by another version")
    return last


def _write(path: Path, content: object) -> None:
    """There whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".tmp-{path.name}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
