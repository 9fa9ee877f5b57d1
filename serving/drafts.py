"""A task in the making: what has been drawn for a prompt so far, and which two answers make the pair."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from store.clock import utc
from store.completions import new_completion_id
from store.errors import HeedError
from store.records import Chunk, Completion, Prompt, Sampling, TaskKind


class CutOff(HeedError):
    """An answer ended before it was whole."""


@dataclass(slots=True)
class Draft:
    """A task in the making: completions drawn so far, those being written, and those it will ask about."""

    prompt: Prompt
    kind: TaskKind
    drawn: list[Completion] = field(default_factory=list)
    pending: list[tuple[Sampling, Iterator[Chunk]]] = field(default_factory=list)
    kept: Sequence[Completion] = ()
    num_tries: int = 0


def read_completion(prompt: Prompt, sampling: Sampling, chunks: Iterator[Chunk]) -> Completion:
    """Read a request to its end. CutOff when there was none, because half an answer must not be judged."""
    read = list(chunks)
    last = read[-1] if read else None
    if last is None or last.finish_reason is None or last.finish_reason == "cancelled":
        raise CutOff(f"an answer to prompt {prompt.prompt_id} was cut off")
    return Completion(
        completion_id=new_completion_id(),
        messages=prompt.messages,
        text="".join(chunk.text for chunk in read),
        version=last.version,
        sampling=sampling,
        token_ids=last.token_ids,
        logprob_sum=last.logprob_sum,
        finish_reason=last.finish_reason,
        num_prompt_tokens=last.num_prompt_tokens,
        num_left_out=last.num_left_out,
        created_at=utc(),
        prompt_id=prompt.prompt_id,
    )


def find_least_alike(drawn: Sequence[Completion]) -> tuple[Completion, Completion]:
    """The two of at least two completions that differ most: a judgement between them says most."""
    return min(itertools.combinations(drawn, 2), key=lambda pair: similarity(*pair))


def similarity(first: Completion, second: Completion) -> float:
    """The share of equal text in two answers, 0 to 1, whatever their case."""
    return SequenceMatcher(None, first.text.lower(), second.text.lower(), autojunk=False).ratio()


def cancel(draft: Draft) -> None:
    """End what a draft waits for; its reader, in another thread, meets the end."""
    for _, chunks in [*draft.pending]:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def drop(drafts: Sequence[Draft] | deque[Draft]) -> None:
    """Cancel what drafts still wait for."""
    for draft in drafts:
        draft.pending.clear()
