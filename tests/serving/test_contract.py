"""What `Engine` promises, asked of every engine alike: of vLLM too, for real, with `-m vllm`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.adapters import BadAdapter
from serving.engine import Engine
from serving.in_process import InProcessEngine
from serving.settings import BatchSettings, VllmSettings
from serving.vllm_engine import VllmEngine
from store.errors import BadValue, Busy, NotFound, StateConflict
from store.records import Chunk, Message, Sampling
from tests.serving.conftest import Reference
from tests.serving.fakes import ask, wait_until
from tests.serving.real_vllm import RealVllm, base_settings

TEXTS = ["the fox", "a", "quick brown fox jumps over the lazy dog " * 3, "dog?", "ü 🦊", "lazy " * 12]
GREEDY = Sampling(temperature=0, max_tokens=24)
LONG = Sampling(temperature=1, max_tokens=200, seed=3)
MakeEngine = Callable[..., Engine]


@pytest.fixture(params=["in-process", pytest.param("vllm", marks=pytest.mark.vllm)])
def make_engine(request: pytest.FixtureRequest, base_dir: Path, tmp_path: Path) -> Iterator[MakeEngine]:
    """`make_engine(slots=1, max_waiting=1)`: an engine with such limits, closed after the test."""
    made: list[Engine] = []

    def make(**limits: int) -> Engine:
        settings, batch = base_settings(base_dir), BatchSettings(**limits)
        if request.param == "in-process":
            made.append(InProcessEngine(settings, batch))
        else:
            server: RealVllm = request.getfixturevalue("vllm_server")
            made.append(VllmEngine(settings, batch, VllmSettings(urls=(server.url,)), tmp_path / "log"))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine()


def finish(chunks: Iterator[Chunk]) -> Chunk:
    """The last chunk."""
    read = list(chunks)
    assert [chunk.finish_reason for chunk in read[:-1]] == [None] * (len(read) - 1)
    return read[-1]


def read_text(chunks: Iterator[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def count_in_flight(engine: Engine) -> int:
    held = engine.stats().versions.values()
    return sum(figures.waiting + figures.waiting_background + figures.running for figures in held)


def test_greedy_answers_are_those_of_generate(
    engine: Engine, adapters: dict[str, Path], greedy: Reference
) -> None:
    for version in ("v0", "v1"):
        engine.load(version, adapters.get(version))
    for version in ("v0", "v1"):
        asked = [engine.generate(version, ask(text), GREEDY) for text in TEXTS]
        answers = [finish(chunks) for chunks in asked]
        assert [list(answer.token_ids) for answer in answers] == [greedy(version, text, 24) for text in TEXTS]
        assert {answer.version for answer in answers} == {version}


def test_versions_answer_at_once_and_each_as_itself(
    engine: Engine, adapters: dict[str, Path], greedy: Reference
) -> None:
    for version in ("v1", "v2"):
        engine.load(version, adapters[version])
    asked = [(v, text, engine.generate(v, ask(text), GREEDY)) for text in TEXTS for v in ("v1", "v2")]
    for version, text, chunks in asked:
        assert list(finish(chunks).token_ids) == greedy(version, text, 24)
    assert greedy("v1", TEXTS[0], 24) != greedy("v2", TEXTS[0], 24)


def test_a_version_loaded_again_with_other_weights_answers_with_those(
    engine: Engine, adapters: dict[str, Path], greedy: Reference
) -> None:
    """Whatever an engine remembers of a prompt must not outlive the weights that read it."""
    for adapter in ("v1", "v2", "v1"):
        engine.load("v7", adapters[adapter])
        answer = finish(engine.generate("v7", ask(TEXTS[2]), GREEDY))
        assert list(answer.token_ids) == greedy(adapter, TEXTS[2], 24)
        engine.unload("v7")


def test_a_seed_gives_the_same_tokens_alone_and_in_company(engine: Engine, adapters: dict[str, Path]) -> None:
    engine.load("v1", adapters["v1"])
    sampling = [
        Sampling(temperature=1.5, top_p=0.9 if i % 2 else 1.0, max_tokens=30, seed=i) for i in range(6)
    ]
    alone = [finish(engine.generate("v1", ask(TEXTS[i]), sampling[i])) for i in range(6)]
    together = [engine.generate("v1", ask(TEXTS[i]), sampling[i]) for i in range(6)]
    assert [finish(chunks).token_ids for chunks in together] == [answer.token_ids for answer in alone]
    other = Sampling(temperature=1.5, max_tokens=30, seed=99)
    assert finish(engine.generate("v1", ask(TEXTS[0]), other)).token_ids != alone[0].token_ids


def test_an_answer_ends_before_its_stop_text(engine: Engine) -> None:
    engine.load("v0", None)
    whole = list(engine.generate("v0", ask(TEXTS[0]), GREEDY))
    text, tokens = read_text(iter(whole)), whole[-1].token_ids
    stop = text[6:9]
    cut = list(
        engine.generate("v0", ask(TEXTS[0]), Sampling(temperature=0, max_tokens=24, stop=("zzz", stop)))
    )
    last = cut[-1]
    assert read_text(iter(cut)) == text[: text.index(stop)]
    assert last.finish_reason == "stop"
    assert last.token_ids == tokens[: len(last.token_ids)]
    assert len(last.token_ids) < len(tokens)
    wait_until(lambda: count_in_flight(engine) == 0)


def test_the_likeliest_tokens_come_with_each_token(engine: Engine) -> None:
    engine.load("v0", None)
    chunks = list(engine.generate("v0", ask("dog?"), GREEDY, top_logprobs=4))
    found = [logprob for chunk in chunks for logprob in chunk.logprobs]
    assert len(found) == len(chunks[-1].token_ids)
    assert sum(token.logprob for token in found) == pytest.approx(chunks[-1].logprob_sum, abs=1e-4)
    for token in found:  # greedy: the written one is the likeliest
        assert len(token.top) == 4
        assert token.top[0] == (token.text, token.logprob)
        assert sorted(token.top, key=lambda top: -top[1]) == list(token.top)
    none = list(engine.generate("v0", ask("dog?"), GREEDY, top_logprobs=0))
    assert [token.top for chunk in none for token in chunk.logprobs] == [()] * len(found)
    assert all(not chunk.logprobs for chunk in engine.generate("v0", ask("dog?"), GREEDY))


def test_a_score_is_the_sum_that_generation_recorded(engine: Engine, adapters: dict[str, Path]) -> None:
    """At a temperature and with top-p, which must not show in it."""
    for version in ("v0", "v1"):
        engine.load(version, adapters.get(version))
    for version, other in (("v0", "v1"), ("v1", "v0")):
        sampling = [Sampling(temperature=1.3, top_p=0.8, max_tokens=1 + 9 * i, seed=i) for i in range(4)]
        asked = [engine.generate(version, ask(TEXTS[2]), one) for one in sampling]
        drawn = [finish(chunks) for chunks in asked]
        answers = [answer.token_ids for answer in drawn]
        recorded = [answer.logprob_sum for answer in drawn]
        assert engine.score(version, ask(TEXTS[2]), answers) == pytest.approx(recorded, abs=1e-3)
        assert engine.score(other, ask(TEXTS[2]), answers) != pytest.approx(recorded, abs=1.0)


def test_an_answer_that_fills_the_context_is_scored(engine: Engine) -> None:
    engine.load("v0", None)
    prompt = ask("0" * 180)
    drawn = (
        finish(engine.generate("v0", prompt, Sampling(temperature=1, max_tokens=200, seed=seed)))
        for seed in range(100)
    )
    full = next(answer for answer in drawn if answer.finish_reason == "length")
    assert full.num_prompt_tokens + len(full.token_ids) == 256
    assert engine.score("v0", prompt, [full.token_ids]) == pytest.approx([full.logprob_sum], abs=2e-3)


def test_what_cannot_be_scored_is_refused(engine: Engine) -> None:
    engine.load("v0", None)
    with pytest.raises(BadValue, match="without tokens"):
        engine.score("v0", ask("a"), [[5], []])
    with pytest.raises(BadValue, match=r"answer have 3\d\d tokens and the model's context holds 256"):
        engine.score("v0", ask("a"), [[5] * 300])
    with pytest.raises(NotFound, match="'v9' is not loaded"):
        engine.score("v9", ask("a"), [[5]])


def test_a_long_conversation_leaves_out_its_oldest_messages(engine: Engine, greedy: Reference) -> None:
    engine.load("v0", None)
    old: list[Message] = [
        {"role": "user", "content": "0" * 120},
        {"role": "assistant", "content": "1" * 120},
    ]
    answer = finish(engine.generate("v0", [*old, *ask("the fox")], GREEDY))
    assert answer.num_left_out == 2
    assert list(answer.token_ids) == greedy("v0", "the fox", 24)
    short = finish(engine.generate("v0", ask("the fox"), GREEDY))
    assert (short.num_left_out, short.num_prompt_tokens) == (0, answer.num_prompt_tokens)


def test_a_last_message_longer_than_the_context_is_refused_with_numbers(engine: Engine) -> None:
    engine.load("v0", None)
    with pytest.raises(BadValue, match=r"prompt has 3\d\d tokens and the model's context holds 256"):
        engine.generate("v0", ask("0" * 300), GREEDY)
    nearly_full = finish(engine.generate("v0", ask("0" * 250), Sampling(temperature=0, max_tokens=100)))
    assert nearly_full.num_prompt_tokens + len(nearly_full.token_ids) <= 256


def test_closing_or_dropping_the_chunks_frees_their_slots(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=8)
    engine.load("v0", None)
    asked = [engine.generate("v0", ask("a"), Sampling(1, max_tokens=230, seed=seed)) for seed in range(16)]
    wait_until(lambda: engine.stats().versions["v0"].tokens > 0)  # eight are written, eight wait
    dropped = [asked.pop() for _ in range(4)]
    del dropped
    for chunks in asked:
        chunks.close()  # type: ignore[attr-defined]
    ends = [finish(chunks) for chunks in asked]
    cancelled = [end for end in ends if end.finish_reason == "cancelled"]
    assert any(0 < len(end.token_ids) < 230 for end in cancelled)  # in the middle
    assert sum(not end.token_ids for end in cancelled) >= 4  # before it had begun
    wait_until(lambda: count_in_flight(engine) == 0)
    assert engine.stats().versions["v0"].cancelled >= len(cancelled) + 4
    assert finish(engine.generate("v0", ask("a"), GREEDY)).finish_reason in ("stop", "length")


def test_whoever_waits_is_told_the_place_and_a_full_queue_says_busy(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=1, max_waiting=2)
    engine.load("v0", None)
    first = engine.generate("v0", ask("a"), LONG)
    wait_until(lambda: engine.stats().versions["v0"].running == 1)
    waiting = [engine.generate("v0", ask(text), GREEDY) for text in "bc"]
    with pytest.raises(Busy, match="2 requests wait"):
        engine.generate("v0", ask("d"), GREEDY)
    first.close()  # type: ignore[attr-defined]
    assert [finish(chunks).finish_reason in ("stop", "length") for chunks in waiting] == [True, True]


def test_people_come_before_background_work(make_engine: MakeEngine) -> None:
    engine = make_engine(slots=1, background_slots=1)
    engine.load("v0", None)
    held = engine.generate("v0", ask("a"), LONG)
    ended: list[str] = []

    def read(name: str, chunks: Iterator[Chunk]) -> None:
        finish(chunks)
        ended.append(name)

    wait_until(lambda: engine.stats().versions["v0"].running == 1)
    late = engine.generate("v0", ask("b"), GREEDY, background=True)
    person = engine.generate("v0", ask("c"), GREEDY)
    readers = [
        threading.Thread(target=read, args=(name, chunks))
        for name, chunks in (("background", late), ("person", person))
    ]
    for reader in readers:
        reader.start()
    held.close()  # type: ignore[attr-defined]
    for reader in readers:
        reader.join(timeout=60)
    assert ended == ["person", "background"]


def test_unload_waits_for_the_answer_in_flight(engine: Engine) -> None:
    engine.load("v0", None)
    chunks = engine.generate("v0", ask("a"), LONG)
    unloading = threading.Thread(target=engine.unload, args=("v0",))
    unloading.start()
    answer = finish(chunks)
    unloading.join(timeout=60)
    assert answer.finish_reason in ("stop", "length")
    assert engine.versions() == []
    with pytest.raises(NotFound, match="'v0' is not loaded; loaded: none"):
        engine.generate("v0", ask("a"), GREEDY)


def test_what_is_not_loaded_cannot_be_unloaded_and_what_is_cannot_be_loaded(
    engine: Engine, adapters: dict[str, Path]
) -> None:
    engine.load("v1", adapters["v1"])
    with pytest.raises(NotFound, match="'v0' is not loaded; loaded: v1"):
        engine.unload("v0")
    with pytest.raises(StateConflict, match="v1 is loaded already"):
        engine.load("v1", adapters["v2"])
    assert engine.versions() == ["v1"]


def test_a_bad_adapter_is_refused_and_nothing_of_it_stays(
    engine: Engine, adapters: dict[str, Path], greedy: Reference, tmp_path: Path
) -> None:
    engine.load("v1", adapters["v1"])
    bad = tmp_path / "v2"
    bad.mkdir()
    for file in adapters["v2"].iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    weights = bytearray((bad / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (bad / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(BadAdapter, match=r"sha256 of adapter_model\.safetensors differs"):
        engine.load("v2", bad)
    assert engine.versions() == ["v1"]
    with pytest.raises(NotFound):
        engine.generate("v2", ask("a"), GREEDY)
    engine.load("v2", adapters["v2"])
    for version in ("v1", "v2"):
        answer = finish(engine.generate(version, ask("the fox"), GREEDY))
        assert list(answer.token_ids) == greedy(version, "the fox", 24)


def test_versions_come_and_go_under_load(
    engine: Engine, adapters: dict[str, Path], greedy: Reference
) -> None:
    engine.load("v1", adapters["v1"])
    with ThreadPoolExecutor(4) as pool:
        answers = [
            pool.submit(lambda text=text: finish(engine.generate("v1", ask(text), GREEDY)))  # type: ignore[misc]
            for text in TEXTS * 3
        ]
        for version in ("v2", "v3"):
            engine.load(version, adapters[version])
            finish(engine.generate(version, ask("a"), GREEDY))
            engine.unload(version)
        found = [list(answer.result().token_ids) for answer in answers]
    assert found == [greedy("v1", text, 24) for text in TEXTS * 3]


def test_the_figures_count_what_was_answered(engine: Engine, adapters: dict[str, Path]) -> None:
    for version in ("v0", "v1"):
        engine.load(version, adapters.get(version))
    answers = [finish(engine.generate("v1", ask(text), GREEDY)) for text in TEXTS[:3]]
    wait_until(lambda: engine.stats().versions["v1"].finished == 3)
    figures = engine.stats().versions
    assert figures["v1"].tokens == sum(len(answer.token_ids) for answer in answers)
    assert sum(figures["v1"].first_token_counts) == 3
    assert figures["v1"].adapter_bytes > 0 == figures["v0"].adapter_bytes
    assert (figures["v0"].finished, figures["v0"].tokens) == (0, 0)
