"""Simulated people: they ask, read, judge and rate through the HTTP API, each with a token of their own.

They see what a person sees, the conversation and the texts; never a version, nor how an answer came about.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.client import ApiError, HeedClient, PairTask
from benchmarks.metrics import Row
from benchmarks.taste import Taste, Verdict, choose_side, choose_thumb, read_answer
from store.records import Message

LONGEST_IDLE_S = 300.0  # how long an annotator waits for a pair before giving up
LOOK_AGAIN_S = 0.2
LEASE_LOST = 409


@dataclass(frozen=True, slots=True)
class Question:
    """One answer to be sampled: the conversation and the seed of the draw."""

    messages: tuple[Message, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class SimulatedPerson:
    """Someone with a taste who misses their aim with probability `noise`; `seed` fixes when."""

    client: HeedClient
    taste: Taste
    noise: float
    seed: int

    def judge_pairs(self, num_labels: int) -> int:
        """Judge until `num_labels` judgements are in; returns how many of them were ties."""
        num_judged = num_ties = 0
        while num_judged < num_labels:
            task = self._wait_for_pair()
            verdict = self._judge(task)
            try:
                self.client.judge(task.task_id, verdict.choice, verdict.strength)
            except ApiError as error:
                # A promotion closes the pairs of the version before, also those in somebody's hands.
                if error.status != LEASE_LOST:
                    raise
                continue
            num_judged += 1
            num_ties += verdict.choice == "tie"
        return num_ties

    def rate_answers(self, questions: Sequence[Question], max_tokens: int) -> int:
        """Ask the live policy each question and rate its answer; returns how many thumbs went up."""
        return sum(self._rate_answer(question, max_tokens) > 0 for question in questions)

    def _judge(self, task: PairTask) -> Verdict:
        left, right = (read_answer(task.messages, text) for text in (task.left, task.right))
        return choose_side(self.taste, left, right, self.noise, random.Random(f"{self.seed} {task.task_id}"))

    def _rate_answer(self, question: Question, max_tokens: int) -> int:
        answer = self.client.ask("live", question.messages, seed=question.seed, max_tokens=max_tokens)
        reading = read_answer(question.messages, answer.text)
        thumb = choose_thumb(
            self.taste, reading, self.noise, random.Random(f"{self.seed} {answer.completion_id}")
        )
        self.client.rate(answer.completion_id, thumb)
        return thumb

    def _wait_for_pair(self) -> PairTask:
        deadline = time.monotonic() + LONGEST_IDLE_S
        while time.monotonic() < deadline:
            if task := self.client.next_pair():
                return task
            time.sleep(LOOK_AGAIN_S)
        raise RuntimeError(f"no pair to judge for {LONGEST_IDLE_S:.0f} s; see the service's log")


def collect_judgements(people: Sequence[SimulatedPerson], num_labels: int) -> int:
    """All annotators at once, `num_labels` judgements together; returns the number of ties among them."""
    shares = _share_out(num_labels, len(people))
    with ThreadPoolExecutor(len(people)) as pool:
        return sum(pool.map(SimulatedPerson.judge_pairs, people, shares))


def collect_ratings(people: Sequence[SimulatedPerson], questions: Sequence[Question], max_tokens: int) -> int:
    """All testers at once, each with their part of the questions; returns the number of thumbs up."""
    parts = [questions[place :: len(people)] for place in range(len(people))]
    with ThreadPoolExecutor(len(people)) as pool:
        return sum(pool.map(SimulatedPerson.rate_answers, people, parts, [max_tokens] * len(people)))


def sample_answers(
    testers: Sequence[HeedClient], model: str, questions: Sequence[Question], max_tokens: int
) -> list[Row]:
    """One answer a question, in their order.

    The service writes one answer a person at a time, so each question goes to a tester who waits for none.
    """
    idle: queue.SimpleQueue[HeedClient] = queue.SimpleQueue()
    for tester in testers:
        idle.put(tester)

    def ask(question: Question) -> Row:
        tester = idle.get()
        try:
            answer = tester.ask(model, question.messages, seed=question.seed, max_tokens=max_tokens)
        finally:
            idle.put(tester)
        return Row(
            question.messages, answer.text, answer.logprob_sum, answer.num_tokens, answer.finish_reason
        )

    with ThreadPoolExecutor(len(testers)) as pool:
        return list(pool.map(ask, questions))


def _share_out(total: int, num_people: int) -> list[int]:
    return [total // num_people + (place < total % num_people) for place in range(num_people)]
