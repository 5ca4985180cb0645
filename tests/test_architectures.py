"""The published networks at full size, built without memory: their configurations give their parameter counts."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from typing import Any

import diffusers
import pytest
import torch

from rmd.backbones import catalog
from rmd.backbones.folders import ADAPTERS

ROWS: dict[str, Any] = json.loads(catalog.ROWS.with_name("architectures.json").read_text())


@pytest.mark.parametrize("name", ROWS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    row = ROWS[name]
    with torch.device("meta"):
        network = getattr(diffusers, row["class"]).from_config(row["config"])
    count = sum(p.numel() for p in network.parameters()) / 1e9
    assert count == pytest.approx(row["billions"], rel=0.004)
    assert all(p.is_meta for p in network.parameters())


def test_every_backbone_from_the_hub_has_its_architecture() -> None:
    rows = json.loads(catalog.ROWS.read_text())
    published = {row["id"]: row for row in rows if "repo" in row}
    assert set(published) == set(ROWS)
    for name, row in published.items():
        adapter = ADAPTERS[row["class"]]
        assert {adapter.component, "vae", "scheduler"} <= set(row["components"])
        vae = {"scale_factor_spatial": 8, "scale_factor_temporal": 4} if "Wan" in row["class"] else {}
        grid = adapter.grid_of(vae, ROWS[name]["config"])
        for entry in (e for e in catalog.ENTRIES if e.id == name):
            assert entry.spec is not None
            low, high = (grid.latent_size(size, entry.spec.frames) for size in (entry.spec.low, entry.spec.high))
            assert len(low) == len(high) == (3 if entry.spec.frames > 1 else 2)


def test_what_downloading_fetches_is_no_more_than_what_is_read() -> None:
    sdxl, medium = (next(e for e in catalog.ENTRIES if e.id == name).hub for name in ("sdxl", "sd3.5-medium"))
    assert sdxl is not None
    assert medium is not None

    def taken(source: catalog.Hub, file: str) -> bool:
        wanted = any(fnmatch(file, pattern) for pattern in source.allow)
        return wanted and not any(fnmatch(file, pattern) for pattern in source.ignore)

    assert taken(sdxl, "unet/diffusion_pytorch_model.fp16.safetensors")
    assert taken(sdxl, "tokenizer/merges.txt")
    for left in ("unet/diffusion_pytorch_model.safetensors", "sd_xl_base_1.0.safetensors", "unet/model.onnx"):
        assert not taken(sdxl, left)
    assert taken(medium, "text_encoder_3/model-00001-of-00002.safetensors")
    for left in ("text_encoder/model.fp16.safetensors", "text_encoders/t5xxl_fp16.safetensors"):
        assert not taken(medium, left)
