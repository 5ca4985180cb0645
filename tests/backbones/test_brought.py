"""Files that people bring: in other programs' names, of kinds that are not read, of another size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmd.backbones import catalog
from rmd.backbones.loading import open_backbone, open_student
from rmd.checks import RequestError
from rmd.engine.results import label_of
from tests.tiny import STUDENT_CARD, tiny_unet
from tests.tiny_flow import WAN_CARD, tiny_wan

CPU = torch.device("cpu")
BLOCKS = {
    "down_blocks.1.attentions.0": "input_blocks_3_1",
    "mid_block.attentions.0": "middle_block_1",
    "up_blocks.0.attentions.0": "output_blocks_0_1",
    "up_blocks.0.attentions.1": "output_blocks_1_1",
}
"""The tiny network's blocks with attention, as the original program counts them."""


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl: Path) -> Any:
    return open_backbone(tiny_sdxl, "tiny", CPU)


def attention_layers(backbone: Any) -> list[str]:
    return [name for name, part in backbone.network.named_modules() if isinstance(part, torch.nn.Linear) and
            any(name.startswith(block) for block in BLOCKS)]  # fmt: skip


def low_rank(backbone: Any, layer: str, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """(down, up) of one layer."""
    weight, generator = backbone.network.get_submodule(layer).weight, torch.Generator().manual_seed(seed)
    down = torch.randn((rank, weight.shape[1]), generator=generator) * 0.1
    return down, torch.randn((weight.shape[0], rank), generator=generator) * 0.1


def saved(state: dict[str, Tensor], folder: Path) -> Path:
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "student.safetensors")
    return folder / "student.safetensors"


def test_kohyas_own_block_names_are_read_with_their_alpha(sdxl: Any, tmp_path: Path) -> None:
    state: dict[str, Tensor] = {}
    wanted = {name: value.clone() for name, value in sdxl.network.state_dict().items()}
    for seed, layer in enumerate(attention_layers(sdxl)):
        down, up = low_rank(sdxl, layer, 4, seed)
        block = next(one for one in BLOCKS if layer.startswith(one))
        name = "lora_unet_" + BLOCKS[block] + layer.removeprefix(block).replace(".", "_")
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(2.0)}
        wanted[f"{layer}.weight"] += (2 / 4) * (up @ down)
    student, _ = open_student(saved(state, tmp_path), sdxl)
    for name, value in student.network.state_dict().items():
        torch.testing.assert_close(value, wanted[name], atol=1e-6, rtol=1e-5)


def test_text_encoder_layers_of_a_file_are_said_to_be_left_out(sdxl: Any, tmp_path: Path) -> None:
    layer = attention_layers(sdxl)[0]
    down, up = low_rank(sdxl, layer, 2, 0)
    state = {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
    for number in range(3):
        part = f"text_encoder.text_model.encoder.layers.{number}.self_attn.q_proj"
        state |= {f"{part}.lora_A.weight": torch.ones(2, 8), f"{part}.lora_B.weight": torch.ones(8, 2)}
    _, card = open_student(saved(state, tmp_path), sdxl)
    assert label_of(card).endswith("; 3 text-encoder layers left out")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"lora_unet_x.hada_w1_a": (2, 4)}, "it is a LoHa or LoKr of LyCORIS .* merge it into a full network first"),
        ({"lycoris_x.lokr_w1": (2, 4)}, "it is a LoHa or LoKr of LyCORIS"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (2, 4)}, "original layout; convert it .*give the folder"),
    ],
)
def test_what_is_not_read_is_refused_with_the_way_out(
    sdxl: Any, tmp_path: Path, names: dict[str, tuple[int, int]], words: str
) -> None:
    file = saved({name: torch.ones(shape) for name, shape in names.items()}, tmp_path)
    with pytest.raises(RequestError, match=words):
        open_student(file, sdxl)


@pytest.mark.parametrize("ending", [("lora_A.weight", "lora_B.weight"), ("lora.down.weight", "lora.up.weight")])
def test_a_lora_of_another_size_is_refused_by_layer_and_size(
    sdxl: Any, tmp_path: Path, ending: tuple[str, str]
) -> None:
    layer = attention_layers(sdxl)[0]
    down, up = low_rank(sdxl, layer, 2, 0)
    right = down.shape[1]
    file = saved({f"unet.{layer}.{ending[0]}": torch.ones(2, 3 * right), f"unet.{layer}.{ending[1]}": up}, tmp_path)
    with pytest.raises(RequestError, match=rf"{layer} has {3 * right} inputs in it, where .* has {right}\.$"):
        open_student(file, sdxl)


