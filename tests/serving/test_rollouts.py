"""Tasks are there before anybody asks for one: from the live policy, two different answers each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from serving.drafts import find_least_alike, similarity
from serving.rollouts import RolloutFiller, RolloutSettings, seed_of
from store.clock import utc
from store.database import Store
from store.errors import Busy
from store.people import add_person
from store.policies import add_policy, promote
from store.prompts import NewPrompt, add_prompts
from store.records import Chunk, Completion, Message, Sampling
from store.tasks import count_open_tasks, lease_task
from tests.serving.fakes import ask, wait_until

SETTINGS = RolloutSettings(ready_pairs=4, ready_singles=2, in_flight=3, max_tokens=32)
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


class Sampler:
    """Answers with words that the seed picks, so that two answers are different; or always with `text`."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self.asked: list[tuple[str, Sampling, bool]] = []
        self.num_open = 0
        self.most_open = 0
        self.error: Exception | None = None

    def __call__(
        self, name: str, messages: Sequence[Message], sampling: Sampling, background: bool = False
    ) -> Iterator[Chunk]:
        if self.error is not None:
            raise self.error
        assert messages[-1]["role"] == "user"
        self.asked.append((name, sampling, background))
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        return self._write(name, sampling)

    def _write(self, name: str, sampling: Sampling) -> Iterator[Chunk]:
        self.num_open -= 1
        text = self.text
        if text is None:
            text = " ".join(WORDS[(sampling.seed >> shift) % len(WORDS)] for shift in range(0, 30, 3))
        yield Chunk(text[:3], name)
        yield Chunk(text[3:], name, "stop", (4, 5, 1), -2.5, 7)


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store.in_memory()
    add_prompts(store, [NewPrompt(tuple(ask(f"question {i}")), ()) for i in range(10)], source="test")
    yield store
    store.close()


def read_completions(store: Store) -> list[dict[str, Any]]:
    with store.read() as cursor:
        rows = cursor.execute("SELECT * FROM completions").fetchall()
        names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_it_fills_up_to_the_wanted_number_and_no_further(store: Store) -> None:
    filler = RolloutFiller(store, Sampler(), SETTINGS)
    assert filler.fill() == 6
    assert (count_open_tasks(store, "pair"), count_open_tasks(store, "single")) == (4, 2)
    assert filler.fill() == 0
    assert (filler.counts.pairs, filler.counts.singles) == (4, 2)


def test_a_taken_task_is_replaced(store: Store) -> None:
    filler = RolloutFiller(store, Sampler(), SETTINGS)
    filler.fill()
    person = add_person(store, "ada", "annotator").person
    assert lease_task(store, person.person_id, "pair", lambda task, _: task.completion_ids[0]) is not None
    assert filler.fill() == 1


def test_completions_carry_how_they_were_drawn(store: Store) -> None:
    sample = Sampler()
    RolloutFiller(store, sample, SETTINGS).fill()
    saved = read_completions(store)
    assert len(saved) == 10
    assert {row["seed"] for row in saved} < {sampling.seed for _, sampling, _ in sample.asked}
    assert len({row["seed"] for row in saved}) == 10
    assert {(row["version"], row["max_tokens"], row["logprob_sum"]) for row in saved} == {("v0", 32, -2.5)}
    assert {(name, background) for name, _, background in sample.asked} == {("v0", True)}


def test_many_requests_are_in_flight_at_once(store: Store) -> None:
    sample = Sampler()
    RolloutFiller(store, sample, RolloutSettings(ready_pairs=8, ready_singles=0, in_flight=8)).fill()
    assert sample.most_open == 8 * RolloutSettings().candidates


