"""The published networks at full size, built without memory: their configurations give their parameter counts."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from typing import Any

import pytest
import torch

from rmd.backbones import catalog, entries, random_weights
from rmd.backbones.folders import ADAPTERS
from rmd.backbones.loading import dtypes_for, whole
from rmd.backbones.random_weights import COMPONENTS, DECODERS, PIPELINES, component

USES = sorted({tuple(part) for part in (*DECODERS.values(), *(p for r in PIPELINES.values() for p in r.values()))})
COUNTED = [(kind, key) for kind, key in USES if "billions" in COMPONENTS[key]]


@pytest.mark.parametrize(("kind", "key"), COUNTED)
def test_parameter_counts_are_the_published_ones(kind: str, key: str) -> None:
    network = component(kind, COMPONENTS[key]["config"], torch.device("meta"), torch.float32)
    count = sum(p.numel() for p in network.parameters()) / 1e9
    # SD3's first encoder is SDXL's with a projection on top
    assert count == pytest.approx(COMPONENTS[key]["billions"], rel=0.006)
    assert all(p.is_meta for p in network.parameters())


def test_every_configuration_is_used_and_every_network_counted() -> None:
    assert {key for _, key in USES} == set(COMPONENTS)
    assert {key for key in COMPONENTS if not key.endswith(("tokenizer", "scheduler"))} == {key for _, key in COUNTED}


def test_every_backbone_from_the_hub_has_its_architecture() -> None:
    rows = json.loads(catalog.ROWS.read_text())
    published = {row["id"]: row for row in rows if "repo" in row}
    assert set(published) == set(PIPELINES)
    for name, row in published.items():
        adapter, parts = ADAPTERS[row["class"]], PIPELINES[name]
        assert set(parts) == set(row["components"])
        network = COMPONENTS[parts[adapter.component][1]]["config"]
        vae = {"scale_factor_spatial": 8, "scale_factor_temporal": 4} if "Wan" in row["class"] else {}
        grid = adapter.grid_of(vae, network)
        for entry in (e for e in catalog.ENTRIES if e.id == name):
            assert entry.spec is not None
            low, high = (grid.latent_size(size, entry.spec.frames) for size in (entry.spec.low, entry.spec.high))
            assert len(low) == len(high) == (3 if entry.spec.frames > 1 else 2)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_parts_of_every_pipeline_fit_together(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """At full size: prompts are encoded as wide as the network takes them, and what it predicts is a latent."""
    monkeypatch.setattr(random_weights, "has_room", lambda entry, device: True)
    entry = catalog.find(name)
    assert entry.hub is not None
    # the catalog's figures are those of bf16, whatever this machine computes in
    monkeypatch.setattr(random_weights, "dtypes_for", lambda kind, device: dtypes_for(kind, device, torch.bfloat16))
    backbone: Any = whole(random_weights.RandomWeights().backbone(entry, torch.device("meta")))
    stored = sum(p.numel() * p.element_size() for part in backbone.parts() for p in part.parameters()) / 1e9
    assert stored < entry.hub.memory_gb
    with torch.inference_mode():
        if "Qwen" in str(PIPELINES[name]):  # how long a prompt is cannot be told without values
            width = 7680 if "flux2" in name else 2560  # of three layers' features, or of one's
            embeds = torch.zeros(1, 512, width, dtype=backbone.dtype, device="meta")
            conditioning = {"embeds": embeds, "lengths": torch.tensor([512])}
        elif "wan" in name:  # the same
            width = backbone.pipe.text_encoder.config.d_model
            conditioning = {"embeds": torch.zeros(1, backbone.length, width, dtype=backbone.dtype, device="meta")}
        else:
            conditioning = backbone.encode(["a fox"])
        for size in (backbone.spec.low, backbone.spec.high):
            x = torch.zeros(1, backbone.channels, *backbone.latent_size(size), device="meta")
            assert backbone.predict(x, 0.5, conditioning).shape == x.shape


def test_what_downloading_fetches_is_no_more_than_what_is_read() -> None:
    sdxl, medium = (next(e for e in catalog.ENTRIES if e.id == name).hub for name in ("sdxl", "sd3.5-medium"))
    assert sdxl is not None
    assert medium is not None

    def taken(source: entries.Hub, file: str) -> bool:
        wanted = any(fnmatch(file, pattern) for pattern in source.allow)
        return wanted and not any(fnmatch(file, pattern) for pattern in source.ignore)

    assert taken(sdxl, "unet/diffusion_pytorch_model.fp16.safetensors")
    assert taken(sdxl, "tokenizer/merges.txt")
    for left in ("unet/diffusion_pytorch_model.safetensors", "sd_xl_base_1.0.safetensors", "unet/model.onnx"):
        assert not taken(sdxl, left)
    assert taken(medium, "text_encoder_3/model-00001-of-00002.safetensors")
    for left in ("text_encoder/model.fp16.safetensors", "text_encoders/t5xxl_fp16.safetensors"):
        assert not taken(medium, left)
