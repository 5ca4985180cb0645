"""Reading a backbone part by part: what is said, that it is the pipeline's own reading, and what has no room."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from rmd.backbones import loading, parts
from rmd.backbones.parts import Part
from rmd.checks import Cancelled, RequestError
from rmd.engine.events import Loading
from rmd.engine.pool import ModelPool
from rmd.engine.session import Session
from rmd.request import make_request

CPU = torch.device("cpu")


def test_every_network_is_announced_with_its_bytes(tiny_sdxl: Path) -> None:
    said = list(loading.opening(tiny_sdxl, "tiny", CPU))
    files = {part.name: list((tiny_sdxl / part.name).glob("*.safetensors")) for part in said}
    assert set(files) == {"text_encoder_2", "unet", "vae"}
    read = 0
    for part in said:
        assert part.size == sum(file.stat().st_size for file in files[part.name]) > 0
        assert part.read == read
        read += part.size
    assert {part.total for part in said} == {read}


def test_part_by_part_is_the_same_as_in_one_go(tiny_sdxl: Path) -> None:
    ours: Any = loading.open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)
    theirs = diffusers.StableDiffusionXLPipeline.from_pretrained(
        tiny_sdxl, dtype=torch.float32, use_safetensors=True, add_watermarker=False
    )
    for name, part in theirs.components.items():
        mine = ours.pipe.components[name]
        assert type(mine) is type(part), name
        if isinstance(part, torch.nn.Module):
            state = mine.state_dict()
            assert not mine.training
            assert all(torch.equal(state[key], value) for key, value in part.state_dict().items())


def test_what_has_no_room_is_refused_before_a_byte_is_read(tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "free_gb", lambda device: 1e-6)
    steps = loading.opening(tiny_sdxl, "tiny", CPU, torch.float32)
    with pytest.raises(RequestError, match=r"needs \d+\.\d GB of memory for its weights in float32; this machine has"):
        next(steps)


def test_the_figure_is_that_of_the_loaded_weights(tiny_sdxl: Path) -> None:
    made: Any = loading.open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)
    counted = sum(parts.elements(file) for files in parts.networks(tiny_sdxl).values() for file in files)
    held = sum(w.numel() for part in made.parts() for w in part.state_dict().values())
    assert counted == held


def test_a_damaged_header_counts_nothing(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("huge", b"\xff" * 8), ("list", b"\x02" + bytes(7) + b"[]")):
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        assert parts.elements(file) == 0


def test_words() -> None:
    assert Part("unet", 500_000_000, 250_000_000, 1_500_000_000).words == "unet, 0.5 GB (0.2 of 1.5 read)"
    assert Part("unet", 2_000_000, 0, 9_000_000).words == "unet, 2.0 MB (0.0 of 9.0 read)"
    assert Loading("sdxl", Part("student")).sentence == "Loading student …"


def test_stop_works_between_two_parts(tiny_sdxl: Path, tmp_path: Path) -> None:
    session, cancel = Session(ModelPool(CPU), previews=False), threading.Event()
    folder = shutil.copytree(tiny_sdxl, tmp_path / "tiny")
    events = session.generate(make_request({"backbone": str(folder), "prompt": "a fox", "seed": 1}), cancel)
    first = next(event for event in events if isinstance(event, Loading) and event.part)
    assert first.part is not None
    cancel.set()
    with pytest.raises(Cancelled):
        next(events)
    assert session.pool.name is None, "nothing is left loaded"
