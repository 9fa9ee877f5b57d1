"""The Data tab without a browser: the report, sources, the AI judge, synthetic pairs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from annotate.judge.agreement import Agreement
from annotate.judge.desk import JudgeRun, JudgeStatus
from annotate.pages.admin.judging import JudgeSection
from annotate.pages.admin.panels.report import write_report
from annotate.pages.admin.panels.sources import write_judge
from annotate.pages.admin.report import ReportSection
from annotate.pages.admin.sources import SourceSection
from annotate.pages.admin.synthetic import SyntheticSection
from store.data_checks import Finding
from store.data_report import DataReport
from store.database import Store
from store.outside import add_outside_labels, count_outside_labels
from store.people import Credentials
from store.records import OutsideLabel
from tests.annotate.pages import as_person, lay_out
from tests.fakes import make_services

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def root(people: dict[str, Credentials]) -> Any:
    return as_person(people["admin"].person)


def bring(store: Store, source: str, count: int) -> None:
    asked = ({"role": "user", "content": "Which?"},)
    add_outside_labels(
        store,
        [OutsideLabel("", "pair", source, asked, f"this {n}", NOW, rejected="that") for n in range(count)],  # type: ignore[arg-type]
    )


def test_findings_to_act_on_stand_open_and_fine_ones_are_folded() -> None:
    findings = (
        Finding("labels", 500, "at least 100", "ok", "enough"),
        Finding("identity <leaks>", 0.25, "0", "bad", "drop them"),
    )
    shown = write_report(DataReport("bad", 500, 0, findings, (), (), (), ("sampled",)))
    assert shown.index("identity &lt;leaks&gt;") < shown.index("<details") < shown.index("at least 100")
    assert "act on it before the next round" in shown
    assert "Sampled." in shown


def test_without_labels_the_report_says_when_there_will_be_one(store: Store) -> None:
    section = lay_out(ReportSection, make_services(store))
    assert "No labels yet" in str(section.read())


def test_a_source_is_dropped_only_after_the_question_said_how_much_goes(store: Store, root: Any) -> None:
    bring(store, "import:<trl>", 3)
    bring(store, "import:other", 1)
    section = lay_out(SourceSection, make_services(store))
    assert "import:&lt;trl&gt;" in str(section.read())
    assert "Pick a source first." in str(section.ask(None, root))
    assert "Drop 3 labels of import:&lt;trl&gt;?" in str(section.ask("import:<trl>", root))
    assert count_outside_labels(store)["import:<trl>"] == 3
    assert "3 labels of import:&lt;trl&gt; dropped." in str(section.drop("import:<trl>", root))
    assert count_outside_labels(store) == {"import:other": 1}


def test_without_a_judge_the_page_says_how_to_set_one_up(store: Store, root: Any) -> None:
    section = lay_out(JudgeSection, make_services(store))
    assert "--judge.url" in str(section.read())
    assert "No judge is set up" in str(section.run(5, root))
    assert "No judge is set up" in str(section.cancel(root))


def test_the_judge_is_shown_with_agreement_budget_and_its_run() -> None:
    run = JudgeRun(10, 4, 3, 1, 0, 0, 8, NOW, True)
    agreement = Agreement(20, 15, 0.5, 0.2, 0.8, "kappa 0.50 (0.20 to 0.80) on 20 common tasks")
    status = JudgeStatus("judge:<m>", 8, 80, 992, 19_920, 3, {"tie": 1}, agreement, run)
    shown = write_judge(status)
    assert "kappa 0.50" in shown
    assert "992 left" in shown
    assert "4/10" in shown
    assert "judge:&lt;m&gt;" in shown


def test_synthetic_pairs_need_two_prompts_that_differ(store: Store, root: Any) -> None:
    section = lay_out(SyntheticSection, make_services(store))
    assert "None were made since the start." in str(section.read())
    assert "are the same" in str(section.start("polite", "Be kind.", "Be kind.", 5, root))
    assert "must be 1 to 64" in str(section.start("Not a name!", "Be kind.", "Be rude.", 5, root))
    assert "there are no prompts" in str(section.start("polite", "Be kind.", "Be rude.", 5, root)).lower()
