"""What an AI judge said of our pairs: every verdict it was paid for, whether it became a label or not.

A verdict is no judgement of a person and never counts as one. It is kept so that nothing is asked twice, that
the calls can be counted against a budget, and that the judge can be compared with people.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import duckdb

from store.boundary import check_text
from store.clock import from_column, to_column, utc
from store.database import Store
from store.events import new_event
from store.judgements import COLUMNS as JUDGEMENT_COLUMNS
from store.judgements import to_judgement
from store.labels import STANDING_JUDGEMENTS
from store.outside import check_label, decide_labels
from store.records import JudgeVerdict, Message, OutsideLabel
from store.writer import Decision

Verdict = Literal["first", "second", "tie"]
COLUMNS = "task_id, source, content_sha256, verdict, replies_json, num_calls, created_at, problem"
# The newest verdict of a source on a task that was reached; what failed can be asked again.
STANDING_VERDICTS = """(
    SELECT * FROM judge_verdicts WHERE source = ? AND verdict <> 'failed'
    QUALIFY row_number() OVER (PARTITION BY task_id ORDER BY seq DESC) = 1)"""


@dataclass(frozen=True, slots=True)
class PairToJudge:
    """A pair of ours as a judge is to see it."""

    task_id: str
    messages: tuple[Message, ...]
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class CommonTask:
    """A task that both the judge and people have decided; people by the most frequent of their verdicts."""

    task_id: str
    by_judge: Verdict
    by_people: Verdict


def save_verdict(store: Store, verdict: JudgeVerdict, label: OutsideLabel | None = None) -> JudgeVerdict:
    """Save what the judge said, and in the same write the label it gives, if it gives one."""
    check_text("source", verdict.source, may_be_empty=False)
    for reply in (*verdict.replies, verdict.problem):
        check_text("a reply", reply)
    labels = [check_label(label)] if label is not None else []

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[JudgeVerdict]:
        saved = new_event(
            "judge_verdict_saved",
            verdict.created_at,
            task_id=verdict.task_id,
            source=verdict.source,
            content_sha256=verdict.content_sha256,
            verdict=verdict.verdict,
            replies=list(verdict.replies),
            num_calls=verdict.num_calls,
            problem=verdict.problem,
        )
        return Decision(verdict, [saved, *decide_labels(cursor, labels).events])

    return store.write(decide)


def find_pairs_to_judge(
    store: Store, source: str, limit: int, again_unreadable: bool = False
) -> list[PairToJudge]:
    """Up to `limit` pairs that source has not judged, those people have judged first, the newest first.

    Never repeats, gold, or two equal texts. A decided pair whose label was dropped is among them, because
    asking again is how to get it back; unreadable ones are only with `again_unreadable`.
    """
    sql = f"""
        SELECT t.task_id, one.messages_json, one.text, other.text
        FROM tasks AS t
        JOIN completions AS one ON one.completion_id = t.first_id
        JOIN completions AS other ON other.completion_id = t.second_id
        LEFT JOIN {STANDING_VERDICTS} AS v ON v.task_id = t.task_id
        WHERE t.kind = 'pair' AND t.purpose <> 'repeat' AND (t.num_accepted > 0 OR NOT t.retired)
        AND t.task_id NOT IN (SELECT task_id FROM gold)
        AND one.text <> other.text
        AND (v.task_id IS NULL OR (? AND v.verdict = 'unreadable') OR (
            v.verdict IN ('first', 'second') AND t.task_id NOT IN (
                SELECT task_id FROM outside_labels WHERE source = ? AND task_id IS NOT NULL)))
        ORDER BY t.num_accepted > 0 DESC, t.seq DESC LIMIT ?"""
    with store.read() as cursor:
        rows = cursor.execute(sql, [source, again_unreadable, source, limit]).fetchall()
    return [PairToJudge(row[0], tuple(json.loads(row[1])), row[2], row[3]) for row in rows]


def find_verdict(store: Store, source: str, content_sha256: str) -> JudgeVerdict | None:
    """The newest readable verdict of that source on that very content, whichever task it was asked for."""
    sql = f"""
        SELECT {COLUMNS} FROM judge_verdicts
        WHERE source = ? AND content_sha256 = ? AND verdict IN ('first', 'second', 'tie')
        ORDER BY seq DESC LIMIT 1"""
    with store.read() as cursor:
        row = cursor.execute(sql, [source, content_sha256]).fetchone()
    return None if row is None else _to_verdict(row)


def count_calls(store: Store, source: str, since: datetime | None = None) -> int:
    """How many requests that judge was sent, since then or ever."""
    sql = "SELECT coalesce(sum(num_calls), 0) FROM judge_verdicts WHERE source = ?"
    with store.read() as cursor:
        if since is None:
            row = cursor.execute(sql, [source]).fetchone()
        else:
            row = cursor.execute(f"{sql} AND created_at >= ?", [source, to_column(since)]).fetchone()
    return int(row[0]) if row else 0


def count_verdicts(store: Store, source: str) -> dict[str, int]:
    """How many tasks stand at each verdict, and how many attempts failed."""
    standing = f"SELECT verdict, count(*) FROM {STANDING_VERDICTS} GROUP BY verdict"
    failed = "SELECT count(*) FROM judge_verdicts WHERE source = ? AND verdict = 'failed'"
    with store.read() as cursor:
        counts: dict[str, int] = dict(cursor.execute(standing, [source]).fetchall())
        row = cursor.execute(failed, [source]).fetchone()
    return {name: counts.get(name, 0) for name in ("first", "second", "tie", "unreadable")} | {
        "failed": int(row[0]) if row else 0
    }


def read_common_tasks(store: Store, source: str) -> list[CommonTask]:
    """Every task that the judge and at least one person have decided, in the order of the tasks.

    An adjudication outweighs the votes. Skips and "both bad" are no decision between the two.
    """
    judged = f"""
        SELECT v.task_id, v.verdict, t.first_id FROM {STANDING_VERDICTS} AS v JOIN tasks AS t USING (task_id)
        WHERE v.verdict IN ('first', 'second', 'tie') ORDER BY t.seq"""
    decided = f"""
        SELECT {JUDGEMENT_COLUMNS} FROM {STANDING_JUDGEMENTS} AS j WHERE choice IN ('prefer', 'tie')
        AND task_id IN (SELECT task_id FROM judge_verdicts WHERE source = ?)"""
    settled = """
        SELECT task_id, choice, chosen_id FROM adjudications
        QUALIFY row_number() OVER (PARTITION BY task_id ORDER BY seq DESC) = 1"""
    with store.read() as cursor:
        verdicts = cursor.execute(judged, [source]).fetchall()
        judgements = [to_judgement(row) for row in cursor.execute(decided, [source]).fetchall()]
        final = {row[0]: (row[1], row[2]) for row in cursor.execute(settled).fetchall()}
    votes: dict[str, list[tuple[str, str | None]]] = {}
    for judgement in judgements:
        votes.setdefault(judgement.task_id, []).append((judgement.choice, judgement.chosen_id))
    found = []
    for task_id, verdict, first_id in verdicts:
        cast = [final[task_id]] if task_id in final else votes.get(task_id, [])
        by_people = _most_frequent(cast, first_id)
        if by_people is not None:
            found.append(CommonTask(task_id, verdict, by_people))
    return found


def _most_frequent(votes: Sequence[tuple[str, str | None]], first_id: str) -> Verdict | None:
    """What most votes say; as many for one as for the other is a tie; None without a vote."""
    counts: Counter[Verdict] = Counter()
    for choice, chosen_id in votes:
        if choice == "tie":
            counts["tie"] += 1
        elif choice == "prefer":
            counts["first" if chosen_id == first_id else "second"] += 1
    if not counts:
        return None
    most = max(counts.values())
    leading = [verdict for verdict, count in counts.items() if count == most]
    return leading[0] if len(leading) == 1 else "tie"


def _to_verdict(row: tuple[Any, ...]) -> JudgeVerdict:
    task_id, source, content_sha256, verdict, replies_json, num_calls, created_at, problem = row
    replies = tuple(json.loads(replies_json))
    return JudgeVerdict(
        task_id, source, content_sha256, verdict, replies, num_calls, from_column(created_at), problem
    )


def start_of_day(now: datetime | None = None) -> datetime:
    """Midnight UTC, from which a day's calls are counted."""
    return utc(now).replace(hour=0, minute=0, second=0, microsecond=0)
