"""The teacher stage on a tiny real pipeline: trained as used, and published parts can be trained further."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rmd.backbones.loading import open_backbone
from rmd.train.bundled import image_teacher as teacher
from rmd.train.bundled import image_text as text
from rmd.train.loop import Run
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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that a test can afford."""
    monkeypatch.setattr(teacher, "BATCH", {"cpu": {teacher.HIGH: 2, teacher.LOW: 3}})
    monkeypatch.setattr(teacher, "POOL", {"cpu": (1, 4)})
    monkeypatch.setattr(teacher.views, "sheet_captions", lambda: ("a fox on a blue background",) * 2)


def test_published_parts_train_on_and_export(tiny_sdxl: Path, tmp_path: Path, small: None) -> None:
    run, parts = tmp_path / "teacher", teacher.published_parts(tiny_sdxl)
    before = parts.unet.conv_in.weight.clone()
    teacher.train(run, parts, steps=3)
    backbone = open_backbone(run / "pipeline", "again", torch.device("cpu"), torch.float32)
    after = next(p for n, p in backbone.network.named_parameters() if n == "conv_in.weight")
    assert not torch.equal(before, after)
    assert torch.allclose(before, after, atol=0.05)
    assert len(list(run.glob("sheet-00003-*.png"))) == 2
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert last["samples"] >= 6
    assert "CPU" in last["hardware"]
    assert 0 < last["held_out"] < 5


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    tiny_sdxl: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(name: str) -> torch.Tensor:
        state = torch.load(tmp_path / name / "state.pt", weights_only=True)
        return torch.cat([v.flatten() for v in state["parts"]["unet"].values()])

    teacher.train(tmp_path / "whole", teacher.published_parts(tiny_sdxl), steps=5)
    steps = Run.steps

    def stopping(run: Run, total: int, label: str) -> Iterator[int]:
        for step in steps(run, total, label):
            if step == 3:
                run.save()
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(Run, "steps", stopping)
    with pytest.raises(KeyboardInterrupt):
        teacher.train(tmp_path / "parts", teacher.published_parts(tiny_sdxl), steps=5)
    monkeypatch.setattr(Run, "steps", steps)
    teacher.train(tmp_path / "parts", teacher.published_parts(tiny_sdxl), steps=5)
    assert torch.allclose(weights("whole"), weights("parts"), atol=1e-6)


def test_a_run_ends_when_its_time_is_over(tiny_sdxl: Path, tmp_path: Path, small: None) -> None:
    teacher.train(tmp_path / "short", teacher.published_parts(tiny_sdxl), steps=10**6, minutes=0.01)
    assert (tmp_path / "short" / "pipeline" / "unet").is_dir()


def test_the_pool_renews_itself_and_depends_on_the_step_alone(tiny_sdxl: Path) -> None:
    parts = teacher.published_parts(tiny_sdxl)
    sprites = emoji.load_sprites()

    def filled(step: int) -> teacher.Pool:
        pool = teacher.Pool(parts.vae, sprites, parts.tokenizer, 1, 3, seed=0)
        pool.fill(step)
        return pool

    first, later = filled(0), filled(2)
    assert not torch.equal(first.tokens, later.tokens)
    for step in range(2):
        first.put(step + 3, first.drawn(step + 3))
    assert torch.equal(first.tokens, later.tokens)
    for cells in (teacher.HIGH, teacher.LOW):
        assert torch.allclose(first.store[cells], later.store[cells])
    x0, tokens = first.pick(teacher.LOW, 200, torch.Generator().manual_seed(0))
    assert x0.shape == (200, 4, teacher.LOW, teacher.LOW)
    unsaid = (tokens == first.unsaid).all(dim=1).float().mean()
    assert 0.03 < unsaid < 0.2


def test_times_cover_all_noise_levels_and_lean_towards_noise() -> None:
    even = teacher.draw_times(1000, 1.0, torch.Generator().manual_seed(0)).float()
    noisy = teacher.draw_times(1000, 2.0, torch.Generator().manual_seed(0)).float()
    assert even.min() < 10
    assert even.max() > 990
    assert abs(even.mean() - 500) < 5
    assert noisy.mean() > 580
    assert noisy.max() <= 999


def test_the_rate_falls_to_its_floor_and_never_rises_after_warm_up() -> None:
    factors = [teacher.rate_factor(step, step / 2000) for step in range(2001)]
    assert factors[0] < 0.01
    assert max(factors) == 1
    assert factors[-1] == pytest.approx(0.02)
    assert factors[200:] == sorted(factors[200:], reverse=True)
