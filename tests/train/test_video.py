"""The bundled video model's stages at tiny size, with the genuine classes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rmd.backbones.loading import open_backbone
from rmd.train.bundled import video_autoencoder as autoencoder
from rmd.train.bundled import video_frames as frames
from rmd.train.bundled import video_start as start
from rmd.train.bundled import video_text as text
from rmd.worlds import clips, emoji


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    data = tmp_path_factory.mktemp("data")
    labels = emoji.package_folder(data, emoji.LABELS) / "package" / "en"
    labels.mkdir(parents=True)
    (labels / "data.json").write_text(json.dumps([{"label": "fox face", "tags": ["animal"]}]))
    return text.trained_tokenizer(data)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_a_package_is_unpacked_and_nothing_else_stays(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "package.json").write_text('{"name": "made", "version": "1.0.0"}')
    (made / "fox.txt").write_text("fox")
    (made / "cat.txt").write_text("cat")
    data = tmp_path / "data"
    emoji.unpack(data, str(made))
    folder = emoji.package_folder(data, str(made))
    assert sorted(f.name for f in folder.rglob("*") if f.is_file()) == ["cat.txt", "fox.txt", "package.json"]
    assert list(data.iterdir()) == [folder]


def test_every_word_of_the_world_is_a_token_and_every_caption_fits(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    opened, said = AutoTokenizer.from_pretrained(tmp_path), clips.draw_captions(500, torch.Generator().manual_seed(0))
    rows = opened(said).input_ids
    assert rows == tokenizer(said).input_ids
    assert max(len(row) for row in rows) <= opened.model_max_length == text.LENGTH
    assert opened.unk_token_id not in {token for row in rows for token in row}
    words = {word for caption in said for word in caption.replace(",", "").split()}
    assert all(len(opened(word).input_ids) == 2 for word in words)


def test_what_stood_before_the_words_leaves(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """As the first generation's tokenizer was: tokens before every prompt, and rows of its own length."""
    tokenizer.save_pretrained(tmp_path)
    former = AutoTokenizer.from_pretrained(tmp_path)
    end = former.eos_token_id
    former.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{text.END} {text.END} $A {text.END}", special_tokens=[(text.END, end)]
    )
    former.backend_tokenizer.enable_padding(length=40)
    said = "a fox bouncing on a green background"
    assert len(former(said).input_ids) != len(tokenizer(said).input_ids)
    text.as_words(former.backend_tokenizer).save_pretrained(tmp_path / "words")
    opened = AutoTokenizer.from_pretrained(tmp_path / "words")
    assert opened(said).input_ids == tokenizer(said).input_ids
    assert opened.model_max_length == text.LENGTH


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


@pytest.mark.parametrize(
    ("side", "full", "seen"), [(64, True, 64), (64, False, 64), (128, True, 128), (128, False, 64)]
)
def test_an_autoencoder_sees_crops_at_full_size_and_at_half(side: int, full: bool, seen: int) -> None:
    pool = autoencoder.whole_clips(emoji.load_sprites(), 2)
    pool.at(0)
    x = autoencoder.batch(pool, 2, side, full, torch.Generator().manual_seed(0))
    assert x.shape == (2, 3, autoencoder.SPAN, seen, seen)
    assert -1 <= x.min() < x.max() <= 1


def test_an_autoencoder_is_trained_goes_on_and_becomes_part_of_a_start(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder, "BLOCKS", 3)
    monkeypatch.setattr(autoencoder, "BATCH", {"cpu": (2, 32)})
    monkeypatch.setattr(autoencoder, "PROBE", 1)
    run = tmp_path / "autoencoder"
    autoencoder.train(run, steps=1)
    first = AutoencoderKLWan.from_pretrained(run / "vae")
    autoencoder.train(run, steps=2)
    vae = AutoencoderKLWan.from_pretrained(run / "vae")
    weights = (one.decoder.conv_in.weight for one in (first, vae))
    assert not torch.equal(*weights)
    assert len(vae.config["latents_mean"]) == autoencoder.CHANNELS
    assert min(vae.config["latents_std"]) > 0
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert last["samples"] == 4
    assert last["psnr_128"] > 0
    monkeypatch.setattr(text, "trained_tokenizer", lambda _: tokenizer)
    start.begin(tmp_path, run / "vae", tmp_path / "start")
    backbone = open_backbone(tmp_path / "start", "start", torch.device("cpu"), torch.float32)
    assert backbone.spec.high == (128, 128)
    assert backbone.spec.frames == clips.FRAMES
    rows = backbone.encode(["a fox bouncing", ""])
    assert rows["embeds"].shape == (2, text.LENGTH, text.WIDTH)
    x = torch.randn(2, 16, *backbone.latent_size((64, 64)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert bool(backbone.predict(x, 0.5, rows).isfinite().all())
    start.begin_again(tmp_path / "start", run / "vae", tmp_path / "again")
    again = open_backbone(tmp_path / "again", "again", torch.device("cpu"), torch.float32)
    for a, b in zip(backbone.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
