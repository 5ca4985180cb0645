"""Weights of every published kind become a student, or are refused in a sentence."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from rmd.backbones import catalog, loading
from rmd.backbones.cards import StudentSpec
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError
from rmd.engine.pool import Loaded, ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.request import Decoder, make_request
from tests.tiny import tiny_unet
from tests.tiny_flow import SD3_CARD, WAN_CARD, tiny_sd3, tiny_sd3_transformer, tiny_wan, tiny_wan_transformer

CPU = torch.device("cpu")
RANK, ALPHA = 2, 4.0
LAYERS = {
    "sdxl": ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"),
    "sd3": ("transformer", "transformer_blocks.0.attn.to_q"),
    "wan": ("transformer", "blocks.1.attn2.to_q"),
}


@pytest.fixture(scope="module")
def bases(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folders = {"sdxl": tiny_sdxl}
    for name, pipe, card in (("sd3", tiny_sd3(False), SD3_CARD), ("wan", tiny_wan(), WAN_CARD)):
        folders[name] = tmp_path_factory.mktemp("bases") / name
        pipe.save_pretrained(folders[name])
        (folders[name] / "backbone.json").write_text(json.dumps(card))
    return {name: loading.open_backbone(folder, name, CPU, torch.float32) for name, folder in folders.items()}


@pytest.fixture(params=LAYERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def product(base: Any, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """A LoRA's two factors for one layer, and what they add to its weight."""
    weight = base.network.get_submodule(LAYERS[kind][1]).weight
    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(RANK, weight.shape[1], generator=g), torch.randn(weight.shape[0], RANK, generator=g)
    return down, up, up @ down


def same_but_one_layer(made: Any, base: Any, kind: str, added: Tensor) -> None:
    """Every weight is the base's but the layer's, which has grown by `added`; the base itself stays as it was."""
    layer = f"{LAYERS[kind][1]}.weight"
    ours, theirs = made.network.state_dict(), base.network.state_dict()
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        expected = theirs[name] + added if name == layer else theirs[name]
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_a_lora_in_diffusers_naming(bases: dict[str, Any], kind: str, tmp_path: Path) -> None:
    component, layer = LAYERS[kind]
    down, up, added = product(bases[kind], kind)
    file = tmp_path / "four_steps.safetensors"
    save_file({f"{component}.{layer}.lora_A.weight": down, f"{component}.{layer}.lora_B.weight": up}, file)
    made, card = loading.open_student(file, bases[kind])
    same_but_one_layer(made, bases[kind], kind, added)
    assert (card.name, card.distilled, card.base_model) == ("four_steps", False, bases[kind].spec.name)


def test_a_lora_in_kohyas_naming_with_a_scale(bases: dict[str, Any], tmp_path: Path) -> None:
    down, up, added = product(bases["sdxl"], "sdxl")
    name = "lora_unet_" + LAYERS["sdxl"][1].replace(".", "_")
    file = tmp_path / "kohya.safetensors"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}
    save_file(tensors, file)
    made, _ = loading.open_student(file, bases["sdxl"])
    same_but_one_layer(made, bases["sdxl"], "sdxl", added * ALPHA / RANK)


@pytest.mark.parametrize(("whole", "file"), [(True, False), (True, True), (False, False)])
def test_a_lora_that_peft_saved(bases: dict[str, Any], kind: str, tmp_path: Path, whole: bool, file: bool) -> None:
    """As a folder with its configuration, which holds the scale, or its file named; or as the file alone, whose scale
    is one."""
    down, up, added = product(bases[kind], kind)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA if whole else RANK, target_modules=[LAYERS[kind][1]])  # type: ignore[arg-type]
    with torch.inference_mode(False):
        wrapped: Any = get_peft_model(copy.deepcopy(bases[kind].network), config)
        layer = wrapped.get_submodule(f"base_model.model.{LAYERS[kind][1]}")
        layer.lora_A.default.weight.data.copy_(down)
        layer.lora_B.default.weight.data.copy_(up)
        wrapped.save_pretrained(tmp_path / "peft")
    if not whole:
        (tmp_path / "peft" / "adapter_config.json").unlink()
    path = tmp_path / "peft" / "adapter_model.safetensors" if file else tmp_path / "peft"
    made, card = loading.open_student(path, bases[kind])
    same_but_one_layer(made, bases[kind], kind, added * (ALPHA / RANK if whole else 1))
    assert not card.distilled


def other_network(kind: str, **changes: Any) -> Any:
    made = {"sdxl": tiny_unet, "sd3": tiny_sd3_transformer, "wan": tiny_wan_transformer}
    return made[kind](7, **changes)


