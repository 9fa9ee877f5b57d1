"""The canary over a real store: who is sent where, what ends it by itself, and what a restart keeps."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from httpx import Response

from serving.adapters import publish
from serving.canary import ON_TRIAL, CanaryRouter
from serving.engine import Engine
from serving.in_process import InProcessEngine
from serving.policies import PolicyBoard
from serving.settings import BaseSettings
from store.canaries import read_canaries, read_canary
from store.canary_rows import Canary
from store.canary_settings import CanarySettings
from store.database import Store
from store.errors import BadValue, Busy, HeedError, NotFound, StateConflict
from store.people import add_person
from store.policies import add_policy, live_version, read_policy
from store.records import Chunk, Message, Promotion, Sampling
from tests.annotate.conftest import bearer, open_client
from tests.fakes import make_services
from tests.serving.fakes import ScriptedEngine, ask

logger = logging.getLogger(__name__)
IDS = [f"cv_{number:05}" for number in range(10_000)]
SETTINGS = CanarySettings(share=0.1)


class FragileEngine(ScriptedEngine):
    """Fails `v1` as it is told to: when it is asked, or when its answer is read, after `after` chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: HeedError | None = None
        self.breaks: Exception | None = None
        self.after = 0

    def generate(
        self,
        version: str,
        messages: Sequence[Message],
        sampling: Sampling,
        background: bool = False,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]:
        if version == "v1" and self.refuses is not None:
            raise self.refuses
        chunks = super().generate(version, messages, sampling, background, top_logprobs)
        return self._break(chunks) if version == "v1" else chunks

    def _break(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for number, chunk in enumerate(chunks):
            if self.breaks is not None and number == self.after:
                raise self.breaks
            yield chunk


@pytest.fixture
def engine() -> FragileEngine:
    return FragileEngine()


@pytest.fixture
def data(tmp_path: Path, adapters: dict[str, Path]) -> Path:
    """A data folder with two registered candidates and their files."""
    store = Store.open(tmp_path / "data")
    for version in ("v1", "v2"):
        sha256 = publish(adapters[version], tmp_path / "data" / "policies", version)
        add_policy(store, version, parent="v0", round_id=None, weights_sha256=sha256)
    store.close()
    return tmp_path / "data"


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    opened = Store.open(data)
    yield opened
    opened.close()


def connect(store: Store, engine: Engine, settings: CanarySettings = SETTINGS) -> CanaryRouter:
    """The router over a board, connected as `app.py` does."""
    board = PolicyBoard(store, engine, store.data_dir / "policies")
    board.start()

    def promote(version: str, actor: str, reason: str) -> Promotion:
        try:
            return board.promote(version, actor, reason)
        finally:
            router.refresh()

    router = CanaryRouter(store, board, settings, promote)
    router.refresh()
    return router


@pytest.fixture
def router(store: Store, engine: FragileEngine) -> CanaryRouter:
    return connect(store, engine)


def say(router: CanaryRouter, conversation_id: str, model: str = "live") -> str:
    name = router.route(model, conversation_id)
    return "".join(chunk.text for chunk in router.sample(name, ask("hi"), Sampling()))


def find_taken(router: CanaryRouter) -> list[str]:
    return [name for name in IDS if router.version_for(name) == "v1"]


def test_ten_thousand_conversations_get_the_share_that_was_set_and_keep_it_over_a_restart(data: Path) -> None:
    store = Store.open(data)
    router = connect(store, FragileEngine())
    router.start("v1", 0.1, "ann")
    taken = find_taken(router)
    assert abs(len(taken) / len(IDS) - 0.1) < 0.01
    assert say(router, taken[0]).startswith("v1")
    lives = next(name for name in IDS if name not in taken)
    assert say(router, lives).startswith("v0")
    assert say(router, taken[0], "base").startswith("v0"), "who names a version gets it"
    store.close()

    store = Store.open(data)
    engine = FragileEngine()
    again = connect(store, engine)
    assert find_taken(again) == taken
    assert "v1" in engine.loaded
    assert say(again, taken[0]).startswith("v1")
    store.close()


def test_without_a_canary_everybody_is_answered_by_live(router: CanaryRouter) -> None:
    assert not find_taken(router)
    assert say(router, "cv_1").startswith("v0")
    assert [chunk.version for chunk in router.sample(ON_TRIAL, ask("hi"), Sampling())] == ["v0", "v0"]
    with pytest.raises(StateConflict, match="no canary runs"):
        router.stop("ann")


def test_a_candidate_proves_itself_before_anybody_is_sent_there(
    router: CanaryRouter, engine: FragileEngine, store: Store
) -> None:
    engine.broken.add("v1")
    with pytest.raises(HeedError, match="v1"):
        router.start("v1", 0.1, "ann")
    with pytest.raises(NotFound, match="'live'"):
        router.start("live", 0.1, "ann")
    assert (read_canaries(store), find_taken(router)) == ([], [])
    assert engine.unloaded == ["v1"]


def test_a_canary_stays_in_memory_until_it_ends(router: CanaryRouter, engine: FragileEngine) -> None:
    router.start("v1", 0.1, "ann")
    for version in ("v2", "base", "v2"):
        say(router, "cv_1", version)
    assert "v1" in engine.loaded
    with pytest.raises(StateConflict, match="v1 is on trial"):
        router.start("v2", 0.1, "ann")
    ended = router.stop("ann", "seen enough")
    assert (ended.outcome, find_taken(router)) == ("stopped", [])


def test_a_canary_that_is_promoted_answers_everybody(router: CanaryRouter, store: Store) -> None:
    router.start("v1", 0.1, "ann")
    router.promote("ann", "people like it")
    assert (live_version(store), read_canaries(store)[0].outcome) == ("v1", "promoted")
    assert router.route("live", IDS[0]) == "live"
    assert say(router, IDS[0]).startswith("v1")


def test_what_passed_a_gate_goes_live_or_on_trial_in_place_of_an_older_candidate(
    store: Store, engine: FragileEngine
) -> None:
    router = connect(store, engine, CanarySettings(after_gate=0.4))
    router.start("v1", 0.1, "ann")
    taken = router.take("v2", "round 7", "all checks passed")
    assert isinstance(taken, Canary)
    assert (taken.share, taken.version, live_version(store)) == (0.4, "v2", "v0")
    assert [canary.outcome for canary in read_canaries(store)] == [None, "superseded"]
    at_once = connect(store, ScriptedEngine(), CanarySettings(after_gate=0.0))
    assert isinstance(at_once.take("v1", "round 8", "all checks passed"), Promotion)
    assert (live_version(store), read_canary(store)) == ("v1", None)


def test_of_a_promotion_and_a_new_canary_at_once_the_later_is_refused_or_superseded(
    router: CanaryRouter, store: Store
) -> None:
    """Whatever the order, nobody is sent to a canary that is compared with a version not live any more."""
    router.start("v1", 0.3, "ann")
    both = threading.Barrier(2)
    errors: list[Exception] = []

    def at_once(act: str) -> None:
        both.wait()
        try:
            if act == "promote":
                router.promote("bob")
            else:
                router.start("v2", 0.3, "round 7", supersede=True)
        except HeedError as error:
            errors.append(error)

    threads = [threading.Thread(target=at_once, args=(act,)) for act in ("promote", "start")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running, live = read_canary(store), live_version(store)
    assert running is None or running.live == live
    routed = {router.version_for(name) for name in IDS} - {None}
    assert routed == ({running.version} if running else set())
    assert len(errors) <= 1


@pytest.mark.parametrize("when", ["asked", "read"])
def test_a_candidate_that_fails_is_withdrawn_and_live_answers_in_its_place(
    router: CanaryRouter, engine: FragileEngine, store: Store, when: str
) -> None:
    router.start("v1", 0.5, "ann")
    mine = find_taken(router)[0]
    if when == "asked":
        engine.refuses = HeedError("its adapter is gone")
    else:
        engine.breaks = HeedError("its adapter is gone")
    assert say(router, mine) == "v0 says 0 False"
    (ended,) = read_canaries(store)
    assert (ended.outcome, ended.end_reason) == ("withdrawn", "it failed: its adapter is gone")
    assert read_policy(store, "v1").state == "candidate", "a failure says nothing about its answers"
    assert find_taken(router) == []


def test_an_answer_that_breaks_off_after_it_began_is_not_continued_by_another_version(
    router: CanaryRouter, engine: FragileEngine, store: Store
) -> None:
    router.start("v1", 0.5, "ann")
    engine.breaks, engine.after = RuntimeError("out of memory"), 1
    chunks = router.sample(ON_TRIAL, ask("hi"), Sampling())
    assert next(chunks).version == "v1"
    with pytest.raises(RuntimeError, match="out of memory"):
        next(chunks)
    assert read_canaries(store)[0].end_reason == "it failed: RuntimeError: out of memory"


def test_an_answer_that_is_no_number_ends_the_canary(
    router: CanaryRouter, engine: FragileEngine, store: Store
) -> None:
    router.start("v1", 0.5, "ann")
    engine.broken.add("v1")
    say(router, find_taken(router)[0])
    assert "not finite" in read_canaries(store)[0].end_reason


@pytest.mark.parametrize("error", [Busy("200 requests wait"), BadValue("the message is too long")])
def test_what_live_would_refuse_too_is_no_fault_of_the_canary(
    router: CanaryRouter, engine: FragileEngine, store: Store, error: HeedError
) -> None:
    router.start("v1", 0.5, "ann")
    engine.refuses = error
    with pytest.raises(type(error)):
        say(router, find_taken(router)[0])
    assert read_canary(store) is not None


def test_a_candidate_that_cannot_be_loaded_after_a_restart_is_withdrawn_and_live_serves(data: Path) -> None:
    store = Store.open(data)
    connect(store, FragileEngine()).start("v1", 0.5, "ann")
    store.close()
    (data / "policies" / "v1" / "adapter_model.safetensors").write_bytes(b"torn")
    store = Store.open(data)
    router = connect(store, FragileEngine())
    (ended,) = read_canaries(store)
    assert ended.outcome == "withdrawn"
    assert ended.end_reason.startswith("it cannot be served: ")
    assert (find_taken(router), say(router, "cv_1")) == ([], "v0 says 0 False")
    store.close()


class Crowd:
    """A tester who chats and rates over HTTP, a conversation a thumb."""

    def __init__(
        self,
        store: Store,
        router: CanaryRouter,
        up_rates: dict[str, float],
        seed: int = 5,
        rated: Callable[[], None] | None = None,
    ) -> None:
        services = make_services(store, router.sample, route=router.route, rated=rated or router.rated)
        self.client = open_client(services)
        self.headers = bearer(add_person(store, f"tester {seed}", "tester", "long enough"))
        self.up_rates = up_rates
        self.draw = random.Random(seed)

    def rate_many(self, count: int) -> None:
        """Ask and rate that many times."""
        for _ in range(count):
            asked = {"model": "live", "messages": ask("hi"), "max_tokens": 2}
            place = {"conversation_id": f"cv_{self.draw.random()}"}
            answered = self._post("/v1/chat/completions", asked | place)
            is_up = self.draw.random() < self.up_rates[answered.headers["x-policy-version"]]
            body = {"completion_id": answered.json()["id"], "rating": 1 if is_up else -1}
            self._post("/v1/feedback", body)

    def _post(self, path: str, body: dict[str, object]) -> Response:
        reply = self.client.post(path, json=body, headers=self.headers)
        assert reply.is_success, reply.text
        return reply


def test_a_planted_bad_candidate_is_withdrawn_by_the_thumbs_alone(store: Store, base_dir: Path) -> None:
    """The real engine answers, people rate, and nobody else does anything."""
    with_engine = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"))
    router = connect(store, with_engine)
    router.start("v1", 0.5, "ann")
    crowd = Crowd(store, router, {"v0": 0.8, "v1": 0.2})
    number = 0
    while read_canary(store) is not None:
        number += 1
        assert number < 300, "the planted bad candidate still serves"
        crowd.rate_many(1)
    (ended,) = read_canaries(store)
    logger.info("withdrawn after %d ratings (%s): %s", number, ended.numbers, ended.end_reason)
    assert (ended.outcome, ended.ended_by) == ("withdrawn", "heed")
    assert ended.end_reason.endswith("points worse")
    assert read_policy(store, "v1").state == "rejected"
    assert sum(ended.numbers[f"{side}_{thumb}"] for side in ("live", "candidate") for thumb in ("up", "down"))
    crowd.rate_many(1)
    assert not find_taken(router)
    with_engine.close()


def test_an_equal_candidate_stays(store: Store, engine: FragileEngine) -> None:
    router = connect(store, engine)
    router.start("v1", 0.5, "ann")
    crowd = Crowd(store, router, {"v0": 0.7, "v1": 0.7})
    crowd.rate_many(40)
    running = read_canary(store)
    assert running is not None
    figures = {
        (name, labels.get("side"), labels.get("thumb")): n for name, _, labels, n in router.read_figures()
    }
    assert sum(n for (name, _, _), n in figures.items() if name == "canary_ratings") == 40
    assert figures["canary_running", None, None] == 1


def test_a_missed_call_is_made_up_for_by_the_tick(store: Store, engine: FragileEngine) -> None:
    router = connect(store, engine)
    router.start("v1", 0.5, "ann")
    Crowd(store, router, {"v0": 1.0, "v1": 0.0}, rated=lambda: None).rate_many(40)
    assert read_canary(store) is not None
    router.tick()
    assert read_canary(store) is None
    assert find_taken(router) == []


def test_thumbs_of_many_at_once_end_it_once_and_none_of_them_fails(
    store: Store, engine: FragileEngine
) -> None:
    router = connect(store, engine)
    router.start("v1", 0.5, "ann")
    crowds = [Crowd(store, router, {"v0": 1.0, "v1": 0.0}, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(crowd.rate_many, 20) for crowd in crowds]:
            done.result()
    (ended,) = read_canaries(store)
    assert (ended.outcome, find_taken(router)) == ("withdrawn", [])
