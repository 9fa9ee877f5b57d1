"""The README cannot quietly lie: every command in it is run here, every flag it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from settings import STARTER, ServeSettings
from tests.annotate.judging import JudgeServer, serve
from tests.running import ADMIN_TOKEN, ROOT, RunningService, free_port
from tests.store import samples
from tests.trainer.labelled import judge_pairs

README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
START_LIMIT_S = 180  # a busy machine starts slowly


def run(command: str, folder: Path, **environment: str) -> str:
    """Run a README line as it stands, with this interpreter for `python`; its output."""
    line = command.replace("python ", f"{sys.executable} ", 1) if command.startswith("python ") else command
    line = line.replace(" app.py", f" {ROOT / 'app.py'}")
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    running = RunningService(tmp_path_factory.mktemp("readme") / "data").start()
    yield running
    running.stop()


def serve_and_stop(command: list[str], folder: Path, port: int) -> None:
    """Start a service with a command, wait for its first answer, and stop it as Ctrl-C would."""
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            assert process.poll() is None, "the service ended at its start"
            assert time.monotonic() < deadline
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def check_make_serve(_: str, folder: Path) -> None:
    if not (ROOT / ".venv" / ".installed").exists():
        pytest.skip("`make serve` would set up .venv first; `make test` has done that")
    port = free_port()
    serve_and_stop(["make", "serve", f"DATA={folder / 'data'}", f"FLAGS=--port {port}"], ROOT, port)


def check_make_test(_: str, folder: Path) -> None:  # noqa: ARG001
    # Running it here would run this test again: what is checked is that CI runs the same command.
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text("utf-8")


def check_real_model(command: str, folder: Path) -> None:
    """Its flags are understood; that the service starts with them is `test_a_real_model_is_served`."""
    assert run(command.replace(" serve ", " config "), folder)


def serve_real_model(command: str, folder: Path) -> None:
    """The same flags with a model of this machine in place of the hub's, which no test may ask."""
    words = shlex.split(command.partition("python app.py")[2])
    model = folder / "my-model"
    model.mkdir()
    for path in STARTER.iterdir():
        if path.name not in ("prompts.jsonl", "README.md", "chat_template.jinja"):
            (model / path.name).symlink_to(path)
    if "--chat-template" not in words:
        (model / "chat_template.jinja").symlink_to(STARTER / "chat_template.jinja")
    words[words.index("--model") + 1] = str(model)
    if "--prompts" in words:
        lines = (STARTER / "prompts.jsonl").read_text("utf-8").splitlines()[:20]
        (folder / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    port = free_port()
    flags = ["--data", str(folder / "data"), "--port", str(port)]
    serve_and_stop([sys.executable, str(ROOT / "app.py"), *words, *flags], folder, port)


def check_export(command: str, folder: Path) -> None:
    from store.database import Store

    store = Store.open(folder / "data")
    judge_pairs(store, 3)
    store.close()
    assert "3 labels written" in run(command, folder)
    assert len((folder / "labels.jsonl").read_text("utf-8").splitlines()) == 3


def check_export_folder(command: str, folder: Path) -> None:
    from store.database import Store

    store = Store.open(folder / "data")
    judge_pairs(store, 3)
    store.close()
    assert "3 labels written to dataset" in run(command, folder)
    assert (folder / "dataset" / "README.md").exists()


def check_import(command: str, folder: Path) -> None:
    fixtures = ROOT / "tests" / "store" / "formats" / "fixtures"
    (folder / "labels.jsonl").write_bytes((fixtures / "shp.jsonl").read_bytes())
    assert "shp: " in run(command, folder)


def check_import_dataset(command: str, folder: Path) -> None:
    """The same name as a folder of this machine, since no test may ask the hub."""
    (folder / "Anthropic" / "hh-rlhf").mkdir(parents=True)
    fixture = ROOT / "tests" / "store" / "formats" / "fixtures" / "hh-rlhf.jsonl"
    (folder / "Anthropic" / "hh-rlhf" / "train.jsonl").write_bytes(fixture.read_bytes())
    assert "hh-rlhf: 2 labels added" in run(command, folder, HF_HOME=str(folder / "hf"))


def check_validate(command: str, folder: Path) -> None:
    rows = [
        {"prompt": f"What is {n}?", "chosen": f"{n} is a number.", "rejected": f"{n} is a bird."}
        for n in range(200)
    ]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert "200 pairs" in run(command, folder)


def check_backup(command: str, folder: Path) -> None:
    from store.database import Store

    Store.open(folder / "data").close()
    assert "was opened and compared" in run(command, folder)


def check_judge(command: str, folder: Path) -> None:
    from store.database import Store

    store = Store.open(folder / "data")
    task = samples.task(store)
    store.close()
    with serve(JudgeServer(bias="tie").app()) as url:
        printed = run(command.replace("http://localhost:8000/v1", url), folder)
    assert json.loads(printed)["verdicts"]["tie"] == 1, task


def check_erase_person(command: str, folder: Path) -> None:
    from store.database import Store
    from store.people import add_person

    store = Store.open(folder / "data")
    add_person(store, "ann", "annotator")
    store.close()
    assert "versions trained on them: none" in run(command, folder)


def check_benchmark_flags(command: str, folder: Path) -> None:
    """Minutes long in full: here its flags are accepted; benchmarks/RESULTS.md holds what it printed."""
    assert "--rounds" in run(command + " --help", folder)


def check_plain(command: str, folder: Path) -> None:
    assert run(command, folder)


CHECKS: tuple[tuple[str, Callable[[str, Path], None]], ...] = (
    ("make serve", check_make_serve),
    ("make test", check_make_test),
    ("python app.py serve --model", check_real_model),
    ("python app.py export labels.jsonl", check_export),
    ("python app.py export dataset", check_export_folder),
    ("python app.py import Anthropic", check_import_dataset),
    ("python app.py import", check_import),
    ("python app.py validate", check_validate),
    ("python app.py backup", check_backup),
    ("python app.py judge", check_judge),
    ("python app.py erase-person", check_erase_person),
    ("python -m benchmarks.", check_benchmark_flags),
    (
        "python -m pytest -m slow",
        lambda command, _: check_plain(
            command + " --collect-only -q tests/store/test_queue_properties.py", ROOT
        ),
    ),
    ("python app.py", check_plain),
)


def test_the_readme_begins_with_the_two_commands() -> None:
    assert COMMANDS[:2] == ["make serve", "make test"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("curl")])
