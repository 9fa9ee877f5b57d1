"""The admin page: numbers, rounds, versions, people and prompts, read again while somebody looks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import gradio as gr

from annotate.auth import require
from annotate.pages.faults import explain
from annotate.pages.panels import say, write_tiles
from annotate.pages.people import PeopleSection
from annotate.pages.rounds import RoundSection
from annotate.pages.top_bar import top_bar, write_account, write_links
from annotate.pages.versions import VersionSection
from annotate.services import Services
from store.judgements import count_judgements
from store.people import read_people
from store.policies import live_version
from store.snapshots import count_labels
from store.tasks import count_open_tasks

POLL_S = 2.0


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    with gr.Blocks(title="Admin · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Admin")
        with gr.Column(elem_id="page"):
            says = gr.HTML("", js_on_load=None, elem_id="admin-says")
            counts = gr.HTML("", js_on_load=None, elem_id="counts")
            rounds, versions, people = (
                RoundSection(services),
                VersionSection(services),
                PeopleSection(services),
            )
        overview = Overview(services, (links, account, says, counts), rounds, versions, people)
        overview.wire(page)
    return page


class Overview:
    """Fills the whole page and keeps it fresh."""

    def __init__(
        self,
        services: Services,
        parts: tuple[Any, Any, Any, Any],
        rounds: RoundSection,
        versions: VersionSection,
        people: PeopleSection,
    ) -> None:
        self._services = services
        self._links, self._account, self._says, self._counts = parts
        self._rounds, self._versions, self._people = rounds, versions, people

    def wire(self, page: Any) -> None:
        """Bind loading, polling and every section's buttons."""
        quietly = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        outputs = [
            self._links, self._account, self._says, self._counts,
            *self._rounds.outputs, *self._versions.outputs, *self._people.outputs,
        ]  # fmt: skip
        seen = [self._rounds.drawn, self._versions.listed, self._people.listed]
        page.load(self.open, None, outputs, **quietly)
        gr.Timer(POLL_S).tick(self.poll, seen, outputs, **quietly)
        for section in (self._rounds, self._versions, self._people):
            section.wire(quietly)

    def open(self, request: gr.Request) -> dict[Any, Any]:
        """Fill the top bar and every section."""
        try:
            person = require(request.request, "admin")
            bar = {self._links: write_links("Admin", person.role)}
        except Exception as error:
            return self._refuse(error)
        return bar | self.poll("", "", "", request)

    def poll(
        self, drawn: str, versions_listed: str, people_listed: str, request: gr.Request
    ) -> dict[Any, Any]:
        """Everything that changes by itself; what the browser already has is named, and not sent again."""
        try:
            person = require(request.request, "admin")
            live = live_version(self._services.store)
            return {
                self._says: "",
                self._account: write_account(person, live),
                self._counts: write_tiles(self._count(live)),
                **self._rounds.read(drawn),
                **self._versions.read(versions_listed),
                **self._people.read(people_listed),
            }
        except Exception as error:
            return self._refuse(error)

    def _count(self, live: str) -> list[tuple[str, str]]:
        store = self._services.store
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        today = sum(
            count_judgements(store, person.person_id, since=midnight) for person in read_people(store)
        )
        labels = count_labels(store)
        return [
            (str(today), "judged today"),
            (str(labels.pairs), "pairs to train on"),
            (str(labels.ratings), "ratings to train on"),
            (str(count_open_tasks(store, "pair") + count_open_tasks(store, "single")), "open tasks"),
            (live, "live version"),
        ]

    def _refuse(self, error: Exception) -> dict[Any, Any]:
        return {self._says: say(explain(error, "read this page"), is_bad=True)}