def test_a_checkpoint_in_one_file_is_no_backbone(tmp_path: Path) -> None:
    file = saved({"model.diffusion_model.x": torch.ones(2)}, tmp_path)
    with pytest.raises(RequestError, match="is a single file; convert it with diffusers"):
        catalog.find(str(file))


@pytest.mark.parametrize(
    "kind", [{"transformer_2": ["diffusers", "WanTransformer3DModel"]}, {"expand_timesteps": True}]
)
def test_a_folder_of_wan22_is_no_student(tmp_path: Path, kind: dict[str, Any]) -> None:
    tiny_wan().save_pretrained(tmp_path / "wan")
    (tmp_path / "wan" / "backbone.json").write_text(json.dumps(WAN_CARD))
    backbone: Any = open_backbone(tmp_path / "wan", "wan", CPU)
    folder = tmp_path / "another"
    tiny_wan().save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **kind}))
    with pytest.raises(RequestError, match=r"one of Wan2\.2's kinds, of which none is supported"):
        open_student(folder, backbone)


@pytest.mark.parametrize("parts", [("vae", "text_encoder_2"), ("unet",), ("unet", "vae", "text_encoder_2")])
def test_every_part_takes_the_variant_it_has(parts: tuple[str, ...], tiny_sdxl: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_sdxl, tmp_path / "mixed")
    for part in parts:
        for file in list((folder / part).glob("*.safetensors")):
            state = {name: w.half() if w.is_floating_point() else w for name, w in load_file(file).items()}
            save_file(state, file.with_name(f"{file.stem}.fp16.safetensors"), metadata={"format": "pt"})
            file.unlink()
    made = open_backbone(folder, "mixed", torch.device("cpu"), torch.float32)
    whole = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
    for one, other in zip(made.parts(), whole.parts(), strict=True):
        assert all(torch.allclose(w, v, atol=1e-2) for w, v in zip(one.parameters(), other.parameters(), strict=True))


def diffusers_lora(sdxl: Any) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for seed, layer in enumerate(attention_layers(sdxl)):
        down, up = low_rank(sdxl, layer, 4, seed)
        state |= {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
    return state


def test_an_alpha_beside_diffusers_names_counts(sdxl: Any, tmp_path: Path) -> None:
    state, layer = diffusers_lora(sdxl), attention_layers(sdxl)[0]
    whole = {name: state[f"unet.{layer}.lora_{name}.weight"] for name in "AB"}
    state[f"unet.{layer}.alpha"] = torch.tensor(2.0)
    network: Any = open_student(saved(state, tmp_path), sdxl)[0].network
    added = network.get_submodule(layer).weight - sdxl.network.get_submodule(layer).weight
    assert torch.allclose(added, (2 / 4) * (whole["B"] @ whole["A"]), atol=1e-4)


@pytest.mark.parametrize(("gone", "said"), [("A", "lora_A.weight"), ("B", "lora_B.weight")])
def test_half_a_pair_is_refused(gone: str, said: str, sdxl: Any, tmp_path: Path) -> None:
    state, layer = diffusers_lora(sdxl), attention_layers(sdxl)[0]
    del state[f"unet.{layer}.lora_{gone}.weight"]
    with pytest.raises(RequestError, match=f"has no {said} beside it"):
        open_student(saved(state, tmp_path), sdxl)


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_a_students_folder_may_hold_the_variant_alone(shard: str, sdxl: Any, tmp_path: Path) -> None:
    network = tiny_unet(7)
    network.save_pretrained(tmp_path / "student" / "unet", variant="fp16", max_shard_size=shard)
    assert all(".fp16" in file.name for file in (tmp_path / "student" / "unet").glob("*.safetensors*"))
    (tmp_path / "student" / "rmd.json").write_text(json.dumps(STUDENT_CARD))
    made, _ = open_student(tmp_path / "student", sdxl)
    state = made.network.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in network.state_dict().items())
