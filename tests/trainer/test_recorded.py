"""What serving recorded of an answer, held against the reference of a training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from store.records import PairRow
from tests.trainer.conftest import pair_rows, rating_rows
from trainer.curves import RECORDED, read_lines, read_stages
from trainer.diagnosis import diagnose
from trainer.dpo import train_dpo
from trainer.findings import Told
from trainer.guarded import begin_guarded
from trainer.kto import train_kto
from trainer.limits import GuardSettings
from trainer.preferences import prepare_pairs, prepare_ratings, prompt_ids
from trainer.qlora import LoadedBase, start_policy
from trainer.recorded import Comparison, Origin, compare_with_recorded
from trainer.settings import BaseModel, RoundPlan
from trainer.stopping import Stopping


def test_answers_are_compared_a_token_and_by_version():
    found = compare_with_recorded(
        [
            (Origin("v0", -10.0), 10, -11.0),
            (Origin("v0", -4.0), 2, -3.0),
            (None, 3, -7.0),
            (Origin("v3", -6.0), 4, -8.0),
        ]
    )
    assert found == {
        "v0": Comparison(2, pytest.approx(0.2), pytest.approx(0.3)),
        "v3": Comparison(1, -0.5, 0.5),
    }


@torch.no_grad()
def recorded(base: LoadedBase, row: PairRow, side: str) -> float:
    """The log-prob of a row's answer, by a plain forward pass over it."""
    prompt, answer = prompt_ids(row.messages, base.tokenizer), getattr(row, f"{side}_ids")
    logits = base.model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1)[range(len(answer)), list(answer)].sum())


def as_served(base: LoadedBase, rows: list[PairRow]) -> list[PairRow]:
    return [
        replace(
            row,
            chosen_logprob=recorded(base, row, "chosen"),
            rejected_logprob=recorded(base, row, "rejected"),
        )
        for row in rows
    ]


def guard(tmp_path, settings, progress):
    told = RoundPlan("r", "v1", "v0", BaseModel("unused"), trainer=settings, guards=GuardSettings(patience=0))
    return begin_guarded(tmp_path, told, "", "", {}, progress, Stopping(), (), ())


@pytest.mark.parametrize(("off", "says"), [(0.0, False), (0.5, True)])
def test_a_round_says_when_the_reference_is_not_what_answered(base, settings, tmp_path, progress, off, says):
    rows = [
        replace(row, rejected_logprob=row.rejected_logprob + off * len(row.rejected_ids))
        for row in as_served(base, pair_rows(8))
    ]
    pairs = prepare_pairs(rows, base.tokenizer, 256).rows
    guarded = guard(tmp_path, settings, progress)
    train_dpo(
        start_policy(base.model, settings, None), base.tokenizer, pairs, settings, tmp_path, progress, guarded
    )

    (stage,) = read_stages(read_lines(tmp_path / "progress.jsonl"))
    assert stage[RECORDED].steps == (0,)
    assert stage[RECORDED].last == pytest.approx(off / 2, abs=1e-5)
    assert ("served_otherwise" in [found.rule for found in diagnose(stage, Told())]) is says


def test_another_version_than_the_reference_is_told_and_not_judged(base, settings, tmp_path, progress):
    rows = [
        replace(row, version="v4", completion_logprob=-1.0 * len(row.completion_ids))
        for row in rating_rows(16, 16)
    ]
    ratings = prepare_ratings(rows, base.tokenizer, 256, settings.kto_batch_size, 0)
    guarded = guard(tmp_path, settings, progress)
    start = start_policy(base.model, settings, None)
    train_kto(start, base.tokenizer, ratings, settings, tmp_path, progress, guarded)

    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    (told,) = [line for line in lines if line.get("event") == "recorded"]
    assert told["reference"] == "v0"
    assert "apart" not in told
    assert told["versions"]["v4"]["num_answers"] == 32
    assert told["versions"]["v4"]["log_ratio"] < -1.0  # a random model is sure of nothing
    assert not read_stages(lines)[0][RECORDED]


def test_a_cut_prompt_and_a_persons_words_are_not_compared(base):
    (row,) = as_served(base, pair_rows(1))
    turns = ({"role": "user", "content": "what is thing1 ?"}, {"role": "assistant", "content": "right ."})
    cut = replace(row, messages=(*turns * 20, *row.messages))
    (pair,) = prepare_pairs([cut], base.tokenizer, 64).rows
    assert (pair.chosen_origin, pair.rejected_origin) == (None, None)
    (pair,) = prepare_pairs([replace(row, chosen_logprob=None)], base.tokenizer, 64).rows
    assert pair.chosen_origin is None
    assert pair.rejected_origin == Origin("v0", row.rejected_logprob)
