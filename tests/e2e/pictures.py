"""Pictures of the pages, for somebody who wants to look at them: `SCREENSHOTS=folder pytest tests/e2e`.

Without that variable none are taken: drawing them is a fifth of a browser test's time.
"""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Page

FOLDER = os.environ.get("SCREENSHOTS", "")


def take_picture(page: Page, name: str, full_page: bool = False) -> None:
    """Save what the page shows as `name`.png, over one of that name."""
    if FOLDER:
        page.screenshot(path=Path(FOLDER) / f"{name}.png", full_page=full_page)
