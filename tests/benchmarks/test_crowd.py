"""The crowd benchmark in small: bad ones are named, good ones are not, and labels beat the majority."""

from __future__ import annotations

from benchmarks.crowd import describe, run_crowd


def test_the_report_names_the_bad_ones_and_effective_labels_beat_the_majority() -> None:
    run = run_crowd(num_tasks=300, per_task=3, num_gold=0, seed=0)
    assert run.named == 4
    assert run.blamed == 0
    assert run.left_within is not None
    assert run.left_within <= 40
    assert run.effective > run.majority + 0.05
    assert run.effective_by_weight > run.effective


def test_with_one_vote_a_task_and_nothing_to_check_people_by_labels_stay_as_given() -> None:
    run = run_crowd(num_tasks=100, per_task=1, num_gold=0, seed=0)
    assert run.effective == run.majority == run.effective_by_weight
    assert "0 of 1" in describe([run])
