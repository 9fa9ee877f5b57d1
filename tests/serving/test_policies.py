"""Promotion, rollback and start over a scripted engine, and the swap under load over the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from serving.adapters import BadAdapter, publish
from serving.in_process import InProcessEngine
from serving.policies import PolicyBoard
from serving.settings import BaseSettings
from serving.trail import find_earlier_versions
from store.clock import utc
from store.database import Store
from store.errors import Busy, HeedError, NotFound, StateConflict
from store.policies import add_policy, live_version, mark_policy, promote, read_promotions
from store.records import Promotion, Sampling
from tests.serving.conftest import Reference
from tests.serving.fakes import ScriptedEngine, ask

VERSIONS = ("v1", "v2", "v3", "v4", "v5")


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store.in_memory()
    yield store
    store.close()


@pytest.fixture
def policies(store: Store, tmp_path: Path, adapters: dict[str, Path]) -> Path:
    """Five registered candidates with their files."""
    folder = tmp_path / "policies"
    for version in VERSIONS:
        sha256 = publish(adapters[version], folder, version)
        add_policy(store, version, parent="v0", round_id=None, weights_sha256=sha256)
    return folder


@pytest.fixture
def scripted() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def board(store: Store, scripted: ScriptedEngine, policies: Path) -> PolicyBoard:
    board = PolicyBoard(store, scripted, policies)
    board.start()
    return board


def say(board: PolicyBoard, name: str) -> str:
    return "".join(chunk.text for chunk in board.sample(name, ask("hi"), Sampling()))


def wait_for_unloading() -> None:
    for thread in threading.enumerate():
        if thread.name == "unload-policies":
            thread.join(timeout=10)


def test_a_fresh_store_serves_the_base(board: PolicyBoard) -> None:
    assert say(board, "live") == say(board, "base") == say(board, "v0") == "v0 says 0 False"
    assert board.is_ready()
    assert board.problems() == ()


def test_a_promoted_version_answers_as_live(board: PolicyBoard, store: Store) -> None:
    promotion = board.promote("v1", "ada", "won 60 %")
    assert (promotion.version, promotion.previous, promotion.actor) == ("v1", "v0", "ada")
    assert live_version(store) == board.live == "v1"
    assert say(board, "live").startswith("v1")
    assert say(board, "base").startswith("v0")


def test_answers_are_scored_by_the_version_a_name_stands_for(
    store: Store, base_dir: Path, policies: Path
) -> None:
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"))
    board = PolicyBoard(store, engine, policies)
    board.start()
    board.promote("v1", "ada", "")
    last = list(board.sample("live", ask("the fox"), Sampling(temperature=1, max_tokens=20, seed=3)))[-1]
    live, again, base = (
        board.score(name, ask("the fox"), [last.token_ids])[0] for name in ("live", "v1", "base")
    )
    assert live == again == pytest.approx(last.logprob_sum, abs=1e-3)
    assert base != pytest.approx(last.logprob_sum, abs=1.0)
    engine.close()


def test_rollback_goes_to_the_version_before_and_then_to_the_one_before_that(board: PolicyBoard) -> None:
    board.promote("v1", "ada", "")
    board.promote("v2", "ada", "")
    board.roll_back("ada")
    assert board.live == "v1"
    board.roll_back("ada")
    assert board.live == "v0"
    with pytest.raises(StateConflict, match="v0 is live already"):
        board.roll_back("ada")


def test_the_base_is_always_a_target_of_a_rollback(board: PolicyBoard, store: Store) -> None:
    board.promote("v2", "ada", "")
    rollback = board.roll_back("bob", "v0", "v2 flatters")
    assert (rollback.kind, rollback.reason, board.live) == ("rollback", "v2 flatters", "v0")
    assert [row.version for row in read_promotions(store)] == ["v0", "v2"]


def test_a_version_that_does_not_prove_itself_is_unloaded_and_the_old_one_stays(
    board: PolicyBoard, scripted: ScriptedEngine, store: Store
) -> None:
    scripted.broken.add("v1")
    with pytest.raises(BadAdapter, match="v1 did not finish an answer"):
        board.promote("v1", "ada", "")
    assert scripted.unloaded == ["v1"]
    assert board.live == live_version(store) == "v0"
    assert read_promotions(store) == []


def test_other_weights_than_the_registered_ones_are_refused(
    board: PolicyBoard, policies: Path, scripted: ScriptedEngine
) -> None:
    weights = policies / "v1" / "adapter_model.safetensors"
    weights.write_bytes((policies / "v2" / "adapter_model.safetensors").read_bytes())
    with pytest.raises(BadAdapter, match=r"v1: its weights are not those registered"):
        board.promote("v1", "ada", "")
    assert scripted.loaded == ["v0"]


def test_an_unknown_name_is_told_the_known_ones(board: PolicyBoard) -> None:
    for act in (
        lambda: board.resolve("v77"),
        lambda: board.promote("v77", "ada", ""),
        lambda: say(board, "gpt"),
    ):
        with pytest.raises(NotFound, match=r"is unknown; known: live, base, .*v1"):
            act()


def test_a_version_whose_files_are_gone_is_not_retained(board: PolicyBoard, policies: Path) -> None:
    (policies / "v1").rename(policies / "moved")
    with pytest.raises(StateConflict, match="v1 is not retained"):
        board.promote("v1", "ada", "")


def test_of_two_racing_promotions_one_wins(store: Store, policies: Path) -> None:
    """Both begin while v0 is live; the second finds that it is not any more."""
    meeting = threading.Barrier(2)
    board = PolicyBoard(store, ScriptedEngine(), policies)
    board.start()
    for version in ("v1", "v2"):
        board.resolve(version)
    really = board._loader.require_files

    def meet(version: str) -> None:
        really(version)
        meeting.wait(timeout=10)

    board._loader.require_files = meet  # type: ignore[method-assign]
    refused: list[HeedError] = []

    def try_to_promote(version: str) -> None:
        try:
            board.promote(version, "ada", "")
        except StateConflict as error:
            refused.append(error)

    threads = [threading.Thread(target=try_to_promote, args=(version,)) for version in ("v1", "v2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(refused) == 1
    assert len(read_promotions(store)) == 1
    assert board.live == live_version(store)


def test_however_promotions_race_rollbacks_the_pointer_and_the_history_agree(
    board: PolicyBoard, store: Store
) -> None:
    outcomes: list[bool] = []

    def act(flip: Callable[[], object]) -> None:
        try:
            flip()
        except StateConflict:
            outcomes.append(False)
        else:
            outcomes.append(True)

    for turn in range(25):
        version = VERSIONS[turn % 2]
        flips = (partial(board.promote, version, "ada", ""), partial(board.roll_back, "bob", "v3"))
        threads = [threading.Thread(target=act, args=(flip,)) for flip in flips]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)
        assert board.live == live_version(store)
    history = read_promotions(store, limit=100)
    assert len(history) == sum(outcomes) >= 25
    assert len(outcomes) == 50
    assert all(after.previous == before.version for after, before in pairwise(history))


def test_only_the_last_versions_stay_loaded(board: PolicyBoard, scripted: ScriptedEngine) -> None:
    for version in VERSIONS:
        board.promote(version, "ada", "")
        wait_for_unloading()
    assert set(scripted.loaded) == {"v0", "v3", "v4", "v5"} == set(board.loaded_versions())
    assert board.resolve("v1") == "v1"
    wait_for_unloading()
    assert set(scripted.loaded) == {"v0", "v1", "v4", "v5"}


def test_a_version_in_use_is_unloaded_only_after_its_last_answer(
    board: PolicyBoard, scripted: ScriptedEngine
) -> None:
    board.promote("v1", "ada", "")
    answering = board.sample("live", ask("hi"), Sampling())
    for version in VERSIONS[1:]:
        board.promote(version, "ada", "")
        wait_for_unloading()
    assert "v1" in scripted.loaded
    assert {chunk.version for chunk in answering} == {"v1"}
    wait_for_unloading()
    assert "v1" not in scripted.loaded


@pytest.mark.parametrize("how", ["close", "drop"])
def test_an_answer_nobody_reads_lets_its_version_go(
    how: str, board: PolicyBoard, scripted: ScriptedEngine
) -> None:
    board.promote("v1", "ada", "")
    answering = board.sample("live", ask("hi"), Sampling())
    for version in VERSIONS[1:]:
        board.promote(version, "ada", "")
    if how == "close":
        answering.close()  # type: ignore[attr-defined]
    del answering
    wait_for_unloading()
    assert "v1" not in scripted.loaded


def test_start_serves_the_recorded_version(store: Store, policies: Path) -> None:
    promote(store, "v2", "ada")
    board = PolicyBoard(store, ScriptedEngine(), policies)
    board.start()
    assert (board.live, board.problems()) == ("v2", ())
    assert set(board.loaded_versions()) == {"v0", "v2"}


def test_start_walks_back_to_the_last_good_version_and_says_why(
    store: Store, policies: Path, engine: InProcessEngine, greedy: Reference
) -> None:
    for version in ("v1", "v2", "v3"):
        promote(store, version, "ada")
    for version in ("v2", "v3"):
        weights = policies / version / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    board = PolicyBoard(store, engine, policies)
    board.start()
    newest = read_promotions(store)[0]
    assert (board.live, newest.version, newest.kind, newest.previous) == ("v1", "v1", "rollback", "v3")
    assert board.problems() == (newest.reason,)
    assert newest.reason.startswith(
        "serving v1 instead of v3: v3: policy v3: its weights are not those registered"
    )
    last = list(board.sample("live", ask("why"), Sampling(temperature=0, max_tokens=24)))[-1]
    assert list(last.token_ids) == greedy("v1", "why", 24)
    board.promote("v4", "ada", "")
    assert board.problems() == ()


def test_start_serves_the_base_when_nothing_else_is_left(store: Store, policies: Path) -> None:
    promote(store, "v1", "ada")
    (policies / "v1" / "README.md").unlink()
    (policies / "v1" / "adapter_model.safetensors").write_bytes(b"")
    (policies / ".tmp-orphan").mkdir()
    board = PolicyBoard(store, ScriptedEngine(), policies)
    board.start()
    assert board.live == "v0" == live_version(store)
    assert not (policies / ".tmp-orphan").exists()


def test_an_engine_that_is_away_at_the_start_changes_nothing_of_what_is_live(
    store: Store, policies: Path, scripted: ScriptedEngine
) -> None:
    """A vLLM that restarted together with Heed once cost the live version its place, for good."""
    promote(store, "v1", "ada")
    promote(store, "v2", "ada")
    scripted.is_away = True
    with pytest.raises(Busy, match="no server can answer now"):
        PolicyBoard(store, scripted, policies).start()
    assert live_version(store) == "v2"
    assert [row.version for row in read_promotions(store)] == ["v2", "v1"]
    scripted.close()
    scripted.is_away = False
    board = PolicyBoard(store, scripted, policies)
    board.start()
    assert (board.live, board.problems()) == ("v2", ())


def test_a_rejected_version_answers_nobody_though_it_is_in_memory(
    board: PolicyBoard, store: Store, scripted: ScriptedEngine
) -> None:
    """A canary that was withdrawn stays loaded for a while; testers could still name it."""
    board.promote("v1", "ada", "")
    board.promote("v2", "ada", "")
    board.keep("v3")
    assert say(board, "v3").startswith("v3")
    for version in ("v3", "v4"):
        mark_policy(store, version, "rejected", "worse than live")
        with pytest.raises(
            StateConflict, match=rf"{version} was rejected \(worse than live\) and answers no"
        ):
            say(board, version)
        with pytest.raises(StateConflict, match=f"{version} is rejected"):
            board.promote(version, "ada", "")
    assert "v4" not in scripted.loaded
    assert [say(board, name)[:2] for name in ("live", "v1", "v2", "v0")] == ["v2", "v1", "v2", "v0"]


def test_start_does_not_go_back_to_what_was_rejected_since(
    store: Store, scripted: ScriptedEngine, policies: Path
) -> None:
    for version in ("v1", "v2", "v3"):
        promote(store, version, "ada")
    mark_policy(store, "v2", "rejected", "worse than live")
    (policies / "v3" / "README.md").unlink()
    board = PolicyBoard(store, scripted, policies)
    board.start()
    assert board.live == "v1" == live_version(store)
    assert "v2: policy v2 was rejected (worse than live)" in board.problems()[0]


def test_a_version_gone_bad_gives_way_to_the_base_when_no_earlier_one_can_be_loaded(
    store: Store, scripted: ScriptedEngine, policies: Path
) -> None:
    board = PolicyBoard(store, scripted, policies, keep_loaded=2)
    board.start()
    for version in ("v1", "v2", "v3"):
        board.promote(version, "ada", "")
        wait_for_unloading()
    scripted.broken |= {"v2", "v3"}
    scripted.is_away = True  # v1, which is good, is not in memory any more
    with pytest.raises(BadAdapter, match=r"v2 did not finish an answer.*; v0 is live again"):
        board.roll_back("ada")
    assert board.live == live_version(store) == "v0"


def test_two_rollbacks_go_two_versions_back() -> None:
    def row(version: str, kind: str = "promote") -> Promotion:
        return Promotion(version, "?", kind, "ada", "", utc())  # type: ignore[arg-type]

    newest_first = [row("v2", "rollback"), row("v3"), row("v2"), row("v1")]
    assert find_earlier_versions(newest_first) == ["v1", "v0"]
    assert find_earlier_versions([row("v1"), *newest_first]) == ["v2", "v0"]
    assert find_earlier_versions([row("v9", "rollback"), row("v2"), row("v1")]) == ["v1", "v0"]
    assert find_earlier_versions([]) == ["v0"]


def test_swaps_under_load_fail_nobody_and_mix_nothing(
    store: Store, policies: Path, engine: InProcessEngine, greedy: Reference
) -> None:
    board = PolicyBoard(store, engine, policies, keep_loaded=2)
    board.start()
    texts = ["the fox", "dog", "lazy lazy lazy", "0"]
    expected = {(version, text): greedy(version, text, 20) for version in ("v0", *VERSIONS) for text in texts}
    done = threading.Event()
    answered: list[str] = []
    problems: list[object] = []

    def talk(index: int) -> None:
        text = texts[index % len(texts)]
        while not done.is_set():
            try:
                chunks = list(board.sample("live", ask(text), Sampling(temperature=0, max_tokens=20)))
            except Exception as error:
                problems.append(error)
                return
            version = chunks[-1].version
            answered.append(version)
            if list(chunks[-1].token_ids) != expected[version, text] or {c.version for c in chunks} != {
                version
            }:
                problems.append((version, text, chunks[-1].token_ids))

    threads = [threading.Thread(target=talk, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for version in VERSIONS:
        before = len(answered)
        board.promote(version, "ada", "")
        while len(answered) < before + 16 and not problems:
            done.wait(0.005)
    done.set()
    for thread in threads:
        thread.join(timeout=20)
    assert problems == []
    assert set(VERSIONS) <= set(answered)
    wait_for_unloading()
    assert set(engine.versions()) == {"v0", "v4", "v5"}
