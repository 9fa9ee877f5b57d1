"""The texts of tasks that were shown lately or will probably be shown next, so that nobody waits for a table.

An answer never changes once it is saved, so what is kept here is right for ever; it is only bounded.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from store.completions import ShownText, read_texts
from store.database import Store
from store.records import TaskKind

log = logging.getLogger(__name__)

MOST_KEPT = 512
AHEAD = 16  # tasks: those at the head of the queue are what most people get next
WORTH_READING = 8  # texts: one look for several costs hardly more than one look for one


class Texts:
    """A bounded memory of texts by completion id, and one thread that reads ahead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, ShownText] = OrderedDict()
        self._is_reading = False
        self._reader = ThreadPoolExecutor(1, "read-ahead")

    def read(self, store: Store, completion_ids: Sequence[str]) -> list[ShownText]:
        """The texts in the order of their ids; NotFound when one is not there."""
        known = self._find(completion_ids)
        missing = [completion_id for completion_id in completion_ids if completion_id not in known]
        if missing:
            known |= self._keep(read_texts(store, missing))
        return [known[completion_id] for completion_id in completion_ids]

    def read_ahead(self, store: Store, kind: TaskKind) -> None:
        """Begin to read the texts of the tasks that come next, unless that is going on already."""
        ids = [
            completion_id
            for task in store.queue.read_head(kind, AHEAD)
            for completion_id in task.completion_ids
        ]
        with self._lock:
            missing = [completion_id for completion_id in ids if completion_id not in self._kept]
            if self._is_reading or len(missing) < WORTH_READING:
                return
            self._is_reading = True
        self._reader.submit(self._read_quietly, store, missing)

    def _read_quietly(self, store: Store, completion_ids: list[str]) -> None:
        try:
            self._keep(read_texts(store, completion_ids))
        except Exception:  # nobody waits for it: who needs the text reads it then, and sees the error
            log.debug("reading ahead failed", exc_info=True)
        finally:
            with self._lock:
                self._is_reading = False

    def _find(self, completion_ids: Sequence[str]) -> dict[str, ShownText]:
        with self._lock:
            found = {name: self._kept[name] for name in completion_ids if name in self._kept}
            for name in found:
                self._kept.move_to_end(name)
            return found

    def _keep(self, texts: dict[str, ShownText]) -> dict[str, ShownText]:
        with self._lock:
            self._kept |= texts
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return texts
