"""What tests do with an answer that is being written: read it to its end, wait for a word, stop it."""

from __future__ import annotations

from annotate.writing import Answer, Writing, follow

PATIENCE_S = 20


def finish(writing: Writing) -> Answer:
    """Its last state."""
    return list(follow([writing]))[-1][0]


def read_first_words(writing: Writing) -> Answer:
    """Its state once there is text; it goes on being written."""
    while not (grown := writing.read()).text:
        assert not writing.wait(0.01), "it ended before its first word"
    return grown


def stop(*writings: Writing) -> None:
    """Close them, and wait until what was written is saved."""
    for writing in writings:
        writing.close()
    assert all(writing.wait(PATIENCE_S) for writing in writings)