@pytest.mark.parametrize("form", ["file", "prefixed", "folder", "pipeline"])
def test_a_full_network(bases: dict[str, Any], kind: str, tmp_path: Path, form: str) -> None:
    network, component = other_network(kind), LAYERS[kind][0]
    path = tmp_path / "student"
    if form in ("file", "prefixed"):
        path = tmp_path / "student.safetensors"
        start = "" if form == "file" else f"{component}."
        save_file({f"{start}{k}": v.contiguous() for k, v in network.state_dict().items()}, path)
    else:
        network.save_pretrained(path if form == "folder" else path / component)
    made, card = loading.open_student(path, bases[kind])
    theirs = network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in made.network.state_dict().items())
    assert (card.name, card.origin) == ("student", "published")


def refused(path: Path, base: Any) -> str:
    with pytest.raises(RequestError) as caught:
        loading.open_student(path, base)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt"])
@pytest.mark.parametrize("folder", [True, False])
def test_pickles_are_refused_unread(bases: dict[str, Any], tmp_path: Path, suffix: str, folder: bool) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.write_text, (tmp_path / "sprung", "x"))

    path = tmp_path / "there" / f"student{suffix}"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Trap()))
    message = refused(path.parent if folder else path, bases["sdxl"])
    assert "take the .safetensors version" in message
    assert not (tmp_path / "sprung").exists()


def test_a_lora_for_something_else_is_refused(bases: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    factors = {"lora_A": torch.ones(2, 4), "lora_B": torch.ones(4, 2)}
    save_file({f"transformer.nowhere.to_q.{name}.weight": value for name, value in factors.items()}, file)
    assert "cannot be loaded" in refused(file, bases["wan"])
    assert "cannot be loaded" in refused(file, bases["sdxl"])


def test_a_lora_of_another_size_is_refused(bases: dict[str, Any], kind: str, tmp_path: Path) -> None:
    component, layer = LAYERS[kind]
    file = tmp_path / "a.safetensors"
    tensors = {
        f"{component}.{layer}.lora_A.weight": torch.ones(2, 77),
        f"{component}.{layer}.lora_B.weight": torch.ones(77, 2),
    }
    save_file(tensors, file)
    assert "cannot be loaded" in refused(file, bases[kind])


def test_weights_of_another_size_or_kind_are_refused(bases: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(tiny_unet(0, width=24).state_dict(), file)
    assert "is of size [" in refused(file, bases["sdxl"])
    assert "its weights are named otherwise" in refused(file, bases["wan"])
    save_file({"x": torch.ones(1)}, file)
    assert "its weights are named otherwise" in refused(file, bases["sd3"])
    file.write_bytes(b"not weights")
    assert "cannot be loaded" in refused(file, bases["sd3"])


def test_a_folder_of_several_files_asks_for_one(bases: dict[str, Any], tmp_path: Path) -> None:
    for name in "ab":
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    assert "give one of its files, a.safetensors" in refused(tmp_path, bases["sdxl"])
    assert "no such file" in refused(tmp_path / "nowhere", bases["sdxl"])
    (tmp_path / "notes.txt").write_text("hello")
    assert "must be a .safetensors file" in refused(tmp_path / "notes.txt", bases["sdxl"])


def test_the_result_says_it_was_not_distilled(bases: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "others.safetensors"
    save_file(tiny_unet(7).state_dict(), file)
    folder = str(bases["sdxl"].folder)
    outline = read_outline(catalog.find(folder), str(file))
    assert outline.card is not None
    assert outline.defaults()["eta"] == 0
    values = outline.fill({"backbone": folder, "student": str(file), "prompt": "a fox", "teacher": False})
    done = next(e for e in Session(ModelPool(CPU)).generate(make_request(values)) if isinstance(e, Done))
    assert done.student.timings.nfe == 4  # without guidance
    assert done.result.distilled is False
    assert done.result.label == "others: training-free cascade, not distilled by us"


def test_a_cards_own_times_guidance_and_shift_are_used(bases: dict[str, Any]) -> None:
    base = bases["wan"]
    card = StudentSpec(
        "Own", "Tiny Wan", "MIT", 3, 1, 0.0, "band", "By hand.", {}, origin="published", guidance=2.0, shift=5.0,
        times=(1.0, 0.6, 0.3),
    )  # fmt: skip

    class Pool(ModelPool):
        def resident(self, backbone: str, student: str | None, decoder: Decoder = "full") -> bool:
            return True

        def acquire(self, backbone: str, student: str | None, decoder: Decoder = "full") -> Loaded:
            return Loaded(base, base.with_network(base.network, card.shift), card)

    values = {"backbone": "x", "prompt": "a fox", "steps": 3, "switch": 1, "teacher": False}
    done = next(e for e in Session(Pool(CPU)).generate(make_request(values)) if isinstance(e, Done))
    assert done.student.timings.nfe == 6
    assert done.plan.stages[1].times == (0.6, 0.3)
    other = next(e for e in Session(Pool(CPU)).generate(make_request({**values, "steps": 2})) if isinstance(e, Done))
    assert other.plan.stages[1].times == (0.5,)
    assert float(base.with_network(base.network, 5.0).schedule.sigma(0.5)) == pytest.approx(5 / 6)
    assert float(base.schedule.sigma(0.5)) == pytest.approx(3 / 4)
