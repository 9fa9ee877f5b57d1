"""The wheel: it builds, holds the starter policy, and serves from a place where no checkout is."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.running import ROOT, RunningService


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(folder),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    return next(folder.glob("heed_dpo-*.whl"))


def test_the_wheel_holds_the_starter_policy_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "serving/starter/model.safetensors" in names
    assert "serving/starter/prompts.jsonl" in names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "data/"))]


def install(wheel: Path, folder: Path, *flags: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *flags, str(wheel)], check=True)
    return python


def serve_from(python: Path, folder: Path, environment: dict[str, str]) -> None:
    """Start `heed serve` in an empty folder and ask it for an answer."""
    service = RunningService(folder / "data", command=(str(python.parent / "heed"), "serve"), cwd=folder)
    service.start(environment)
    try:
        with service.client() as client:
            asked = {
                "model": "live",
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
            }
            answer = client.post("/v1/chat/completions", json=asked)
        assert answer.status_code == httpx.codes.OK
        assert answer.json()["choices"][0]["message"]["content"]
    finally:
        assert service.stop() == 0


@pytest.mark.slow
def test_the_installed_wheel_serves_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    python = install(wheel, tmp_path / "env", "--no-deps")
    # The dependencies are borrowed from this environment: on a plain path no .pth file runs, so the checkout
    # that is installed here in editable mode stays out of sight.
    borrowed = os.pathsep.join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    serve_from(python, tmp_path, {"PYTHONPATH": borrowed})


@pytest.mark.slow
def test_the_wheel_installs_in_an_empty_environment_with_all_it_needs(wheel: Path, tmp_path: Path) -> None:
    python = install(wheel, tmp_path / "env", "-c", str(ROOT / "constraints.txt"))
    serve_from(python, tmp_path, {})
