"""The theme: system fonts, paper and ink, one colour each for low-resolution steps, full-resolution steps and teacher.

The three colours stay apart under protanopia, deuteranopia and tritanopia (CIE76 distance of at least 30 in the
simulation of Machado et al. 2009) and have a contrast of at least 4 against both surfaces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

STATIC = Path(__file__).parent / "static"
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

PAPER, INK = "#f5f4f0", "#201d26"
NIGHT, CHALK = "#131217", "#ece9f1"


def theme() -> gr.themes.Base:
    """Quiet surfaces; the pictures are the only thing with much colour."""
    return gr.themes.Base(font=SANS, font_mono=MONO, radius_size="md", text_size="md").set(
        body_background_fill=PAPER,
        body_background_fill_dark=NIGHT,
        body_text_color=INK,
        body_text_color_dark=CHALK,
        body_text_color_subdued="#615c6b",
        body_text_color_subdued_dark="#a9a3b5",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1b1a20",
        background_fill_secondary="#faf9f6",
        background_fill_secondary_dark="#17161b",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_color=INK,
        block_title_text_color_dark=CHALK,
        block_title_text_weight="600",
        block_info_text_color="#615c6b",
        block_info_text_color_dark="#a9a3b5",
        border_color_primary="#dedad2",
        border_color_primary_dark="#35323d",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1f1d24",
        input_border_color="#d3cec4",
        input_border_color_dark="#3b3744",
        input_border_width="1px",
        slider_color=INK,
        slider_color_dark=CHALK,
        checkbox_background_color_selected=INK,
        checkbox_background_color_selected_dark="#8f7aa8",
        checkbox_border_color_selected=INK,
        checkbox_border_color_selected_dark="#8f7aa8",
        button_primary_background_fill=INK,
        button_primary_background_fill_dark=CHALK,
        button_primary_background_fill_hover="#3b3547",
        button_primary_background_fill_hover_dark="#ffffff",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark=INK,
        button_primary_border_color=INK,
        button_primary_border_color_dark=CHALK,
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#24222a",
        button_secondary_border_color="#d3cec4",
        button_secondary_border_color_dark="#3b3744",
        color_accent="#5a3d63",
        color_accent_soft="#efe9f2",
        color_accent_soft_dark="#2c2533",
        link_text_color="#5a3d63",
        link_text_color_dark="#dccbe8",
    )


def look() -> dict[str, Any]:
    """Theme, style sheets and what the page needs before its components, as `gr.Blocks.launch` takes them."""
    return {"theme": theme(), "css": css(), "head": f"<script>{static('controls.js')}</script>"}


def css() -> str:
    return "".join(
        (STATIC / name).read_text(encoding="utf-8") for name in ("style.css", "compare.css", "strip.css", "panes.css")
    )


def static(name: str) -> str:
    """A file of the custom views: template or script."""
    return (STATIC / name).read_text(encoding="utf-8")
