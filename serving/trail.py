"""What was live before: reads the append-only history of promotions and rollbacks."""

from __future__ import annotations

from collections.abc import Sequence

from store.records import BASE_VERSION, Promotion


def find_earlier_versions(promotions: Sequence[Promotion]) -> list[str]:
    """Versions that were live before the present one, newest first and the base last; `promotions` newest
    first.

    What was rolled back from is not among them: two rollbacks in a row go two versions back.
    """
    trail: list[str] = [BASE_VERSION]
    for promotion in reversed(promotions):
        if promotion.kind == "rollback" and promotion.version in trail:
            del trail[trail.index(promotion.version) + 1 :]
            continue
        if promotion.kind == "rollback" and len(trail) > 1:
            trail.pop()
        trail.append(promotion.version)
    before = reversed(trail[1:-1])
    return [*dict.fromkeys(version for version in before if version != trail[-1]), BASE_VERSION]
