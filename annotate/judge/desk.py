"""Lets the judge judge: picks pairs, asks both orders, saves verdicts and labels, and knows when to stop.

One run at a time, in threads of its own; nothing a person waits for. What was asked once is never asked
again, also after a restart, because the store keeps every verdict.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from annotate.guidelines import read_guidelines
from annotate.judge.agreement import Agreement, measure_agreement
from annotate.judge.endpoint import Budget, BudgetSpent, Endpoint, EndpointRefused, Meter, NoReply, shorten
from annotate.judge.question import Question, combine, read_reply, write_label, write_question
from annotate.judge.settings import JudgeSettings
from store.clock import utc
from store.database import Store
from store.errors import BadValue, StateConflict
from store.judge_verdicts import (
    PairToJudge,
    count_calls,
    count_verdicts,
    find_pairs_to_judge,
    find_verdict,
    read_common_tasks,
    save_verdict,
    start_of_day,
)
from store.outside import count_outside_labels
from store.records import JudgeVerdict, OutsideLabel

logger = logging.getLogger(__name__)

CALLS_A_PAIR = 2
CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class JudgeRun:
    """One run: how many pairs it took on and how those that are done went; `ended` says why it stopped."""

    pairs: int
    done: int = 0
    labels: int = 0
    ties: int = 0
    unreadable: int = 0
    failed: int = 0
    calls: int = 0
    started_at: datetime | None = None
    is_running: bool = True
    ended: str = ""


@dataclass(frozen=True, slots=True)
class JudgeStatus:
    """Everything about the judge: what it was asked, what may still be asked, what came of it."""

    source: str
    calls_today: int
    calls_total: int
    left_today: int
    left_total: int
    labels: int
    verdicts: dict[str, int]
    agreement: Agreement
    run: JudgeRun | None


class JudgeDesk:
    """One judge and the pairs of one store; it is given the guidelines that people go by."""

    def __init__(self, store: Store, settings: JudgeSettings) -> None:
        if settings.url is None or settings.model is None:
            raise BadValue("no judge is set up; give --judge.url and --judge.model")
        self._store = store
        self._settings = settings
        self._model = settings.model
        self._lock = threading.Lock()  # guards the two below
        self._run: JudgeRun | None = None
        self._failures_in_a_row = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, limit: int, again_unreadable: bool = False) -> JudgeRun:
        """Judge up to `limit` pairs in the background. StateConflict while a run is going on."""
        begun = self._begin(limit, again_unreadable)
        self._thread = threading.Thread(target=self._work, args=(begun,), name="judge", daemon=True)
        self._thread.start()
        return self._shown()

    def run(self, limit: int, again_unreadable: bool = False) -> JudgeRun:
        """Judge up to `limit` pairs and come back when that is done. StateConflict."""
        self._work(self._begin(limit, again_unreadable))
        return self._shown()

    def cancel(self) -> JudgeRun:
        """Begin no other pair; what was asked already is still saved. StateConflict when nothing runs."""
        if not self._is_running():
            raise StateConflict("the judge is not running")
        self._stop("cancelled")
        return self._shown()

    def close(self) -> None:
        """Stop, and wait a moment for what is in flight; a reply that takes longer is lost."""
        self._stop("the service was stopped")
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def read_status(self) -> JudgeStatus:
        """Calls, budget, labels and agreement, read fresh."""
        source, settings = self._settings.source, self._settings
        today, total = self._count_calls()
        with self._lock:
            run = self._run
        return JudgeStatus(
            source=source,
            calls_today=today,
            calls_total=total,
            left_today=max(0, settings.calls_per_day - today),
            left_total=max(0, settings.calls_total - total),
            labels=count_outside_labels(self._store).get(source, 0),
            verdicts=count_verdicts(self._store, source),
            agreement=measure_agreement(read_common_tasks(self._store, source)),
            run=run,
        )

    def _begin(self, limit: int, again_unreadable: bool) -> list[PairToJudge]:
        if limit < 1:
            raise BadValue(f"limit {limit} must be at least 1")
        with self._lock:
            if self._run is not None and self._run.is_running:
                raise StateConflict("the judge is running already; wait for it or cancel it")
            self._run = JudgeRun(pairs=0, started_at=utc())
            self._failures_in_a_row = 0
            self._stopping.clear()
        try:
            pairs = find_pairs_to_judge(self._store, self._settings.source, limit, again_unreadable)
        except BaseException as error:
            self._end(f"it could not begin: {error}")
            raise
        self._change(pairs=len(pairs))
        return pairs

    def _work(self, pairs: Sequence[PairToJudge]) -> None:
        try:
            self._judge_all(pairs)
        except Exception as error:
            # Nobody waits for this thread: without a record the run would seem to go on for ever.
            logger.exception("the judge's run failed")
            self._stop(f"it failed: {error}")
        self._end("all pairs are done")

    def _judge_all(self, pairs: Sequence[PairToJudge]) -> None:
        _, guidelines = read_guidelines(self._store)
        questions = [write_question(pair, self._model, guidelines) for pair in pairs]
        first_ones = {question.content_sha256: question for question in reversed(questions)}
        same_again = [q for q in questions if first_ones[q.content_sha256] is not q]
        today, total = self._count_calls()
        budget = Budget(min(self._settings.calls_per_day - today, self._settings.calls_total - total))
        with Endpoint(self._settings, self._stopping.wait) as endpoint:
            for batch in (list(first_ones.values()), same_again):  # the second finds its answers in the store
                self._judge_together(deque(batch), endpoint, budget)

    def _judge_together(self, waiting: deque[Question], endpoint: Endpoint, budget: Budget) -> None:
        """As many at a time as the settings allow. Daemons: no slow reply shall hold up a process's end."""

        def work() -> None:
            try:
                while not self._stopping.is_set():
                    try:
                        question = waiting.popleft()
                    except IndexError:
                        return
                    self._judge(question, endpoint, budget)
            except Exception as error:
                logger.exception("the judge's run failed")
                self._stop(f"it failed: {error}")

        threads = [
            threading.Thread(target=work, name=f"judge-{number}", daemon=True)
            for number in range(min(self._settings.concurrency, len(waiting)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _judge(self, question: Question, endpoint: Endpoint, budget: Budget) -> None:
        """Settle one pair, from the store if it knows the answer, and save what came of it."""
        known = find_verdict(self._store, self._settings.source, question.content_sha256)
        if known is not None:
            verdict = replace(known, task_id=question.pair.task_id, num_calls=0, created_at=utc())
        else:
            try:
                budget.take(CALLS_A_PAIR)
            except BudgetSpent as error:
                self._stop(f"the budget is spent: {error}")
                return
            verdict = self._ask(question, endpoint, Meter(budget, reserved=CALLS_A_PAIR))
        label = write_label(question.pair, verdict)
        save_verdict(self._store, verdict, label)
        self._count(verdict, label)

    def _ask(self, question: Question, endpoint: Endpoint, meter: Meter) -> JudgeVerdict:
        replies: list[str] = []
        problem = ""
        try:
            for messages in (question.first_is_a, question.second_is_a):
                replies.append(endpoint.ask(messages, meter))
        except (NoReply, BudgetSpent) as error:
            problem = str(error)
            if isinstance(error, EndpointRefused):
                self._stop(f"the endpoint refuses: {problem}")
            elif isinstance(error, BudgetSpent):
                self._stop(f"the budget is spent: {problem}")
        read = [read_reply(reply) for reply in replies]
        verdict: str = "failed" if problem else "unreadable"
        if len(read) == CALLS_A_PAIR and read[0] is not None and read[1] is not None:
            verdict = combine(read[0], read[1])
        return JudgeVerdict(
            question.pair.task_id,
            self._settings.source,
            question.content_sha256,
            verdict,  # type: ignore[arg-type]  # one of its words, by the lines above
            tuple(shorten(reply) for reply in replies),
            meter.num_calls,
            utc(),
            problem,
        )

    def _count(self, verdict: JudgeVerdict, label: OutsideLabel | None) -> None:
        with self._lock:
            assert self._run is not None
            run = self._run
            self._run = replace(
                run,
                done=run.done + 1,
                labels=run.labels + (label is not None),
                ties=run.ties + (verdict.verdict == "tie"),
                unreadable=run.unreadable + (verdict.verdict == "unreadable"),
                failed=run.failed + (verdict.verdict == "failed"),
                calls=run.calls + verdict.num_calls,
            )
            self._failures_in_a_row = self._failures_in_a_row + 1 if verdict.verdict == "failed" else 0
            has_enough = self._failures_in_a_row >= self._settings.max_failures
        if has_enough:
            self._stop(f"{self._failures_in_a_row} pairs in a row failed; the last: {verdict.problem}")

    def _count_calls(self) -> tuple[int, int]:
        source = self._settings.source
        return count_calls(self._store, source, start_of_day()), count_calls(self._store, source)

    def _stop(self, why: str) -> None:
        """No other pair is begun; the first reason is the one that is kept."""
        with self._lock:
            if self._run is not None and self._run.is_running and not self._run.ended:
                self._run = replace(self._run, ended=why)
        self._stopping.set()

    def _end(self, why: str) -> None:
        with self._lock:
            assert self._run is not None
            self._run = replace(self._run, is_running=False, ended=self._run.ended or why)
            logger.info("the judge's run ended: %s", self._run)

    def _change(self, pairs: int) -> None:
        with self._lock:
            assert self._run is not None
            self._run = replace(self._run, pairs=pairs)

    def _is_running(self) -> bool:
        with self._lock:
            return self._run is not None and self._run.is_running

    def _shown(self) -> JudgeRun:
        with self._lock:
            assert self._run is not None
            return self._run
