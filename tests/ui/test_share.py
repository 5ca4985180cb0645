"""What a link's settings put into the controls."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from rmd.checks import RequestError
from rmd.engine.session import Session
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner
from rmd.ui.events import NO_CHANGE
from rmd.ui.rail import Rail
from rmd.ui.share import Share


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Share:
    runner = Runner(Session(), Offer(), Path(tmp_path_factory.mktemp("files")))
    with gr.Blocks():
        return Share(runner, Rail(runner.offer))


def test_a_link_to_another_model_brings_a_prompt_of_its_own(share: Share) -> None:
    prompt = share.rail.settings["prompt"]
    assert "sliding" in share.linked({"backbone": "emoji-wan"})[prompt], "one that moves"
    assert share.linked({"backbone": "emoji-wan", "prompt": "a fox"})[prompt] == "a fox"
    assert prompt not in share.linked({"backbone": "emoji-sdxl", "steps": "2"}), "the box holds one of its own"
    assert prompt not in share.linked({"steps": "2"})


def test_a_link_that_does_not_fit_is_a_sentence(share: Share) -> None:
    assert share.linked({"utm_source": "x"}) == NO_CHANGE, "none of ours"
    with pytest.raises(RequestError, match="The link could not be used: steps must be"):
        share.linked({"steps": "99"})
