"""The components of the annotate page that handlers read or write, and what a click sends along."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from annotate.blinding import Side


@dataclass(frozen=True)
class Parts:
    """Every component that a handler reads or writes."""

    links: Any
    account: Any
    kind: Any
    status: Any
    notices: Any
    not_saved: Any
    not_saved_says: Any
    stage: Any
    history: Any
    prompt: Any
    side_b: Any
    heading_a: Any
    unsafe_a: Any
    unsafe_b: Any
    answer_a: Any
    answer_b: Any
    empty: Any
    empty_says: Any
    other_kind: Any
    guide: Any
    guide_head: Any
    guide_text: Any
    guide_version: Any
    recent: Any
    vote_bar: Any
    pair_votes: Any
    single_votes: Any
    both_bad: Any
    highlight: Any
    highlight_offer: Any
    reasons: Any
    comment: Any
    correction: Any
    task_id: Any
    active_ms: Any
    selected: Any
    reopened: Any
    is_detail_open: Any
    draft: Any
    cue: Any
    look_again: Any

    def all(self) -> list[Any]:
        """The components in the order of their declaration, as Gradio wants its outputs."""
        return [getattr(self, part.name) for part in fields(self)]

    def given(self) -> list[Any]:
        """What a click sends along, in the order of `Given`."""
        return [getattr(self, part.name) for part in fields(Given)]


@dataclass(frozen=True)
class Given:
    """What stood on the page when something was clicked; named after the components."""

    task_id: str
    kind: str
    reasons: list[str]
    comment: str
    correction: str
    unsafe_a: bool
    unsafe_b: bool
    highlight: bool
    guide_version: float | None
    selected: str
    reopened: str
    draft: str
    active_ms: float | None
    is_detail_open: bool

    @property
    def unsafe(self) -> list[Side]:
        """The sides that are flagged."""
        flags: tuple[tuple[Side, bool], ...] = (("left", self.unsafe_a), ("right", self.unsafe_b))
        return [side for side, is_flagged in flags if is_flagged]
