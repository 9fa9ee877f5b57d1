"""The checks of the data report, each a function from rows to findings, with its thresholds beside it.

A finding says what it found, where it draws the line, what that means and what to do.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median
from typing import Literal

from store.labels import prompt_digest
from store.records import Message, Split

Verdict = Literal["ok", "look", "bad"]

SHORT_CHARS = 10  # what guides to preference training count as no answer
UNFINISHED_CHARS = 40  # a shorter answer may well end without a full stop
FEW_LABELS = 100
FEW_RATINGS = 16  # of either class; below that KTO estimates its KL from next to nothing
BALANCE = (1.0, 4 / 3)  # desirable to undesirable, by weight: where TRL's KTOTrainer does not warn
_MODELS = "chatgpt|gpt-[345]|claude|gemini|llama|mistral|qwen|deepseek|bard|copilot"
_MAKERS = "openai|anthropic|google|meta|mistral|alibaba|deepseek|microsoft"
_LEAK = re.compile(
    r"\bas an? (?:(?:ai|artificial intelligence)\b|(?:large )?language model)"
    rf"|\b(?:i am|i'm|i’m|my name is|call me) (?:an? (?:ai|large language|language) |(?:{_MODELS})\b)"
    rf"|\bi (?:was|am) (?:developed|trained|created|made|built) by (?:{_MAKERS})\b"
    r"|\bmy (?:knowledge cut-?off|training data)\b",
    re.IGNORECASE,
)
_LOOSE = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One label as the report sees it: a pair (`rejected`) or a rating (`desirable`).

    `is_finished` is None where nobody recorded how the answer ended; `is_unsafe` is about the better answer.
    """

    messages: tuple[Message, ...]
    chosen: str
    rejected: str | None
    desirable: bool | None
    annotators: tuple[str, ...]
    created_at: datetime
    split: Split
    is_finished: bool | None = None
    is_unsafe: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `threshold` says where "ok" ends, `says` what the value means and what to do about it."""

    name: str
    value: float
    threshold: str
    verdict: Verdict
    says: str


def check_all(
    pairs: Sequence[LabelledRow], ratings: Sequence[LabelledRow], similarities: Sequence[float]
) -> Iterator[Finding]:
    """Every finding that these rows allow, in the order a person should read them."""
    rows = [*pairs, *ratings]
    yield _count(rows)
    if pairs:
        yield from _lengths(pairs)
        yield from _repetition(pairs)
        yield from _similarity(similarities)
    if rows:
        yield from _answers(rows)
        yield _both_splits(rows)
        yield _annotators(rows)
    if ratings:
        yield _balance(ratings)


def _count(rows: Sequence[LabelledRow]) -> Finding:
    verdict: Verdict = "bad" if not rows else "look" if len(rows) < FEW_LABELS else "ok"
    says = "enough to say something" if verdict == "ok" else "few labels: shares below move with every one"
    return Finding("labels", len(rows), f"at least {FEW_LABELS}", verdict, says)


def _lengths(pairs: Sequence[LabelledRow]) -> Iterator[Finding]:
    chosen = [len(row.chosen.split()) for row in pairs]
    rejected = [len((row.rejected or "").split()) for row in pairs]
    ratio = fmean(chosen) / max(fmean(rejected), 1)
    verdict = _grade(max(ratio, 1 / ratio if ratio else 9.0), 1.2, 1.5)
    yield Finding(
        "length ratio",
        ratio,
        "0.83 to 1.2; bad beyond 0.67 to 1.5",
        verdict,
        f"chosen answers have {fmean(chosen):.0f} words on average, rejected ones {fmean(rejected):.0f}"
        + (
            "" if verdict == "ok" else "; the model may learn length: balance the set or use a length penalty"
        ),
    )
    differ = [c > r for c, r in zip(chosen, rejected, strict=True) if c != r]
    longer = sum(differ) / len(differ) if differ else 0.5
    verdict = _grade(abs(longer - 0.5), 0.15, 0.3)
    yield Finding(
        "chosen is longer",
        longer,
        "0.35 to 0.65; bad beyond 0.2 to 0.8",
        verdict,
        "share of pairs whose better answer has more words, of those where the numbers differ"
        + (
            ""
            if verdict == "ok"
            else "; look whether people prefer length itself, and say so in the guidelines"
        ),
    )


def _repetition(pairs: Sequence[LabelledRow]) -> Iterator[Finding]:
    prompts = Counter(prompt_digest(row.messages) for row in pairs)
    repeated = sum(count for count in prompts.values() if count > 1) / len(pairs)
    yield Finding(
        "repeated prompts",
        repeated,
        "at most 0.5",
        _grade(repeated, 0.5, 1.01),
        f"share of pairs whose prompt comes more than once; {len(prompts)} different prompts in all",
    )
    identical = sum(row.chosen.strip() == (row.rejected or "").strip() for row in pairs)
    yield Finding(
        "identical pairs",
        identical,
        "0",
        "bad" if identical else "ok",
        "pairs whose two answers are the same" + ("; drop them, they only add noise" if identical else ""),
    )
    judged = [(prompt_digest(row.messages), row.chosen, row.rejected or "") for row in pairs]
    copies = (len(judged) - len(set(judged))) / len(judged)
    yield Finding(
        "duplicate pairs",
        copies,
        "at most 0.01; bad above 0.1, unless several people judge each pair",
        _grade(copies, 0.01, 0.1) if _judge_alone(pairs) else "ok",
        "share of pairs that repeat another one"
        + ("" if not copies else "; fine where several people judged the same, else drop the copies"),
    )
    distinct = {(prompt, *sorted((chosen, rejected))) for prompt, chosen, rejected in judged}
    verdicts = set(judged)
    torn = sum(c < r and (prompt, r, c) in verdicts for prompt, c, r in verdicts)
    share = torn / len(distinct)
    yield Finding(
        "label conflicts",
        share,
        "at most 0.05; bad above 0.2",
        _grade(share, 0.05, 0.2),
        f"{torn} of {len(distinct)} different pairs were judged both ways"
        + ("" if not torn else "; adjudicate them, or train on the probability instead of each vote"),
    )


def _similarity(similarities: Sequence[float]) -> Iterator[Finding]:
    alike = sum(value > 0.9 for value in similarities) / len(similarities)
    verdict = _grade(alike, 0.1, 0.2)
    yield Finding(
        "nearly equal pairs",
        alike,
        "at most 0.1; bad above 0.2",
        verdict,
        f"share of pairs more than 0.9 alike; the median pair is {median(similarities):.2f} alike"
        + ("" if verdict == "ok" else "; the signal is weak: sample answers at a higher temperature"),
    )
    unlike = sum(value < 0.1 for value in similarities) / len(similarities)
    yield Finding(
        "wholly different pairs",
        unlike,
        "at most 0.5",
        _grade(unlike, 0.5, 1.01),
        "share of pairs less than 0.1 alike: they teach the topic as much as the quality",
    )


def _answers(rows: Sequence[LabelledRow]) -> Iterator[Finding]:
    good = [row for row in rows if row.desirable is not False]
    texts = [text for row in rows for text in (row.chosen, row.rejected) if text is not None]
    empty = sum(not row.chosen.strip() for row in good)
    yield Finding(
        "empty better answers",
        empty,
        "0",
        "bad" if empty else "ok",
        "better answers without any text" + ("; drop them, they teach silence" if empty else ""),
    )
    short = sum(len(text.strip()) < SHORT_CHARS for text in texts) / len(texts)
    yield Finding(
        "short answers",
        short,
        "at most 0.05; bad above 0.3",
        _grade(short, 0.05, 0.3),
        f"share of all answers under {SHORT_CHARS} characters; fine where the task asks for short ones",
    )
    if not good:
        return
    unsafe = sum(row.is_unsafe for row in good)
    yield Finding(
        "unsafe better answers",
        unsafe,
        "0",
        "bad" if unsafe else "ok",
        "better answers somebody flagged as unsafe" + ("; look at each before a round" if unsafe else ""),
    )
    leaks = sum(_LEAK.search(row.chosen) is not None for row in good) / len(good)
    yield Finding(
        "identity leaks",
        leaks,
        "0; bad above 0.02",
        _grade(leaks, 0.0, 0.02),
        'share of better answers that speak as another model ("as an AI language model", a maker\'s name)'
        + ("; drop or edit them, or the model learns whose it is not" if leaks else ""),
    )
    unfinished = sum(_is_unfinished(row) for row in good) / len(good)
    is_guess = any(row.is_finished is None for row in good)
    yield Finding(
        "unfinished answers",
        unfinished,
        "at most 0.05; bad above 0.2, where it was recorded",
        _grade(unfinished, 0.05, 1.01 if is_guess else 0.2),
        "share of better answers cut off by the length limit"
        + (" (guessed from the last character where nobody recorded it)" if is_guess else "")
        + ("; raise the limit or drop them" if unfinished > 0.05 else ""),
    )


def _both_splits(rows: Sequence[LabelledRow]) -> Finding:
    seen: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        seen[_loose(row)].add(row.split)
    held_out = sum("holdout" in splits for splits in seen.values())
    both = sum(len(splits) > 1 for splits in seen.values())
    share = both / held_out if held_out else 0.0
    return Finding(
        "prompts in both splits",
        share,
        "0; bad above 0.05",
        _grade(share, 0.0, 0.05),
        f"{both} of {held_out} held-out prompts are also trained on, blind to case, blanks and punctuation"
        + ("; held-out numbers look better than they are: move them to one side" if both else ""),
    )


def _annotators(rows: Sequence[LabelledRow]) -> Finding:
    counts = Counter(name for row in rows for name in row.annotators)
    if not counts:
        return Finding(
            "largest annotator's share", 0.0, "at most 0.5", "ok", "the source names no annotators"
        )
    name, most = counts.most_common(1)[0]
    share = most / sum(counts.values())
    verdict = _grade(share, 0.5, 1.01) if len(counts) > 1 else "look"
    return Finding(
        "largest annotator's share",
        share,
        "at most 0.5",
        verdict,
        f"{len(counts)} annotators; {name} gave {most} labels"
        + (
            ""
            if verdict == "ok"
            else "; the model learns one person's taste: ask more people or cap the share"
        ),
    )


def _balance(ratings: Sequence[LabelledRow]) -> Finding:
    up = sum(row.desirable is True for row in ratings)
    down = len(ratings) - up
    low, high = BALANCE
    ratio = up / down if down else float(up)
    verdict: Verdict = "ok" if low <= ratio <= high else "look"
    advice = ""
    if min(up, down) < FEW_RATINGS:
        verdict = "bad"
        advice = f"; KTO needs at least {FEW_RATINGS} of each"
    elif ratio < low:
        advice = f"; train KTO with desirable_weight between {low / ratio:.2f} and {high / ratio:.2f}"
    elif ratio > high:
        advice = f"; train KTO with undesirable_weight between {ratio / high:.2f} and {ratio / low:.2f}"
    says = f"{up} desirable to {down} undesirable ratings{advice}"
    return Finding("class balance for KTO", ratio, f"1 to {high:.2f} by weight", verdict, says)


def _judge_alone(pairs: Sequence[LabelledRow]) -> bool:
    """False when the copies come from different people, who were asked the same on purpose."""
    whose: dict[tuple[str, str, str], list[tuple[str, ...]]] = defaultdict(list)
    for row in pairs:
        whose[prompt_digest(row.messages), row.chosen, row.rejected or ""].append(row.annotators)
    return any(len(names) > len(set(names)) or (len(names) > 1 and () in names) for names in whose.values())


def _is_unfinished(row: LabelledRow) -> bool:
    if row.is_finished is not None:
        return not row.is_finished
    text = row.chosen.rstrip()
    return len(text) >= UNFINISHED_CHARS and (text[-1].isalnum() or text[-1] in ",;-(")


def _loose(row: LabelledRow) -> str:
    """What was asked, blind to case, blanks and punctuation."""
    return _LOOSE.sub(" ", " ".join(message["content"] for message in row.messages).casefold()).strip()


def _grade(value: float, most_ok: float, most_look: float) -> Verdict:
    return "ok" if value <= most_ok else "look" if value <= most_look else "bad"
