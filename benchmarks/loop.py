"""The whole loop with simulated people: they judge, the service learns, and what is live then is measured.

Run `python -m benchmarks.loop`. It starts a service of its own (or takes a running one by `--url` and
`--token`), talks to it over HTTP only, and prints after each round how the live policy answers held-out
prompts at temperature 1, between the base and the ceiling: the best of eight answers of the base by the taste
itself. The guide's second recipe stands beside it, trained on the same labels. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.annotators import SimulatedPerson, collect_judgements, collect_ratings
from benchmarks.checks import Check, check_pairs, check_thumbs, describe_guide
from benchmarks.client import HeedClient, RoundView
from benchmarks.guide_rounds import prepare_guides, read_fresh_pairs, run_guide_round
from benchmarks.metrics import RoundRecord
from benchmarks.progress import say, timed
from benchmarks.report import Column, format_seconds, format_table
from benchmarks.service import run_service
from benchmarks.settings import LoopSettings, parse_arguments, read_settings
from benchmarks.taste import TASTES
from benchmarks.yardstick import Yardstick, draw_questions, measure_base, measure_version
from store.records import BASE_VERSION, RUNNING_STATES
from trainer.starter.world import train_prompts

NUM_TESTERS = 16  # who measure; the service writes one answer a person at a time
LOOK_AGAIN_S = 0.2
SCARCE_S = 30.0  # after so long without one more pair there will not be many more


@dataclass(frozen=True, slots=True)
class Crew:
    """Everyone the benchmark signs up: those who label and those who only ask."""

    admin: HeedClient
    people: list[SimulatedPerson]
    testers: list[HeedClient]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a run found; `guides` holds each variant of the guide's recipe by its key in the JSON."""

    settings: LoopSettings
    yardstick: Yardstick
    rounds: list[RoundRecord]
    guides: dict[str, list[RoundRecord]]
    checks: list[Check]

    def as_json(self) -> dict[str, object]:
        return {
            "base": self.yardstick.base.as_json(),
            "best_of_8": self.yardstick.best_of_8.as_json(),
            "rounds": [record.as_json() for record in self.rounds],
            **{name: [record.as_json() for record in records] for name, records in self.guides.items()},
            "checks": [asdict(check) for check in self.checks],
            "settings": asdict(self.settings),
        }


def run_loop(settings: LoopSettings, url: str, token: str, yardstick: Yardstick | None = None) -> Outcome:
    """Every round against a running service, told in order; prints a table a round.

    `yardstick` is that of another run with the same seed: the base answers the same way in both.
    """
    with ExitStack() as stack:
        crew = sign_up(settings, url, token, stack)
        if yardstick is None:
            say("sampling the base's answers to the held-out prompts")
            yardstick = measure_base(crew.testers, settings)
        recipes = prepare_guides(settings)
        guides: dict[str, list[RoundRecord]] = {name: [] for name in recipes}
        rounds: list[RoundRecord] = []
        known_pairs: set[str] = set()
        for number in range(1, settings.rounds + 1):
            rounds.append(run_round(number, crew, settings, yardstick, rounds))
            fresh = read_fresh_pairs(crew.admin, known_pairs) if recipes else []
            for name, recipe in recipes.items():
                guides[name].append(run_guide_round(recipe, fresh, settings, yardstick, rounds[-1].labels))
            print_round(number, yardstick, rounds[-1], {name: done[-1] for name, done in guides.items()})
    is_thumbs = settings.feedback == "thumbs"
    checks = check_thumbs(rounds) if is_thumbs else check_pairs(yardstick.base, rounds)
    return Outcome(settings, yardstick, rounds, guides, checks)


def sign_up(settings: LoopSettings, url: str, token: str, stack: ExitStack) -> Crew:
    """Create the people of this run and give the service prompts of the kind its policy was trained on."""
    run, taste = secrets.token_hex(3), TASTES[settings.taste]
    admin = stack.enter_context(HeedClient(url, token))

    def sign_up_one(name: str, role: str) -> HeedClient:
        return stack.enter_context(HeedClient(url, admin.add_person(f"{name}-{run}", role)))

    role = "tester" if settings.feedback == "thumbs" else "annotator"
    people = [
        SimulatedPerson(sign_up_one(f"{taste.name}-{place}", role), taste, settings.noise, settings.seed)
        for place in range(settings.annotators)
    ]
    testers = [sign_up_one(f"measuring-{place}", "tester") for place in range(NUM_TESTERS)]
    prompts = train_prompts(100 + settings.rounds * settings.labels, settings.seed)
    admin.add_prompts(
        [question.messages for question in draw_questions(prompts, settings.seed, 0)], "benchmark"
    )
    return Crew(admin, people, testers)


