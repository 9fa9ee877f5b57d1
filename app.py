"""Heed's front door: settings in, parts built, schedule set, pages and API mounted.

Nothing heavy is imported at the top, so that `python app.py --help` answers at once. The rooms never import
each other; what one needs of another is handed over in `build_service`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import OFFLINE, read_settings, stop

if TYPE_CHECKING:
    from annotate.services import Services
    from serving.in_process import InProcessEngine
    from serving.policies import PolicyBoard
    from serving.rollouts import RolloutFiller
    from settings import ServeSettings
    from store.backup_keeper import BackupKeeper
    from store.database import Store
    from trainer.supervisor import RoundSupervisor

logger = logging.getLogger("heed")

STARTER = Path(__file__).parent / "serving" / "starter"
TICK_S = 15


@dataclass(frozen=True, slots=True)
class Service:
    """The running parts, in the order they were built; `close` takes them down in the opposite order."""

    store: Store
    engine: InProcessEngine
    board: PolicyBoard
    filler: RolloutFiller
    supervisor: RoundSupervisor
    backups: BackupKeeper | None
    services: Services

    def close(self) -> None:
        if self.services.judge is not None:
            self.services.judge.close()
        self.services.synthetic.close()
        self.filler.stop()
        if self.backups is not None:
            self.backups.close()
        self.supervisor.close()
        self.engine.close()
        self.store.close()


def build_service(settings: ServeSettings) -> Service:
    """Open the store, load the base and the live policy, and connect the rooms."""
    from serving.adapters import publish
    from serving.in_process import InProcessEngine
    from serving.policies import PolicyBoard
    from serving.rollouts import RolloutFiller
    from store.database import Store
    from store.records import Promotion
    from trainer.supervisor import RoundSupervisor

    store = Store.open(settings.data, queue=settings.tasks())
    try:
        engine = InProcessEngine(settings.base())
        policies = settings.data / "policies"
        board = PolicyBoard(store, engine, policies)
        board.start()
        beta = settings.plan().trainer.beta
        filler = RolloutFiller(store, board.sample, settings.rollouts(), score=board.score, beta=beta)

        def promote(version: str, actor: str, reason: str) -> Promotion:
            promotion = board.promote(version, actor, reason)
            filler.wake()  # what waits to be judged should come from the new policy
            return promotion

        def roll_back(actor: str, version: str | None, reason: str) -> Promotion:
            promotion = board.roll_back(actor, version, reason)
            filler.wake()
            return promotion

        supervisor = RoundSupervisor(
            store,
            settings.plan(),
            publish=lambda candidate, version: publish(candidate, policies, version),
            promote=promote,
            adapter_of=board.adapter_of,
        )
        supervisor.recover()
        backups = _backup_keeper(settings, store)
        services = _services(settings, store, board, filler, supervisor, backups, promote, roll_back)
    except BaseException:
        store.close()
        raise
    return Service(store, engine, board, filler, supervisor, backups, services)


def _backup_keeper(settings: ServeSettings, store: Store) -> BackupKeeper | None:
    from store.backup_keeper import BackupKeeper

    if not settings.backup_hours:
        return None
    return BackupKeeper(store, settings.backups(), timedelta(hours=settings.backup_hours))


def _services(
    settings: ServeSettings,
    store: Store,
    board: PolicyBoard,
    filler: RolloutFiller,
    supervisor: RoundSupervisor,
    backups: BackupKeeper | None,
    promote: Callable[..., Any],
    roll_back: Callable[..., Any],
) -> Services:
    from functools import partial

    from annotate.judge.desk import JudgeDesk
    from annotate.services import Services
    from annotate.synthetic import SyntheticDesk
    from trainer.planner import explain

    triggers, judging = settings.plan().triggers, settings.judging()
    return Services(
        store=store,
        sample=board.sample,
        loaded_versions=board.loaded_versions,
        promote=promote,
        roll_back=roll_back,
        start_round=lambda actor, without=(): supervisor.start(f"by hand: {actor}", without),
        cancel_round=supervisor.cancel,
        explain_round=lambda: explain(store, triggers),
        read_progress=supervisor.read_progress,
        read_gate=supervisor.read_gate,
        read_log=supervisor.read_log,
        is_ready=board.is_ready,
        synthetic=SyntheticDesk(store, partial(board.sample, background=True)),
        judge=JudgeDesk(store, judging) if judging.url else None,
        write_metrics=lambda: write_metrics(store, board, backups),
        settings=settings.web(),
        quality=settings.qualities(),
        backup_folder=settings.backups(),
        read_backup_status=backups.read_status if backups else None,
        show_settings=settings.masked,
        annotation=settings.annotations(),
        writing=lambda: filler.writing,
    )


def write_metrics(store: Store, board: PolicyBoard, backups: BackupKeeper | None) -> str:
    """The state of the loop in Prometheus's text format, read fresh at every scrape."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    from store.rounds import running_round
    from store.snapshots import count_labels
    from store.tasks import count_open_tasks

    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float, **labels: str) -> None:
        metric = Gauge(f"heed_{name}", text, labelnames=list(labels), registry=registry)
        (metric.labels(**labels) if labels else metric).set(value)

    labels, health = count_labels(store), store.health()
    gauge("labels_pairs", "usable preference pairs", labels.pairs)
    gauge("labels_ratings", "usable ratings of single answers", labels.ratings)
    gauge("open_pairs", "pairs waiting for an annotator", count_open_tasks(store, "pair"))
    gauge("open_singles", "single answers waiting for an annotator", count_open_tasks(store, "single"))
    gauge("round_running", "1 while a round runs", running_round(store) is not None)
    gauge("live_version", "1 for the version that is live", 1, version=board.resolve("live"))
    gauge("store_ok", "1 while the store accepts writes", bool(health["ok"]))
    gauge("store_rebuilds", "times the tables were rebuilt from the journal", float(str(health["rebuilt"])))
    if backups is not None:
        status = backups.read_status()
        age_s = float("inf") if status.age_s is None else status.age_s
        gauge("backup_age_seconds", "since the newest good backup held everything; +Inf: none yet", age_s)
        gauge("backup_failed", "1 while the last try to make a backup failed", bool(status.last_failure))
    return generate_latest(registry).decode()


