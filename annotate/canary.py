"""What the page and the API tell of a canary: its sides, the verdict so far, and that in words."""

from __future__ import annotations

from dataclasses import dataclass

from annotate.services import CanaryDesk, Services
from store.canaries import read_canaries, read_sides
from store.canary_rows import Canary, Sides
from store.canary_settings import CanarySettings
from store.canary_verdict import Verdict, explain_gap, judge_sides
from store.errors import BadValue


@dataclass(frozen=True, slots=True)
class Trial:
    """A canary with what it has come to; `verdict` is None once it has ended, `says` is a sentence."""

    canary: Canary
    sides: Sides
    verdict: Verdict | None
    says: str


def require_desk(services: Services) -> CanaryDesk:
    """The desk; BadValue where this service has none."""
    if services.canary is None:
        raise BadValue("this service serves no canary")
    return services.canary


def read_trials(services: Services, limit: int = 20) -> list[Trial]:
    """The newest first; the one that runs, if any, is among them."""
    settings = services.canary.settings if services.canary else CanarySettings()
    return [_read(services, canary, settings) for canary in read_canaries(services.store, limit)]


def _read(services: Services, canary: Canary, settings: CanarySettings) -> Trial:
    sides = read_sides(services.store, canary)
    if canary.outcome is not None:
        says = f"{canary.outcome}: {canary.end_reason}" if canary.end_reason else canary.outcome
        return Trial(canary, sides, None, says)
    verdict = judge_sides(sides, settings)
    return Trial(canary, sides, verdict, _explain(canary, sides, verdict, settings))


def _explain(canary: Canary, sides: Sides, verdict: Verdict, settings: CanarySettings) -> str:
    if not verdict.has_enough:
        return (
            f"Too few thumbs for a verdict: each side needs {settings.min_ratings}; {canary.version} has"
            f" {sides.candidate.ratings}, {canary.live} has {sides.live.ratings}."
        )
    gap = explain_gap(verdict.worse_by)
    gap = gap[:1].upper() + gap[1:]
    if verdict.decision == "better":
        return f"{gap}, whenever one looks: it can be promoted."
    by = f" by more than {settings.margin * 100:g} points" if settings.margin else ""
    return f"{gap}. It is withdrawn by itself once it is surely worse{by}."
