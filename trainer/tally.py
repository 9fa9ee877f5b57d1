"""What each stage made of the rows it read: used, cut, or left out for a reason that has a name.

It is training_report.json in the round's directory; rows read equal rows used and left out together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.preferences import Notice


@dataclass(frozen=True, slots=True)
class StageTally:
    """One stage's account. `left_out` names the rows under each reason, `not_reached` counts rows that the
    limit on steps leaves unseen."""

    num_read: int
    num_used: int
    left_out: dict[str, tuple[str, ...]]
    num_rows_cut: int
    num_messages_cut: int
    why_not: str | None = None
    not_reached: int = 0

    def as_json(self) -> dict[str, object]:
        """The account as training_report.json holds it."""
        return {
            "read": self.num_read,
            "used": self.num_used,
            "cut": {"rows": self.num_rows_cut, "messages": self.num_messages_cut},
            "left_out": {why: list(row_ids) for why, row_ids in self.left_out.items()},
            "skipped": self.why_not,
            "not_reached": self.not_reached,
        }


def tally(
    row_ids: Sequence[str],
    notices: Sequence[Notice],
    why_not: str | None = None,
    max_rows: int | None = None,
) -> StageTally:
    """The account of a stage that was given the rows `row_ids` after preparing them gave `notices`.

    When the stage does not run (`why_not`) every row it could have trained on is left out for that reason.
    """
    left_out: dict[str, tuple[str, ...]] = {}
    for notice in notices:
        if notice.why:
            left_out[notice.why] = (*left_out.get(notice.why, ()), notice.row_id)
    cuts = [notice for notice in notices if notice.num_cut]
    if why_not is not None and row_ids:
        left_out[f"the stage was skipped: {why_not}"] = tuple(row_ids)
    num_used = 0 if why_not is not None else len(row_ids)
    return StageTally(
        num_read=len(row_ids) + sum(1 for notice in notices if notice.why),
        num_used=num_used,
        left_out=left_out,
        num_rows_cut=len(cuts),
        num_messages_cut=sum(notice.num_cut for notice in cuts),
        why_not=why_not,
        not_reached=0 if max_rows is None else max(0, num_used - max_rows),
    )
