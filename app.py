"""Heed's front door: settings in, parts built, schedule set, pages and API mounted.

Nothing heavy is imported at the top, so that `python app.py --help` answers at once. The parts are connected
in building.py.
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
from pathlib import Path
from typing import TYPE_CHECKING

from commands import OFFLINE, read_settings, stop

if TYPE_CHECKING:
    from building import Service
    from settings import ServeSettings
    from store.database import Store

logger = logging.getLogger("heed")

STARTER = Path(__file__).parent / "serving" / "starter"
TICK_S = 15


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
def ticking(service: Service) -> Iterator[None]:
    """APScheduler only ticks; what is due is decided from the store, so a missed tick loses nothing."""
    from apscheduler.schedulers.background import BackgroundScheduler

    def tick() -> None:
        try:
            service.parts.supervisor.tick()
        except Exception:
            logger.exception("the scheduler's tick failed; the next one is in %d s", TICK_S)

    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(
        tick, "interval", seconds=TICK_S, id="tick", misfire_grace_time=None, coalesce=True, max_instances=1
    )
    scheduler.add_job(
        service.parts.board.look_at_files,
        "interval",
        seconds=TICK_S,
        id="files",
        misfire_grace_time=None,
        coalesce=True,
    )
    if service.parts.backups is not None:  # in a thread of its own: a round must not wait for a backup
        scheduler.add_job(
            service.parts.backups.tick,
            "interval",
            seconds=TICK_S,
            id="backup",
            misfire_grace_time=None,
            coalesce=True,
        )
    scheduler.add_job(
        service.parts.canary.tick,
        "interval",
        seconds=TICK_S,
        id="canary",
        misfire_grace_time=None,
        coalesce=True,
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
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request to vLLM
    # It warns, at import, of a faster 4-bit kernel on the hub that we must not fetch.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import uvicorn

    from annotate.web import build_app
    from building import build_service

    service = build_service(settings)
    try:
        source = settings.prompts or (STARTER / "prompts.jsonl" if settings.model is None else None)
        if source is not None:
            load_prompts(
                service.parts.store, source, source="starter" if settings.model is None else source.name
            )
        web = build_app(service.services)
        gc.freeze()  # what stands now lives as long as the process: a collection need not walk it
        service.parts.filler.start()
        print(
            f"\nHeed serves {settings.model or 'the starter policy'}. Sign in as admin, once, with this link:"
        )
        print(f"\n    {admin_link(service.parts.store, settings)}\n", flush=True)
        # uvicorn drains on SIGTERM and then raises it again, which would end us before the parts are closed.
        signal.signal(signal.SIGTERM, lambda *_: None)
        with ticking(service), contextlib.suppress(KeyboardInterrupt):
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
