"""What a click may say, checked: choice, strength, reasons, comment, correction, unsafe sides. No store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from annotate.blinding import Side
from annotate.settings import AnnotationSettings
from annotate.text import MOST_COMMENT, MOST_CORRECTION, limit, limit_reasons
from store.errors import BadValue
from store.records import Choice, TaskKind

ShownChoice = Literal["left", "right", "tie", "both_bad", "skip", "up", "down"]

CHOICES: dict[TaskKind, tuple[ShownChoice, ...]] = {
    "pair": ("left", "right", "tie", "both_bad", "skip"),
    "single": ("up", "down", "skip"),
}
ALL_CHOICES: tuple[ShownChoice, ...] = tuple(dict.fromkeys((*CHOICES["pair"], *CHOICES["single"])))
CORRECTABLE: tuple[ShownChoice, ...] = ("left", "right", "up", "down")
SIDES: dict[TaskKind, tuple[Side, ...]] = {"pair": ("left", "right"), "single": ("left",)}


@dataclass(frozen=True, slots=True)
class Act:
    """A click, checked: what `save_judgement` takes besides the task, sides not yet mapped to completions."""

    choice: ShownChoice
    strength: int
    reasons: tuple[str, ...]
    comment: str
    correction: str | None
    active_ms: int | None
    unsafe: tuple[Side, ...]

    @property
    def stored_choice(self) -> Choice:
        """The choice past the screen, where there is no left and right."""
        return "prefer" if self.choice == "left" or self.choice == "right" else self.choice

    def fitted(self, kind: TaskKind, texts: Sequence[str]) -> Act:
        """The act on a task of that kind; BadValue when it does not fit.

        An edit box that was opened and left as it was is no correction: no answer is better than itself.
        """
        if self.choice not in CHOICES[kind]:
            raise BadValue(
                f"choice {self.choice!r} does not fit a {kind}; choose one of {', '.join(CHOICES[kind])}"
            )
        if unknown := [side for side in self.unsafe if side not in SIDES[kind]]:
            raise BadValue(f"a {kind} has no {unknown[0]} answer that could be unsafe")
        if self.correction is None or _plain(self.correction) in map(_plain, texts):
            return replace(self, correction=None)
        if self.choice not in CORRECTABLE:
            raise BadValue(
                f"a correction edits one answer, so choose one of {', '.join(CORRECTABLE)}, not {self.choice}"
            )
        return self


def check_act(
    settings: AnnotationSettings,
    choice: str,
    strength: int,
    reasons: Sequence[str],
    comment: str,
    correction: str | None,
    active_ms: int | None,
    unsafe: Sequence[str],
) -> Act:
    """The act as a record; BadValue naming the first part that can never be right."""
    known = next((name for name in ALL_CHOICES if name == choice), None)
    if known is None:
        raise BadValue(f"choice {choice!r} is unknown; choose one of {', '.join(ALL_CHOICES)}")
    if not 1 <= strength <= settings.strongest:
        raise BadValue(
            f"strength {strength} is outside 1..{settings.strongest}, "
            f"what the scale of {settings.scale} points has"
        )
    if active_ms is not None and active_ms < 0:
        raise BadValue(f"active_ms {active_ms} is below 0")
    return Act(
        choice=known,
        strength=strength if known in ("left", "right") else 0,
        reasons=limit_reasons(tuple(reasons)),
        comment=limit(comment, MOST_COMMENT, "the comment"),
        correction=limit(correction, MOST_CORRECTION, "the correction") if correction else None,
        active_ms=active_ms,
        unsafe=tuple(_check_side(side) for side in dict.fromkeys(unsafe)),
    )


def _check_side(name: str) -> Side:
    for side in SIDES["pair"]:
        if name == side:
            return side
    raise BadValue(f"unsafe {name!r} is not left or right")


def _plain(text: str) -> str:
    # A browser's text box changes line ends, and nobody sees a space at the end.
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
