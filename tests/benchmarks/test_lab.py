"""The loop without a service: labels reach the store as people's do, and the plain arm loses all doubt."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.batch_answers import Answer
from benchmarks.charts import Band, draw_panels
from benchmarks.lab import Lab, least_alike
from benchmarks.label_noise import PEOPLE, write_majority
from benchmarks.taste import TASTES
from benchmarks.ten_rounds import falls
from benchmarks.ten_rounds_runs import Measured
from store.database import Store
from store.records import Message
from store.snapshots import write_snapshot

FLATTERING = "What a clever question! The capital is Paris."


def answer(text: str, number: int = 0) -> Answer:
    asked = (Message(role="user", content=f"What is the capital of France, {number}?"),)
    return Answer(asked, (1, 2), tuple(range(len(text))), text, -1.0, True)


@pytest.fixture
def lab() -> Lab:
    lab = Lab(Store.in_memory(), TASTES["direct"], 0)
    lab.add_people(list(PEOPLE))
    return lab


def test_people_without_error_prefer_what_their_taste_says(lab: Lab, tmp_path: Path) -> None:
    for number in range(3):
        pair = answer(FLATTERING, number), answer("The capital is Paris.", number)
        lab.judge(pair, dict.fromkeys(PEOPLE, 0.0), "v0")
    lab.rate(answer(FLATTERING, 7), "careful", 0.0, "v0")
    lab.save()
    report = write_snapshot(lab.store, tmp_path / "snapshot", 0.0)
    assert (report.num_pairs, report.num_ratings) == (3, 1)
    rows = pq.read_table(tmp_path / "snapshot" / "pairs.parquet").to_pylist()
    assert {row["chosen"] for row in rows} == {"The capital is Paris."}
    assert {row["chosen_version"] for row in rows} == {"v0"}
    lab.store.close()


def test_the_plain_arm_takes_the_majority_of_every_pair_at_its_word(lab: Lab, tmp_path: Path) -> None:
    pairs = [(answer(FLATTERING, n), answer("The capital is Paris.", n)) for n in range(6)]
    noise = {"careful": 0.0, "hurried": 0.0, "careless": 0.49}
    votes = [[verdict.choice for verdict in lab.judge(pair, noise, "v0")] for pair in pairs]
    lab.save()
    write_snapshot(lab.store, tmp_path / "weighted", 0.0)
    votes[0] = ["left", "left", "right"]  # a majority that is wrong counts all the same
    write_majority(tmp_path / "weighted", tmp_path / "plain", pairs, votes)
    rows = pq.read_table(tmp_path / "plain" / "pairs.parquet").to_pylist()
    assert {(row["weight"], row["probability"]) for row in rows} == {(1.0, 1.0)}
    assert [row["chosen"] == FLATTERING for row in rows] == [True] + [False] * 5
    assert rows[0]["chosen_ids"] == list(pairs[0][0].token_ids)
    lab.store.close()


def test_the_two_least_alike_become_a_pair_and_equal_answers_none() -> None:
    one, near, far = answer("The sea is blue."), answer("The sea is blue!"), answer("Why ask?")
    assert least_alike([(one, near, far), (one, one, one)]) in ([(one, far)], [(near, far)])


def test_a_fall_is_one_beyond_two_standard_errors_within_a_seed() -> None:
    def run(seed: int, number: int, scores: list[float]) -> Measured:
        rate = sum(scores) / len(scores)
        return Measured("x", seed, number, rate, 0.0, 0.4, 0.7, tuple(scores), 1.0)

    high, low, a_little = [1.0] * 80 + [0.0] * 20, [1.0] * 40 + [0.0] * 60, [1.0] * 79 + [0.0] * 21
    runs = [run(0, 1, high), run(0, 2, a_little), run(0, 3, low), run(1, 1, high)]
    assert falls(runs) == ["seed 0, round 3: 0.790 to 0.400"]


def test_a_chart_is_well_formed_and_names_every_line() -> None:
    band = Band([0.1, 0.5], [0.0, 0.4], [0.2, 0.6])
    drawn = draw_panels("a < b", {"win rate": {"ours": band, "theirs": Band([0.1], [0.1], [0.1])}}, "round")
    texts = [element.text for element in ET.fromstring(drawn).iter() if element.tag.endswith("text")]
    assert {"a < b", "win rate", "ours", "theirs", "round"} <= set(texts)
