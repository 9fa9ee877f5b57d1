"""The page about a round: whole, without anything from elsewhere, and also when little is there."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.trainer.watched import standing, train_watched
from trainer.charts import Chart, Curve, draw_chart, smooth, thin, ticks, write_number
from trainer.curves import Series, read_lines
from trainer.preferences import Notice, leave_out
from trainer.progress import ProgressLog
from trainer.report import describe_round, write_report
from trainer.report_parts import write_curves
from trainer.tally import tally

RECORDED = Path(__file__).parent / "recorded" / "starter_progress.jsonl"
VOID = {"meta", "path", "circle", "br"}


class Balance(HTMLParser):
    """Fails on a tag that is not closed in its turn; collects addresses and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> Balance:
    parsed = Balance()
    parsed.feed(page)
    assert parsed.open == []
    return parsed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished round's directory, its progress a real one's."""
    (tmp_path / "snapshot").mkdir()
    reasons = {"prefer": 194, "tie": 6, "held_out_pairs": 21}
    report = {"seq": 9, "num_pairs": 173, "num_ratings": 0, "num_holdout": 21, "counts_by_reason": reasons}
    (tmp_path / "snapshot" / "report.json").write_text(json.dumps(report))
    trainer = {"beta": 0.3, "sft_weight": 12.0, "reference": "base", "start": "fresh", "schedule": "<b>"}
    plan = {
        "round_id": "rd_1", "version": "v1", "parent": "v0", "base": {"model": "/models/starter"},
        "trainer": trainer, "gate": {"max_drift": 1.5}, "packages": {"torch": "2.13.0"},
    }  # fmt: skip
    (tmp_path / "round.json").write_text(json.dumps(plan))
    check = {"name": "holdout_accuracy", "value": 0.81, "live": 0.5, "threshold": 0.324,
             "noise_floor": 0.088, "passed": True, "says": "it prefers <i>the</i> chosen answer"}  # fmt: skip
    gate = {"decision": "promote", "reason": "all checks passed", "checks": [check]}
    (tmp_path / "gate.json").write_text(json.dumps(gate))
    notes = [
        {"stage": "prepare", "note": "rows", "set": "pairs", "used": 173, "notices": {"cut: the oldest": 4}},
        {"stage": "trained", "note": "stages", "dpo": "173 pairs", "kto": "skipped: there are no ratings"},
    ]
    lines = [*map(json.dumps, notes), *RECORDED.read_text().splitlines()]
    (tmp_path / "progress.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_report_tells_what_was_used_what_it_means_and_what_the_gate_said(folder: Path) -> None:
    page = write_report(folder, "promoted", "all checks passed")
    parsed = parse(page)
    for words in (
        "Round rd_1", "promoted", "v0", "starter", "held out pairs", "cut: the oldest", "ln 2 0.693",
        "Chosen answers are shorter", "What to do:", "skipped: there are no ratings", "0.324", "2.13.0",
        "--trainer.sft-weight",
    ):  # fmt: skip
        assert words in page, words
    assert page.count("<svg viewBox") >= 9
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "/models/starter" not in page


def test_a_report_fetches_nothing_and_escapes_what_files_say(folder: Path) -> None:
    page = write_report(folder)
    assert parse(page).addresses == []
    assert not re.search(r"<script|url\(|@import|https?://", page)
    assert "<i>the</i>" not in page
    assert "&lt;i&gt;the" in page
    assert "&lt;b&gt;" in page


def test_a_report_compares_answers_with_what_serving_recorded(folder: Path) -> None:
    versions = {
        "v0": {"num_answers": 60, "log_ratio": -0.25, "apart": 0.31},
        "v2": {"num_answers": 8, "log_ratio": -0.4, "apart": 0.4},
    }
    line = {"stage": "dpo", "event": "recorded", "at_step": 0, "reference": "v0", "versions": versions}
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps(line | {"apart": 0.31}) + "\n")
    page = write_report(folder)
    parse(page)
    for row in (
        ("dpo", "v0 (the reference)", "60", "-0.2500", "0.3100"),
        ("dpo", "v2", "8", "-0.4000", "0.4000"),
    ):
        assert "".join(f"<td>{cell}</td>" for cell in row) in page, row
    assert "Training reads answers otherwise than serving gave them" in page


def test_a_report_says_what_each_stage_used_cut_and_left_out(folder: Path) -> None:
    long = [leave_out(f"r{n}", "it does not fit", f"{n} tokens do not fit") for n in range(3)]
    accounts = {
        "dpo": tally(["a", "b"], [*long, Notice("a", "cut: the 4 oldest messages", num_cut=4)]),
        "kto": tally(["c"], [], "there are no ratings"),
    }
    report = {name: account.as_json() for name, account in accounts.items()}
    (folder / "training_report.json").write_text(json.dumps(report))
    page = write_report(folder)
    parse(page)
    for row in (
        ("dpo", "read", "5"),
        ("dpo", "used", "2"),
        ("dpo", "oldest messages cut", "4"),
        ("dpo", "left out: it does not fit", "3"),
        ("kto", "used", "0"),
        ("kto", "left out: the stage was skipped: there are no ratings", "1"),
    ):
        assert "".join(f"<td>{cell}</td>" for cell in row) in page, row


def test_both_pages_draw_what_the_guards_measured_on_held_out_pairs(folder: Path) -> None:
    log = ProgressLog(folder / "progress.jsonl")
    train_watched(log, "kto", [standing(0.7, 0.5), standing(0.61, 0.75)], every=4)
    admin = write_curves(read_lines(folder / "progress.jsonl"), {}, None)
    for page in (write_report(folder), admin):
        assert "held out: 0.7 at step 4, 0.61 at step 8." in page
        assert "held out: 0.5 at step 4, 0.75 at step 8." in page


def test_every_plot_has_a_title_and_its_numbers_in_words(folder: Path) -> None:
    page = write_report(folder)
    plots = re.findall(r'<svg viewBox="0 0 360.*?</svg>', page, flags=re.DOTALL)
    assert all('role="img"' in plot and "<title" in plot and "<desc" in plot for plot in plots)
    assert "training: 0.25 at step 1, 1 at step 352." in page


@pytest.mark.parametrize("missing", ["gate.json", "progress.jsonl", "round.json", "snapshot"])
def test_a_round_that_failed_has_a_report_of_what_there_is(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder / "away")
    page = write_report(folder, "failed", "the round process was killed by signal 9 (SIGKILL)")
    parse(page)
    assert "killed by signal 9" in page


def test_a_report_that_cannot_be_written_is_logged_and_nothing_else(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "gate.json").write_text("{")
    describe_round(folder)
    assert "could not be written" in caplog.text
    describe_round(folder / "nowhere")
    (folder / "gate.json").unlink()
    describe_round(folder, "failed", "why")
    assert "why" in (folder / "report.html").read_text()


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == [0.0, 0.5, 1.0]
    assert ticks(0.31, 0.72) == [0.4, 0.6]
    assert ticks(-2.4, 0.9) == [-2.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0005, "5e-4"), (0.12345, "0.123"), (0.0, "0"), (1234.5, "1234")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert write_number(value) == text


def test_a_long_series_is_thinned_without_losing_its_ends_or_its_mean() -> None:
    series = Series(tuple(range(1, 1001)), tuple(float(step) for step in range(1, 1001)))
    thinned = thin(series)
    assert len(thinned) == 120
    assert thinned.steps[-1] == 1000
    assert thinned.mean() == pytest.approx(series.mean(), rel=0.01)
    assert smooth(series).values[500] == pytest.approx(501.0)


@pytest.mark.parametrize("values", [(0.5,), (0.5, 0.5), (1e-9, 2e-9), (-3.0, 1e6)])
def test_any_series_can_be_drawn(values: tuple[float, ...]) -> None:
    series = Series(tuple(range(1, len(values) + 1)), values)
    drawn = draw_chart(Chart("loss", "Loss", "", (Curve("training", series),), ((0.7, "ln 2"),)), "p")
    parse(drawn)
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert draw_chart(Chart("kl", "KL", "", (Curve("KL", Series()),)), "p") == ""
