"""A process to be killed: eight threads save prompts and tell each id once it is acknowledged."""

from __future__ import annotations

import os
import sys
import threading
from itertools import count
from pathlib import Path

from store.database import Store
from store.prompts import NewPrompt, add_prompts
from store.records import Message


def save_for_ever(store: Store, thread: int) -> None:
    """Acknowledged ids on stdout, a line each; one `write` a line so that no line is torn."""
    for number in count():
        prompt = NewPrompt([Message(role="user", content=f"{os.getpid()} {thread} {number}")])
        added = add_prompts(store, [prompt], source="child")
        os.write(1, f"{added.prompt_ids[0]}\n".encode())


if __name__ == "__main__":
    opened = Store.open(Path(sys.argv[1]))
    for name in range(8):
        threading.Thread(target=save_for_ever, args=(opened, name)).start()
