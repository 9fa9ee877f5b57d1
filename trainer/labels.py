"""A round's labels as training takes them: tables of the snapshot read, cut to length, accounted for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.records import Message
from trainer.answers import AnswerSet, prepare_answers
from trainer.preferences import (
    Notice,
    PairSet,
    RatingSet,
    count_notices,
    prepare_pairs,
    prepare_ratings,
    read_pairs,
    read_ratings,
)
from trainer.progress import ProgressLog
from trainer.settings import TrainerSettings
from trainer.tally import tally

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Labels:
    """What a round learns from and what it is measured on; `asked` is every conversation of the snapshot."""

    pairs: PairSet
    holdout: PairSet
    ratings: RatingSet
    answers: AnswerSet
    asked: Sequence[Sequence[Message]]

    def account_for_holdout(self) -> dict[str, Any]:
        """What became of each held-out row, as the training report has it."""
        account = tally([row.row_id for row in self.holdout.rows], self.holdout.notices)
        return account.as_json()

    def tell(self, progress: ProgressLog) -> None:
        """How many rows of each kind are used, and every one that was cut or left out."""
        for name, found in (
            ("pairs", self.pairs),
            ("holdout", self.holdout),
            ("ratings", self.ratings),
            ("answers", self.answers),
        ):
            log_notices(name, found.notices)
            notices = count_notices(found.notices)
            progress.note("prepare", "rows", set=name, used=len(found.rows), notices=notices)


def read_labels(snapshot: Path, tokenizer: Any, settings: TrainerSettings) -> Labels:
    """Read and prepare all of a snapshot. A table that is not there has no rows."""
    pairs, holdout = read_pairs(snapshot / "pairs.parquet"), read_pairs(snapshot / "holdout.parquet")
    ratings = read_ratings(snapshot / "ratings.parquet")
    longest = settings.max_length
    return Labels(
        pairs=prepare_pairs(pairs, tokenizer, longest),
        holdout=prepare_pairs(holdout, tokenizer, longest),
        ratings=prepare_ratings(ratings, tokenizer, longest, settings.kto_batch_size, settings.seed),
        answers=prepare_answers(pairs, ratings, tokenizer, settings),
        asked=[row.messages for row in (*holdout, *pairs)] + [row.messages for row in ratings],
    )


def log_notices(name: str, notices: Sequence[Notice]) -> None:
    """Name every row that was cut or left out, and count the reasons."""
    for notice in notices:
        logger.info("%s: row %s %s", name, notice.row_id, notice.what)
    for what, count in count_notices(notices).items():
        logger.warning("%s: %d times %s", name, count, what)
