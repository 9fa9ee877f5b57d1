"""The engine over a tiny model: it answers exactly as a freshly loaded model does, whatever runs beside."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from serving.base_model import keep_weights_unpacked, nf4_config
from serving.batching import DecodeBatch
from serving.in_process import InProcessEngine
from serving.lora import LoraLinear
from serving.request import Request
from serving.settings import BaseSettings, BatchSettings
from serving.streaming import HALF_CHARACTER
from store.errors import BadValue, NotFound, StateConflict
from store.records import Chunk, Message, Sampling
from tests.serving.conftest import Reference, copy_as_trained, generate_greedily
from tests.serving.fakes import ask, wait_until

TEXTS = [
    "the fox",
    "a",
    "quick brown fox jumps over the lazy dog " * 3,
    "dog?",
    "ü 🦊",
    "lazy " * 12,
    "0",
    "why",
]
LONG = TEXTS[2] * 4
GREEDY = Sampling(temperature=0, max_tokens=24)


def finish(chunks: Iterator[Chunk]) -> Chunk:
    """The last chunk, with the whole text."""
    read = list(chunks)
    assert [chunk.finish_reason for chunk in read[:-1]] == [None] * (len(read) - 1)
    last = read[-1]
    return replace(last, text="".join(chunk.text for chunk in read))


def test_eight_at_a_time_answer_as_generate_does(
    engine: InProcessEngine, adapters: dict[str, Path], greedy: Reference
) -> None:
    engine.load("v0", None)
    engine.load("v1", adapters["v1"])
    for version in ("v0", "v1"):
        asked = [engine.generate(version, ask(text), GREEDY) for text in TEXTS]
        answers = [finish(chunks) for chunks in asked]
        assert [list(answer.token_ids) for answer in answers] == [greedy(version, text, 24) for text in TEXTS]
        assert {answer.version for answer in answers} == {version}


def test_requests_that_come_and_go_leave_the_others_as_they_are(
    engine: InProcessEngine, adapters: dict[str, Path], greedy: Reference
) -> None:
    """Rows of different lengths join and leave a batch; the cache is rebuilt under those that stay."""
    engine.load("v2", adapters["v2"])
    lengths = [100, 1, 70, 7, 33, 2, 90, 20]

    asked = [(TEXTS[index % len(TEXTS)], lengths[(index * 3) % len(lengths)]) for index in range(16)]

    def answer(question: tuple[str, int]) -> list[int]:
        text, max_tokens = question
        sampling = Sampling(temperature=0, max_tokens=max_tokens)
        return list(finish(engine.generate("v2", ask(text), sampling)).token_ids)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(answer, asked))
    # Not in the threads: two of transformers' models loaded at once leave `tie_weights` off for good.
    assert answers == [greedy("v2", text, max_tokens) for text, max_tokens in asked]


def test_two_versions_answer_at_once_and_never_mix(
    engine: InProcessEngine, adapters: dict[str, Path], greedy: Reference
) -> None:
    for version in ("v1", "v2"):
        engine.load(version, adapters[version])
    asked = [(v, text, engine.generate(v, ask(text), GREEDY)) for text in TEXTS for v in ("v1", "v2")]
    for version, text, chunks in asked:
        assert list(finish(chunks).token_ids) == greedy(version, text, 24)
    assert greedy("v1", TEXTS[0], 24) != greedy("v2", TEXTS[0], 24)


def test_loading_leaves_the_tensors_of_the_base_where_they_are(
    engine: InProcessEngine, adapters: dict[str, Path]
) -> None:
    def base_tensors() -> dict[str, tuple[int, bytes]]:
        named = engine.base.model.named_parameters()
        return {n.replace(".base.", "."): (p.data_ptr(), p.detach().numpy().tobytes()) for n, p in named}

    before = base_tensors()
    for version in ("v1", "v2"):
        engine.load(version, adapters[version])
        finish(engine.generate(version, ask("a"), GREEDY))
    assert base_tensors() == before
    figures = engine.stats()
    assert figures.versions["v1"].adapter_bytes == figures.versions["v2"].adapter_bytes > 0
    assert figures.base_bytes == sum(p.nbytes for p in engine.base.model.parameters()) + sum(
        b.nbytes for b in engine.base.model.buffers()
    )


def test_a_seed_gives_the_same_tokens_alone_and_in_company(
    engine: InProcessEngine, adapters: dict[str, Path]
) -> None:
    engine.load("v1", adapters["v1"])
    sampling = [
        Sampling(temperature=1.5, top_p=0.9 if i % 2 else 1.0, max_tokens=30, seed=i) for i in range(8)
    ]
    alone = [finish(engine.generate("v1", ask(TEXTS[i]), sampling[i])) for i in range(8)]
    together = [engine.generate("v1", ask(TEXTS[i]), sampling[i]) for i in range(8)]
    assert [finish(chunks).token_ids for chunks in together] == [answer.token_ids for answer in alone]
    other = Sampling(temperature=1.5, max_tokens=30, seed=99)
    assert finish(engine.generate("v1", ask(TEXTS[0]), other)).token_ids != alone[0].token_ids


def test_the_last_chunk_tells_how_the_answer_was_drawn(engine: InProcessEngine, base_dir: Path) -> None:
    engine.load("v0", None)
    answer = finish(engine.generate("v0", ask("the fox"), Sampling(temperature=1.3, max_tokens=20, seed=4)))
    tokenizer = engine.base.tokenizer
    prompt = tokenizer.apply_chat_template(ask("the fox"), add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(base_dir)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt_ids, *answer.token_ids]])).logits[0, len(prompt_ids) - 1 : -1]
    logps = logits.log_softmax(-1).gather(1, torch.tensor(answer.token_ids)[:, None])
    assert answer.num_prompt_tokens == len(prompt_ids)
    assert answer.logprob_sum == pytest.approx(logps.sum().item(), abs=1e-3)
    assert answer.text == tokenizer.decode(answer.token_ids, skip_special_tokens=True)
    assert answer.finish_reason in ("stop", "length")


def test_a_score_is_the_sum_that_generation_recorded(
    engine: InProcessEngine, adapters: dict[str, Path]
) -> None:
    """Drawn in a batch with a cache, scored in one pass without: float32 rounding is all that may differ."""
    for version, adapter in (("v0", None), ("v1", adapters["v1"])):
        engine.load(version, adapter)
    for version, other in (("v0", "v1"), ("v1", "v0")):
        sampling = [Sampling(temperature=1.3, max_tokens=5 + 6 * seed, seed=seed) for seed in range(4)]
        asked = [engine.generate(version, ask(TEXTS[2]), one) for one in sampling]
        drawn = [finish(chunks) for chunks in asked]
        answers = [answer.token_ids for answer in drawn]
        recorded = [answer.logprob_sum for answer in drawn]
        assert engine.score(version, ask(TEXTS[2]), answers) == pytest.approx(recorded, abs=1e-3)
        assert engine.score(version, ask(TEXTS[2]), answers[:1]) == pytest.approx(recorded[:1], abs=1e-3)
        assert engine.score(other, ask(TEXTS[2]), answers) != pytest.approx(recorded, abs=1.0)


def test_scoring_beside_answers_changes_none_of_them(
    engine: InProcessEngine, adapters: dict[str, Path], greedy: Reference
) -> None:
    engine.load("v1", adapters["v1"])
    ids = greedy("v1", TEXTS[0], 24)
    alone = engine.score("v1", ask(TEXTS[0]), [ids])
    asked = [engine.generate("v1", ask(text), GREEDY, background=bool(i % 2)) for i, text in enumerate(TEXTS)]
    with ThreadPoolExecutor(3) as pool:
        beside = list(pool.map(lambda _: engine.score("v1", ask(TEXTS[0]), [ids, ids[:5]])[0], range(12)))
    assert beside == pytest.approx(alone * 12, abs=1e-3)
    assert [list(finish(chunks).token_ids) for chunks in asked] == [greedy("v1", text, 24) for text in TEXTS]


def test_what_cannot_be_scored_is_refused(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    with pytest.raises(BadValue, match="without tokens"):
        engine.score("v0", ask("a"), [[5], []])
    with pytest.raises(BadValue, match=r"answer have 3\d\d tokens and the model's context holds 256"):
        engine.score("v0", ask("a"), [[5] * 300])
    with pytest.raises(NotFound, match="'v9' is not loaded"):
        engine.score("v9", ask("a"), [[5]])


def test_an_end_token_stops_and_is_kept(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    for seed in range(200):
        answer = finish(engine.generate("v0", ask("fox"), Sampling(temperature=2, max_tokens=200, seed=seed)))
        if answer.finish_reason == "stop":
            break
    assert answer.token_ids[-1] in engine.base.end_ids
    assert not set(answer.token_ids[:-1]) & engine.base.end_ids
    assert "<|end|>" not in answer.text


def test_a_prompt_longer_than_the_context_is_refused_with_numbers(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    with pytest.raises(BadValue, match=r"prompt has 3\d\d tokens and the model's context holds 256"):
        engine.generate("v0", ask("0" * 300), GREEDY)
    nearly_full = finish(engine.generate("v0", ask("0" * 250), Sampling(temperature=0, max_tokens=100)))
    assert nearly_full.num_prompt_tokens + len(nearly_full.token_ids) <= 256


def test_messages_the_template_cannot_write_are_refused(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    engine.base.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(BadValue, match="roles must alternate"):
        engine.generate("v0", ask("hello"), GREEDY)


def test_closing_or_dropping_the_chunks_cancels_the_request(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    long = Sampling(temperature=1, max_tokens=240, seed=1)
    closed, dropped = engine.generate("v0", ask("a"), long), engine.generate("v0", ask("b"), long)
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    del dropped
    last = finish(closed)
    assert last.finish_reason == "cancelled"
    assert 0 < len(last.token_ids) < 240
    engine.unload("v0")


def test_unload_waits_for_the_answer_in_flight(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    chunks = engine.generate("v0", ask("a"), Sampling(temperature=0, max_tokens=200))
    unloading = threading.Thread(target=engine.unload, args=("v0",))
    unloading.start()
    answer = finish(chunks)
    unloading.join(timeout=10)
    assert answer.finish_reason in ("stop", "length")
    assert engine.versions() == []
    with pytest.raises(NotFound, match="'v0' is not loaded; loaded: none"):
        engine.generate("v0", ask("a"), GREEDY)


def test_unload_frees_the_adapter(engine: InProcessEngine, adapters: dict[str, Path]) -> None:
    engine.load("v1", adapters["v1"])
    finish(engine.generate("v1", ask("a"), GREEDY))
    layers = [module for module in engine.base.model.modules() if isinstance(module, LoraLinear)]
    held = [weakref.ref(part) for layer in layers for part in layer.pairs["v1"]]
    assert len(held) == 2 * 2 * 3  # two layers, three targets, A and B
    engine.unload("v1")
    assert not any(layer.pairs for layer in layers)
    assert [part() for part in held] == [None] * len(held)


def test_a_free_slot_gives_the_next_one_its_first_token_within_a_step(base_dir: Path) -> None:
    """Six for two slots: whoever waits begins in the very step after the one that freed a slot."""
    settings = BatchSettings(slots=2)
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"), settings)
    engine.load("v0", None)
    asked = [
        Request("v0", engine._text.encode(ask(text)), Sampling(temperature=1, seed=length), length)
        for text, length in zip(TEXTS, (5, 9, 20, 4, 1, 7), strict=False)
    ]
    written: list[list[int]] = []  # after each step, how many tokens each of them has
    may_go_on, step = threading.Event(), engine._batch.step

    def record_step() -> None:
        may_go_on.wait(10)
        step()
        written.append([len(one.token_ids) for one in asked])

    engine._batch.step = record_step  # type: ignore[method-assign]
    for one in asked:
        engine._scheduler.submit(one)
    may_go_on.set()
    wait_until(lambda: all(one.has_finished for one in asked))
    engine.close()
    histories = [*zip(*written, strict=True)]
    begun = [next(at for at, number in enumerate(history) if number) for history in histories]
    ended = sorted(history.index(history[-1]) for history in histories)
    assert begun[:2] == [0, 0]
    assert begun[2:] == [at + 1 for at in ended[:4]]


def test_a_long_prompt_is_read_in_pieces_beside_a_running_answer(
    base_dir: Path, adapters: dict[str, Path], greedy: Reference
) -> None:
    """Chunks of 16 tokens: the running answer gets a token between any two, the short question finishes its
    reading first, and nobody's answer changes."""
    settings = BatchSettings(prefill_tokens=16)
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"), settings)
    engine.load("v1", adapters["v1"])
    engine.load("v2", adapters["v2"])
    passes, may_go_on = record_passes(engine._batch)
    asked = [("v1", TEXTS[0], engine.generate("v1", ask(TEXTS[0]), GREEDY))]
    wait_until(lambda: len(engine._batch.reading) == 1)
    rest = (("v2", LONG), ("v2", "why"), ("v1", LONG))
    asked += [(version, text, engine.generate(version, ask(text), GREEDY)) for version, text in rest]
    may_go_on.set()
    for version, text, chunks in asked:
        assert list(finish(chunks).token_ids) == greedy(version, text, 24)
    engine.close()
    running, long, short = (len(engine._text.encode(ask(text))) for text in (TEXTS[0], LONG, "why"))
    reads = [(row, columns) for row, columns in passes if row in (long, short) and columns > 1]
    assert all(columns <= 16 for _, columns in reads)
    assert sum(columns for row, columns in reads if row == long) == 2 * long
    pieces = [place for place, (row, columns) in enumerate(passes) if row == long and columns > 1]
    short_read = max(place for place, (row, columns) in enumerate(passes) if row == short and columns > 1)
    assert short_read < pieces[len(pieces) // 2]
    assert all(passes[place + 1] == (running, 1) for place in pieces[:6]), "a token after every piece"


def record_passes(batch: DecodeBatch) -> tuple[list[tuple[int, int]], threading.Event]:
    """Of each pass the first row's prompt length and the columns read; the first waits for the event."""
    passes: list[tuple[int, int]] = []
    may_go_on = threading.Event()
    forward = batch._forward

    def record(requests: Sequence[Request], ids: Tensor, *rest: Any) -> Tensor:
        may_go_on.wait(10)
        passes.append((len(requests[0].prompt_ids), ids.shape[1]))
        return forward(requests, ids, *rest)

    batch._forward = record  # type: ignore[method-assign]
    return passes, may_go_on


def test_parked_work_goes_on_as_if_nothing_had_happened(base_dir: Path, adapters: dict[str, Path]) -> None:
    settings = BatchSettings(slots=3, background_slots=3, background_beside=0)
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="none", dtype="float32"), settings)
    engine.load("v1", adapters["v1"])
    sampling = [Sampling(temperature=1.2, max_tokens=120, seed=seed) for seed in range(3)]
    alone = [finish(engine.generate("v1", ask(TEXTS[i]), one)) for i, one in enumerate(sampling)]
    background = [engine.generate("v1", ask(TEXTS[i]), one, True) for i, one in enumerate(sampling)]
    for text in TEXTS[3:8]:
        finish(engine.generate("v1", ask(text), Sampling(temperature=0, max_tokens=3)))
    again = [finish(chunks) for chunks in background]
    assert [answer.token_ids for answer in again] == [answer.token_ids for answer in alone]
    assert [a.logprob_sum for a in again] == pytest.approx([a.logprob_sum for a in alone], abs=1e-3)
    engine.close()


