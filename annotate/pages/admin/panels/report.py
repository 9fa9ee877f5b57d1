"""The data report's findings as a table, the ones to act on first."""

from __future__ import annotations

from collections.abc import Sequence

from annotate.pages.admin.panels.pieces import badge, count, note, table
from annotate.pages.text import plain
from store.data_checks import Finding
from store.data_report import DataReport

_ORDER = {"bad": 0, "look": 1, "ok": 2}
_WORDS = {"bad": ("act", "bad"), "look": ("look", "warn"), "ok": ("fine", "good")}
_VERDICTS = {
    "bad": "Something here spoils training: act on it before the next round.",
    "look": "Nothing here spoils training for sure; some of it is worth a look.",
    "ok": "Nothing found that would spoil training.",
}


def write_report(report: DataReport) -> str:
    """The verdict in a sentence, then a row a finding."""
    counted = f"{count(report.num_pairs, 'pair')} and {count(report.num_ratings, 'rating')}."
    head = f'<p class="verdict">{_badge(report.verdict)} {plain(_VERDICTS[report.verdict])} {counted}</p>'
    findings = sorted(report.findings, key=lambda finding: _ORDER[finding.verdict])
    open_ones = [finding for finding in findings if finding.verdict != "ok"]
    fine = [finding for finding in findings if finding.verdict == "ok"]
    shown = _write_table(open_ones, "Findings") if open_ones else ""
    if fine:
        folded = _write_table(fine, "What is fine")
        told = f"{count(len(fine), 'check')} found nothing"
        shown += f"<details class=panel><summary>{told}</summary>{folded}</details>"
    notes = "".join(note(each[:1].upper() + each[1:] + ".") for each in report.notes)
    return head + shown + notes


def _write_table(findings: Sequence[Finding], label: str) -> str:
    rows = [
        [
            _badge(finding.verdict),
            f"<b>{plain(finding.name)}</b>",
            plain(_write_value(finding)),
            plain(finding.threshold),
            plain(finding.says),
        ]
        for finding in findings
    ]
    return table(("Verdict", "Check", "Value", "Fine", "What it means and what to do"), rows, label)


def _badge(verdict: str) -> str:
    return badge(*_WORDS[verdict])


def _write_value(finding: Finding) -> str:
    return f"{finding.value:,.0f}" if float(finding.value).is_integer() else f"{finding.value:.2f}"
