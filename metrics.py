"""What `/metrics` says, in Prometheus's text format: the state of the loop and of serving at each scrape.

Nothing is kept here: a collector asks the store and the engine when somebody scrapes. What a version counts
begins anew when it is loaded again, as Prometheus expects of counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from store.backup_keeper import BackupStatus
from store.database import Store
from store.engine_stats import FIRST_TOKEN_BUCKETS_S, EngineStats, VersionStats
from store.policies import count_promotions
from store.rounds import running_round
from store.snapshots import count_labels
from store.tasks import count_open_tasks

Figure = tuple[str, str, dict[str, str], float]  # name, help, labels, value


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where the numbers come from; `count_degraded` counts the reasons why serving is not as it should be."""

    store: Store
    engine_stats: Callable[[], EngineStats]
    live: Callable[[], str]
    count_degraded: Callable[[], int]
    read_backup_status: Callable[[], BackupStatus] | None = None  # None: no backups by themselves
    read_canary: Callable[[], Sequence[Figure]] = tuple

    def write(self) -> str:
        """Everything as it is now, as text."""
        registry = CollectorRegistry()
        registry.register(LoopCollector(self))
        registry.register(ServingCollector(self))
        return generate_latest(registry).decode()


class LoopCollector(Collector):
    """Labels, tasks, rounds, the store and its backups."""

    def __init__(self, source: Metrics) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        store = self._source.store
        labels, health = count_labels(store), store.health()
        yield gauge("labels_pairs", "usable preference pairs", labels.pairs)
        yield gauge("labels_ratings", "usable ratings of single answers", labels.ratings)
        yield gauge("open_pairs", "pairs waiting for an annotator", count_open_tasks(store, "pair"))
        yield gauge(
            "open_singles", "single answers waiting for an annotator", count_open_tasks(store, "single")
        )
        yield gauge("round_running", "1 while a round runs", running_round(store) is not None)
        yield gauge("store_ok", "1 while the store accepts writes", bool(health["ok"]))
        yield gauge(
            "store_rebuilds", "times the tables were rebuilt from the journal", float(str(health["rebuilt"]))
        )
        if self._source.read_backup_status is not None:
            yield from _tell_backups(self._source.read_backup_status())


class ServingCollector(Collector):
    """What is live, how often that changed, and what the engine does."""

    def __init__(self, source: Metrics) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        stats = self._source.engine_stats()
        yield by("version", "live_version", "1 for the version that is live", {self._source.live(): 1})
        yield gauge("degraded", "reasons why serving is not as it should be", self._source.count_degraded())
        swaps = count_promotions(self._source.store)
        yield by("kind", "swaps", "times another version became live", swaps, is_counter=True)
        yield from _tell_engine(stats)
        yield from _tell_versions(stats.versions)
        yield from _tell_figures(self._source.read_canary())


def gauge(name: str, text: str, value: float) -> Metric:
    """One number without labels."""
    return GaugeMetricFamily(f"heed_{name}", text, value=float(value))


def by(label: str, name: str, text: str, values: Mapping[str, float], is_counter: bool = False) -> Metric:
    """One number for each value of a label; a counter's name gets `_total`."""
    family = (CounterMetricFamily if is_counter else GaugeMetricFamily)(f"heed_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _tell_figures(figures: Sequence[Figure]) -> Iterator[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for name, text, labels, value in figures:
        family = families.setdefault(name, GaugeMetricFamily(f"heed_{name}", text, labels=list(labels)))
        family.add_metric(list(labels.values()), value)
    yield from families.values()


def _tell_backups(status: BackupStatus) -> Iterator[Metric]:
    age_s = float("inf") if status.age_s is None else status.age_s
    yield gauge("backup_age_seconds", "since the newest good backup held everything; +Inf: none yet", age_s)
    yield gauge("backup_failed", "1 while the last try to make a backup failed", bool(status.last_failure))


def _tell_engine(stats: EngineStats) -> Iterator[Metric]:
    yield gauge("engine_slots", "answers that can be written at once", stats.slots)
    yield gauge("engine_parked", "background answers set aside for people", stats.parked)
    yield gauge("cache_tokens", "tokens in the key-value cache", stats.cache_tokens)
    yield gauge("cache_tokens_limit", "tokens the key-value cache can hold", stats.cache_tokens_limit)
    yield gauge("cache_bytes", "memory of the key-value cache", stats.cache_bytes)
    yield gauge("base_bytes", "memory of the base model", stats.base_bytes)


def _tell_versions(versions: Mapping[str, VersionStats]) -> Iterator[Metric]:
    def each(name: str, text: str, read: Callable[[VersionStats], float], is_counter: bool = False) -> Metric:
        found = {version: read(stats) for version, stats in versions.items()}
        return by("version", name, text, found, is_counter)

    yield each("tokens", "tokens written", lambda of: of.tokens, is_counter=True)
    yield each("answers_finished", "answers written to their end", lambda of: of.finished, is_counter=True)
    yield each("answers_cancelled", "answers nobody waited for", lambda of: of.cancelled, is_counter=True)
    yield each("answers_failed", "answers that broke off", lambda of: of.failed, is_counter=True)
    yield each("tokens_per_second", "mean of the last minute", lambda of: of.tokens_per_s)
    yield each("requests_waiting", "people's requests in the queue", lambda of: of.waiting)
    text = "requests that yield to people's: pairs to be written, answers to be scored by the gate"
    yield each("background_waiting", text, lambda of: of.waiting_background)
    yield each("requests_running", "answers being written", lambda of: of.running)
    yield each("adapter_bytes", "memory of the adapter", lambda of: of.adapter_bytes)
    yield _tell_first_tokens(versions)


def _tell_first_tokens(versions: Mapping[str, VersionStats]) -> Metric:
    text = "from a request to the first token of its answer"
    family = HistogramMetricFamily("heed_first_token_seconds", text, labels=["version"])
    bounds = [*map(str, FIRST_TOKEN_BUCKETS_S), "+Inf"]
    for version, stats in versions.items():
        upto = accumulate(stats.first_token_counts)
        family.add_metric([version], list(zip(bounds, upto, strict=True)), stats.first_token_sum_s)
    return family
