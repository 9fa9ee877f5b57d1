"""Labels nobody gave here as training rows: imported, an AI judge's, synthetic; each under its own source.

People come first: a task they have judged takes no outside label. An AI judge counts only while it agrees
with them well enough on tasks both have judged; until then its labels are left out, and counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import duckdb

from store.agreement import Measure, measure_kappa
from store.effective import FIRST, SECOND, QualitySettings
from store.outside import read_outside_labels
from store.records import Completion, OutsideLabel, PairRow, RatingRow
from store.splitting import opening_digest
from store.training_rows import TrainingRows, chat_prompt_id, prompt_id_of

Pair = tuple[Completion, Completion]
# What a machine said is no yardstick for the policy: it stays out of the holdout unless its split says so.
NOT_FOR_HOLDOUT = ("judge:", "synthetic:")


def add_outside_rows(
    cursor: duckdb.DuckDBPyConnection,
    rows: TrainingRows,
    completions: Mapping[str, Completion],
    settings: QualitySettings,
) -> None:
    """Add the outside labels that may be trained on; `rows.verdicts` says which tasks people have judged."""
    labels = read_outside_labels(cursor)
    if not labels:
        return
    pairs = read_pairs(cursor, completions)
    kappas = measure_judges(labels, rows.verdicts, pairs)
    for label in labels:
        reason = _why_not(label, rows.verdicts, kappas, settings)
        if reason is not None:
            rows.reasons[reason] += 1
            rows.ledger.leave_out(reason, [label.label_id])
            continue
        rows.reasons[f"outside_{label.source.partition(':')[0]}"] += 1
        if label.split == "holdout":
            rows.held_out.add(opening_digest(label.messages))
            rows.reserved.add(label.label_id)
        pair = pairs.get(label.task_id or "")
        if label.kind == "pair":
            rows.pairs.append(_to_pair_row(label, pair, settings))
        else:
            rows.ratings.append(_to_rating_row(label, pair, settings))


def measure_judges(
    labels: Sequence[OutsideLabel], verdicts: Mapping[str, int], pairs: Mapping[str, Pair]
) -> dict[str, Measure]:
    """Cohen's kappa of each AI judge with people, on tasks where both name a winner."""
    said: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for label in labels:
        if not label.source.startswith("judge:") or label.kind != "pair":
            continue
        ours, theirs = said[label.source]
        people, judge = verdicts.get(label.task_id or ""), _read_side(label, pairs)
        if people in (FIRST, SECOND) and judge is not None:
            ours.append(people or FIRST)
            theirs.append(judge)
    return {source: measure_kappa(*both) for source, both in said.items()}


def may_count(kappa: Measure | None, settings: QualitySettings) -> bool:
    """Whether a judge's labels are trained on."""
    if kappa is None or kappa.value is None:
        return False
    return kappa.n >= settings.min_judge_tasks and kappa.value >= settings.min_judge_kappa


def _why_not(
    label: OutsideLabel,
    verdicts: Mapping[str, int],
    kappas: Mapping[str, Measure],
    settings: QualitySettings,
) -> str | None:
    if label.task_id in verdicts:
        return "outside_judged_by_people"
    if _weight(label, settings) <= 0:
        return "outside_without_weight"
    if label.source.startswith("judge:"):
        kappa = kappas.get(label.source)
        if kappa is None or kappa.value is None or kappa.n < settings.min_judge_tasks:
            return "judge_not_measured"
        if not may_count(kappa, settings):
            return "judge_kappa_too_low"
    return None


def _weight(label: OutsideLabel, settings: QualitySettings) -> float:
    """What the label itself says it weighs times what its sort of source does."""
    sort = label.source.partition(":")[0]
    of_source = {"judge": settings.judge_weight, "synthetic": settings.synthetic_weight}
    return label.weight * of_source.get(sort, settings.import_weight)


def _read_side(label: OutsideLabel, pairs: Mapping[str, Pair]) -> int | None:
    pair = pairs.get(label.task_id or "")
    if pair is None:
        return None
    first, second = pair
    if (label.chosen, label.rejected) == (first.text, second.text):
        return FIRST
    return SECOND if (label.chosen, label.rejected) == (second.text, first.text) else None


def read_pairs(cursor: duckdb.DuckDBPyConnection, completions: Mapping[str, Completion]) -> dict[str, Pair]:
    """The two answers of each task of ours that an outside label is about."""
    sql = """
        SELECT task_id, first_id, second_id FROM tasks WHERE kind = 'pair'
        AND task_id IN (SELECT task_id FROM outside_labels)"""
    return {
        task_id: (completions[first_id], completions[second_id])
        for task_id, first_id, second_id in cursor.execute(sql).fetchall()
        if first_id in completions and second_id in completions
    }


def _find(text: str, pair: Pair | None) -> Completion | None:
    """The sampled answer with that text: its very tokens are trained on."""
    return next((completion for completion in pair or () if completion.text == text), None)


def _to_pair_row(label: OutsideLabel, pair: Pair | None, settings: QualitySettings) -> PairRow:
    chosen, rejected = _find(label.chosen, pair), _find(label.rejected or "", pair)
    sampled = chosen is not None and rejected is not None  # both sides are tokenised alike or not at all
    return PairRow(
        row_id=label.label_id,
        prompt_id=prompt_id_of(chosen) if chosen else chat_prompt_id(label.messages),
        messages=label.messages,
        chosen=label.chosen,
        rejected=label.rejected or "",
        chosen_ids=chosen.token_ids if chosen and sampled else (),
        rejected_ids=rejected.token_ids if rejected and sampled else (),
        chosen_version=chosen.version if chosen else label.source,
        rejected_version=rejected.version if rejected else label.source,
        strength=label.strength,
        weight=_weight(label, settings),
        person_ids=(),
        label_ids=(label.label_id,),
        source=label.source,
        probability=1.0,
        created_at=label.created_at,
        conversation_id=(chosen.conversation_id if chosen else None) or "",
        chosen_logprob=chosen.logprob_sum if chosen and sampled else None,
        rejected_logprob=rejected.logprob_sum if rejected and sampled else None,
    )


def _to_rating_row(label: OutsideLabel, pair: Pair | None, settings: QualitySettings) -> RatingRow:
    answer = _find(label.chosen, pair)
    return RatingRow(
        row_id=label.label_id,
        prompt_id=prompt_id_of(answer) if answer else chat_prompt_id(label.messages),
        messages=label.messages,
        completion=label.chosen,
        completion_ids=answer.token_ids if answer else (),
        version=answer.version if answer else label.source,
        desirable=bool(label.desirable),
        weight=_weight(label, settings),
        person_ids=(),
        label_ids=(label.label_id,),
        source=label.source,
        created_at=label.created_at,
        conversation_id=(answer.conversation_id if answer else None) or "",
        completion_logprob=answer.logprob_sum if answer else None,
    )
