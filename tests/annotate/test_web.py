"""How the web process is put together: light until the pages are mounted, wide enough for streams."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi.testclient import TestClient

from annotate.services import WebSettings
from annotate.web import build_api
from store.database import Store
from store.people import add_person
from tests.annotate.conftest import BASE_URL, bearer
from tests.fakes import ScriptedSample, make_services

ROOT = Path(__file__).parents[2]


def test_nothing_heavy_is_imported_before_the_pages_are_mounted() -> None:
    code = (
        "import sys, annotate.web, annotate.session, annotate.chat\n"
        "heavy = ('torch', 'transformers', 'gradio', 'trl', 'peft', 'pandas')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_answers_being_written_do_not_starve_the_labels(store: Store) -> None:
    sample = ScriptedSample(gate=threading.Event())
    services = make_services(store, sample, settings=WebSettings(web_threads=3, chat_threads=2))
    testers = [bearer(add_person(store, f"tester {number}", "tester")) for number in range(5)]
    annotator = bearer(add_person(store, "anna", "annotator"))
    body = {"messages": [{"role": "user", "content": "Hello?"}]}
    app = build_api(services)
    with TestClient(app, base_url=BASE_URL) as client, ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(client.post, "/v1/chat/completions", json=body, headers=who) for who in testers]
        while len(sample.asked) < 5:  # more than there are threads to hand questions to the engine
            pass
        assert client.post("/v1/judgements/undo", headers=annotator).status_code == 204
        assert sample.gate is not None
        sample.gate.set()
        assert [reply.result(20).status_code for reply in asked] == [200] * 5
