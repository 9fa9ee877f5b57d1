"""The house keeps its shape: one-way imports, one door for each heavy library, light rooms stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("store", "annotate", "serving", "trainer")
FRONT = (
    "app",
    "building",
    "commands",
    "data_commands",
    "metrics",
    "settings",
    "sweeping",
    "training_commands",
)
MAY_IMPORT = {
    "store": set[str](),
    "annotate": {"store"},
    "serving": {"store"},
    "trainer": {"store"},
}
DOORS = {
    "duckdb": {"store"},
    "gradio": {"annotate"},
    "apscheduler": {"app"},
    "trl": {"trainer"},
    "peft": {"trainer", "serving"},
    "bitsandbytes": {"trainer", "serving"},
}


def imports(path: Path) -> set[str]:
    """Top-level names of every module that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def sources() -> list[tuple[str, Path]]:
    rooms = [(room, path) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [*rooms, *(("app", ROOT / f"{name}.py") for name in FRONT)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_floor(room: str) -> None:
    others = {*ROOMS, *FRONT, "benchmarks", "tests"} - {room} - MAY_IMPORT[room]
    wrong = {str(p): sorted(imports(p) & others) for r, p in sources() if r == room and imports(p) & others}
    assert not wrong


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_has_one_door(library: str) -> None:
    wrong = [str(p) for room, p in sources() if library in imports(p) and room not in DOORS[library]]
    assert not wrong


def test_every_file_opens_with_what_it_is_for() -> None:
    files = [
        *(p for _, p in sources()),
        *sorted((ROOT / "benchmarks").rglob("*.py")),
        *(ROOT / "tests").rglob("*.py"),
    ]
    without = [
        str(p.relative_to(ROOT)) for p in files if not ast.get_docstring(ast.parse(p.read_text("utf-8")))
    ]
    assert not without


@pytest.mark.parametrize("module", ["store.database", "annotate.web", "annotate.session"])
def test_the_store_and_the_pages_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted(m for m in ('torch', 'transformers') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