def test_a_command_of_the_readme_works(command: str, tmp_path: Path) -> None:
    check = next((check for start, check in CHECKS if command.startswith(start)), None)
    assert check is not None, f"nothing here runs {command!r}"
    check(command, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if " serve --model" in c])
def test_a_real_model_is_served(command: str, tmp_path: Path) -> None:
    serve_real_model(command, tmp_path)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("curl")])
def test_a_request_of_the_readme_is_answered(command: str, service: RunningService, tmp_path: Path) -> None:
    here = command.replace("localhost:7860", f"127.0.0.1:{service.port}").replace(
        "curl -s", "curl -sS --fail-with-body"
    )
    answer = run(here, tmp_path, HEED_ADMIN_TOKEN=ADMIN_TOKEN)
    assert answer or "/v1/export" in command, "only the export of a store without labels may be empty"


def test_every_flag_in_the_readme_exists() -> None:
    known = {"--" + name.replace("_", "-") for name in ServeSettings.model_fields} | {"--help"}
    table = re.findall(r"^\| (`--.*?) \|", README, flags=re.MULTILINE)
    named = {flag for row in table for flag in re.findall(r"`(--[a-z-]+)(?:\.\*)?`", row)}
    assert named
    assert named <= known
    assert known - {"--help"} <= named, "a flag has no README row"
