"""The bundled video model's stages at tiny size, with the genuine classes."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rmd.train.bundled import video_autoencoder as autoencoder
from rmd.train.bundled import video_frames as frames
from rmd.train.bundled import video_layout as layout
from rmd.train.bundled import video_teacher as teacher
from rmd.train.bundled import video_text as text
from rmd.worlds import clips, emoji

ALL = [c for n in clips.OBJECTS for m in clips.MOTIONS for k in clips.COLOURS for c in clips.captions(n, m, k)]
MOTION = {m.doing: m for m in clips.MOTIONS}


@pytest.fixture(scope="module")
def disc() -> Tensor:
    """A white disc, premultiplied (4, 256, 256) uint8."""
    axis = torch.linspace(-1, 1, 256)
    inside = (axis[:, None] ** 2 + axis**2 < 0.8).byte() * 255
    return inside.expand(4, -1, -1).clone()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = {word for caption in ALL for word in caption.replace(",", "").split()}
    return text.build_tokenizer(sorted(words) * 50, size=400)


@pytest.fixture
def parts(tokenizer: PreTrainedTokenizerFast) -> teacher.Parts:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True], in_channels=12,
        out_channels=12, patch_size=2, scale_factor_temporal=2, latents_mean=[0.1] * 16, latents_std=[0.5] * 16,
    )  # fmt: skip
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=text.WIDTH, freq_dim=32, ffn_dim=32, num_layers=2,
        rope_max_seq_len=32,
    )  # fmt: skip
    return teacher.Parts(vae, tokenizer, text.build_encoder(tokenizer), transformer)


def centres(moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean column and row of what is seen, and its share of the canvas, per frame."""
    alpha = moved[3]
    weight = alpha.sum(dim=(1, 2))
    axis = torch.arange(alpha.shape[-1], dtype=torch.float32)
    return (alpha.sum(1) @ axis) / weight, (alpha.sum(2) @ axis) / weight, weight / alpha[0].numel()


def test_objects_move_as_their_captions_say(disc: Tensor) -> None:
    x, y, _ = centres(clips.move(disc, MOTION["sliding left"]))
    assert (x.diff() < -2).all()
    assert y.std() < 0.5
    assert (centres(clips.move(disc, MOTION["sliding right"]))[0].diff() > 2).all()
    x, y, _ = centres(clips.move(disc, MOTION["bouncing"]))
    assert x.std() < 0.5
    assert y[0] - y[3] > 30  # rises from the ground, falls back, rises again
    assert y[6] - y[3] > 30
    assert y[6] - y[9] > 30
    assert (centres(clips.move(disc, MOTION["zooming in"]))[2].diff() > 0).all()
    assert (centres(clips.move(disc, MOTION["zooming out"]))[2].diff() < 0).all()


def test_spinning_is_one_clockwise_turn(disc: Tensor) -> None:
    half = disc.clone()
    half[:, :, :128] = 0  # the right half of the disc
    x, y, _ = centres(clips.move(half, MOTION["spinning"]))
    middle = (clips.HIGH - 1) / 2
    assert x[0] > middle + 5
    assert y[3] > middle + 5  # a quarter later it is below
    assert x[6] < middle - 5
    assert abs(x[12] - x[0]) < 0.5


def test_clips_of_a_caption_differ_little(disc: Tensor) -> None:
    a, b = (clips.clip(disc, MOTION["bouncing"], "blue", torch.Generator().manual_seed(s)) for s in (0, 1))
    assert a.shape == (3, clips.FRAMES, clips.HIGH, clips.HIGH)
    assert a.min() >= 0
    assert a.max() <= 1
    assert not torch.equal(a, b)
    assert (a - b).abs().mean() < 0.08


def test_captions_name_object_motion_and_colour() -> None:
    index = {"object": torch.tensor([0, 23]), "motion": torch.tensor([2, 5]), "colour": torch.tensor([3, 0])}
    for seed in range(8):
        fox, last = clips.captions_of(index, torch.tensor([0, 1]), torch.Generator().manual_seed(seed))
        assert "fox" in fox
        assert "bounc" in fox
        assert "blue" in fox
        assert clips.OBJECTS[23] in last
        assert "zoom" in last
        assert "white" in last
    drawn = clips.draw_captions(60, torch.Generator().manual_seed(0))
    assert set(drawn) <= set(ALL)
    assert len(set(drawn)) > 40


def test_only_animated_objects_wiggle() -> None:
    pairs = [(clips.OBJECTS[i], clips.MOTIONS[j].doing) for i, j in clips.pairs()]
    assert {name for name, doing in pairs if doing == "wiggling"} == set(clips.ANIMATED)
    assert len(pairs) == 6 * len(clips.OBJECTS) + len(clips.ANIMATED)
    words = " ".join(clips.draw_captions(400, torch.Generator().manual_seed(1)))
    assert "wiggl" in words
    assert "pizza wiggl" not in words


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_of_a_package_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "package.json").write_text('{"name": "made", "version": "1.0.0"}')
    (made / "fox.txt").write_text("fox")
    (made / "cat.txt").write_text("cat")
    data = tmp_path / "data"
    emoji.unpack(data, str(made), lambda path: path.endswith("fox.txt"))
    folder = emoji.package_folder(data, str(made))
    assert [f.name for f in folder.rglob("*") if f.is_file()] == ["fox.txt"]
    assert list(data.iterdir()) == [folder]


