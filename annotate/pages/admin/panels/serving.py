"""What serving does right now, as HTML: a row a loaded version, and the engine they share."""

from __future__ import annotations

import math
from collections.abc import Mapping

from annotate.pages.admin.panels.pieces import badge, bar, count, figures, note, table
from annotate.pages.text import plain
from store.engine_stats import FIRST_TOKEN_BUCKETS_S, EngineStats, VersionStats
from store.records import BASE_VERSION

_HEADS = ("Version", "Is", "Tokens/s", "First token", "Waiting", "Writing", "Answers", "Adapter")
_MEANING = (
    "Tokens/s is the mean of the last minute. First token: how long half of the answers and 95 % of them took"
    " to begin, estimated from the counts in /metrics. Answers are counted since the version was loaded."
)
_MIB = 2**20


def write_serving(
    stats: EngineStats, live: str, states: Mapping[str, str], swaps_today: Mapping[str, int]
) -> str:
    """The versions, live first, and the engine; `states` is what the registry says of each version."""
    if not stats.versions:
        return note("No version is loaded yet: one is when the service is ready.")
    order = sorted(stats.versions, key=lambda version: version != live)
    rows = [_write_version(version, stats.versions[version], live, states) for version in order]
    return (
        table(_HEADS, rows, label="Versions in memory")
        + figures(_list_figures(stats, swaps_today))
        + _write_cache(stats)
        + note(_MEANING)
    )


def _write_version(version: str, stats: VersionStats, live: str, states: Mapping[str, str]) -> list[str]:
    return [
        f"<b>{plain(version)}</b>",
        _write_roles(version, live, states),
        f"{stats.tokens_per_s:,.0f}",
        _write_first_token(stats),
        _write_waiting(stats),
        f"{stats.running:,}",
        _write_answers(stats),
        "–" if version == BASE_VERSION else _size(stats.adapter_bytes),
    ]


def _write_roles(version: str, live: str, states: Mapping[str, str]) -> str:
    """Live and the base by what they are for; a candidate; the others are held for a quick way back."""
    if version == live:
        return badge("live")
    if version == BASE_VERSION:
        return badge("base")
    return badge("candidate") if states.get(version) == "candidate" else badge("held")


def _write_first_token(stats: VersionStats) -> str:
    half, most = (stats.estimate_first_token_s(share) for share in (0.5, 0.95))
    if half is None or most is None:
        return "–"
    return f'<span class="measure">about {_wait(half)} / {_wait(most)}</span>'


def _write_waiting(stats: VersionStats) -> str:
    behind = f" · {stats.waiting_background:,} in the background" if stats.waiting_background else ""
    return f"{stats.waiting:,}{behind}"


def _write_answers(stats: VersionStats) -> str:
    parts = [f"{stats.finished:,}"]
    parts += [f"{stats.cancelled:,} stopped"] if stats.cancelled else []
    parts += [badge(f"{stats.failed:,} failed", "bad")] if stats.failed else []
    return " · ".join(parts)


def _list_figures(stats: EngineStats, swaps_today: Mapping[str, int]) -> list[str]:
    running = sum(each.running for each in stats.versions.values())
    back = swaps_today.get("rollback", 0)
    return [
        f"<span><b>{running:,}</b> of {count(stats.slots, 'slot')} writing</span>",
        f"<span><b>{count(stats.parked, 'background answer')}</b> parked</span>",
        f"<span><b>{count(sum(swaps_today.values()), 'swap')}</b> today, {back:,} of them back</span>",
        f"<span>base model <b>{_size(stats.base_bytes)}</b></span>",
    ]


def _write_cache(stats: EngineStats) -> str:
    if not stats.cache_tokens_limit:
        return ""
    share = stats.cache_tokens / stats.cache_tokens_limit
    head = f"KV cache: <b>{stats.cache_tokens:,}</b> of {count(stats.cache_tokens_limit, 'token')}"
    told = figures([f"<span>{head}, {_size(stats.cache_bytes)}</span>"])
    return told + bar(min(1.0, share), label="KV cache in use")


def _wait(seconds: float) -> str:
    if math.isinf(seconds):
        return f"over {FIRST_TOKEN_BUCKETS_S[-1]:.0f} s"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:,.1f} MiB" if num_bytes < 1024 * _MIB else f"{num_bytes / 2**30:,.1f} GiB"