def test_an_answer_ends_before_the_first_stop_text(
    engine: InProcessEngine, adapters: dict[str, Path]
) -> None:
    engine.load("v1", adapters["v1"])
    whole = finish(engine.generate("v1", ask("the fox"), GREEDY))
    text = whole.text.rstrip(HALF_CHARACTER)
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    assert stop
    sampling = replace(GREEDY, stop=("never in it at all", stop))
    chunks = list(engine.generate("v1", ask("the fox"), sampling))
    assert "".join(chunk.text for chunk in chunks) == text[: text.index(stop)]
    last = chunks[-1]
    assert last.finish_reason == "stop"
    assert last.token_ids == whole.token_ids[: len(last.token_ids)]
    wait_until(lambda: engine.stats().versions["v1"].finished == 2)  # neither was cancelled
    assert engine.stats().versions["v1"].cancelled == 0
    assert last.logprob_sum == pytest.approx(
        engine.score("v1", ask("the fox"), [last.token_ids])[0], abs=1e-3
    )


def test_log_probs_are_told_token_by_token(engine: InProcessEngine, adapters: dict[str, Path]) -> None:
    engine.load("v1", adapters["v1"])
    chunks = list(engine.generate("v1", ask("the fox"), GREEDY, top_logprobs=3))
    told = [token for chunk in chunks for token in chunk.logprobs]
    assert len(told) == len(chunks[-1].token_ids)
    assert sum(token.logprob for token in told) == pytest.approx(chunks[-1].logprob_sum)
    for token in told:
        assert len(token.top) == 3
        assert token.top[0] == (token.text, pytest.approx(token.logprob))  # greedy: the likeliest is written
        assert token.top[0][1] >= token.top[1][1] >= token.top[2][1]
    assert not any(chunk.logprobs for chunk in engine.generate("v1", ask("the fox"), GREEDY))


