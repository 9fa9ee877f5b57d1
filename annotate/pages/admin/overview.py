"""The first tab: the numbers, what needs attention, the round that runs, why the next does not start yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import gradio as gr

from annotate.pages.admin.acting import SLOWLY, Update, acting, admin
from annotate.pages.admin.attention import Facts, free_mib, list_notices
from annotate.pages.admin.panels.overview import write_notices
from annotate.pages.admin.panels.pieces import say, tiles
from annotate.pages.admin.panels.rounds import Row, write_round, write_why
from annotate.pages.admin.watching import QualityWatch
from annotate.services import Services
from store.activity import count_by_person
from store.canaries import read_canaries
from store.people import read_people
from store.policies import live_version
from store.prompts import count_prompts
from store.records import RUNNING_STATES, Round
from store.rounds import read_rounds, running_round
from store.snapshots import count_labels
from store.tasks import count_open_tasks


class OverviewSection:
    """Lays itself out where it is made; `read` gives what changes by itself."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        self._watch = QualityWatch(services.store, services.quality)
        self._counts = gr.HTML("", js_on_load=None, elem_id="counts")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Needs attention</h2>", js_on_load=None)
            self._notices = gr.HTML("", js_on_load=None, elem_id="attention")
        with gr.Row(elem_classes=["two"]):
            with gr.Column(elem_classes=["card"]):
                gr.HTML("<h2>Current round</h2>", js_on_load=None)
                self._progress = gr.HTML("", js_on_load=None, elem_id="progress")
                self._cancel = gr.Button(
                    "Cancel round", variant="stop", size="md", visible="hidden", elem_id="cancel"
                )
            with gr.Column(elem_classes=["card"]):
                gr.HTML("<h2>Next training</h2>", js_on_load=None)
                self._why = gr.HTML("", js_on_load=None, elem_id="why")
                self._train = gr.Button("Train now", variant="primary", size="md", elem_id="train-now")
                self.says = gr.HTML("", js_on_load=None, elem_id="round-says")
        self.seen: list[Any] = []
        self.outputs = [self._counts, self._notices, self._progress, self._cancel, self._why, self._train]

    def wire(self) -> None:
        """Bind the two buttons."""
        self._train.click(self.train_now, None, [self.says, *self.outputs], **SLOWLY)
        self._cancel.click(self.cancel, None, [self.says, *self.outputs], **SLOWLY)

    def read(self) -> Update:
        """The whole tab as it is now."""
        now = datetime.now(UTC)
        rounds = read_rounds(self._services.store, limit=1)
        newest = rounds[0] if rounds else None
        progress: list[Row] = list(self._services.read_progress(newest.round_id)) if newest else []
        is_running = newest is not None and newest.state in RUNNING_STATES
        open_tasks = [count_open_tasks(self._services.store, kind) for kind in ("pair", "single")]
        return {
            self._counts: tiles(self._count(now, sum(open_tasks))),
            self._notices: write_notices(list_notices(self._read_facts(newest, sum(open_tasks)), now)),
            self._progress: write_round(newest, progress, now),
            self._cancel: gr.update(visible=True if is_running else "hidden"),
            self._train: gr.update(interactive=not is_running),
            self._why: write_why(self._services.explain_round()),
        }

    @acting("start a round")
    def train_now(self, request: gr.Request) -> Update:
        """Start a round by hand."""
        started = self._services.start_round(admin(request).name)
        return self.read() | {self.says: say(f"Round {started.round_id} started.")}

    @acting("cancel this round")
    def cancel(self, request: gr.Request) -> Update:
        """Stop the round that runs."""
        running = running_round(self._services.store)
        if running is None:
            return self.read() | {self.says: say("No round is running.")}
        self._services.cancel_round(running.round_id, admin(request).name)
        return self.read() | {self.says: say(f"Round {running.round_id} is being cancelled.")}

    def _count(self, now: datetime, num_open: int) -> list[tuple[str, str]]:
        store = self._services.store
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        today = sum(each.recent for each in count_by_person(store, midnight).values())
        labels = count_labels(store)
        return [
            (f"{today:,}", "judged today"),
            (f"{labels.pairs:,}", "pairs to train on"),
            (f"{labels.ratings:,}", "ratings to train on"),
            (f"{num_open:,}", "open tasks"),
            (live_version(store), "live version"),
        ]

    def _read_facts(self, newest: Round | None, num_open: int) -> Facts:
        store, read_status = self._services.store, self._services.read_backup_status
        counted = self._watch.read()
        return Facts(
            health=store.health(),
            free_mib=free_mib(store.data_dir),
            newest_round=newest,
            people=tuple(read_people(store)),
            num_prompts=count_prompts(store),
            num_open_tasks=num_open,
            newest_canary=next(iter(read_canaries(store, limit=1)), None),
            num_disputed=counted.num_disputed if counted else None,
            num_flagged=counted.num_flagged if counted else None,
            backups=read_status() if read_status else None,
            served=tuple(self._services.read_problems()),
        )
