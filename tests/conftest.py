"""Fixtures for every folder: an offline environment and one thread for torch, so that runs repeat."""

from __future__ import annotations

import gc
import os

# Before any library is imported: nothing may look for a hub, and two OpenMP pools would starve each other.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_finish() -> None:
    """Leave the imported libraries out of every later garbage collection: they are a million objects, and the
    trainers of transformers collect at the start of each training."""
    gc.collect()
    gc.freeze()