def test_the_oldest_messages_are_left_out_and_counted(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    system: Message = {"role": "system", "content": "be brief"}
    old: list[Message] = [
        {"role": role, "content": f"{number} lazy dog " * 5}
        for number in range(6)
        for role in ("user", "assistant")
    ]
    last = ask("the fox")
    answer = finish(engine.generate("v0", [system, *old, *last], GREEDY))
    assert 0 < answer.num_left_out < 12
    kept = finish(engine.generate("v0", [system, *old[answer.num_left_out :], *last], GREEDY))
    assert (kept.num_left_out, kept.token_ids) == (0, answer.token_ids)


def test_whoever_waits_is_told_the_place(base_dir: Path) -> None:
    engine = InProcessEngine(
        BaseSettings(str(base_dir), quantization="none", dtype="float32"), BatchSettings(slots=1)
    )
    engine.load("v0", None)
    first = engine.generate("v0", ask("a"), Sampling(temperature=1, max_tokens=250, seed=1))
    second, third = (engine.generate("v0", ask("a"), GREEDY) for _ in range(2))
    engine._batch.step = slow_down(engine._batch.step)  # type: ignore[method-assign]
    assert (next(second).place, next(third).place) == (1, 2)
    del first
    assert finish(second).finish_reason == finish(third).finish_reason
    engine.close()


def slow_down(step: Callable[[], None]) -> Callable[[], None]:
    def slow_step() -> None:
        time.sleep(0.01)
        step()

    return slow_step


def test_a_version_is_loaded_once(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    with pytest.raises(StateConflict, match="v0 is loaded already"):
        engine.load("v0", None)


def test_an_answer_of_tokens_that_the_model_has_not_is_refused(engine: InProcessEngine) -> None:
    """On a GPU such an id ends the whole process's use of it, not one request."""
    engine.load("v0", None)
    known = engine.base.model.get_input_embeddings().num_embeddings
    assert engine.score("v0", ask("a"), [[known - 1]])[0] < 0
    with pytest.raises(BadValue, match=f"holds token {known}; the model has {known}"):
        engine.score("v0", ask("a"), [[5, known]])


def test_four_bit_versions_answer_as_generate_does(
    base_dir: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="nf4"), BatchSettings(slots=8))
    for version in ("v1", "v2"):
        folder = copy_as_trained(adapters[version], tmp_path / version, base_dir, "nf4", "float32")
        engine.load(version, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base_dir)
    for version in ("v1", "v2"):
        fresh = AutoModelForCausalLM.from_pretrained(
            base_dir, dtype=torch.float32, quantization_config=nf4_config(torch.float32)
        )
        keep_weights_unpacked(fresh)
        fresh = PeftModel.from_pretrained(fresh, adapters[version]).eval()
        asked = [engine.generate(version, ask(text), GREEDY) for text in TEXTS[:4]]
        expected = [generate_greedily(fresh, tokenizer, text, 24) for text in TEXTS[:4]]
        assert [list(finish(chunks).token_ids) for chunks in asked] == expected
    engine.close()
