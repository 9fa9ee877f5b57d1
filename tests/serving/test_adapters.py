"""Publishing: a candidate becomes a version whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.adapters import publish, sweep_unfinished, weights_sha256
from store.errors import StateConflict


def test_publishing_twice_changes_nothing_and_other_weights_are_refused(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    policies = tmp_path / "policies"
    sha256 = publish(adapters["v1"], policies, "v1")
    assert publish(adapters["v1"], policies, "v1") == sha256 == weights_sha256(policies / "v1")
    with pytest.raises(StateConflict, match="v1 is published already, with other weights"):
        publish(adapters["v2"], policies, "v1")
    assert [path.name for path in policies.iterdir()] == ["v1"]


def test_a_publish_that_dies_leaves_nothing_visible(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = tmp_path / "policies"

    def die(_path: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("serving.adapters._sync", die)
    with pytest.raises(OSError, match="no space left"):
        publish(adapters["v1"], policies, "v1")
    assert not (policies / "v1").exists()
    assert len(sweep_unfinished(policies)) == 1
    assert list(policies.iterdir()) == []
