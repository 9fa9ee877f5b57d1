"""Connects the rooms: settings in, the running parts out.

The rooms never import each other; what one needs of another is handed over here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from annotate.judge.desk import JudgeDesk
from annotate.services import Services
from annotate.synthetic import SyntheticDesk
from metrics import Metrics
from serving.adapters import publish
from serving.canary import CanaryRouter
from serving.engine import Engine
from serving.opening import open_engine
from serving.policies import PolicyBoard
from serving.rollouts import RolloutFiller
from settings import ServeSettings
from store.backup_keeper import BackupKeeper
from store.database import Store
from store.records import Promotion
from trainer.planner import explain
from trainer.supervisor import RoundSupervisor


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs behind the pages, in the order it was built."""

    store: Store
    engine: Engine
    board: PolicyBoard
    canary: CanaryRouter
    filler: RolloutFiller
    supervisor: RoundSupervisor
    backups: BackupKeeper | None

    def promote(self, version: str, actor: str, reason: str) -> Promotion:
        """As `PolicyBoard.promote`, and everybody who must know of it does."""
        with self._telling():
            return self.board.promote(version, actor, reason)

    def roll_back(self, actor: str, version: str | None, reason: str) -> Promotion:
        """As `PolicyBoard.roll_back`, and everybody who must know of it does."""
        with self._telling():
            return self.board.roll_back(actor, version, reason)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.canary.refresh()  # also a promotion that was taken back has ended what was on trial
        self.filler.wake()  # what waits to be judged should come from the new policy

    def close(self) -> None:
        """Take everything down in the opposite order."""
        self.filler.stop()
        if self.backups is not None:
            self.backups.close()
        self.supervisor.close()
        self.engine.close()
        self.store.close()


@dataclass(frozen=True, slots=True)
class Service:
    """The running parts and what the web process is handed of them."""

    parts: Parts
    services: Services

    def close(self) -> None:
        """End everything; what was acknowledged is on disk already."""
        if self.services.judge is not None:
            self.services.judge.close()
        self.services.synthetic.close()
        self.parts.close()


def build_service(settings: ServeSettings) -> Service:
    """Open the store, load the base and the live policy, and connect the rooms; all of it or nothing."""
    with ExitStack() as undo:
        store = Store.open(settings.data, queue=settings.tasks())
        undo.callback(store.close)
        engine = open_engine(
            settings.base(), settings.batching(), settings.vllm(), settings.data / "vllm.log"
        )
        undo.callback(engine.close)
        policies = settings.data / "policies"
        board = PolicyBoard(store, engine, policies, base_name=settings.model or "the starter policy")
        board.start()
        beta = settings.plan().trainer.beta
        filler = RolloutFiller(store, board.sample, settings.rollouts(), score=board.score, beta=beta)
        canary = CanaryRouter(store, board, settings.canaries(), lambda *flip: parts.promote(*flip))
        canary.refresh()
        supervisor = RoundSupervisor(
            store,
            settings.plan(),
            publish=lambda candidate, version: publish(candidate, policies, version),
            promote=canary.take,
            adapter_of=board.adapter_of,
        )
        parts = Parts(store, engine, board, canary, filler, supervisor, _backup_keeper(settings, store))
        services = _hand_over(settings, parts)
        supervisor.recover()  # last: a resumed round may promote at once
        undo.pop_all()
    return Service(parts, services)


def _backup_keeper(settings: ServeSettings, store: Store) -> BackupKeeper | None:
    if not settings.backup_hours:
        return None
    return BackupKeeper(store, settings.backups(), timedelta(hours=settings.backup_hours))


def _hand_over(settings: ServeSettings, parts: Parts) -> Services:
    store, engine, board, canary = parts.store, parts.engine, parts.board, parts.canary
    supervisor, backups = parts.supervisor, parts.backups
    metrics = Metrics(
        store,
        engine.stats,
        live=lambda: board.live,
        count_degraded=lambda: len(board.problems()),
        read_backup_status=backups.read_status if backups else None,
        read_canary=canary.read_figures,
    )
    triggers, judging = settings.plan().triggers, settings.judging()
    return Services(
        store=store,
        sample=canary.sample,
        loaded_versions=board.loaded_versions,
        promote=parts.promote,
        roll_back=parts.roll_back,
        canary=canary,
        route=canary.route,
        rated=canary.rated,
        start_round=lambda actor, without=(), fresh=False: supervisor.start(
            f"by hand: {actor}", without, fresh
        ),
        cancel_round=supervisor.cancel,
        explain_round=lambda: explain(store, triggers),
        read_progress=supervisor.files.read_progress,
        read_gate=supervisor.files.read_gate,
        read_log=supervisor.files.read_log,
        draw_curves=supervisor.files.draw_curves,
        read_report=supervisor.files.write_report,
        is_ready=board.is_ready,
        read_problems=board.problems,
        synthetic=SyntheticDesk(store, partial(board.sample, background=True)),
        judge=JudgeDesk(store, judging) if judging.url else None,
        write_metrics=metrics.write,
        engine_stats=engine.stats,
        settings=settings.webs(),
        quality=settings.qualities(),
        backup_folder=settings.backups(),
        read_backup_status=backups.read_status if backups else None,
        show_settings=settings.masked,
        annotation=settings.annotations(),
        writing=lambda: parts.filler.writing,
    )
