"""What a person reads when a handler failed; the traceback of anything unforeseen goes to the log."""

from __future__ import annotations

import logging

from store.errors import HeedError

logger = logging.getLogger(__name__)


def explain(error: Exception, act: str) -> str:
    """One sentence for the page; `act` says what failed, as in "save this judgement"."""
    if isinstance(error, HeedError):
        logger.info("could not %s: %s", act, error)
        sentence = str(error).strip() or error.kind.replace("_", " ")
        return sentence[0].upper() + sentence[1:] + ("" if sentence.endswith((".", "!", "?")) else ".")
    logger.error("could not %s", act, exc_info=error)
    return f"Could not {act}: something failed on the server, and it has been logged. Please try again."
