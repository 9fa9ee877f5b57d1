"""The engine over a tiny model: it answers exactly as a freshly loaded model does, whatever runs beside."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from serving.base_model import keep_weights_unpacked, nf4_config
from serving.in_process import InProcessEngine, put_adapter, share_base
from serving.scheduler import BatchSettings
from serving.settings import BaseSettings
from store.errors import BadValue, NotFound, StateConflict
from store.records import Chunk, Sampling
from tests.serving.conftest import Reference, generate_greedily
from tests.serving.fakes import ask

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
GREEDY = Sampling(temperature=0, max_tokens=24)


def finish(chunks: Iterator[Chunk]) -> Chunk:
    """The last chunk, with the whole text."""
    read = list(chunks)
    assert [chunk.finish_reason for chunk in read[:-1]] == [None] * (len(read) - 1)
    last = read[-1]
    return Chunk(
        "".join(chunk.text for chunk in read),
        last.version,
        last.finish_reason,
        last.token_ids,
        last.logprob_sum,
        last.num_prompt_tokens,
    )


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

    def answer(index: int) -> list[int]:
        text, max_tokens = TEXTS[index % len(TEXTS)], lengths[(index * 3) % len(lengths)]
        sampling = Sampling(temperature=0, max_tokens=max_tokens)
        ids = list(finish(engine.generate("v2", ask(text), sampling)).token_ids)
        assert ids == greedy("v2", text, max_tokens)
        return ids

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(answer, range(16)))) == 16


def test_two_versions_answer_at_once_and_never_mix(
    engine: InProcessEngine, adapters: dict[str, Path], greedy: Reference
) -> None:
    for version in ("v1", "v2"):
        engine.load(version, adapters[version])
    asked = [(v, text, engine.generate(v, ask(text), GREEDY)) for text in TEXTS for v in ("v1", "v2")]
    for version, text, chunks in asked:
        assert list(finish(chunks).token_ids) == greedy(version, text, 24)
    assert greedy("v1", TEXTS[0], 24) != greedy("v2", TEXTS[0], 24)


def test_versions_share_the_tensors_of_the_base(engine: InProcessEngine, adapters: dict[str, Path]) -> None:
    base = dict(engine.base.model.named_parameters())
    for adapter in (adapters["v1"], adapters["v2"]):
        tree = put_adapter(share_base(engine.base.model), adapter)
        wrapped = {
            name.replace(".base_layer", ""): p for name, p in tree.named_parameters() if "lora" not in name
        }
        assert {name: p.data_ptr() for name, p in wrapped.items()} == {
            n: p.data_ptr() for n, p in base.items()
        }
    assert not any("lora" in name for name, _ in engine.base.model.named_modules())


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


def test_unload_frees_the_adapter(
    engine: InProcessEngine, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[torch.nn.Module]] = []

    def remember(tree: torch.nn.Module, adapter: Path) -> torch.nn.Module:
        model: torch.nn.Module = put_adapter(tree, adapter)
        seen.append(weakref.ref(model))
        return model

    monkeypatch.setattr("serving.in_process.put_adapter", remember)
    engine.load("v1", adapters["v1"])
    finish(engine.generate("v1", ask("a"), GREEDY))
    engine.unload("v1")
    assert [model() for model in seen] == [None]


def test_a_version_is_loaded_once(engine: InProcessEngine) -> None:
    engine.load("v0", None)
    with pytest.raises(StateConflict, match="v0 is loaded already"):
        engine.load("v0", None)


def test_four_bit_versions_share_the_quantized_tensors_and_answer_as_generate_does(
    base_dir: Path, adapters: dict[str, Path]
) -> None:
    engine = InProcessEngine(BaseSettings(str(base_dir), quantization="nf4"), BatchSettings(slots=8))
    trees = [put_adapter(share_base(engine.base.model), adapters[version]) for version in ("v1", "v2")]
    layers = [[module for module in tree.modules() if isinstance(module, Linear4bit)] for tree in trees]
    assert len(layers[0]) == 14
    for one, other in zip(*layers, strict=True):
        assert one.weight.data_ptr() == other.weight.data_ptr()
        assert one.weight.quant_state.absmax.data_ptr() == other.weight.quant_state.absmax.data_ptr()
        assert one.quant_state is other.quant_state
    for version in ("v1", "v2"):
        engine.load(version, adapters[version])
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
