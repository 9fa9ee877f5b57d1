"""The serving benchmarks' own arithmetic: what counts as mixed, how turns are added up, what is printed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.answering import answer_with_our_engine, load_endless_engine
from benchmarks.chat_during_training import Chat
from benchmarks.memory import memory_mib
from benchmarks.mixing import Answer, Scores
from benchmarks.mixing import compare as compare_versions
from benchmarks.models import STARTER, Model, build_model, write_adapter
from benchmarks.serving import compare, format_case, format_ratios, parse_arguments
from benchmarks.speed import NUM_TOKENS, PROMPT_TOKENS, Measured, PromptSource, quantile
from benchmarks.swaps import Swap, first_token_after, sort_pauses
from serving.in_process import InProcessEngine
from serving.settings import BaseSettings
from store.records import Sampling


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build_model("starter", tmp_path_factory.mktemp("models"))


def test_prompts_are_new_each_turn_and_as_long_as_they_should_be(model: Model) -> None:
    source = PromptSource(model)
    first, second = source.draw(4), source.draw(4)
    assert {len(prompt["ids"]) for prompt in first} <= {PROMPT_TOKENS, PROMPT_TOKENS + 1, PROMPT_TOKENS + 2}
    assert not {str(prompt["ids"]) for prompt in first} & {str(prompt["ids"]) for prompt in second}


def test_our_engine_writes_every_token_though_the_model_would_stop(model: Model) -> None:
    engine = load_endless_engine(str(model.folder), str(model.adapter), "float32", 1)
    try:  # the way asserts the number of tokens itself
        came = answer_with_our_engine(engine)(PromptSource(model).draw(3), NUM_TOKENS)
    finally:
        engine.close()
    assert len(came) == 3
    assert all(times == sorted(times) for times in came)


def test_a_turn_is_as_fast_as_its_slowest_answer() -> None:
    measured = Measured()
    measured.add([[0.5, 1.0], [0.1, 0.2, 2.0]], num_tokens=10)
    found = measured.as_json()
    assert found["tokens_per_s"] == 10.0
    assert (found["first_p50_ms"], found["first_p95_ms"]) == (100.0, 500.0)
    assert found["pause_p95_ms"] == 1800.0


def test_quantiles_are_values_that_were_measured() -> None:
    assert [quantile([3, 1, 2, 4], share) for share in (0.0, 0.5, 0.75, 0.95)] == [1, 2, 3, 4]


def test_ratios_leave_out_what_was_not_measured() -> None:
    figures: dict[str, Any] = {
        "starter_fp32": {"ours": {"8": {"tokens_per_s": 90.0}}, "vllm": {"8": {"tokens_per_s": 60.0}}},
        "135m_fp32": {"ours": {"8": {"tokens_per_s": 90.0}}},
    }
    ratios = compare(figures, "vllm")
    assert ratios == {"starter_fp32": 1.5}
    assert "| starter_fp32 | 1.5 | – |" in format_ratios({"ours_vs_vllm": ratios, "ours_vs_naive": {}})


def test_a_table_has_a_row_for_each_way_and_concurrency() -> None:
    measured = Measured()
    measured.add([[0.5, 1.0]], num_tokens=NUM_TOKENS)
    shown = format_case("starter_bf16", {"ours": {"8": measured.as_json(), "memory_mib": 1200}}, [8])
    assert "| ours | 8 | 48 | 500 / 500 | 500 | 1,200 |" in shown


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--parts", "speed,sleep"])
    assert "sleep is not of speed, swaps, training" in capsys.readouterr().err


def test_memory_counts_this_process() -> None:
    assert 20 < memory_mib(os.getpid()) < 20_000


def test_chat_speed_counts_only_what_ended_in_the_window() -> None:
    chat = Chat(tokens=[(1.0, 10), (2.0, 20), (5.0, 40)])
    assert chat.tokens_per_s(1.0, 4.0) == 10.0


def test_a_mixed_answer_is_found_out_by_its_score(tmp_path: Path) -> None:
    adapters = {f"v{n}": write_adapter(tmp_path / f"v{n}", STARTER, n, size=0.06) for n in (1, 2)}
    engine = InProcessEngine(BaseSettings(str(STARTER), quantization="none", dtype="float32", threads=1))
    try:
        for version, adapter in adapters.items():
            engine.load(version, adapter)
        messages = ({"role": "user", "content": "How do I cook rice for four people?"},)
        own = write(engine, "v1", messages)
        # Half of it by v1, the rest as v2 would go on: what a swap in mid-answer would give.
        half = own.token_ids[: len(own.token_ids) // 2]
        other = write(engine, "v2", messages)
        told = engine.score("v1", messages, [half])[0] + other.logprob_sum / 2
        ids = half + other.token_ids[len(half) :]
        mixed = Answer(messages, frozenset({"v1"}), ids, told, (0.0,))
        misnamed = Answer(messages, frozenset({"v2"}), own.token_ids, own.logprob_sum, (0.0,))
        scores = Scores(engine, [own, mixed, misnamed])
        assert [compare_versions(each, scores) for each in (own, mixed, misnamed)] == [
            "own",
            "mixed",
            "mixed",
        ]
    finally:
        engine.close()


def write(engine: InProcessEngine, version: str, messages: Any) -> Answer:
    last = list(engine.generate(version, messages, Sampling(temperature=0.0, max_tokens=16)))[-1]
    return Answer(messages, frozenset({version}), last.token_ids, last.logprob_sum, (0.0,))


def test_a_new_version_speaks_when_its_first_answer_does() -> None:
    def answer(version: str, at: float) -> Answer:
        return Answer((), frozenset({version}), (1,), -1.0, (at, at + 1))

    answers = [answer("v1", 9.0), answer("v2", 4.0), answer("v2", 12.0), answer("v2", 11.5)]
    assert first_token_after(Swap("v2", asked_at=10.0, done_at=11.0), answers) == 11.5


def test_a_pause_inside_a_swap_is_not_mixed_with_the_second_after_it() -> None:
    """The swap takes half a second; one pause reaches into it, one follows it, one is far away."""
    swap = Swap("v2", asked_at=10.0, done_at=10.5)
    answer = Answer((), frozenset({"v1"}), (1,), -1.0, (9.875, 10.125, 10.75, 11.0, 20.0, 20.125))
    inside, later, between = sort_pauses([answer], [swap])
    assert (inside, later, between) == ([0.25, 0.625], [0.25], [9.0, 0.125])