def run_round(
    number: int, crew: Crew, settings: LoopSettings, yardstick: Yardstick, earlier: Sequence[RoundRecord]
) -> RoundRecord:
    """Collect labels, start a round, wait for its end, and measure what is live afterwards."""
    seconds: dict[str, float] = {}
    if settings.stock is not None:
        with timed(seconds, "stock"):
            say(f"{wait_for_stock(crew.admin, settings.stock)} open pairs of {settings.stock} wanted")
    say(f"round {number} of {settings.rounds}: {len(crew.people)} people give {settings.labels} labels")
    with timed(seconds, "collect"):
        tally = collect_labels(number, crew, settings)
    ended = watch_round(crew.admin, seconds)
    version = crew.admin.live_version()
    say(f"candidate {ended.version} {ended.state} ({ended.reason}); {version} is live")
    # After a rejected round the same version is live, and would give the same answers to the same seeds.
    known = {BASE_VERSION: yardstick.base} | {done.version: done.metrics for done in earlier if done.metrics}
    with timed(seconds, "measure"):
        metrics = known.get(version) or measure_version(version, crew.testers, settings, yardstick)
    notes = {"candidate": ended.version, "state": ended.state, "reason": ended.reason, **tally}
    num_labels = number * settings.labels
    return RoundRecord(version, ended.state == "promoted", metrics, num_labels, seconds, notes)


def wait_for_stock(admin: HeedClient, wanted: int) -> int:
    """Wait until that many pairs are open, or until no more come; returns how many there are."""
    most, grew_at = -1, time.monotonic()
    while time.monotonic() - grew_at < SCARCE_S:
        num_open = admin.count_open_pairs()
        if num_open >= wanted:
            return num_open
        if num_open > most:
            most, grew_at = num_open, time.monotonic()
        time.sleep(LOOK_AGAIN_S)
    return most


def collect_labels(number: int, crew: Crew, settings: LoopSettings) -> dict[str, object]:
    """One round's labels of the chosen kind; returns what the record should note about them."""
    if settings.feedback == "pairs":
        return {"ties": collect_judgements(crew.people, settings.labels)}
    prompts = train_prompts(settings.rounds * settings.labels, settings.seed)
    batch = prompts[(number - 1) * settings.labels : number * settings.labels]
    questions = draw_questions(batch, settings.seed, number)
    return {"desirable": collect_ratings(crew.people, questions, settings.max_tokens)}


def watch_round(admin: HeedClient, seconds: dict[str, float]) -> RoundView:
    """Start a round and wait for its end; the time is booked under the states it was seen in."""
    seen = admin.start_round()
    while seen.state in RUNNING_STATES:
        with timed(seconds, seen.state):
            time.sleep(LOOK_AGAIN_S)
            seen = admin.read_round(seen.round_id)
    return seen


def print_round(
    number: int, yardstick: Yardstick, record: RoundRecord, guides: dict[str, RoundRecord]
) -> None:
    """One round's table: the base, what is live now, the guide's recipe, and the ceiling."""
    notes = record.notes
    print(f"\nround {number}: candidate {notes['candidate']} {notes['state']}, {record.version} is live")
    print(f"{record.labels} labels so far; {format_seconds(record.seconds)}")
    records = {record.version: record} | guides
    print(format_table(_columns(yardstick, records)), flush=True)
    for name, guide in guides.items():
        if "error" in guide.notes:
            print(f"{name}: {guide.notes['error']}", flush=True)


def print_outcome(outcome: Outcome) -> None:
    """All rounds side by side, how the guide's recipe fared, and each promise with its verdict."""
    taste = TASTES[outcome.settings.taste]
    ours = {f"{number}: {record.version}": record for number, record in enumerate(outcome.rounds, start=1)}
    print(f"\nall rounds; taste {taste.name!r}: {taste.says}")
    print(format_table(_columns(outcome.yardstick, ours)))
    for name, records in outcome.guides.items():
        print(f"\n{name}, first learning rate {records[0].notes['learning_rate']}:")
        print(format_table(_columns(outcome.yardstick, {record.version: record for record in records})))
        print(describe_guide(outcome.yardstick.base, records))
    print()
    for check in outcome.checks:
        print(f"{'PASS' if check.holds else 'FAIL'}  {check.says}")
    print()


def _columns(yardstick: Yardstick, records: dict[str, RoundRecord]) -> list[Column]:
    middle = [Column(title, record.metrics, record.labels) for title, record in records.items()]
    return [Column("base", yardstick.base, 0), *middle, Column("best of 8", yardstick.best_of_8)]


@contextmanager
def open_service(arguments: argparse.Namespace, settings: LoopSettings) -> Iterator[tuple[str, str]]:
    """The address and the admin token of the service to measure: the one named, or one of our own."""
    if arguments.url:
        yield arguments.url, arguments.token
        return
    with ExitStack() as stack:
        folder = arguments.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heed-loop-")))
        say(f"starting a service in {folder}")
        yield stack.enter_context(run_service(folder, settings.environment()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    arguments = parse_arguments(argv)
    try:
        settings = read_settings(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with open_service(arguments, settings) as (url, token):
        outcome = run_loop(settings, url, token)
    print_outcome(outcome)
    line = json.dumps(outcome.as_json())
    print(line)
    if arguments.out:
        arguments.out.write_text(line + "\n", "utf-8")
    return 1 if arguments.strict and not all(check.holds for check in outcome.checks) else 0


if __name__ == "__main__":
    # Ended from outside, it still stops the service it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise SystemExit(main())
