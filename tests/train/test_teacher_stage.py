"""The teacher stage on a tiny real pipeline: trained as used, and published parts can be trained further."""

from pathlib import Path

import pytest
import torch

from rmd.backbones.loading import open_backbone
from rmd.train.bundled import image_teacher as teacher
from rmd.train.bundled import image_text as text
from rmd.worlds import emoji


def test_training_encodes_prompts_as_the_pipeline_does(tiny_sdxl: Path) -> None:
    parts = teacher.published_parts(tiny_sdxl)
    backbone = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
    prompts = ["a fox on a blue background", ""]
    features, pooled = text.encode(parts.tokenizer, parts.encoder, prompts)
    used = backbone.encode(prompts)
    assert torch.equal(features, used["embeds"])
    assert torch.equal(pooled, used["pooled"])


def test_training_tells_the_size_as_the_backbone_does(tiny_sdxl: Path) -> None:
    """One velocity from the trainer's own call equals the backbone's, at both sizes."""
    parts = teacher.published_parts(tiny_sdxl)
    backbone = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
    features, pooled = text.encode(parts.tokenizer, parts.encoder, ["a fox"])
    for cells in (4, 8):
        x = torch.randn(1, 4, cells, cells, generator=torch.Generator().manual_seed(0))
        added = {"text_embeds": pooled, "time_ids": teacher.size_ids(cells, 1)}
        trained = parts.unet(x, torch.tensor([499]), features, added_cond_kwargs=added).sample
        used = backbone.predict(x, 0.5, {"embeds": features, "pooled": pooled})
        assert torch.allclose(trained, used, atol=1e-6)


def test_published_parts_train_on_and_export(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    run = tmp_path / "teacher"
    run.mkdir()
    latents = {
        "high": torch.randn(6, 4, 8, 8, generator=g).half(),
        "low": torch.randn(6, 4, 4, 4, generator=g).half(),
        "concept": torch.arange(6),
        "colour": torch.arange(6),
    }
    torch.save(latents, run / "latents.pt")
    monkeypatch.setattr(teacher, "HIGH", 8)
    monkeypatch.setattr(teacher, "LOW", 4)
    monkeypatch.setattr(teacher, "BATCH", {8: 4, 4: 4})
    parts = teacher.published_parts(tiny_sdxl)
    before = parts.unet.conv_in.weight.clone()
    teacher.train(tmp_path, run, parts, steps=3, low_steps=1)
    backbone = open_backbone(run / "pipeline", "again", torch.device("cpu"), torch.float32)
    after = next(p for n, p in backbone.network.named_parameters() if n == "conv_in.weight")
    assert not torch.equal(before, after)
    assert torch.allclose(before, after, atol=0.05)
    assert len(list(run.glob("sheet-00003-*.png"))) == 2


def test_times_cover_all_noise_levels_and_lean_towards_noise() -> None:
    even = teacher.draw_times(1000, 1.0, torch.Generator().manual_seed(0)).float()
    noisy = teacher.draw_times(1000, 2.0, torch.Generator().manual_seed(0)).float()
    assert even.min() < 10
    assert even.max() > 990
    assert abs(even.mean() - 500) < 5
    assert noisy.mean() > 580
    assert noisy.max() <= 999


def test_the_rate_falls_to_its_floor_and_never_rises_after_warm_up() -> None:
    factors = [teacher.rate_factor(step, 2000) for step in range(2000)]
    assert factors[0] < 0.01
    assert max(factors) == 1
    assert factors[-1] == pytest.approx(0.02)
    assert factors[200:] == sorted(factors[200:], reverse=True)


def test_captions_name_object_and_colour() -> None:
    g = torch.Generator().manual_seed(0)
    captions = {emoji.caption("apple", "orange", g) for _ in range(200)}
    assert "an apple on an orange background" in captions
    assert "apple" in captions
    assert all("apple" in c for c in captions)
