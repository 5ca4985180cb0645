"""The page's building blocks: HTML parts, the compare view, pictures inside the page."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from rmd.serve.runner import Saved
from rmd.ui import text
from rmd.ui.style import static


def compare(value: dict[str, Any] | None, name: str = "compare") -> gr.HTML:
    """The compare view; its value is {student, teacher, ratio, busy}, see static/compare.js."""
    return gr.HTML(
        value=value or {"student": {"wait": text.STUDENT_HERE}, "teacher": {"wait": text.TEACHER_HERE}},
        html_template=static("compare.html"),
        js_on_load=static("compare.js"),
        apply_default_css=False,
        elem_id=name,
    )


def block(value: str, name: str) -> gr.HTML:
    """A plain HTML part of the page."""
    return gr.HTML(value, apply_default_css=False, elem_id=name)


def head() -> str:
    marks = '<span class="dot"></span><span class="dot"></span>'
    return f'<header id="head"><h1>{marks}{text.TITLE}</h1><p>{text.TAGLINE}</p></header>'


def buttons(value: str, name: str, script: str = "pick.js") -> gr.HTML:
    """HTML with buttons; a click on one triggers `select` with its data attributes, unless `script` says otherwise."""
    return gr.HTML(value, js_on_load=static(script), apply_default_css=False, elem_id=name)


def status(sentence: str) -> str:
    return f'<div class="status" role="status">{escape(sentence)}</div>'


def inline(image: Image.Image | None, kind: str = "png") -> str | None:
    """A picture as a data address, for what is shown for a moment only."""
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=90)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def figure(title: str, body: str) -> str:
    return f'<section class="figure"><h3>{title}</h3>{body}</section>'


def download_button(saved: Saved | None, role: str) -> gr.DownloadButton:
    """The button that saves one side's file."""
    path = str(saved.files[role]) if saved and role in saved.files else None
    return gr.DownloadButton(f"Save the {role}'s result", path, interactive=path is not None, size="sm")


def download(saved: Saved, role: str) -> Any:
    """A download button's update."""
    path = saved.files.get(role)
    return gr.update(value=str(path) if path else None, interactive=path is not None)
