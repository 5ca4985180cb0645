"""Weight files that would be silently wrong: what is not applied is a reason to refuse, and scales are honoured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rmd.backbones import loading
from rmd.backbones.students import open_student
from rmd.checks import RequestError

CPU = torch.device("cpu")
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def base(tiny_sdxl: Path) -> Any:
    return loading.open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)


def layer_of(network: Any) -> Tensor:
    return network.get_submodule(LAYER).weight.detach()


def factors(base: Any, rank: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    out, width = layer_of(base.network).shape
    return torch.randn(rank, width, generator=g), torch.randn(out, rank, generator=g)


def refused(path: Path, base: Any) -> str:
    with pytest.raises(RequestError) as caught:
        open_student(path, base)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("header", [True, False])
def test_alpha_in_the_files_header_scales_the_adapter(base: Any, tmp_path: Path, header: bool) -> None:
    down, up = factors(base)
    file = tmp_path / "a.safetensors"
    settings = {"unet.r": 2, "unet.lora_alpha": 8, "unet.target_modules": [LAYER]}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)} if header else {"format": "pt"}
    save_file({f"unet.{LAYER}.lora_A.weight": down, f"unet.{LAYER}.lora_B.weight": up}, file, metadata)
    student, _ = open_student(file, base)
    scale = 8 / 2 if header else 1
    torch.testing.assert_close(layer_of(student.network), layer_of(base.network) + scale * up @ down)


def test_an_adapter_without_its_components_name_is_read(base: Any, tmp_path: Path) -> None:
    down, up = factors(base)
    file = tmp_path / "a.safetensors"
    save_file({f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}, file)
    student, _ = open_student(file, base)
    torch.testing.assert_close(layer_of(student.network), layer_of(base.network) + up @ down)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_a_peft_folder_of_another_network_is_refused(base: Any, tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["to_q"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    down, up = factors(base)
    name = f"base_model.model.{LAYER.replace('down_blocks.1', 'down_blocks.7')}"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "adapter_model.safetensors")
    assert "changes no weight of" in refused(tmp_path, base)


def test_an_adapter_that_was_never_trained_is_refused(base: Any, tmp_path: Path) -> None:
    down, up = factors(base)
    file = tmp_path / "a.safetensors"
    save_file({f"unet.{LAYER}.lora_A.weight": down, f"unet.{LAYER}.lora_B.weight": torch.zeros_like(up)}, file)
    assert "changes no weight of" in refused(file, base)


@pytest.mark.parametrize(
    ("key", "words"), [("lora_unet_x.dora_scale", "is a DoRA (lora_unet_x"), ("unet.norm.diff", "(unet.norm.diff)")]
)
def test_what_the_converters_would_drop_is_named(base: Any, tmp_path: Path, key: str, words: str) -> None:
    down, up = factors(base)
    file = tmp_path / "a.safetensors"
    pair = {f"unet.{LAYER}.lora_A.weight": down, f"unet.{LAYER}.lora_B.weight": up}
    save_file({**pair, key: torch.ones(3)}, file)
    assert words in refused(file, base)


def test_an_unknown_key_of_a_full_network_is_named(base: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    state = {name: value.clone().contiguous() for name, value in base.network.state_dict().items()}
    save_file({**state, "conv_in.scale_weight": torch.ones(1)}, file)
    assert "has no conv_in.scale_weight" in refused(file, base)
