"""A grid trained from one snapshot for real, on the tiny model: compared, resumed, its best one adopted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from store.database import Store
from store.errors import BadValue, StateConflict
from store.policies import live_version, promote, read_policy
from store.records import Promotion
from tests.trainer.conftest import pair_rows, write_snapshot
from trainer.limits import GateSettings
from trainer.planner import TriggerSettings
from trainer.round_settings import Plan, RoundSettings
from trainer.settings import BaseModel, RoundPlan, TrainerSettings
from trainer.supervisor import RoundSupervisor
from trainer.sweep import (
    Result,
    Sweep,
    choose_best,
    make_grid,
    name_sweep,
    read_values,
    show_flags,
)

# Trains for minutes in all, in processes of its own.
pytestmark = pytest.mark.slow


TRAINER = TrainerSettings(learning_rate=1e-3, beta=0.5, max_length=256, rank=8, alpha=16, sft_weight=0.0)
GATE = GateSettings(num_prompts=4, max_tokens=8, max_entropy_ratio=9.0, max_drift=9.0, max_own_drift=9.0)


def result(name: str, accuracy: float | None, drift: float, decision: str = "promote") -> Result:
    return Result(name, {"beta": 0.1}, decision, "", 1.0, accuracy=accuracy, accuracy_noise=0.05, drift=drift)


def test_axes_make_a_grid_over_the_common_settings() -> None:
    points = make_grid(TRAINER, {"beta": "0.1,0.2", "learning-rate": "1e-4, 1e-5", "schedule": "cosine"})
    assert [point.name for point in points] == [
        "beta=0.1,learning-rate=0.0001,schedule=cosine",
        "beta=0.1,learning-rate=1e-05,schedule=cosine",
        "beta=0.2,learning-rate=0.0001,schedule=cosine",
        "beta=0.2,learning-rate=1e-05,schedule=cosine",
    ]
    assert {point.trainer.rank for point in points} == {8}
    assert points[3].trainer.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({}, "name an axis"),
        ({"betta": "1"}, "no setting --trainer.betta"),
        ({"beta": "0.1,high"}, "'0.1,high' is no list of its values"),
        ({"epochs": "1,1"}, "names a value twice"),
        ({"beta": "0.1,0"}, "beta 0.0 must be greater than 0"),
        ({"seed": ",".join(map(str, range(201)))}, "201 points, more than 200"),
    ],
)
def test_an_impossible_grid_is_refused_in_words(axes: dict[str, str], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        make_grid(TRAINER, axes)


def test_values_have_the_type_of_their_setting() -> None:
    assert read_values("epochs", "1,2") == (1, 2)
    assert read_values("start", "fresh") == ("fresh",)


def test_the_best_is_nearest_to_the_base_among_those_that_noise_cannot_tell_apart() -> None:
    results = [
        result("far", 0.80, -0.9),
        result("near", 0.76, 0.2),
        result("worse", 0.60, 0.0),
        result("refused", 0.95, 0.1, "reject"),
    ]
    best = choose_best(results)
    assert best is not None
    assert best.name == "near"
    assert choose_best(results[3:]) is None
    undecided = choose_best([result("a", None, 0.5), result("b", None, 0.1)])
    assert undecided is not None
    assert undecided.name == "b"
    assert show_flags(best) == "--trainer.beta 0.1"


def test_the_same_question_has_the_same_name(tmp_path: Path) -> None:
    plan = RoundPlan("r", "v1", "v0", BaseModel(str(tmp_path)))
    again = RoundPlan("other", "v2", "v0", BaseModel(str(tmp_path)))
    assert name_sweep(plan, {"beta": "1"}) == name_sweep(again, {"beta": "1"})
    assert name_sweep(plan, {"beta": "1"}) != name_sweep(plan, {"beta": "2"})


def test_a_sweep_trains_compares_goes_on_and_hands_over_its_best(base_folder: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    folder = tmp_path / "data" / "rounds" / "sweep-1"
    write_snapshot(folder / "snapshot", pair_rows(32), holdout=pair_rows(12, seed=1))
    report = {"seq": 0, "num_pairs": 32, "num_ratings": 0, "num_holdout": 12}
    (folder / "snapshot" / "report.json").write_text(json.dumps(report))
    plan = RoundPlan("", "v1", "v0", BaseModel(str(base_folder)), gate=GATE)
    said: list[str] = []

    def sweep(axes: dict[str, str]) -> list[Result]:
        said.clear()
        return Sweep(folder, plan, make_grid(TRAINER, axes), tell=said.append).run()

    (alone,) = sweep({"beta": "0.5"})
    assert said[-1].startswith("1/1 beta=0.5: promote, accuracy ")
    assert said[-1].endswith("nothing is left to train")

    # One more value: what was done is not trained again, and its time is remembered.
    before = (folder / "points" / "beta=0.5" / "gate.json").stat().st_mtime_ns
    both = sweep({"beta": "0.5,2"})
    assert (folder / "points" / "beta=0.5" / "gate.json").stat().st_mtime_ns == before
    assert said[0].startswith("1/2 beta=0.5: done before, promote")
    assert both[0] == alone
    assert [each.decision for each in both] == ["promote", "promote"], [each.reason for each in both]
    for each in both:
        assert each.accuracy is not None
        assert each.margin is not None
        assert each.margin > 0
        assert each.first_loss == pytest.approx(0.6931, abs=1e-3)
        assert each.seconds > 0
    assert (folder / "points" / "beta=0.5" / "report.html").exists()
    shown = (folder / "sweep.html").read_text()
    assert shown.count("<circle") == 2
    assert "(best)" in shown

    told = folder / "points" / "beta=0.5" / "round.json"
    was = json.loads(told.read_text())
    for group, other in (("trainer", {"beta": 0.7}), ("guards", {"patience": 9})):
        told.write_text(json.dumps(was | {group: was[group] | other}))
        with pytest.raises(BadValue, match="with other settings"):
            sweep({"beta": "0.5"})

    check_adoption(store, folder / "points" / "beta=2.0")
    store.close()


def check_adoption(store: Store, point: Path) -> None:
    """The supervisor takes a point's candidate as a round's own: published, registered, promoted."""
    published: list[dict[str, object]] = []

    def publish(candidate: Path, version: str) -> str:
        manifest = json.loads((candidate / "MANIFEST.json").read_text())
        assert manifest["version"] == version
        published.append(manifest)
        return "0" * 64

    def take(version: str, actor: str, reason: str) -> Promotion:
        return promote(store, version, actor, reason=reason)

    rounds = Plan(BaseModel("nowhere"), TrainerSettings(), GateSettings(), TriggerSettings(), RoundSettings())
    supervisor = RoundSupervisor(store, rounds, publish, take, lambda _: None)
    taken = supervisor.adopt(point, "sweep-1: beta=2.0")
    assert (taken.state, taken.version, taken.num_pairs) == ("promoted", "v1", 32)
    assert live_version(store) == "v1"
    assert read_policy(store, "v1").round_id == taken.round_id
    assert published[0]["round_id"] == taken.round_id
    mine = supervisor.files.folder / taken.round_id
    assert not (mine / "snapshot").is_symlink()
    assert (mine / "report.html").exists()
    with pytest.raises(StateConflict, match="v1 is live by now; sweep again"):
        supervisor.adopt(point, "again")
