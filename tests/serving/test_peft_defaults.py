"""The table of PEFT's defaults holds for the PEFT that is installed, and a start does not import PEFT."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.adapter_checks import CHECKED_KEYS, FREE_KEYS
from serving.peft_defaults import DEFAULTS, read_default, read_installed

ROOT = Path(__file__).parents[2]


def test_every_default_is_that_of_the_installed_peft() -> None:
    installed = read_installed()
    assert {key: installed[key] for key in installed.keys() - FREE_KEYS - CHECKED_KEYS} == DEFAULTS


def test_a_key_that_peft_has_not_is_an_error() -> None:
    with pytest.raises(KeyError):
        read_default("made_up")


def test_the_engine_is_imported_without_peft_and_bitsandbytes() -> None:
    code = (
        "import sys, building, serving.in_process;"
        "print(sorted(m for m in ('peft', 'bitsandbytes', 'trl') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
