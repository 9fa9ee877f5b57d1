"""What an annotator can do: each button, what it means to the session, the keys that press it. No layout."""

from __future__ import annotations

from dataclasses import dataclass

REASONS = (
    ("Correctness", "correctness"),
    ("Follows the request", "follows_request"),
    ("Clarity", "clarity"),
    ("Length", "length"),
    ("Safety", "safety"),
)


@dataclass(frozen=True)
class Act:
    """One button: what it says, what it means to the session, which keys press it."""

    elem_id: str
    label: str
    choice: str
    strength: int
    keys: tuple[str, ...]


PAIR_ACTS = (
    Act("k1", "A much better", "left", 2, ("1", "Shift+ArrowLeft")),
    Act("k2", "A slightly better", "left", 1, ("2", "ArrowLeft")),
    Act("k3", "About the same", "tie", 1, ("3", "ArrowDown")),
    Act("k4", "B slightly better", "right", 1, ("4", "ArrowRight")),
    Act("k5", "B much better", "right", 2, ("5", "Shift+ArrowRight")),
)
SINGLE_ACTS = (
    Act("down", "Bad answer", "down", 1, ("1", "ArrowLeft")),
    Act("up", "Good answer", "up", 1, ("2", "ArrowRight")),
)
BOTH_BAD = Act("k0", "Both bad", "both_bad", 1, ("0",))
SKIP = Act("skip", "Skip", "skip", 1, ("s",))
ACTS = {act.elem_id: act for act in (*PAIR_ACTS, *SINGLE_ACTS, BOTH_BAD, SKIP)}

OTHER_KEYS = {
    "u": ["undo"],
    "Backspace": ["undo"],
    "Enter": ["retry"],
    "e": ["detail"],
    "h": ["earlier"],
    "?": ["shortcuts"],
}


def map_keys() -> dict[str, list[str]]:
    """Each key and the buttons it presses; of several, the one that is on screen."""
    keymap: dict[str, list[str]] = {key: list(ids) for key, ids in OTHER_KEYS.items()}
    for act in ACTS.values():
        for key in act.keys:
            keymap.setdefault(key, []).append(act.elem_id)
    return keymap
