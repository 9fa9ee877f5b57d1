"""How many ratings until a planted bad candidate is withdrawn, and how often an equal one is, wrongly.

    python -m benchmarks.canary --runs 400 --services 3

Two parts. Simulated thumbs through the rule itself, as many runs as a rate needs. And a real service of its
own: a tester chats and rates over HTTP until the canary is gone; the rule, given the same thumbs, must say so
at the same one. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.client import HeedClient
from benchmarks.models import STARTER, write_adapter
from benchmarks.progress import say
from benchmarks.service import run_service
from serving.adapters import publish
from store.canary_rows import Canary, Side, Sides
from store.canary_settings import CanarySettings
from store.canary_verdict import is_worse
from store.database import Store
from store.policies import add_policy

SETTINGS = CanarySettings()
MOST_RATINGS = 5000
EQUAL_RATINGS = 1000
MOOD = 4.0  # a + b of the beta a conversation's own rate is drawn from: thumbs within one correlate by 0.2


@dataclass(frozen=True)
class Scenario:
    """What both sides' thumbs are like; `thumbs` of one conversation share its mood when more than one."""

    name: str
    live: float
    candidate: float
    share: float
    most: int
    thumbs: int = 1


@dataclass(frozen=True)
class Found:
    """Of that many runs the share withdrawn, and after how many ratings (both sides) those were."""

    name: str
    share: float
    runs: int
    withdrawn: float
    median: float | None
    p90: float | None


def list_scenarios() -> Iterator[Scenario]:
    for share in (0.1, 0.3, 0.5):
        yield Scenario("0.3 against 0.7", 0.7, 0.3, share, MOST_RATINGS)
        yield Scenario("0.5 against 0.7", 0.7, 0.5, share, MOST_RATINGS)
        yield Scenario("equal, 0.7", 0.7, 0.7, share, EQUAL_RATINGS)
        yield Scenario("equal, 0.7, moods of five", 0.7, 0.7, share, EQUAL_RATINGS, thumbs=5)


def simulate(scenario: Scenario, runs: int, seed: int) -> Found:
    """Look after every rating, as the service does."""
    draw = random.Random(f"{seed}/{scenario}")
    ends = [end for _ in range(runs) if (end := _run(scenario, draw)) is not None]
    return Found(scenario.name, scenario.share, runs, len(ends) / runs, *_middle(ends))


def _middle(ends: list[int]) -> tuple[float | None, float | None]:
    if not ends:
        return None, None
    ordered = sorted(ends)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]


def _run(scenario: Scenario, draw: random.Random) -> int | None:
    """The rating after which the candidate is withdrawn; None when it stays."""
    canary = Canary(f"ca_{draw.random()}", "v1", "v0", scenario.share, "", "", datetime.now(UTC))
    count = Count()
    while count.total < scenario.most:
        is_candidate = canary.takes(f"cv_{draw.random()}")
        rate = scenario.candidate if is_candidate else scenario.live
        if scenario.thumbs > 1:
            rate = draw.betavariate(rate * MOOD, (1 - rate) * MOOD)
        for _ in range(scenario.thumbs):
            if count.add(is_candidate, draw.random() < rate):
                return count.total
    return None


class Count:
    """The thumbs so far of both sides."""

    def __init__(self) -> None:
        self._counts = {True: [0, 0], False: [0, 0]}
        self.total = 0

    def add(self, is_candidate: bool, is_up: bool) -> bool:
        """Whether the candidate is to be withdrawn now."""
        self._counts[is_candidate][is_up] += 1
        self.total += 1
        sides = [Side(0, up, down) for down, up in (self._counts[True], self._counts[False])]
        return is_worse(Sides(*sides), SETTINGS)


def serve_planted(rounds: int, share: float, rates: tuple[float, float], seed: int) -> list[dict[str, Any]]:
    """One canary after the other on a real service, rated by `rates` (candidate, live)."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        versions = [f"v{number + 1}" for number in range(rounds)]
        _publish(data, Path(folder), versions)
        with run_service(data) as (url, token), HeedClient(url, token) as client:
            return [_serve_one(client, url, token, version, share, rates, seed) for version in versions]


def _publish(data: Path, folder: Path, versions: list[str]) -> None:
    store = Store.open(data)
    for number, version in enumerate(versions):
        draft = write_adapter(folder / version, STARTER, seed=number)
        sha256 = publish(draft, data / "policies", version)
        add_policy(store, version, parent="v0", round_id=None, weights_sha256=sha256)
    store.close()


def _serve_one(
    client: HeedClient,
    url: str,
    token: str,
    version: str,
    share: float,
    rates: tuple[float, float],
    seed: int,
) -> dict[str, Any]:
    draw, count, expected = random.Random(f"{seed}/{version}"), Count(), None
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
        http.post("/v1/canary", json={"version": version, "share": share}).raise_for_status()
        while (shown := http.get("/v1/canary").raise_for_status().json())["running"] is not None:
            answered = client.ask(
                "live", [{"role": "user", "content": "Hello?"}], seed=count.total, max_tokens=4
            )
            is_candidate = answered.version == version
            is_up = draw.random() < rates[0 if is_candidate else 1]
            client.rate(answered.completion_id, 1 if is_up else -1)
            if count.add(is_candidate, is_up) and expected is None:
                expected = count.total
    ended = shown["history"][0]["canary"]
    say(f"{version}: {ended['outcome']} after {count.total} ratings: {ended['end_reason']}")
    return {
        "version": version,
        "outcome": ended["outcome"],
        "ratings": count.total,
        "rule_says": expected,
        "numbers": ended["numbers"],
    }


def main() -> None:
    """Print the table, the real runs, and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=400, help="simulated canaries a row")
    parser.add_argument("--services", type=int, default=3, help="canaries on the real service")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = []
    print("| thumbs up, candidate against live | share | withdrawn | ratings, median | p90 |")
    print("| --- | --- | --- | --- | --- |")
    for scenario in list_scenarios():
        found = simulate(scenario, args.runs, args.seed)
        rows.append(found)
        middle = "–" if found.median is None else f"{found.median:.0f}"
        late = "–" if found.p90 is None else f"{found.p90:.0f}"
        print(f"| {found.name} | {found.share:g} | {found.withdrawn:.3f} | {middle} | {late} |", flush=True)
    served = serve_planted(args.services, 0.3, (0.3, 0.7), args.seed)
    for one in served:
        print(f"real service, share 0.3, 0.3 against 0.7: {json.dumps(one)}")
    wrong = max(row.withdrawn for row in rows if row.name == "equal, 0.7")
    result = {
        "rows": [asdict(row) for row in rows],
        "served": served,
        "stated_error": round(1 - SETTINGS.confidence, 6),
        "equal_withdrawn": wrong,
        "rule_and_service_agree": all(one["ratings"] == one["rule_says"] for one in served),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
