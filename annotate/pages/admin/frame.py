"""The page around the tabs: which one is shown, and reading that one again while somebody looks.

A tab reads the store when it is opened and, if things change there by themselves, at every poll; the others
cost nothing. The address keeps the tab (`?tab=people`), so that a reload or a link opens it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, SLOWLY, Section, Update, acting, admin
from annotate.pages.admin.canary import CanarySection
from annotate.pages.admin.disputed import DisputedSection
from annotate.pages.admin.erasing import ErasingSection
from annotate.pages.admin.exporting import ExportSection
from annotate.pages.admin.gold import GoldSection
from annotate.pages.admin.guidelines import GuidelineSection
from annotate.pages.admin.importing import ImportSection
from annotate.pages.admin.judging import JudgeSection
from annotate.pages.admin.overview import OverviewSection
from annotate.pages.admin.people import PeopleSection
from annotate.pages.admin.prompts import PromptSection
from annotate.pages.admin.quality import QualitySection
from annotate.pages.admin.report import ReportSection
from annotate.pages.admin.rounds import RoundSection
from annotate.pages.admin.serving import ServingSection
from annotate.pages.admin.settings import SettingsSection
from annotate.pages.admin.sources import SourceSection
from annotate.pages.admin.synthetic import SyntheticSection
from annotate.pages.admin.training import TrainingSection
from annotate.pages.admin.versions import VersionSection
from annotate.pages.top_bar import top_bar, write_account, write_links
from annotate.services import Services
from store.policies import live_version

POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Layout:
    """A tab: its place in the address, its name, its parts."""

    tab: str
    label: str
    parts: tuple[Callable[[Services], Section], ...]


DATA = (
    ReportSection,
    ImportSection,
    ExportSection,
    SourceSection,
    JudgeSection,
    SyntheticSection,
    PromptSection,
)
QUALITY = (QualitySection, DisputedSection, partial(TrainingSection, name="quality"), GoldSection)
LAYOUTS = (
    Layout("overview", "Overview", (OverviewSection, ServingSection)),
    Layout("rounds", "Rounds", (RoundSection,)),
    Layout("versions", "Versions", (VersionSection, CanarySection)),
    Layout("data", "Data", DATA),
    Layout("quality", "Quality", QUALITY),
    Layout("people", "People", (PeopleSection, partial(TrainingSection, name="person"), ErasingSection)),
    Layout("guidelines", "Guidelines", (GuidelineSection,)),
    Layout("settings", "Settings", (SettingsSection,)),
)

# Opening a tab puts it into the address and tells the server which one it is. The first tab opens by itself
# with the page: then the one that the address names is opened in its place.
_OPEN_JS = """(shown, ...seen) => {{
  const here = new URL(location), asked = here.searchParams.get('tab');
  const button = document.getElementById(`tab-${{asked}}-button`), isFirst = !window.heedTab;
  window.heedTab = '{tab}';
  if (isFirst && button && asked !== '{tab}') {{ button.click(); return ['', ...seen]; }}
  here.searchParams.set('tab', '{tab}'); history.replaceState(null, '', here);
  return ['{tab}', ...seen];
}}"""


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    with gr.Blocks(title="Admin · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Admin")
        with gr.Column(elem_id="page"):
            says = gr.HTML("", js_on_load=None, elem_id="admin-says")
            shown = gr.Textbox(visible="hidden", elem_id="tab-shown", label="Tab shown")
            sections: dict[str, list[Section]] = {}
            tabs: dict[str, Any] = {}
            with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
                for each in LAYOUTS:
                    with gr.Tab(each.label, id=each.tab, elem_id=f"tab-{each.tab}") as tabs[each.tab]:
                        sections[each.tab] = [part(services) for part in each.parts]
        Frame(services, (links, account), shown, says, sections).wire(page, tabs)
    return page


class Frame:
    """Fills the top bar and whichever tab is shown."""

    def __init__(
        self,
        services: Services,
        parts: tuple[Any, Any],
        shown: Any,
        says: Any,
        sections: dict[str, list[Section]],
    ) -> None:
        self._services = services
        self._links, self._account = parts
        self._shown, self.says = shown, says
        self._sections = sections

    def wire(self, page: Any, tabs: dict[str, Any]) -> None:
        """Bind loading, polling, the tabs and every section's buttons."""
        every = [section for sections in self._sections.values() for section in sections]
        outputs = [self._links, self._account, self.says, self._shown]
        outputs += [output for section in every for output in section.outputs]
        page.load(self.open, None, outputs, **QUIETLY)
        seen = [box for section in every for box in section.seen]
        gr.Timer(POLL_S).tick(self.poll, [self._shown, *seen], outputs, **QUIETLY)
        for name, tab in tabs.items():
            tab.select(self.show, [self._shown, *seen], outputs, js=_OPEN_JS.format(tab=name), **SLOWLY)
        for section in every:
            section.wire()

    @acting("open this page")
    def open(self, request: gr.Request) -> Update:
        """Fill the top bar; the tab that opens with the page fills itself."""
        return {self._links: write_links("Admin", admin(request).role)} | self._read("", request)

    @acting("read this tab")
    def show(self, tab: str, request: gr.Request, *seen: str) -> Update:
        """Fill the tab that was just opened."""
        return ({self._shown: tab} if tab in self._sections else {}) | self._read(tab, request, seen)

    @acting("read this page")
    def poll(self, tab: str, request: gr.Request, *seen: str) -> Update:
        """Everything on this tab that changes by itself; what the browser already has is not sent again."""
        return self._read(tab, request, seen, is_poll=True)

    def _read(self, tab: str, request: Any, seen: Sequence[str] = (), is_poll: bool = False) -> Update:
        update: Update = {
            self.says: "",
            self._account: write_account(admin(request), live_version(self._services.store)),
        }
        left = list(seen)
        for name, sections in self._sections.items():
            for section in sections:
                known, left = left[: len(section.seen)], left[len(section.seen) :]
                if name == tab and (section.is_polled or not is_poll):
                    update |= section.read(*known)
        return update
