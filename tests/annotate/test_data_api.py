"""Labels and prompts in and out over HTTP, and the report on them: for admins, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from store.database import Store
from store.outside import count_outside_labels
from store.people import Credentials
from store.prompts import count_prompts
from tests.annotate.conftest import TaskMaker, bearer

FIXTURES = Path(__file__).parent.parent / "store" / "formats" / "fixtures"


@pytest.fixture
def headers(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["admin"])


def test_an_import_is_all_or_nothing(client: TestClient, store: Store, headers: dict[str, str]) -> None:
    lines = [json.dumps({"prompt": f"question {number}"}) for number in range(1000)]
    lines[500] = '{"prompt": '
    content = "\r\n".join(lines).encode()
    refused = client.post("/v1/import", content=content, headers=headers)
    assert refused.status_code == 400
    assert "nothing was imported: line 501, column 11: not JSON" in refused.json()["error"]["message"]
    assert count_prompts(store) == 0
    taken = client.post("/v1/import?skip_bad=true", content=content, headers=headers).json()
    assert (taken["kind"], taken["added"], taken["num_rejected"]) == ("prompts", 999, 1)
    assert [(row["place"], row["raw"]) for row in taken["rejected"]] == [(501, '{"prompt":')]


@pytest.mark.parametrize("path", sorted(FIXTURES.iterdir()), ids=lambda path: path.name)
def test_an_upload_of_every_format_is_recognised(
    client: TestClient, store: Store, headers: dict[str, str], path: Path
) -> None:
    shown = client.post("/v1/import?preview=true", content=path.read_bytes(), headers=headers)
    assert (shown.status_code, shown.json()["num_problems"]) == (200, 0)
    assert count_outside_labels(store) == {}
    done = client.post("/v1/import", content=path.read_bytes(), headers=headers)
    assert done.status_code == 201
    assert done.json()["added"] == sum(shown.json()["counts"].values())
    assert done.json()["format"] == shown.json()["format"] == path.name.partition(".")[0]


def test_a_preview_shows_rows_as_they_would_be_stored(client: TestClient, headers: dict[str, str]) -> None:
    content = (FIXTURES / "shp.jsonl").read_bytes()
    shown = client.post("/v1/import?preview=true", content=content, headers=headers).json()
    assert shown["rows"][0] == {
        "kind": "pair",
        "messages": [{"role": "user", "content": "How do I keep rice from sticking?"}],
        "chosen": "Rinse it first.",
        "rejected": "Use a bigger spoon.",
        "desirable": None,
        "strength": 1,
        "annotator": "",
        "source": "import:shp",
        "tags": [],
    }
    assert shown["skipped"] == {"score_ratio below 2": 1}


def test_an_upload_that_is_nothing_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    for content, words in (
        (b"", "nothing in this file"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PAR1x", "not Parquet"),
    ):
        reply = client.post("/v1/import", content=content, headers=headers)
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "bad_value")
        assert words in reply.json()["error"]["message"]
    unknown = client.post("/v1/import?format=xml", content=b"{}", headers=headers)
    assert "known formats: heed" in unknown.json()["error"]["message"]
    assert client.post("/v1/import?names=x=y", content=b"{}", headers=headers).status_code == 400


def test_data_is_for_admins_alone(client: TestClient, people: dict[str, Credentials]) -> None:
    for role in ("annotator", "tester"):
        assert client.post("/v1/import", content=b"a", headers=bearer(people[role])).status_code == 403
        for path in ("/v1/export", "/v1/data-report"):
            assert client.get(path, headers=bearer(people[role])).status_code == 403


@pytest.mark.usefixtures("store")
def test_the_export_is_one_label_a_line(
    client: TestClient, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    assert client.get("/v1/export", headers=headers).text == ""
    tasks.add()
    task = client.post("/v1/tasks/next", headers=headers).json()
    path = f"/v1/tasks/{task['task_id']}/judgement"
    client.post(path, json={"choice": "left", "strength": 2}, headers=headers)
    reply = client.get("/v1/export", headers=headers)
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in reply.text.splitlines()]
    assert len(rows) == 1
    assert rows[0]["chosen"] == [{"role": "assistant", "content": task["left"]}]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": task["right"]}]


def test_an_export_can_be_parquet_or_csv_of_one_kind(client: TestClient, headers: dict[str, str]) -> None:
    client.post("/v1/import", content=(FIXTURES / "open-webui.json").read_bytes(), headers=headers)
    refused = client.get("/v1/export?format=parquet", headers=headers)
    assert (refused.status_code, "kind=preference" in refused.text) == (400, True)
    table = client.get("/v1/export?format=parquet&kind=unpaired", headers=headers)
    assert pq.read_table(io.BytesIO(table.content)).column("label").to_pylist() == [True, False]
    assert 'filename="heed-labels-unpaired.parquet"' in table.headers["content-disposition"]
    lines = client.get("/v1/export?format=csv&kind=preference", headers=headers).text
    [row] = csv.DictReader(io.StringIO(lines))
    assert json.loads(row["chosen"]) == [{"role": "assistant", "content": "56"}]


def test_an_export_can_be_narrowed(client: TestClient, headers: dict[str, str]) -> None:
    client.post("/v1/import", content=(FIXTURES / "open-webui.json").read_bytes(), headers=headers)

    def count(query: str) -> int:
        reply = client.get(f"/v1/export?{query}", headers=headers)
        assert reply.status_code == 200, reply.text
        return len(reply.text.splitlines())

    assert [count(query) for query in ("", "kind=preference", "source=human", "source=import:")] == [
        3,
        1,
        0,
        3,
    ]
    assert [count("since=2030-01-01T00:00:00Z"), count("until=2030-01-01T00:00:00Z")] == [0, 3]
    assert client.get("/v1/export?since=2030-01-01T00:00:00", headers=headers).status_code == 400
    assert client.get("/v1/export?kind=x", headers=headers).status_code == 422


def test_the_report_says_what_the_labels_look_like(client: TestClient, headers: dict[str, str]) -> None:
    client.post("/v1/import", content=(FIXTURES / "lmsys-arena.jsonl").read_bytes(), headers=headers)
    report = client.get("/v1/data-report", headers=headers).json()
    assert (report["num_pairs"], report["num_ratings"]) == (2, 2)
    assert {finding["name"] for finding in report["findings"]} >= {"length ratio", "class balance for KTO"}
    assert report["labels_per_day"] == [["2023-04-24", 4]]
    assert sum(report["similarity"]) == 2
