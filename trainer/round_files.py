"""What the rounds' directories say, for the pages and the API: progress, verdict, log, curves, report.

Reads only, and only what belongs to a round that the store knows.
"""

from __future__ import annotations

import json
from pathlib import Path

from store.database import Store
from store.records import Round
from store.rounds import read_round
from trainer.curves import ProgressReader
from trainer.report import write_report
from trainer.report_parts import write_curves


class RoundFiles:
    """The directories of one store's rounds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reader = ProgressReader()

    @property
    def folder(self) -> Path:
        """Where the rounds' directories are."""
        return self._store.data_dir / "rounds"

    def read_progress(self, round_id: str) -> list[dict[str, object]]:
        """The round's progress lines so far, in order. A line still being written is left for next time."""
        return self._reader.read(self.directory_of(round_id) / "progress.jsonl")

    def read_gate(self, round_id: str) -> dict[str, object] | None:
        """gate.json, or None until there is a verdict."""
        path = self.directory_of(round_id) / "gate.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def read_log(self, round_id: str, lines: int) -> list[str]:
        """The last `lines` lines of the round's log."""
        path = self.directory_of(round_id) / "log.txt"
        return path.read_text("utf-8", errors="replace").splitlines()[-lines:] if path.exists() else []

    def draw_curves(self, round_id: str) -> str:
        """The round's curves so far and what they mean, as HTML; empty before its first step."""
        plan = self.directory_of(round_id) / "round.json"
        told = json.loads(plan.read_text("utf-8")) if plan.exists() else {}
        return write_curves(self.read_progress(round_id), told, self.read_gate(round_id))

    def write_report(self, found: Round) -> str:
        """The page about a round as it stands now, as HTML."""
        return write_report(self.directory_of(found.round_id), found.state, found.reason)

    def directory_of(self, round_id: str) -> Path:
        """Where a round's files are. NotFound for an unknown round."""
        read_round(self._store, round_id)  # NotFound, so that no text from outside becomes a path
        return self.folder / round_id
