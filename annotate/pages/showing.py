"""Shows and hides rows and columns, and leaves them in the document, where shortcuts can find them."""

from __future__ import annotations

from typing import Any

import gradio as gr

# A class of the style sheet: Gradio's own visible="hidden" hides what is in a block, not the block.
GONE = "gone"


def reveal(is_shown: bool, *classes: str) -> Any:
    """An update that shows or hides a layout block; `classes` are the ones it keeps."""
    return gr.update(elem_classes=[*classes, *([] if is_shown else [GONE])])
