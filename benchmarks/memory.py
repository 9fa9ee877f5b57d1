"""What a process and its children hold in memory, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path


def memory_mib(pid: int) -> float:
    """MiB of a process and everything below it.

    One process by its resident set; several by what is theirs in proportion (PSS), so that a page they share
    counts once.
    """
    below = _list_below(pid)
    return sum(_own_mib(each, "Pss" if below else "Rss") for each in [pid, *below])


def _own_mib(pid: int, kind: str) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    found = re.search(rf"^{kind}:\s+(\d+) kB$", text, flags=re.MULTILINE)
    assert found is not None, f"process {pid} tells no memory"
    return int(found[1]) / 1024


def _list_below(pid: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text("ascii").split()
    ]
    return [*children, *(below for child in children for below in _list_below(child))]
