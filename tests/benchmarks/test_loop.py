"""The loop benchmark in miniature: the real command against a tiny service whose rounds always help."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import loop
from benchmarks.client import HeedClient
from benchmarks.settings import parse_arguments, read_settings
from tests.benchmarks.fakes import TinyHeed, serve

SMALL = (
    "--rounds",
    "2",
    "--labels",
    "6",
    "--annotators",
    "2",
    "--eval-prompts",
    "5",
    "--guide-variant",
    "none",
)


@pytest.fixture
def heed() -> TinyHeed:
    return TinyHeed()


@pytest.fixture
def url(heed: TinyHeed) -> Iterator[str]:
    with serve(heed.answer) as address:
        yield address


def run(url: str, *flags: str) -> int:
    return loop.main([*SMALL, "--url", url, "--token", "admin", *flags])


def test_two_rounds_end_with_one_json_line(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(url, "--noise", "0", "--out", str(tmp_path / "out.json")) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert [(r["version"], r["promoted"], r["labels"]) for r in found["rounds"]] == [
        ("v1", True, 6),
        ("v2", True, 12),
    ]
    assert found["base"]["habits"]["flattery"] == 1.0
    assert (found["base"]["win_rate"], found["base"]["entropy"]) == (0.5, 1.0)
    assert (found["rounds"][0]["win_rate"], found["rounds"][0]["habits"]["flattery"]) == (1.0, 0.0)
    assert {"collect", "queued", "measure"} <= set(found["rounds"][0]["seconds"])
    assert "round 2: candidate v2 promoted, v2 is live" in printed
    assert "PASS  flattery 0.000" in printed


def test_annotators_share_the_labels_and_prefer_what_the_taste_prefers(url: str, heed: TinyHeed) -> None:
    run(url, "--noise", "0")
    assert {choice for _, choice in heed.judgements} == {"right"}
    assert sorted(Counter(token for token, _ in heed.judgements).values()) == [6, 6]


def test_a_judgement_on_a_lost_lease_is_no_label(url: str, heed: TinyHeed) -> None:
    heed.leases_to_lose = 3
    run(url)
    assert len(heed.judgements) == 12


def test_testers_give_thumbs_instead_of_judgements(
    url: str, heed: TinyHeed, capsys: pytest.CaptureFixture[str]
) -> None:
    run(url, "--noise", "0", "--feedback", "thumbs")
    assert heed.ratings[:6] == [-1] * 6
    assert not heed.judgements
    assert "PASS  win rate 1.000 is above 0.5" in capsys.readouterr().out


def test_after_a_rejected_round_the_version_before_is_measured_and_strict_fails(
    url: str, heed: TinyHeed, capsys: pytest.CaptureFixture[str]
) -> None:
    heed.gate_is_open = False
    assert run(url, "--strict") == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["rounds"][-1]
    assert (found["version"], found["promoted"], found["reason"]) == ("v0", False, "drift")
    assert found["win_rate"] == 0.5


def test_a_round_begins_when_the_stock_is_there_or_no_more_comes(
    url: str, heed: TinyHeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(loop, "SCARCE_S", 0.05)
    with HeedClient(url, "admin") as admin:
        heed.open_pairs = [0, 4, 4, 9, 12]
        assert loop.wait_for_stock(admin, 9) == 9
        heed.open_pairs = [3, 7, *[6] * 10_000]
        assert loop.wait_for_stock(admin, 9) == 7


def test_an_impossible_value_stops_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert loop.main(["--noise", "0.6"]) == 2
    assert "--noise 0.6 is outside 0..0.5" in capsys.readouterr().err
    assert loop.main(["--eval-prompts", "0"]) == 2
    assert "--eval-prompts 0 must be at least 1" in capsys.readouterr().err


def test_a_token_without_an_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--token", "x"])
    assert "--url and --token belong together" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_arguments(["--url", "http://x", "--token", "x", "--order", "random"])
    assert "not of the one at --url" in capsys.readouterr().err


def test_the_defaults_are_the_issues_five_rounds_of_a_hundred() -> None:
    settings = read_settings(parse_arguments([]))
    assert (settings.rounds, settings.labels, settings.noise, settings.taste) == (5, 100, 0.1, "direct")
