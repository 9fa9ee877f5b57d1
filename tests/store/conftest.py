"""A store in memory, and short ways to fill one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from store.database import Store


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store.in_memory()
    yield opened
    opened.close()
