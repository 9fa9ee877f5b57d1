"""The panel about serving, without a browser."""

from __future__ import annotations

from annotate.pages.admin.panels.serving import write_serving
from annotate.pages.admin.serving import ServingSection
from store.database import Store
from store.engine_stats import EngineStats, VersionStats
from store.policies import add_policy, promote
from tests.annotate.pages import lay_out
from tests.fakes import make_services

NONE_TODAY = {"promote": 0, "rollback": 0}
BEGUN = (0, 50, 45, 5, 0, 0, 0, 0, 0, 0, 0)  # half within 50 ms, 95 % within 100 ms


def rows_of(shown: str) -> dict[str, str]:
    """The table's rows by version."""
    body = shown.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [row for row in body.split("<tr>") if row]
    return {row.partition("<b>")[2].partition("</b>")[0]: row for row in rows}


def test_the_live_version_comes_first_and_each_says_what_it_is_for() -> None:
    stats = EngineStats(versions={version: VersionStats() for version in ("v0", "v1", "v2", "v3")})
    states = {"v0": "retired", "v1": "retired", "v2": "live", "v3": "candidate"}
    rows = rows_of(write_serving(stats, "v2", states, NONE_TODAY))
    assert list(rows) == ["v2", "v0", "v1", "v3"]
    said = {version: row.partition('">')[2].partition("</span>")[0] for version, row in rows.items()}
    assert said == {"v2": "live", "v0": "base", "v1": "held", "v3": "candidate"}


def test_a_version_shows_its_speed_first_token_queue_answers_and_memory() -> None:
    busy = VersionStats(
        waiting=2, waiting_background=70, running=8, finished=1204, cancelled=31, failed=1,
        tokens_per_s=412.4, first_token_counts=BEGUN, adapter_bytes=3 << 20,
    )  # fmt: skip
    shown = write_serving(EngineStats(versions={"v1": busy}, slots=8), "v1", {}, NONE_TODAY)
    words_shown = ("412", "about 50 ms / 100 ms", "1,204 · 31 stopped", "1 failed", "3.0 MiB")
    for words in (*words_shown, "2 · 70 in the background"):
        assert words in shown
    assert "<b>8</b> of 8 slots writing" in shown


def test_slow_answers_and_no_answers_are_told_apart() -> None:
    slow = VersionStats(first_token_counts=(0,) * 10 + (4,))
    assert "over 30 s" in write_serving(EngineStats(versions={"v0": slow}), "v0", {}, NONE_TODAY)
    idle = write_serving(EngineStats(versions={"v0": VersionStats()}), "v0", {}, NONE_TODAY)
    assert "about" not in idle


def test_the_cache_is_a_bar_and_absent_when_the_engine_knows_no_limit() -> None:
    stats = EngineStats({"v0": VersionStats()}, 8, 3, 1024, 4096, 42 << 20, 9 << 20)
    shown = write_serving(stats, "v0", {}, {"promote": 2, "rollback": 1})
    assert 'aria-valuenow="25"' in shown
    assert "<b>1,024</b> of 4,096 tokens, 42.0 MiB" in shown
    assert "<b>3 background answers</b> parked" in shown
    assert "<b>3 swaps</b> today, 1 of them back" in shown
    unlimited = write_serving(EngineStats({"v0": VersionStats()}), "v0", {}, NONE_TODAY)
    assert "KV cache" not in unlimited


def test_before_anything_is_loaded_the_panel_says_so(store: Store) -> None:
    section = lay_out(ServingSection, make_services(store))
    assert "No version is loaded yet" in str(section.read())


def test_the_panel_reads_the_registry_and_todays_swaps(store: Store) -> None:
    add_policy(store, "v1", "v0", None, "0" * 64)
    promote(store, "v1", "root")
    stats = EngineStats(versions={"v0": VersionStats(), "v1": VersionStats()})
    section = lay_out(ServingSection, make_services(store, engine_stats=lambda: stats))
    shown = str(section.read())
    assert "<b>1 swap</b> today" in shown
    assert shown.index("<b>v1</b>") < shown.index("<b>v0</b>")
