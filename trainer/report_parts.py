"""The parts of a round's report that the admin page shows too: curves, what they mean, a table of numbers.

HTML without scripts; everything that came from a file is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.charts import STYLE, Chart, Curve, draw_chart, write_number
from trainer.curves import Line, StageCurves, read_stages
from trainer.diagnosis import diagnose
from trainer.findings import Finding, Told, loss_at_zero_margin, read_told

WIDE = 5  # columns; so many do not fit a phone, and the table scrolls inside itself
BADGES = {"serious": "bad", "warning": "warn", "note": "busy", "good": "good"}
WORDS = {"serious": "serious", "warning": "warning", "note": "note", "good": "healthy"}
STAGES = {"dpo": "DPO on pairs", "kto": "KTO on ratings", "sft": "SFT on demonstrations"}

# Key, title, what it shows, and its curves: metric and name. What was not logged is not drawn.
PLOTS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...]], ...] = (
    ("loss", "Loss", "Falls from where chosen and rejected are equally likely.",
     (("loss", "training"), ("loss/preference", "preference part"), ("eval_loss", "held out"))),
    ("margin", "Reward margin", "Chosen reward minus rejected reward; should rise.",
     (("rewards/margins", "training"), ("", ""), ("eval_rewards/margins", "held out"))),
    ("rewards", "Rewards", "Beta times the log-ratio of policy and reference.",
     (("rewards/chosen", "chosen"), ("rewards/rejected", "rejected"))),
    ("accuracy", "Accuracy", "The share of pairs whose chosen answer has the higher reward.",
     (("rewards/accuracies", "training"), ("", ""), ("eval_rewards/accuracies", "held out"))),
    ("drift", "Drift from the reference", "The log-ratio a token, in nats.",
     (("drift/chosen", "chosen"), ("drift/rejected", "rejected"))),
    ("kl", "KL", "The library's estimate of the KL from the reference, in nats an answer.", (("kl", "KL"),)),
    ("entropy", "Entropy", "At the answers' tokens, in nats.", (("entropy", "entropy"),)),
    ("rate", "Learning rate", "What each step's size is multiplied with.", (("learning_rate", "rate"),)),
    ("norm", "Gradient norm", "Before clipping.", (("grad_norm", "norm"),)),
    ("lengths", "Answer lengths", "Tokens an answer, averaged over a batch.",
     (("lengths/chosen", "chosen"), ("lengths/rejected", "rejected"))),
    ("speed", "Speed", "Tokens a second, prompts among them.", (("tokens_per_s", "tokens/s"),)),
)  # fmt: skip


def write_curves(
    lines: Sequence[Line], plan: Mapping[str, Any], gate: Mapping[str, Any] | None, prefix: str = "round"
) -> str:
    """Each stage that trained: what its curves mean, the curves, their numbers. Empty before the first
    step."""
    stages = read_stages(lines)
    if not stages:
        return ""
    parts = [
        _write_stage(stage, read_told(stage, plan, gate, number == 0), f"{prefix}-{number}")
        for number, stage in enumerate(stages)
    ]
    return f"<style>{STYLE}{FINDINGS_STYLE}</style>{''.join(parts)}"


def _write_stage(stage: StageCurves, told: Told, prefix: str) -> str:
    name = STAGES.get(stage.name, stage.name)
    charts = "".join(draw_chart(chart, prefix) for chart in make_charts(stage, told))
    return (
        f"<section><h3>{html.escape(name)}: step {stage.last_step} of {stage.max_steps}</h3>"
        f'{write_findings(diagnose(stage, told))}<div class="charts">{charts}</div>'
        f'<details class="panel"><summary>These curves as numbers</summary>{write_numbers(stage)}</details>'
        "</section>"
    )


def make_charts(stage: StageCurves, told: Told) -> list[Chart]:
    """The plots of one stage, with the lines to compare them with."""
    at_zero = loss_at_zero_margin(told)
    # With a likelihood term the sum starts anywhere; the line belongs to the preference part.
    is_sum = bool(told.sft_weight) and not stage["loss/preference"]
    marks = {
        "loss": () if at_zero is None or is_sum else ((at_zero, f"{_name_start(told)} {at_zero:.3f}"),),
        "margin": ((0.0, ""),),
        "rewards": ((0.0, ""),),
        "drift": ((0.0, ""),),
        "accuracy": ((0.5, "guessing"),),
    }
    return [
        Chart(key, title, says, _pick(stage, told, wanted), marks.get(key, ()))
        for key, title, says, wanted in PLOTS
    ]


def _name_start(told: Told) -> str:
    return "ln 2" if abs((loss_at_zero_margin(told) or 0.0) - 0.6931) < 1e-3 else "equal at"


def _pick(stage: StageCurves, told: Told, wanted: Sequence[tuple[str, str]]) -> tuple[Curve, ...]:
    """Curves that were logged. The preference part is the loss itself unless something is added to it, and
    then the sum is left out: on one scale with it nothing could be seen."""
    has_parts = bool(told.sft_weight) and bool(stage["loss/preference"])
    left_out = "loss" if has_parts else "loss/preference"
    return tuple(
        Curve(label, stage[metric], 0 if metric == "loss/preference" else place)
        for place, (metric, label) in enumerate(wanted)
        if metric and metric != left_out and stage[metric]
    )


def write_findings(findings: Iterable[Finding]) -> str:
    """What the curves mean, as a list: title, numbers, meaning and advice."""
    items = "".join(
        f'<li class="{BADGES[f.severity]}"><div><span class="badge {BADGES[f.severity]}">{WORDS[f.severity]}'
        f"</span> <b>{html.escape(f.title)}</b></div>"
        f"<div>{html.escape(' '.join(part for part in (f.shows, f.means) if part))}</div>"
        + (f"<div><b>What to do:</b> {html.escape(f.advice)}</div>" if f.advice else "")
        + "</li>"
        for f in findings
    )
    return f'<ul class="findings">{items}</ul>'


def write_numbers(stage: StageCurves) -> str:
    """Every metric of a stage with its first, least, greatest and last value."""
    rows = [
        [
            name,
            *(write_number(v) for v in (s.first, min(s.values), max(s.values), s.last)),
            str(len(s.broken)),
        ]
        for name, s in sorted(stage.series.items())
        if s
    ]
    return write_table(
        ("Metric", "First", "Least", "Greatest", "Last", "Not finite"), rows, "Curves as numbers"
    )


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """A table of text that scrolls inside itself, by keyboard too."""
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    wide = " wide" if len(heads) >= WIDE else ""
    return (
        f'<div class="table{wide}" tabindex="0" role="region" aria-label="{html.escape(label, quote=True)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


FINDINGS_STYLE = """
.findings, .findings li { list-style: none !important; }
.findings { margin: 6px 0 12px; padding: 0; display: grid; gap: 8px; }
.findings li { border-left: 3px solid var(--line); padding: 2px 0 2px 12px; margin: 0; }
.findings li.bad { border-color: var(--bad); } .findings li.warn { border-color: var(--warn); }
.findings li.good { border-color: var(--good); } .findings li.busy { border-color: var(--a); }
.findings div { margin: 2px 0; font-size: 14px; color: var(--ink); max-width: 78ch; }
"""
