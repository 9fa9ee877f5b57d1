"""Outside labels by source, the AI judge and synthetic pairs, as HTML."""

from __future__ import annotations

from collections.abc import Mapping

from annotate.judge.desk import JudgeRun, JudgeStatus
from annotate.pages.admin.panels.pieces import badge, bar, count, figures, note, table
from annotate.pages.text import plain
from annotate.synthetic import SyntheticRun


def write_sources(sources: Mapping[str, int]) -> str:
    """Where labels come from that nobody gave here, the biggest source first."""
    if not sources:
        return note("None yet: import a file, let an AI judge rate pairs, or make synthetic pairs.")
    rows = [[f"<code>{plain(source)}</code>", f"{many:,}"] for source, many in sources.items()]
    return table(("Source", "Labels"), rows, label="Outside sources")


def write_judge(status: JudgeStatus | None) -> str:
    """Agreement with people first, then what was spent and what is left."""
    if status is None:
        return note("No judge is set up. Start with --judge.url and --judge.model to let one rate pairs.")
    spent = [
        f"<span>calls today <b>{status.calls_today:,}</b>, {status.left_today:,} left</span>",
        f"<span>calls in all <b>{status.calls_total:,}</b>, {status.left_total:,} left</span>",
        f"<span>labels <b>{status.labels:,}</b></span>",
        *(f"<span>{plain(name)} <b>{many:,}</b></span>" for name, many in status.verdicts.items()),
    ]
    says = plain(status.agreement.says)
    head = f'<p class="verdict"><code>{plain(status.source)}</code> against people: {says}</p>'
    return head + figures(spent) + (_write_judge_run(status.run) if status.run else "")


def write_synthetic(run: SyntheticRun | None) -> str:
    """The order in the making, or the last one since the start."""
    if run is None:
        return note("None were made since the start.")
    done = [
        f"<span>prompts <b>{run.done}/{run.prompts}</b></span>",
        f"<span>added <b>{run.added}</b></span>",
        f"<span>known <b>{run.known}</b></span>",
        f"<span>identical answers <b>{run.identical}</b></span>",
        f"<span>empty <b>{run.empty}</b></span>",
        f"<span>cut off <b>{run.unfinished}</b></span>",
    ]
    share = run.done / run.prompts if run.prompts else 0.0
    head = f'<p class="verdict">{_state(run.is_running)} <code>{plain(run.source)}</code></p>'
    return head + bar(share, "Synthetic pairs made") + figures(done) + _ended(run.ended)


def _write_judge_run(run: JudgeRun) -> str:
    done = [
        f"<span>pairs <b>{run.done}/{run.pairs}</b></span>",
        f"<span>labels <b>{run.labels}</b></span>",
        f"<span>ties <b>{run.ties}</b></span>",
        f"<span>unreadable <b>{run.unreadable}</b></span>",
        f"<span>failed <b>{run.failed}</b></span>",
        f"<span>{count(run.calls, 'call')}</span>",
    ]
    share = run.done / run.pairs if run.pairs else 0.0
    head = f'<p class="verdict">{_state(run.is_running)} the newest run</p>'
    return head + bar(share, "Pairs judged") + figures(done) + _ended(run.ended)


def _state(is_running: bool) -> str:
    return badge("running", "busy") if is_running else badge("over", "")


def _ended(why: str) -> str:
    return note(f"Ended: {why}.") if why else ""
