"""The data report as a table for a terminal."""

from __future__ import annotations

import textwrap

from store.data_checks import Finding
from store.data_report import DataReport

WIDTH = 110


def show_report(report: DataReport) -> str:
    """Verdict, name, value and line of each check, what it says below, and the notes at the end."""
    findings = report.findings
    name_width = max(len(finding.name) for finding in findings)
    lines = [f"{report.num_pairs} pairs, {report.num_ratings} ratings: {report.verdict}", ""]
    for finding in findings:
        lines.append(
            f"{finding.verdict:<4}  {finding.name:<{name_width}}  {_value(finding):>8}  ({finding.threshold})"
        )
        lines += textwrap.wrap(finding.says, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _value(finding: Finding) -> str:
    return (
        f"{finding.value:.0f}"
        if finding.value == int(finding.value) and finding.value > 1
        else f"{finding.value:.3g}"
    )