def load_prompts(store: Store, path: Path, source: str) -> None:
    """Give an empty store something to ask about: a list of prompts in any file `import` reads."""
    from store.importing import import_file
    from store.prompts import count_prompts

    if count_prompts(store):
        return
    done = import_file(store, path, "prompts", source=source)
    logger.info("%d prompts from %s", done.added, path.name)


def admin_link(store: Store, settings: ServeSettings) -> str:
    """A one-time sign-in link for the first active admin, who is created at the first start."""
    from store.people import add_person, read_people
    from store.sessions import make_sign_in_link

    admins = [p for p in read_people(store) if p.role == "admin" and p.active and p.name != "automation"]
    admin = admins[0] if admins else add_person(store, "admin", "admin").person
    token = make_sign_in_link(store, admin.person_id)
    return f"http://{settings.shown_host()}:{settings.port}/login?token={token}"


@contextlib.contextmanager
def ticking(supervisor: RoundSupervisor, backups: BackupKeeper | None) -> Iterator[None]:
    """APScheduler only ticks; what is due is decided from the store, so a missed tick loses nothing."""
    from apscheduler.schedulers.background import BackgroundScheduler

    def tick() -> None:
        try:
            supervisor.tick()
        except Exception:
            logger.exception("the scheduler's tick failed; the next one is in %d s", TICK_S)

    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(
        tick, "interval", seconds=TICK_S, id="tick", misfire_grace_time=None, coalesce=True, max_instances=1
    )
    if backups is not None:  # in a thread of its own: a round must not wait for a backup
        scheduler.add_job(
            backups.tick, "interval", seconds=TICK_S, id="backup", misfire_grace_time=None, coalesce=True
        )
    scheduler.start()
    try:
        yield
    finally:
        scheduler.shutdown(wait=False)


def serve(argv: list[str]) -> None:
    """Start the service."""
    settings = read_settings(argv, "serve")
    # Before torch is imported: idle OpenMP threads must not spin against a round on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if settings.model is None or Path(settings.model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if settings.model is None:
        os.environ.setdefault("TQDM_DISABLE", "1")  # a bar for a model that loads in 0.1 s says nothing
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    # It warns, at import, of a faster 4-bit kernel on the hub that we must not fetch.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import uvicorn

    from annotate.web import build_app

    service = build_service(settings)
    try:
        source = settings.prompts or (STARTER / "prompts.jsonl" if settings.model is None else None)
        if source is not None:
            load_prompts(service.store, source, source="starter" if settings.model is None else source.name)
        web = build_app(service.services)
        gc.freeze()  # what stands now lives as long as the process: a collection need not walk it
        service.filler.start()
        print(
            f"\nHeed serves {settings.model or 'the starter policy'}. Sign in as admin, once, with this link:"
        )
        print(f"\n    {admin_link(service.store, settings)}\n", flush=True)
        # uvicorn drains on SIGTERM and then raises it again, which would end us before the parts are closed.
        signal.signal(signal.SIGTERM, lambda *_: None)
        with ticking(service.supervisor, service.backups), contextlib.suppress(KeyboardInterrupt):
            uvicorn.run(
                web, host=settings.host, port=settings.port, log_level="warning", timeout_graceful_shutdown=20
            )
    finally:
        service.close()


def show_config(argv: list[str]) -> None:
    """Print the effective settings as JSON, secrets masked."""
    print(json.dumps(read_settings(argv, "config").masked(), indent=2, default=str))


COMMANDS: dict[str, Callable[[list[str]], None]] = {"serve": serve, "config": show_config, **OFFLINE}


def main(argv: list[str] | None = None) -> None:
    """`app.py COMMAND …`; each command has its own --help."""
    argv = sys.argv[1:] if argv is None else argv
    lines = "\n".join(f"  {name:<12} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Heed: people rate what a model says, and it learns from them.",
        epilog=f"commands:\n{lines}\n\n`app.py COMMAND --help` lists a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    args = parser.parse_args(argv[:1])
    from store.errors import HeedError

    try:
        COMMANDS[args.command](argv[1:])
    except HeedError as error:
        stop(f"heed: {error}")


if __name__ == "__main__":
    main()
