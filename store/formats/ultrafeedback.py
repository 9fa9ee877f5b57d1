"""UltraFeedback: binarized (two conversations and their scores) and raw (four scored answers a prompt).

Scores go from 1 to 10: a gap below 1 is "slightly better", below 3 "better", from there on "much better".
"""

from __future__ import annotations

import hashlib

from store.formats.found import (
    TIE,
    BadField,
    Found,
    Names,
    Row,
    Skip,
    ask,
    grade,
    has,
    make_pair,
    read_list,
    read_messages,
    read_number,
    read_text,
    rest_of,
    split_pair,
)

BETTER, MUCH_BETTER = 1.0, 3.0


def is_binarized(row: Row) -> bool:
    """`chosen` and `rejected` with `score_chosen` and `score_rejected`."""
    return has(row, "chosen", "rejected", "score_chosen", "score_rejected")


def read_binarized(row: Row, _names: Names) -> list[Found]:
    """One pair; equal scores are a tie."""
    gap = read_number(row, "score_chosen") - read_number(row, "score_rejected")
    parts = split_pair(read_messages(row, "chosen"), read_messages(row, "rejected"), "chosen")
    if isinstance(parts, Skip):
        return [parts]
    if gap == 0:
        return [TIE]
    if gap < 0:
        raise BadField("score_chosen", "is below score_rejected")
    messages, chosen, rejected = parts
    extra = rest_of(row, ("prompt", "messages", "chosen", "rejected"))
    strength = grade(gap, BETTER, MUCH_BETTER)
    return [make_pair(messages, chosen, rejected, strength=strength, extra=extra)]


def is_raw(row: Row) -> bool:
    """`instruction` and a list of `completions`."""
    return has(row, "instruction", "completions")


def read_raw(row: Row, _names: Names) -> list[Found]:
    """The best answer against a worse one that the prompt's hash draws: the same in every import."""
    instruction = read_text(row, "instruction", may_be_empty=False)
    answers = [answer for answer in read_list(row, "completions") if isinstance(answer, dict)]
    if len(answers) < 2:
        raise BadField("completions", "must hold at least two answers")
    scored = [(read_number(answer, "overall_score"), answer) for answer in answers]
    top, best = max(scored, key=lambda one: one[0])
    worse = [(score, answer) for score, answer in scored if score < top]
    if not worse:
        return [TIE]
    digest = hashlib.sha256(instruction.encode(errors="replace")).digest()
    low, rejected = worse[int.from_bytes(digest[:4], "big") % len(worse)]
    extra = rest_of(row, ("instruction", "completions")) | {
        "chosen": rest_of(best, ("response",)),
        "rejected": rest_of(rejected, ("response",)),
    }
    texts = read_text(best, "response"), read_text(rejected, "response")
    strength = grade(top - low, BETTER, MUCH_BETTER)
    return [make_pair(ask(instruction), *texts, strength=strength, extra=extra)]
