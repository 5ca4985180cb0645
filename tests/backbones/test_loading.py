"""Opening folders: what fits is opened, what does not is refused in a sentence that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rmd.backbones import catalog, loading
from rmd.backbones.folders import read_student
from rmd.backbones.sdxl import SDXLBackbone
from rmd.checks import RequestError
from tests.tiny import STUDENT_CARD, tiny_unet

CPU = torch.device("cpu")
WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def backbone(tiny_sdxl: Path) -> SDXLBackbone:
    made = loading.open_backbone(tiny_sdxl, "tiny", CPU)
    assert isinstance(made, SDXLBackbone)
    return made


@pytest.fixture
def copied(tiny_sdxl: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "copied"))


@pytest.fixture
def student(tiny_student: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_student, tmp_path / "student"))


def change(path: Path, **values: Any) -> None:
    """Set entries of a JSON file; None removes one."""
    data = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def refused(folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        loading.open_backbone(folder, "x", CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def student_refused(folder: Path, backbone: SDXLBackbone) -> str:
    with pytest.raises(RequestError) as caught:
        loading.open_student(folder, backbone)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_card_is_read(backbone: SDXLBackbone) -> None:
    spec = backbone.spec
    assert (spec.id, spec.name, spec.high, spec.low) == ("tiny", "Tiny", (64, 64), (32, 32))
    assert (spec.teacher_steps, spec.guidance, spec.known_words) == (6, 3.5, ("fox", "star"))
    assert (backbone.prediction, backbone.channels) == ("v_prediction", 4)


def test_a_folder_without_a_card_gets_defaults(copied: Path) -> None:
    (copied / "backbone.json").unlink()
    spec = loading.open_backbone(copied, "x", CPU).spec
    assert (spec.name, spec.high, spec.low) == ("copied", (64, 64), (32, 32))


def test_the_schedule_is_the_folders_own(backbone: SDXLBackbone) -> None:
    t = (torch.arange(1000) + 1).double() / 1000
    theirs = backbone.pipe.scheduler.alphas_cumprod
    torch.testing.assert_close((backbone.schedule.alpha(t) ** 2).float(), theirs, atol=1e-6, rtol=1e-4)


def test_preview_uses_the_fitted_map(copied: Path) -> None:
    """rgb = factors·latent + offset: here the first channel is red, and the offset makes green."""
    change(copied / "backbone.json", rgb_factors=[[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    made = loading.open_backbone(copied, "x", CPU)
    latents = torch.zeros(1, 4, 2, 2)
    latents[0, 0, 0, 1] = 1
    image = made.preview(latents)
    assert image.getpixel((1, 0)) == (255, 255, 0)
    assert image.getpixel((0, 0)) == (0, 255, 0)


def test_no_folder(tmp_path: Path) -> None:
    assert "There is no folder" in refused(tmp_path / "nowhere")


def test_no_pipeline(copied: Path) -> None:
    (copied / "model_index.json").unlink()
    assert "model_index.json is missing" in refused(copied)


@pytest.mark.parametrize("text", ["{", "[]", "", "\udcff"])
def test_a_broken_index(copied: Path, text: str) -> None:
    (copied / "model_index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "model_index.json" in refused(copied)


def test_another_kind_of_pipeline(copied: Path) -> None:
    change(copied / "model_index.json", _class_name="FluxPipeline")
    assert "holds a FluxPipeline; supported are folders of StableDiffusionXLPipeline" in refused(copied)


@pytest.mark.parametrize("size", [0, 5, 2000])
def test_cut_off_weights(copied: Path, size: int) -> None:
    (copied / WEIGHTS).write_bytes((copied / WEIGHTS).read_bytes()[:size])
    assert "copied cannot be loaded" in refused(copied)


def test_missing_weights(copied: Path) -> None:
    (copied / WEIGHTS).unlink()
    assert "copied cannot be loaded" in refused(copied)


def test_pickled_weights_are_never_read(copied: Path) -> None:
    """Safetensors only: a pickle can run code."""
    torch.save(load_file(copied / WEIGHTS), copied / "unet" / "diffusion_pytorch_model.bin")
    (copied / WEIGHTS).unlink()
    assert "copied cannot be loaded" in refused(copied)


@pytest.mark.parametrize(
    "values",
    [
        {"surprise": 1}, {"name": None}, {"high": None}, {"high": 64}, {"high": [64]}, {"high": "large"},
        {"low": [0, 0]}, {"low": [30, 30]}, {"low": [128, 128]}, {"default_steps": "four"}, {"default_steps": 99},
        {"default_switch": 5}, {"guidance": "much"}, {"teacher_steps": 0}, {"known_words": 3},
        {"rgb_factors": [[1], [2]]}, {"rgb_factors": "red"},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_that_makes_no_sense(copied: Path, values: dict[str, Any]) -> None:
    change(copied / "backbone.json", **values)
    assert "backbone.json" in refused(copied)


def test_a_student_replaces_the_network_only(backbone: SDXLBackbone, student: Path) -> None:
    made, card = loading.open_student(student, backbone)
    assert card.name == "Tiny student"
    assert made.network is not backbone.network
    assert made.schedule is backbone.schedule
    saved = load_file(student / WEIGHTS)
    loaded = made.network.state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in saved.items())


def test_a_student_of_another_size_is_refused(backbone: SDXLBackbone, student: Path) -> None:
    tiny_unet(7, width=24).save_pretrained(student / "unet")
    message = student_refused(student, backbone)
    assert "does not fit Tiny: block_out_channels" in message
    assert "it was made for Tiny" in message


def test_a_student_of_another_class_is_refused(backbone: SDXLBackbone, student: Path) -> None:
    change(student / "unet" / "config.json", _class_name="FluxTransformer2DModel")
    assert "does not fit Tiny: _class_name" in student_refused(student, backbone)


def test_a_student_with_missing_weights_is_refused(backbone: SDXLBackbone, student: Path) -> None:
    """diffusers would fill the gap with random numbers."""
    weights = load_file(student / WEIGHTS)
    weights.pop("conv_out.weight")
    save_file(weights, student / WEIGHTS, metadata={"format": "pt"})
    assert "conv_out.weight" in student_refused(student, backbone)


@pytest.mark.parametrize("size", [0, 2000])
def test_a_cut_off_student_is_refused(backbone: SDXLBackbone, student: Path, size: int) -> None:
    (student / WEIGHTS).write_bytes((student / WEIGHTS).read_bytes()[:size])
    assert "cannot be loaded" in student_refused(student, backbone)


@pytest.mark.parametrize("file", [str(WEIGHTS), "unet/config.json"])
def test_a_student_with_a_missing_file_is_refused(backbone: SDXLBackbone, student: Path, file: str) -> None:
    (student / file).unlink()
    assert Path(file).name in student_refused(student, backbone)


@pytest.mark.parametrize(
    "values",
    [{"eta": None}, {"surprise": 1}, {"reinjection": "old"}, {"eta": 2}, {"eta": "all"}, {"default_steps": 0},
     {"default_switch": 9}, {"quality": 3}],
    ids=str,
)  # fmt: skip
def test_a_students_card_that_makes_no_sense(backbone: SDXLBackbone, student: Path, values: dict[str, Any]) -> None:
    change(student / "rmd.json", **values)
    assert "rmd.json" in student_refused(student, backbone)


def test_catalog_finds_ids_and_folders(tiny_sdxl: Path) -> None:
    assert catalog.find(catalog.DEFAULT).id == catalog.DEFAULT
    assert catalog.find(str(tiny_sdxl)).folder == tiny_sdxl
    with pytest.raises(RequestError, match="backbone 'nothing' is neither one of emoji-sdxl"):
        catalog.find("nothing")


def test_status_says_what_is_wrong(tiny_sdxl: Path, copied: Path) -> None:
    good = catalog.status(catalog.find(str(tiny_sdxl)))
    assert (good.usable, good.problem, good.distilled) == (True, "", False)
    assert good.size_mb > 0.1
    (copied / "model_index.json").unlink()
    bad = catalog.status(catalog.find(str(copied)))
    assert not bad.usable
    assert "model_index.json is missing" in bad.problem


def test_a_student_beside_its_backbone_is_found(copied: Path, tiny_student: Path) -> None:
    entry = catalog.find(str(copied))
    assert catalog.student_folder(entry, None) is None
    shutil.copytree(tiny_student, copied / "student")
    assert catalog.student_folder(entry, None) == copied / "student"
    assert catalog.student_folder(entry, "none") is None
    assert catalog.student_folder(entry, "elsewhere") == Path("elsewhere")


def test_the_cards_of_this_test_are_complete(student: Path) -> None:
    assert read_student(student).name == STUDENT_CARD["name"]
