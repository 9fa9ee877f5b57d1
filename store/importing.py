"""Import: a file of any format we know into outside labels or prompts, all of it or nothing.

The whole file is read and checked first; then one decision saves what is new. What a rule leaves out (ties,
low score ratios, deleted messages, drafts) is counted by its reason and is no error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from store.boundary import check_text
from store.database import Store
from store.errors import BadValue
from store.formats.files import Source
from store.formats.found import Names
from store.formats.reading import Problem, find_format, read_all, refuse_unless_whole
from store.outside import add_outside_labels, content_sha256
from store.prompts import NewPrompt, add_prompts
from store.records import OutsideLabel

PROMPT_SOURCE = "import"


@dataclass(frozen=True, slots=True)
class Preview:
    """What an import of the file would do: accepted rows by verdict (`counts`) and the first five."""

    format: str
    reason: str
    rows: tuple[OutsideLabel | NewPrompt, ...]
    counts: dict[str, int]
    skipped: dict[str, int]
    num_repeated: int
    num_problems: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: `added` new, `known` already there (or twice in the file), the rest by reason."""

    format: str
    kind: Literal["labels", "prompts"]
    added: int
    known: int
    skipped: dict[str, int]
    num_rejected: int
    rejected: tuple[Problem, ...]
    ids: tuple[str, ...]


def preview(file: Source, format: str | None = None, names: Names | None = None) -> Preview:
    """The format, five rows as they would be stored, counts and the first problems; saves nothing."""
    chosen, reason = find_format(file, format)
    reading = read_all(file, chosen, None, names or {}, on_problem=lambda _problem: None)
    counts = Counter(_verdict(label) for label in reading.labels)
    if reading.prompts:
        counts["prompt"] = len(reading.prompts)
    hashes = {content_sha256(label) for label in reading.labels}
    return Preview(
        format=chosen.name,
        reason=reason,
        rows=tuple((reading.labels or reading.prompts)[:5]),
        counts=dict(counts),
        skipped=dict(reading.skipped),
        num_repeated=len(reading.labels) - len(hashes),
        num_problems=reading.num_problems,
        problems=tuple(reading.problems),
    )


def import_file(
    store: Store,
    file: Source,
    format: str | None = None,
    skip_bad: bool = False,
    source: str | None = None,
    *,
    names: Names | None = None,
    on_reject: Callable[[Problem], None] | None = None,
) -> Imported:
    """Save every new label or prompt of the file; BadValue naming the first problem, and nothing saved.

    With `skip_bad` what cannot be read is left out, counted and handed to `on_reject`. `source` replaces the
    format's name in the stamp `import:<format>`.
    """
    if source is not None:
        check_text("source", source, may_be_empty=False)
    chosen, _ = find_format(file, format)
    reject = on_reject or (lambda _problem: None)
    reading = read_all(file, chosen, source, names or {}, on_problem=reject if skip_bad else None)
    refuse_unless_whole(reading, skip_bad)
    if reading.prompts:
        prompts = add_prompts(store, reading.prompts, source or PROMPT_SOURCE)
        num_added, num_known, ids = prompts.added, prompts.known, prompts.prompt_ids
    else:
        labels = add_outside_labels(store, reading.labels)
        num_added, num_known, ids = labels.added, labels.known, labels.label_ids
    return Imported(
        format=chosen.name,
        kind="prompts" if reading.prompts else "labels",
        added=num_added,
        known=num_known,
        skipped=dict(reading.skipped),
        num_rejected=reading.num_problems,
        rejected=tuple(reading.problems),
        ids=ids,
    )


def read_labels(file: Source, format: str | None = None, names: Names | None = None) -> list[OutsideLabel]:
    """Every label of a file, for a report on it; BadValue as `import_file` raises it, nothing is saved."""
    chosen, _ = find_format(file, format)
    reading = read_all(file, chosen, None, names or {}, on_problem=None)
    refuse_unless_whole(reading, skip_bad=False)
    if not reading.labels:
        raise BadValue("this file holds prompts or nothing that teaches, so there is nothing to report on")
    return reading.labels


def _verdict(label: OutsideLabel) -> str:
    if label.kind == "pair":
        return "pair"
    return "desirable" if label.desirable else "undesirable"
