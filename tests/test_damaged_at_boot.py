"""From a damaged file on disk to what the health check and the admin page say, through the whole service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from annotate.pages.admin.overview import OverviewSection
from annotate.web import build_api
from building import Service, build_service
from serving.adapters import publish
from settings import STARTER, ServeSettings
from store.database import Store
from store.policies import add_policy, promote
from tests.annotate.pages import lay_out
from tests.serving.conftest import write_adapter


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Service]:
    """v1 and then v2 were promoted; v2's weights are cut short when the service starts."""
    data = tmp_path / "data"
    store = Store.open(data)
    for seed, version in enumerate(("v1", "v2")):
        made = write_adapter(tmp_path / version, STARTER, seed)
        sha256 = publish(made, data / "policies", version)
        add_policy(store, version, parent="v0", round_id=None, weights_sha256=sha256)
        promote(store, version, "ada")
    store.close()
    weights = data / "policies" / "v2" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    service = build_service(ServeSettings.read(["--data", str(data), "--threads", "1"], "serve"))
    yield service
    service.close()


def test_a_truncated_adapter_reaches_the_health_check_and_the_admin_page(damaged: Service) -> None:
    why = "v2: policy v2: its weights are not those registered (sha256)"
    assert damaged.parts.board.live == "v1"
    with TestClient(build_api(damaged.services), base_url="http://127.0.0.1") as client:
        found = client.get("/healthz").json()
    assert found == {"status": "degraded", "reasons": [f"serving v1 instead of v2: {why}"]}
    section = lay_out(OverviewSection, damaged.services)
    assert f"Serving v1 instead of v2: {why}." in section.read()[section._notices]
