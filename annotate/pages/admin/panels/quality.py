"""Agreement, bias and everybody's numbers, as HTML. Flags are sentences that suggest a look."""

from __future__ import annotations

from collections.abc import Sequence

from annotate.pages.admin.panels.pieces import badge, count, note, number, percent, table
from annotate.pages.text import plain
from store.agreement import Measure
from store.quality import PersonQuality, Quality
from store.queue_settings import QueueSettings

_HEADS = (
    "Name", "Judged", "Skipped", "Agrees with others", "Repeats alike", "Gold right", "Reliability", "Left",
    "Median", "Flags",
)  # fmt: skip
# Landis and Koch's words would promise too much; these say what to do.
_ALPHAS = (
    (0.8, "people agree well"),
    (0.667, "good enough for training; read the disputed tasks"),
    (0.4, "people see different things: sharpen the guidelines and settle the disputed tasks"),
    (-1.0, "little more than chance: before training, look at who and what the disagreement is about"),
)


def write_agreement(quality: Quality) -> str:
    """Alpha and the left share with what they mean."""
    alpha, left = quality.alpha, quality.left
    if alpha.value is None:
        told = plain(alpha.why[:1].upper() + alpha.why[1:] + ".")
        head = f'<p class="verdict">Agreement (Krippendorff\'s alpha): <b>–</b> {told}</p>'
    else:
        means = next(words for least, words in _ALPHAS if alpha.value >= least)
        head = (
            f'<p class="verdict">Agreement (Krippendorff\'s alpha): <b>{alpha.value:.2f}</b>, {means}. 1 is'
            f" full agreement, 0 what chance gives; from {count(alpha.n, 'task')} judged by two or more.</p>"
        )
    return head + _write_left(left) + _write_judges(quality.judges)


def write_queue(settings: QueueSettings, num_standing: int, num_off_policy: int) -> str:
    """The order in which tasks are handed out, what is slipped in, and how many labels are off-policy."""
    at_random, gold = percent(settings.random_share), percent(settings.gold_share)
    order = (
        f"Of the tasks handed out {at_random} come in any order and the others the most valuable first;"
        f" {gold} are gold and {percent(settings.repeat_share)} hidden repeats (--queue.* sets all three)."
    )
    if not num_standing:
        return note(order)
    share = percent(num_off_policy / num_standing)
    older = f"{num_off_policy:,} of {num_standing:,} judgements ({share}) are off-policy: about answers of a"
    return note(f"{order} {older} version that was not live any more.")


def write_people(people: Sequence[PersonQuality]) -> str:
    """A row a person, in the order of their first judgement."""
    if not people:
        return note("Nobody has judged anything yet. Invite annotators under People.")
    return table(_HEADS, [_write_person(person) for person in people], label="Quality by person")


def _write_person(person: PersonQuality) -> list[str]:
    out = "" if person.trained_on else f" {badge('left out', 'warn')}"
    flags = "".join(f"<li>{badge(*_split_flag(flag))}</li>" for flag in person.flags)
    return [
        f"<b>{plain(person.name)}</b>{out}",
        f"{person.num_judgements:,}",
        f"{person.num_skips:,}",
        _write_measure(person.agreement),
        _write_measure(person.consistency),
        _write_measure(person.gold),
        f'<span title="{plain(count(person.num_checked, "judgement"))} could be checked">'
        f"{number(round(person.reliability, 2)) if person.reliability is not None else '–'}</span>",
        _write_measure(person.left),
        "–" if person.median_ms is None else f"{person.median_ms / 1000:.1f} s",
        f"<ul class=flags>{flags}</ul>" if flags else "–",
    ]


def _split_flag(flag: str) -> tuple[str, str]:
    return flag[:1].upper() + flag[1:], "bad" if flag.startswith("adversarial") else "warn"


def _write_measure(measure: Measure) -> str:
    """The share with its interval as a line to look at; without a value a dash that says why."""
    if measure.value is None:
        return f'<span title="{plain(measure.why)}">–</span>'
    if measure.low is None or measure.high is None:
        return percent(measure.value)
    left, right = measure.low * 100, 100 - measure.high * 100
    said = f"{percent(measure.low)} to {percent(measure.high)}, {measure.n:,} counted"
    line = (
        f'<i class="range"><i style="left:{left:.0f}%;right:{right:.0f}%"></i>'
        f'<b style="left:{measure.value * 100:.0f}%"></b></i>'
    )
    return f'<span class="measure" title="{said}">{percent(measure.value)}{line}</span>'


def _write_left(left: Measure) -> str:
    if left.value is None or left.low is None or left.high is None:
        return note(left.why[:1].upper() + left.why[1:] + ".")
    is_even = left.low <= 0.5 <= left.high
    word = badge("even", "good") if is_even else badge("uneven", "warn")
    means = "" if is_even else " Sides are drawn at random, so somebody prefers a side: see the flags below."
    interval = f"{percent(left.low, 1)} to {percent(left.high, 1)}"
    return (
        f'<p class="verdict">Left answer chosen: <b>{percent(left.value, 1)}</b> ({interval}) {word}'
        f"{plain(means)}</p>"
    )


def _write_judges(judges: dict[str, Measure]) -> str:
    return "".join(
        f'<p class="verdict"><code>{plain(source)}</code> against people: kappa '
        f"<b>{number(None if kappa.value is None else round(kappa.value, 2))}</b> {plain(kappa.why)}"
        f" on {count(kappa.n, 'task')}</p>"
        for source, kappa in judges.items()
    )
