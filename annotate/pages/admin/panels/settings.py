"""The effective settings as tables, one a section."""

from __future__ import annotations

import json
from collections.abc import Mapping

from annotate.pages.admin.panels.pieces import note, table
from annotate.pages.text import plain


def write_settings(settings: Mapping[str, object]) -> str:
    """General settings first, then each section folded away; values as JSON, so that none can be misread."""
    if not settings:
        return note("This process was started without settings.")
    general = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    sections = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    return _write_table(general, "General settings") + "".join(
        f"<details class=panel><summary>{plain(name)}</summary>{_write_table(values, name)}</details>"
        for name, values in sections.items()
    )


def _write_table(values: Mapping[str, object], label: str) -> str:
    rows = [
        [f"<code>{plain(name)}</code>", f"<code>{plain(_write_value(value))}</code>"]
        for name, value in values.items()
    ]
    return table(("Setting", "Value"), rows, label=label)


def _write_value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
