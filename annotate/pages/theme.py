"""How the pages look: one Gradio theme and one style sheet a page, light and dark, wide and phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_SHEETS = ("base", "annotate", "chat", "admin")
_STYLES = Path(__file__).with_name("styles")


def read_styles() -> str:
    """What all pages share, then what each page adds; ids keep them apart."""
    return "\n".join(_STYLES.joinpath(f"{name}.css").read_text("utf-8") for name in _SHEETS)


def build_theme() -> Any:
    """Indigo on slate in the fonts that ship with Gradio.

    Only weights 400 and 700: the shipped "SemiBold" files hold no Latin letters and would mix two typefaces.
    """
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        text_size="md",
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=(gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_shadow="none",
        block_label_text_weight="700",
        block_title_text_weight="700",
        button_large_text_weight="400",
        button_small_text_weight="400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )
