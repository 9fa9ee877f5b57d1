"""The web process without a model: the real API over a real store on disk, for the queue benchmark.

Run as `python -m benchmarks.queue_service DATA PORT LEASE_S`; it first prints how long the store took.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import uvicorn

from annotate.services import Services, WebSettings
from annotate.web import build_api
from store.database import Store
from store.queue_settings import QueueSettings

LABELS_ONLY = QueueSettings(gold_share=0.0, repeat_share=0.0, seed=1)


def _refuse(*_: Any) -> Any:
    raise NotImplementedError("this service has tasks and judgements only")


def make_services(store: Store, lease_s: float) -> Services:
    """What the task routes need; everything about models and rounds refuses."""
    needed = [field.name for field in fields(Services) if field.default is field.default_factory is MISSING]
    given: dict[str, Any] = dict.fromkeys(needed, _refuse)
    return Services(
        **given | {"store": store, "is_ready": lambda: True, "settings": WebSettings(lease_s=lease_s)}
    )


def main(data: str, port: str, lease_s: str) -> None:
    before = time.perf_counter()
    store = Store.open(Path(data), queue=LABELS_ONLY)
    print(f"{time.perf_counter() - before:.3f}", flush=True)
    try:
        # uvicorn drains on SIGTERM and then raises it again, which would end us before the store is closed.
        signal.signal(signal.SIGTERM, lambda *_: None)
        web = build_api(make_services(store, float(lease_s)))
        gc.freeze()
        uvicorn.run(web, host="127.0.0.1", port=int(port), log_level="warning")
    finally:
        store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
