"""Sizes, lengths and plans of several sizes, on every family of pipelines."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rmd.backbones import catalog
from rmd.backbones.cards import StudentSpec
from rmd.backbones.folders import BACKBONE_CARD
from rmd.backbones.loading import open_backbone
from rmd.backbones.outline import Outline, read_outline
from rmd.backbones.sizes import lengths, low_for, presets, side_range
from rmd.checks import RequestError, size_text
from rmd.engine.plans import plan_for
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from tests.tiny_flow import SD3_CARD, WAN_CARD, tiny_sd3, tiny_wan

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("families")
    for name, pipe, card in (("sd3", tiny_sd3(t5=False), SD3_CARD), ("wan", tiny_wan(), WAN_CARD)):
        pipe.save_pretrained(place / name)
        (place / name / BACKBONE_CARD).write_text(json.dumps(card))
    return {"sdxl": tiny_sdxl, "sd3": place / "sd3", "wan": place / "wan"}


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(ModelPool(CPU), previews=False)


def outline_of(folder: Path) -> Outline:
    return read_outline(catalog.find(str(folder)))


def run(session: Session, outline: Outline, **settings: Any) -> Done:
    values = {"backbone": outline.entry.id, "prompt": "a fox", "seed": 3, "teacher_steps": 2, **settings}
    return next(e for e in session.generate(outline.request(values)) if isinstance(e, Done))


@pytest.mark.parametrize("family", ["sdxl", "sd3", "wan"])
def test_student_and_teacher_have_the_size_asked_for(family: str, session: Session, folders: dict[str, Path]) -> None:
    outline = outline_of(folders[family])
    wide = next(one for one in presets(outline.spec, outline.grid) if one[1] > one[0])
    done = run(session, outline, size=size_text(wide), steps=2, switch=1)
    assert done.teacher is not None
    assert {side.image.size for side in (done.student, done.teacher)} == {(wide[1], wide[0])}
    assert done.request.low == size_text(low_for(outline.spec, outline.grid, wide))
    small = outline.latent_size(low_for(outline.spec, outline.grid, wide))
    assert [stage.size for stage in done.plan.stages] == [small, outline.latent_size(wide)]


def test_a_clip_has_the_frames_asked_for(session: Session, folders: dict[str, Path]) -> None:
    outline = outline_of(folders["wan"])
    assert outline.grid.temporal is not None
    shorter = next(one for one in lengths(outline.spec, outline.grid) if 1 < one != outline.spec.frames)
    done = run(session, outline, frames=shorter)
    assert done.teacher is not None
    assert len(done.student.frames) == len(done.teacher.frames) == shorter
    with pytest.raises(RequestError, match=rf"frames must be one more than a multiple of .*the nearest is {shorter}"):
        outline.request({"prompt": "a", "frames": shorter + 1})


@pytest.mark.parametrize("family", ["sdxl", "sd3", "wan"])
def test_a_plan_of_three_sizes_runs(family: str, session: Session, folders: dict[str, Path]) -> None:
    outline = outline_of(folders[family])
    step = outline.grid.step
    sides = [step, 2 * step, 3 * step]
    text = ",".join(f"{side}x{side}:{steps}" for side, steps in zip(sides, (1, 1, 2), strict=True))
    done = run(session, outline, plan=text, steps=1, switch=0, low="1x1")
    assert [stage.size[-1] * outline.grid.cell for stage in done.plan.stages] == sides
    assert [len(stage.times) for stage in done.plan.stages] == [1, 1, 2]
    assert (done.request.steps, done.request.switch) == (4, 2)
    assert done.request.size == size_text((sides[-1], sides[-1]))
    assert done.student.image.size == (sides[-1], sides[-1])
    assert [stage.steps for stage in done.student.timings.stages] == [1, 1, 2]


def test_a_plan_of_two_sizes_is_the_short_form(session: Session, folders: dict[str, Path]) -> None:
    outline = outline_of(folders["sdxl"])
    short = outline.request({"prompt": "a", "steps": 3, "switch": 2, "size": "64x64", "low": "32x32"})
    long = outline.request({"prompt": "a", "plan": " 32 x 32 : 2, 64×64:1"})
    assert long.plan == "32x32:2,64x64:1"
    assert plan_for(long, outline, None) == plan_for(short, outline, None)
    enlarged = outline.request({"prompt": "a", "plan": "32x32:2,64x64:0"})
    assert (enlarged.steps, enlarged.switch) == (2, 2)
    assert plan_for(enlarged, outline, None).stages[-1].times == ()


@pytest.mark.parametrize("family", ["sdxl", "sd3", "wan"])
def test_every_size_that_is_offered_is_allowed(family: str, folders: dict[str, Path]) -> None:
    outline = outline_of(folders[family])
    spec, grid = outline.spec, outline.grid
    least, most = side_range(spec, grid)
    assert presets(spec, grid)[0] == spec.high
    for one in [*presets(spec, grid), (least, least), (most, most), (least, most)]:
        for frames in lengths(spec, grid):
            request = outline.request({"prompt": "a", "size": size_text(one), "frames": frames})
            assert plan_for(request, outline, None).size == outline.latent_size(one, frames)
    for outside in ((grid.step - 1, most), (least, most + grid.step)):
        with pytest.raises(RequestError, match=rf"size must have sides of {least} to {most} px"):
            outline.request({"prompt": "a", "size": size_text(outside)})


def test_more_work_is_said_before_it_begins(folders: dict[str, Path]) -> None:
    outline = outline_of(folders["sdxl"])
    assert outline.notes(outline.request({"prompt": "a"})) == []
    usual, large = (size_text((side, side)) for side in (outline.spec.high[0], 2 * outline.spec.high[0]))
    notes = outline.notes(outline.request({"prompt": "a", "size": large}))
    assert any(f"4.0× the time and memory of its usual {usual}" in note for note in notes)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "wan"])
def test_the_widest_tensor_is_one_the_network_makes(family: str, folders: dict[str, Path]) -> None:
    """No more than what the layer that grows fastest with the size gives out, and not much less."""
    backbone: Any = open_backbone(folders[family], family, CPU, torch.float32)
    given: dict[Any, int] = {}
    for module in backbone.network.modules():
        module.register_forward_hook(
            lambda module, _, out: given.update({module: out.numel()}) if isinstance(out, torch.Tensor) else None
        )
    found, cells, prompt = [], [], backbone.encode(["a fox"])
    for pixels in (backbone.spec.low, backbone.spec.high):
        size = backbone.latent_size(pixels)
        with torch.inference_mode():
            backbone.predict(torch.zeros(1, backbone.channels, *size), 0.5, prompt)
        found.append(dict(given))
        cells.append(math.prod(size))
    most = max((found[1][one] - found[0][one]) / (cells[1] - cells[0]) for one in given)
    assert 0.3 * most < backbone.widest(backbone.network.config) <= most


def test_what_can_never_fit_is_refused_with_its_figures(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    outline = replace(outline_of(folders["wan"]), widest=1e6)
    cells = math.prod(outline.latent_size(outline.spec.high, outline.spec.frames))
    monkeypatch.setattr("rmd.backbones.outline.memory_gb", lambda device: 4e6 * cells / 1e9 + 0.1)
    assert outline.request({"prompt": "a fox", "teacher": False})
    words = r"size \d+x\d+ with \d+ frames needs more than \d+\.\d GB of memory; this machine has \d+\.\d GB"
    with pytest.raises(RequestError, match=words):
        outline.request({"prompt": "a fox", "guidance": 3.0})  # the teacher's pair is twice as large


CARD = StudentSpec("Some", "x", "MIT", 4, 2, 0.0, "band", "By hand.", {})


@pytest.mark.parametrize(
    ("card", "inside", "outside", "words"),
    [
        (CARD, [(1, 0), (8, 8)], [], ""),
        (replace(CARD, trained_steps=(1, 8)), [(1, 1), (8, 3)], [], ""),
        (replace(CARD, trained_steps=(2, 4)), [(2, 0), (4, 4)], [(1, 0), (5, 2)], "2 to 4 steps, any switch"),
        (replace(CARD, trained_steps=(4, 4), trained_switch=2), [(4, 2)], [(4, 1), (3, 2)], "4 steps, 2 at low"),
        (replace(CARD, origin="published"), [(4, 0)], [(4, 2), (2, 0)], "4 steps at full resolution"),
    ],
)
def test_a_plan_outside_the_training_is_marked(
    card: StudentSpec, inside: list[tuple[int, int]], outside: list[tuple[int, int]], words: str
) -> None:
    assert [card.off_training(*plan) for plan in inside] == [""] * len(inside)
    for plan in outside:
        assert card.off_training(*plan).startswith(f"Off training: Some was trained for {words}")


def test_a_student_of_several_sizes_is_at_home_in_its_own_plan_alone() -> None:
    card = replace(CARD, origin="published", scales=(0.5, 0.5, 0.75, 1.0))
    assert card.off_training(4, 3, sizes=True) == ""
    assert "4 steps at sizes of its own" in card.off_training(4, 2)


def test_the_shipped_students_say_what_they_were_trained_for() -> None:
    for name in ("emoji-sdxl", "emoji-wan"):
        outline = read_outline(catalog.find(name))
        assert outline.card is not None
        assert outline.card.trained_steps == (1, 8)
        assert outline.off_training(outline.request({"prompt": "a fox"})) == ""