def test_a_prompt_that_always_gets_the_same_answer_is_skipped_aloud_and_not_retried(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    sample = Sampler("The capital of France is Paris.")
    filler = RolloutFiller(store, sample, RolloutSettings(ready_pairs=2, ready_singles=0))
    with caplog.at_level(logging.WARNING):
        assert filler.fill() == 0
    assert filler.counts.skipped_prompts == 2
    assert len(sample.asked) == 2 * (4 + 5)  # four candidates, then five more tries of one
    assert "was skipped: policy v0 gave no pair of distinct answers in 6 tries" in caplog.text
    before = len(sample.asked)
    sample.text = None
    assert filler.fill() == 2
    assert len(sample.asked) == before + 2 * 4
    with store.read() as cursor:
        assert cursor.execute("SELECT count(DISTINCT prompt_id) FROM tasks").fetchone() == (2,)


def test_empty_answers_are_never_shown(store: Store) -> None:
    filler = RolloutFiller(store, Sampler(" \n "), RolloutSettings(ready_pairs=0, ready_singles=1))
    assert filler.fill() == 0
    assert filler.counts.empty == 6
    assert read_completions(store) == []


def test_after_a_promotion_unjudged_tasks_of_the_old_version_are_closed(store: Store) -> None:
    sample = Sampler()
    filler = RolloutFiller(store, sample, SETTINGS)
    filler.fill()
    add_policy(store, "v1", parent="v0", round_id=None, weights_sha256="0" * 64)
    promote(store, "v1", "ada")
    assert filler.fill() == 6
    assert filler.counts.retired == 6
    assert {name for name, _, _ in sample.asked[-10:]} == {"v1"}


def test_a_promotion_in_the_middle_ends_the_old_version_at_once(store: Store) -> None:
    sample = Sampler()
    filler = RolloutFiller(store, sample, SETTINGS)
    add_policy(store, "v1", parent="v0", round_id=None, weights_sha256="0" * 64)
    write = sample._write

    def promote_first(name: str, sampling: Sampling) -> Iterator[Chunk]:
        sample._write = write  # type: ignore[method-assign]
        promote(store, "v1", "ada")
        return write(name, sampling)

    sample._write = promote_first  # type: ignore[method-assign]
    filler.fill()
    filler.fill()
    with store.read() as cursor:
        rows = cursor.execute(
            "SELECT version, count(*) FROM tasks WHERE NOT retired GROUP BY version"
        ).fetchall()
    assert rows == [("v1", 6)]


def test_an_error_is_logged_and_the_thread_goes_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    sample = Sampler()
    sample.error = Busy("12 requests wait")
    filler = RolloutFiller(store, sample, SETTINGS)
    failed = threading.Event()

    class Recovering(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            sample.error = None
            failed.set()

    handler = Recovering()
    logging.getLogger("serving.rollouts").addHandler(handler)
    filler.start()
    try:
        assert failed.wait(10)
        wait_until(lambda: count_open_tasks(store, "single") == 2)
    finally:
        filler.stop()
        logging.getLogger("serving.rollouts").removeHandler(handler)
    assert filler.counts.failures == 1
    assert "Busy: 12 requests wait" in caplog.text


def test_wake_makes_it_look_at_once(store: Store) -> None:
    with store.read() as cursor:
        assert cursor.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
    filler = RolloutFiller(store, Sampler(), RolloutSettings(ready_pairs=11, ready_singles=0, poll_s=600))
    filler.start()
    try:
        wait_until(lambda: count_open_tasks(store, "pair") == 10)
        add_prompts(store, [NewPrompt(tuple(ask("one more")), ())], source="test")
        filler.wake()
        wait_until(lambda: count_open_tasks(store, "pair") == 11)
    finally:
        filler.stop()


class EndlessStream(Iterator[Chunk]):
    """Begins, and writes no more until it is closed; then it ends as cancelled, as the engine's do."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._chunks = iter([Chunk("Amb", "v0"), Chunk("", "v0", "cancelled")])
        self.is_read = threading.Event()

    def __next__(self) -> Chunk:
        if self.is_read.is_set():
            assert self._closed.wait(10), "nobody closed it"
        self.is_read.set()
        return next(self._chunks)

    def close(self) -> None:
        self._closed.set()


def test_stopping_waits_for_no_answer_and_is_no_failure(store: Store) -> None:
    """SIGTERM waited until the answers in the making were written to their ends."""
    streams: list[EndlessStream] = []

    def begin(*_asked: object, background: bool) -> Iterator[Chunk]:
        assert background
        streams.append(EndlessStream())
        return streams[-1]

    filler = RolloutFiller(store, begin, SETTINGS)
    filler.start()
    wait_until(lambda: len(streams) == 3 * SETTINGS.candidates and streams[0].is_read.is_set())
    stopping = threading.Thread(target=filler.stop, daemon=True)
    stopping.start()
    stopping.join(5)
    assert not stopping.is_alive()
    assert all(stream._closed.is_set() for stream in streams)
    assert (filler.counts.failures, read_completions(store)) == (0, [])


class Scorer:
    """The base finds each answer as likely as `base` says, in the order they are asked about."""

    def __init__(self, base: Sequence[float]) -> None:
        self.base = list(base)
        self.asked: list[tuple[str, list[Sequence[int]]]] = []

    def __call__(
        self, name: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        assert messages[-1]["role"] == "user"
        self.asked.append((name, list(answers)))
        return [self.base.pop(0) for _ in answers]


def read_priorities(store: Store, kind: str) -> list[float]:
    with store.read() as cursor:
        sql = "SELECT priority FROM tasks WHERE kind = ? AND NOT retired ORDER BY seq"
        return [priority for (priority,) in cursor.execute(sql, [kind]).fetchall()]


def make_v1_live(store: Store) -> None:
    add_policy(store, "v1", parent="v0", round_id=None, weights_sha256="0" * 64)
    promote(store, "v1", "ada")


def test_the_priority_of_a_pair_is_its_implicit_reward_margin(store: Store) -> None:
    """The sampler's answers all have -2.5 nats under v1; the base gives -3 and -6, then -7 and -5."""
    make_v1_live(store)
    scorer = Scorer([-3.0, -6.0, -7.0, -5.0])
    settings = RolloutSettings(ready_pairs=2, ready_singles=2, order="uncertain")
    RolloutFiller(store, Sampler(), settings, score=scorer, beta=0.1).fill()
    assert read_priorities(store, "pair") == pytest.approx([0.3, 0.2])
    assert read_priorities(store, "single") == [0.0, 0.0]
    assert scorer.asked == [("v0", [(4, 5, 1), (4, 5, 1)])] * 2


def test_nothing_is_scored_when_the_base_is_live_or_the_order_is_random(store: Store) -> None:
    scorer = Scorer([])
    uncertain = RolloutSettings(ready_pairs=2, ready_singles=0, order="uncertain")
    RolloutFiller(store, Sampler(), uncertain, score=scorer).fill()
    make_v1_live(store)
    random = RolloutSettings(ready_pairs=2, ready_singles=0, order="random")
    RolloutFiller(store, Sampler(), random, score=scorer).fill()
    assert read_priorities(store, "pair") == [0.0, 0.0]
    assert scorer.asked == []


def completion(text: str) -> Completion:
    return Completion("c", (), text, "v0", Sampling(), (), 0.0, "stop", 0, utc())


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("Paris is the capital.", "paris is the capital!", True),
        ("Paris is the capital.", "I cannot know that.", False),
        ("yes", "no", False),
        ("4", "4", True),
    ],
)
def test_nearly_equal_answers_are_similar(first: str, second: str, is_same: bool) -> None:
    assert (similarity(completion(first), completion(second)) >= RolloutSettings().similarity) is is_same


def test_a_pair_is_the_two_answers_that_differ_most() -> None:
    drawn = [
        completion(text) for text in ("It is Paris.", "It is Paris!", "I cannot know that.", "It is Rome.")
    ]
    first, second = find_least_alike(drawn)
    assert {first.text, second.text} in (
        {"It is Paris.", "I cannot know that."},
        {"It is Rome.", "I cannot know that."},
        {"It is Paris!", "I cannot know that."},
    )


def test_seeds_fit_every_column_and_do_not_repeat() -> None:
    seeds = {seed_of(start, count) for start in (1, 2) for count in range(1000)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="ready_pairs -1"):
        RolloutSettings(ready_pairs=-1)
    with pytest.raises(ValueError, match="similarity"):
        RolloutSettings(similarity=0)
    with pytest.raises(ValueError, match="temperature"):
        RolloutSettings(temperature=-1)
    with pytest.raises(ValueError, match="order 'newest' is not one of uncertain, random"):
        RolloutSettings(order="newest")  # type: ignore[arg-type]
