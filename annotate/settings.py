"""How people judge here: the scale, the reasons, when the page offers help. Knows no page and no store."""

from __future__ import annotations

from dataclasses import dataclass

SCALES = (3, 5, 7)
MOST_REASONS = 12
MOST_SKIP_REASONS = 9  # one key each, 1 to 9
MOST_REASON_CHARS = 80


@dataclass(frozen=True, slots=True)
class AnnotationSettings:
    """What a judgement can say and when the page offers help.

    `scale` is the number of points from "A much better" to "B much better" (3, 5 or 7). `reasons` are the
    detail panel's chips, `skip_reasons` what S asks. From a share of `diff_offer_ratio` equal words on
    (0 to 1) highlighting is offered, a break after `break_after_minutes` without a pause; 0 turns that off.
    """

    scale: int = 5
    reasons: tuple[str, ...] = ("correctness", "follows_request", "clarity", "length", "safety")
    skip_reasons: tuple[str, ...] = ("cannot_judge", "bad_prompt", "wrong_language", "personal_data")
    diff_offer_ratio: float = 0.6
    break_after_minutes: float = 50.0

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale {self.scale} is not one of 3, 5, 7 points")
        _check_reasons("reasons", self.reasons, MOST_REASONS)
        _check_reasons("skip_reasons", self.skip_reasons, MOST_SKIP_REASONS)
        if not 0.0 <= self.diff_offer_ratio <= 1.0:
            raise ValueError(f"diff_offer_ratio {self.diff_offer_ratio} is outside 0..1")
        if not 0.0 <= self.break_after_minutes < float("inf"):
            raise ValueError(f"break_after_minutes {self.break_after_minutes} must be 0 or more")

    @property
    def strongest(self) -> int:
        """The strength of "much better": 1 on a scale of 3 points, 2 of 5, 3 of 7."""
        return self.scale // 2


def _check_reasons(name: str, reasons: tuple[str, ...], most: int) -> None:
    if len(reasons) > most:
        raise ValueError(f"{name} lists {len(reasons)}; at most {most} fit on the page")
    if len(set(reasons)) != len(reasons):
        raise ValueError(f"{name} lists one of them twice: {', '.join(reasons)}")
    for reason in reasons:
        if not reason.strip() or not reason.isprintable() or len(reason) > MOST_REASON_CHARS:
            raise ValueError(f"{name}: {reason!r} must be 1 to {MOST_REASON_CHARS} printable characters")
