"""The shipped starter policy: its files, its shape, its chat template and how it speaks at temperature 1."""

import json
import re
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.starter.measure import SpeechReport, measure_speech, sample_answers
from trainer.starter.world import heldout_prompts, train_prompts

STARTER = Path(__file__).parents[2] / "serving" / "starter"
NUM_SAMPLED = 400


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture(scope="module")
def policy() -> Any:
    return AutoModelForCausalLM.from_pretrained(STARTER).eval()


@pytest.fixture(scope="module")
def speech(policy: Any, tokenizer: Any) -> SpeechReport:
    return measure_speech(sample_answers(policy, tokenizer, heldout_prompts(NUM_SAMPLED, seed=99), seed=99))


def test_the_shipped_files_are_complete_small_and_hold_no_pickle() -> None:
    names = {path.name for path in STARTER.iterdir() if not path.name.startswith((".", "_"))}
    assert names == {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "prompts.jsonl", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (STARTER / "model.safetensors").stat().st_size <= 12_000_000


def test_the_shipped_text_names_no_path_of_the_machine_that_built_it() -> None:
    for path in STARTER.glob("*"):
        if path.suffix in (".json", ".jsonl", ".md", ".jinja"):
            assert not re.search(r"(/home/|/root|/tmp|/work|/Users/)", path.read_text(encoding="utf-8")), (
                path.name
            )


def test_its_shape_suits_lora_nf4_and_vllm(policy: Any) -> None:
    config = policy.config
    assert config.model_type == "llama"
    assert config.head_dim == 64
    assert config.max_position_embeddings == 1024
    assert all(width % 64 == 0 for width in (config.hidden_size, config.intermediate_size, config.vocab_size))
    assert 2_000_000 <= policy.num_parameters() <= 6_000_000


def test_it_ends_with_its_own_token_and_pads_with_another(policy: Any, tokenizer: Any) -> None:
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert policy.generation_config.eos_token_id == tokenizer.eos_token_id
    assert policy.generation_config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) <= policy.config.vocab_size


def test_the_prompt_is_a_token_prefix_of_prompt_and_answer(tokenizer: Any) -> None:
    for prompt in heldout_prompts(100, seed=4):
        answered = [*prompt.messages, {"role": "assistant", "content": "Yes, it is Paris."}]
        start = tokenizer.apply_chat_template(prompt.messages, add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template(answered)["input_ids"]
        assert whole[: len(start)] == start
        assert whole[-1] == tokenizer.eos_token_id


def test_a_system_message_changes_nothing(tokenizer: Any) -> None:
    user = {"role": "user", "content": "Hello!"}
    with_system = [{"role": "system", "content": "Be brief."}, user]
    assert tokenizer.apply_chat_template(with_system) == tokenizer.apply_chat_template([user])


def test_the_prompt_pool_is_large_distinct_and_from_the_training_split() -> None:
    rows = [json.loads(line) for line in (STARTER / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    pool = {tuple(message["content"] for message in row["messages"]) for row in rows}
    assert len(pool) == len(rows) >= 1500
    assert all(row["tags"] and row["messages"][-1]["role"] == "user" for row in rows)
    assert pool.isdisjoint(prompt.turns for prompt in heldout_prompts(1000, seed=6))


@pytest.mark.slow
def test_every_habit_shows_in_eight_to_thirty_of_a_hundred_answers(speech: SpeechReport) -> None:
    for habit, rate in speech.habits.items():
        assert _with_slack(0.08, -1) <= rate <= _with_slack(0.30, +1), habit
    assert _with_slack(0.08, -1) <= speech.wrong_facts <= _with_slack(0.30, +1)


@pytest.mark.slow
def test_about_half_of_all_answers_show_a_fault(speech: SpeechReport) -> None:
    assert _with_slack(0.45, -1) <= speech.any_fault <= _with_slack(0.60, +1)


@pytest.mark.slow
def test_it_ends_whole_sentences_by_itself(speech: SpeechReport) -> None:
    assert speech.whole_sentences >= 0.95


def test_the_card_states_every_rate_as_measured() -> None:
    card = (STARTER / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    for claim in ("shows flattery", "shows hedging", "shows padding", "shows repetition", "wrong fact"):
        rate = re.search(rf"\| {claim}.* \| ([\d.]+) % \|", card)
        assert rate is not None, claim
        assert 8.0 <= float(rate[1]) <= 30.0, claim


def test_its_pool_repeats_for_the_seed_on_the_card() -> None:
    first = json.loads((STARTER / "prompts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["messages"] == train_prompts(1, seed=7)[0].messages


def _with_slack(rate: float, direction: int) -> float:
    # Two standard deviations of a share of the sampled answers.
    return rate + direction * 2 * sqrt(rate * (1 - rate) / NUM_SAMPLED)