def test_layout_tokens_come_first_and_every_caption_fits(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    rows = opened(ALL).input_ids
    assert rows == tokenizer(ALL).input_ids
    assert max(len(row) for row in rows) <= opened.model_max_length == text.LENGTH
    assert all(row[: text.LAYOUT] == rows[0][: text.LAYOUT] for row in rows)
    assert len(set(rows[0][: text.LAYOUT])) == text.LAYOUT
    assert opened("a fox " * 100, truncation=True).input_ids[: text.LAYOUT] == rows[0][: text.LAYOUT]


def test_training_encodes_prompts_as_the_pipeline_does(parts: teacher.Parts) -> None:
    pipe = WanPipeline(
        tokenizer=parts.tokenizer, text_encoder=parts.encoder, vae=parts.vae, scheduler=teacher.build_scheduler(),
        transformer=parts.transformer,
    )  # fmt: skip
    prompts = ["a fox bouncing on a blue background", ""]
    used, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=text.LENGTH)
    assert torch.allclose(text.encode(parts.tokenizer, parts.encoder, prompts), used, atol=1e-6)


def test_regions_follow_time_then_rows_then_columns() -> None:
    x = torch.arange(2 * 3 * 7 * 8 * 8, dtype=torch.float32).reshape(2, 3, 7, 8, 8)
    parts = layout.regions(x)
    assert parts.shape == (2, text.LAYOUT, 3 * 2 * 2)
    assert torch.equal(parts[1, 16 * 2 + 4 * 1 + 3].reshape(3, 2, 2), x[1, :, 2, 2:4, 6:8])
    assert torch.equal(parts.flatten(1).sort(dim=1).values, x.flatten(1))
    assert layout.regions(torch.zeros(1, 16, 7, 16, 16)).shape == (1, text.LAYOUT, 256)


def test_the_autoencoder_is_trained_as_the_class_runs_it() -> None:
    """After a step of training on clips, whole clips by frames and the class's own chunks give the same."""
    vae = autoencoder.build()
    g = torch.Generator().manual_seed(0)
    clip = torch.rand(2, 3, 9, 32, 32, generator=g) * 2 - 1
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-2)
    total, mse = autoencoder.loss(vae, clip, g)
    total.backward()
    assert 0 < mse < 2
    optimizer.step()
    with torch.no_grad():
        posterior = vae.encode(clip).latent_dist  # type: ignore[union-attr]
        assert posterior.logvar.max() < -5
        z = frames.encode(vae, clip)
        assert z.shape == (2, 16, 5, 4, 4)
        assert torch.allclose(z, posterior.mode(), atol=1e-4)
        again = vae.decode(z).sample  # type: ignore[union-attr]
        assert torch.allclose(frames.decode(vae, z).clamp(-1, 1), again, atol=1e-4)
        still = frames.encode(vae, clip[:, :, :1])
        assert torch.allclose(still, z[:, :, :1], atol=1e-5)


def test_the_teacher_stage_trains_resumes_and_exports(
    parts: teacher.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "OBJECTS", clips.OBJECTS[:2])
    monkeypatch.setattr(clips, "COLOURS", clips.COLOURS[:2])
    monkeypatch.setattr(teacher, "BATCH", {"high": 4, "low": 4})
    monkeypatch.setattr(layout, "BATCH", 4)
    g = torch.Generator().manual_seed(0)
    index = torch.cartesian_prod(torch.arange(2), torch.arange(7), torch.arange(2))
    latents = {
        "high": torch.randn(28, 16, 7, 16, 16, generator=g).half(),
        "low": torch.randn(28, 16, 7, 8, 8, generator=g).half(),
        **dict(zip(("object", "motion", "colour"), index.unbind(1), strict=True)),
    }
    run = tmp_path / "teacher"
    run.mkdir()
    torch.save(latents, run / "latents.pt")
    before = parts.encoder.shared.weight.clone()
    layout.train(parts.tokenizer, parts.encoder, latents, run / "layout", steps=2)
    assert not torch.equal(before, parts.encoder.shared.weight)
    weight = parts.transformer.proj_out.weight.clone()
    encoder = parts.encoder.shared.weight.clone()
    teacher.train(tmp_path, run, parts, steps=3, low_steps=1)
    assert len(list(run.glob("sheet-00003-*.png"))) == 2
    assert not torch.equal(weight, parts.transformer.proj_out.weight.float())
    assert torch.allclose(encoder, parts.encoder.shared.weight.float(), atol=1e-3)  # stays, but for fp16
    again = teacher.published_parts(run / "pipeline")
    assert again.tokenizer(ALL[0]).input_ids == parts.tokenizer(ALL[0]).input_ids
    assert torch.equal(again.transformer.proj_out.weight, parts.transformer.proj_out.weight.float())


def test_times_cover_all_levels_and_lean_towards_noise() -> None:
    even = teacher.draw_sigmas(1000, 1.0, torch.Generator().manual_seed(0))
    noisy = teacher.draw_sigmas(1000, 3.0, torch.Generator().manual_seed(0))
    assert even.min() < 0.01
    assert even.max() > 0.99
    assert abs(even.mean() - 0.5) < 0.01
    assert noisy.mean() > 0.6
    assert noisy.max() <= 1
