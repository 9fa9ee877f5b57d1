"""What an annotator can do: each button, what it means to the session, the keys that press it. No layout."""

from __future__ import annotations

from dataclasses import dataclass

from annotate.session import Earlier
from annotate.settings import AnnotationSettings
from store.records import Judgement

_HOW_MUCH: dict[int, dict[int, str]] = {
    3: {1: "better"},
    5: {1: "slightly better", 2: "much better"},
    7: {1: "slightly better", 2: "better", 3: "much better"},
}


@dataclass(frozen=True)
class Act:
    """One button: what it says, what it means to the session, which keys press it."""

    elem_id: str
    label: str
    choice: str
    strength: int
    keys: tuple[str, ...]
    reason: str = ""


SINGLE_ACTS = (
    Act("down", "Bad answer", "down", 1, ("1", "ArrowLeft")),
    Act("up", "Good answer", "up", 1, ("2", "ArrowRight")),
)
BOTH_BAD = Act("k0", "Both bad", "both_bad", 1, ("0",))
JUST_SKIP = Act("skip-0", "No reason", "skip", 1, ("s", "Enter"))

# What is neither a choice nor a reason to skip; of several targets the one on screen is pressed.
OTHER_KEYS: dict[str, tuple[str, ...]] = {
    "s": ("skip",),
    "u": ("undo",),
    "Backspace": ("undo",),
    "Enter": ("start", "retry", "save"),
    "Ctrl+Enter": ("retry", "save"),
    "q": ("unsafe-a",),
    "w": ("unsafe-b",),
    "d": ("highlight",),
    "e": ("add-detail",),
    "h": ("earlier",),
    "g": ("guide",),
    "r": ("recent",),
    "?": ("shortcuts",),
}


@dataclass(frozen=True)
class Acts:
    """Every button of one project, by the scale and the reasons it has set."""

    pair: tuple[Act, ...]
    skips: tuple[Act, ...]
    strongest: int

    @property
    def by_id(self) -> dict[str, Act]:
        """Each act under the id of its button."""
        return {act.elem_id: act for act in (*self.pair, *SINGLE_ACTS, BOTH_BAD, *self.skips)}

    def say(self, judgement: Judgement) -> str:
        """What was decided, in the words of the button that was pressed."""
        if judgement.choice == "skip":
            reasons = [act.label for act in self.skips if act.reason and act.reason in judgement.reasons]
            return f"Skipped: {reasons[0].lower()}" if reasons else "Skipped"
        if judgement.choice == "prefer":
            side = "left" if judgement.chosen_id == judgement.left_id else "right"
            return self._find(side, judgement.strength).label
        return self._find(judgement.choice, 1).label

    def find(self, earlier: Earlier) -> Act:
        """The button that said what was said then; the scale may have become shorter since."""
        if earlier.choice == "skip":
            return next(
                (act for act in self.skips if act.reason and act.reason in earlier.reasons), JUST_SKIP
            )
        return self._find(earlier.choice, earlier.strength)

    def _find(self, choice: str, strength: int) -> Act:
        known = min(max(strength, 1), self.strongest)
        fitting = (act for act in self.by_id.values() if act.choice == choice)
        return next(act for act in fitting if choice not in ("left", "right") or act.strength == known)

    def keymap(self) -> dict[str, list[str]]:
        """Each key and the buttons it presses; of several, the one that is on screen."""
        keymap: dict[str, list[str]] = {}
        for act in (*self.skips, *self.pair, *SINGLE_ACTS, BOTH_BAD):
            for key in act.keys:
                keymap.setdefault(key, []).append(act.elem_id)
        for key, ids in OTHER_KEYS.items():
            keymap.setdefault(key, []).extend(ids)
        return keymap


def build_acts(settings: AnnotationSettings) -> Acts:
    """The buttons for a scale of 3, 5 or 7 points and these reasons to skip."""
    strongest = settings.strongest
    strengths = [*range(strongest, 0, -1), 0, *range(1, strongest + 1)]
    pair = tuple(
        _point(settings.scale, number, strength, strongest) for number, strength in enumerate(strengths, 1)
    )
    skips = tuple(
        Act(f"skip-{number}", write_reason(reason), "skip", 1, (str(number),), reason)
        for number, reason in enumerate(settings.skip_reasons, 1)
    )
    return Acts(pair, (*skips, JUST_SKIP), strongest)


def write_reason(reason: str) -> str:
    """A stored reason as a person reads it: "bad_prompt" is "Bad prompt"."""
    words = reason.replace("_", " ")
    return words[0].upper() + words[1:]


def _point(scale: int, number: int, strength: int, strongest: int) -> Act:
    elem_id, key = f"k{number}", str(number)
    if not strength:
        return Act(elem_id, "About the same", "tie", 1, (key, "ArrowDown"))
    side, letter, arrow = ("left", "A", "ArrowLeft") if number <= strongest else ("right", "B", "ArrowRight")
    arrows = [arrow] if strength == 1 else []
    if strength == strongest:
        arrows.append(f"Shift+{arrow}")
    return Act(elem_id, f"{letter} {_HOW_MUCH[scale][strength]}", side, strength, (key, *arrows))
