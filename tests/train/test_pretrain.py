"""A folder of pictures becomes latents, latents a teacher that has learnt them, for every family."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from rmd import cli
from rmd.backbones.adapter import PipelineBackbone
from rmd.backbones.loading import open_backbone
from rmd.checks import RequestError
from rmd.train.examples import read_examples, read_pixels
from rmd.train.latents import Latents
from rmd.train.loop import generator_for
from rmd.train.pretrain import Pretrainer, levels

CPU = torch.device("cpu")
COLOURS = ("red", "green", "blue")


def drawn(colour: str, x: int = 30) -> Image.Image:
    picture = Image.new("RGB", (120, 90), "white")
    ImageDraw.Draw(picture).ellipse((x, 20, x + 50, 70), fill=colour)
    return picture


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for colour in COLOURS:
        drawn(colour).save(folder / f"{colour}.png")
        (folder / f"{colour}.txt").write_text(f"a {colour} ball\n")
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for colour in COLOURS[:2]:
        first, *rest = [drawn(colour, 5 * i) for i in range(12)]
        first.save(folder / f"{colour}.gif", save_all=True, append_images=rest, duration=125, loop=0)
    rows = [{"file_name": f"{colour}.gif", "text": f"a {colour} ball moving right"} for colour in COLOURS[:2]]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def opened(folder: Path) -> Any:
    return open_backbone(folder, "tiny", CPU, torch.float32)


def run(*arguments: object) -> int:
    return cli.main(["train", *map(str, arguments), "--device", "cpu"])


def encode(folder: Path, examples: Path, out: Path) -> int:
    return run("latents", "--backbone", folder, "--pictures", examples, "--out", out)


def train(folder: Path, latents: Path, out: Path, *more: object) -> int:
    quick = ("--steps", 4, "--set", "batch=2", "--set", "sheet_every=2", "--set", "rate=1e-3")
    return run("pretrain", "--backbone", folder, "--latents", latents, "--out", out, *quick, *more)


def test_latents_are_the_autoencoders_as_the_network_takes_them(tiny: Path) -> None:
    backbone = opened(tiny)
    assert isinstance(backbone, PipelineBackbone)
    size = backbone.latent_size(backbone.spec.high)
    z = torch.randn(2, backbone.channels, *size)
    torch.testing.assert_close(backbone.scaled(backbone.unscaled(z, backbone.pipe.vae), backbone.pipe.vae), z)
    frames = (backbone.spec.frames,) if backbone.spec.frames > 1 else ()
    pixels = torch.rand(1, 3, *frames, *backbone.spec.high) * 2 - 1
    found = backbone.latents(pixels)
    assert found.shape == (1, backbone.channels, *size)
    encoded = backbone.pipe.vae.encode(pixels)
    mean = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    torch.testing.assert_close(backbone.unscaled(found, backbone.pipe.vae), mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rank", ["", pytest.param("2", marks=pytest.mark.slow)], ids=["full", "lora"])
def test_every_family_learns_from_a_folder(
    tiny: Path, rank: str, pictures: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents, out = tmp_path / "latents", tmp_path / "run"
    assert encode(tiny, clips if tiny.name == "tiny_wan" else pictures, latents) == 0
    assert train(tiny, latents, out, *(["--lora", rank] if rank else [])) == 0
    teacher, base = opened(out / "teacher"), opened(tiny)
    weights, before = teacher.network.state_dict(), base.network.state_dict()
    assert weights.keys() == before.keys()
    assert any(not torch.equal(weights[name], before[name]) for name in weights)
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert teacher.spec.name == f"{base.spec.name}, trained further"
    assert (out / "sheet-00002.png").is_file()
    assert (out / "sheet.png").is_file()
    ask = ["generate", "--backbone", str(out / "teacher"), "--prompt", "a red ball", "--out", str(tmp_path / "made")]
    assert cli.main([*ask, "--teacher-steps", "2", "--steps", "2", "--json"]) == 0
    if rank:
        kept = load_file(out / "lora" / "pytorch_lora_weights.safetensors")
        assert {value.shape[0] for name, value in kept.items() if name.endswith("lora_A.weight")} == {2}


def test_the_loss_falls(tiny_sdxl: Path, pictures: Path, tmp_path: Path) -> None:
    latents, out = tmp_path / "latents", tmp_path / "run"
    assert encode(tiny_sdxl, pictures, latents) == 0
    more = ("--set", "low_share=0", "--set", "batch=4", "--set", "sheet_every=1000")
    assert train(tiny_sdxl, latents, out, "--steps", 100, *more) == 0
    rows = [json.loads(line)["loss_high"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[1] < 0.9 * rows[0]


MORE = ("optimizer=muon", "text_share=0.5", "low_first=0.5", "low_batch=3", "low_emphasis=2", "held_out=1")


@pytest.mark.parametrize("more", [(), MORE], ids=["plain", "all"])
def test_a_stopped_run_goes_on_exactly(
    more: tuple[str, ...], tiny_sdxl: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, straight, parts = tmp_path / "latents", tmp_path / "straight", tmp_path / "parts"
    given = [word for one in more for word in ("--set", one)]
    assert encode(tiny_sdxl, pictures, latents) == 0
    assert train(tiny_sdxl, latents, straight, *given) == 0
    loss, seen = Pretrainer.loss, []

    def stopping(self: Pretrainer, *arguments: Any) -> torch.Tensor:
        seen.append(1)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, *arguments)

    monkeypatch.setattr(Pretrainer, "loss", stopping)
    assert train(tiny_sdxl, latents, parts, *given) == 130
    assert not (parts / "teacher").exists()
    assert train(tiny_sdxl, latents, parts, *given) == 0
    assert len(seen) == 4
    for part in ("unet", "text_encoder_2"):
        folders = straight / "teacher", parts / "teacher", tiny_sdxl
        files = [next((folder / part).glob("*.safetensors")) for folder in folders]
        one, two, base = map(load_file, files)
        for name, value in one.items():
            assert torch.equal(value, two[name]), name
        moved = any(not torch.equal(value.half(), base[name].half()) for name, value in one.items())
        assert moved == (part == "unet" or bool(more))
    rows = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    assert all(("held_out" in row) == bool(more) for row in rows)


def test_what_is_held_out_is_not_trained_on(tiny_sdxl: Path, pictures: Path, tmp_path: Path) -> None:
    latents = tmp_path / "latents"
    assert encode(tiny_sdxl, pictures, latents) == 0
    source = Latents(latents, opened(tiny_sdxl))
    held, said = source.held_out(1)
    assert len(held) == 1
    drawn = {caption for seed in range(9) for caption in source.latents(4, True, generator_for(0, seed))[1]}
    assert len(drawn) == 2
    assert not drawn & set(said)
    with pytest.raises(RequestError, match="held_out must be below 3, the number of latents, not 3"):
        source.held_out(3)


def test_times_cover_all_noise_levels_and_lean_towards_noise() -> None:
    even, noisy = (levels(1000, emphasis, generator_for(0, 0)) for emphasis in (1.0, 3.0))
    assert even.min() < 0.01
    assert even.max() > 0.99
    assert abs(even.mean() - 0.5) < 0.01
    assert noisy.mean() > 0.6
    assert noisy.max() <= 1
    assert abs(even[:500].mean() - 0.5) < 0.05, "every share of a batch sees all"


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["no", "yes"])
def test_two_processes_train_as_one(tiny_sdxl: Path, pictures: Path, tmp_path: Path, shard: str) -> None:
    """Over gloo, on the same samples; weights whole or shared out."""
    latents, one, two = (tmp_path / name for name in ("latents", "one", "two"))
    assert encode(tiny_sdxl, pictures, latents) == 0
    assert train(tiny_sdxl, latents, one) == 0
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, torch; torch.set_num_threads(1); torch.cpu.get_capabilities = lambda: {}; from rmd import cli; "
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    ask = ["train", "pretrain", "--backbone", tiny_sdxl, "--latents", latents, "--out", two, "--device", "cpu"]
    ask += ["--steps", 4, "--set", "batch=1", "--set", "sheet_every=2", "--set", "rate=1e-3", "--set", f"shard={shard}"]
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script), *map(str, ask)]
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    subprocess.run(both, check=True, env=env, timeout=120)
    a, b = (torch.load(out / "state.pt", weights_only=True)["parts"]["teacher"] for out in (one, two))
    for name, value in a.items():
        assert (value - b[name]).abs().mean() < 1e-6, name


def test_a_students_warm_up_takes_latents(tiny_sdxl: Path, pictures: Path, tmp_path: Path) -> None:
    latents, out = tmp_path / "latents", tmp_path / "run"
    assert encode(tiny_sdxl, pictures, latents) == 0
    quick = ("--set", "warm_up=2", "--set", "fake_updates=1", "--set", "batch=1", "--set", "patience=1")
    ask = ("distill", "--backbone", tiny_sdxl, "--latents", latents, "--out", out, "--steps", 4, *quick)
    assert run(*ask) == 0
    assert (out / "student" / "rmd.json").is_file()
    assert len(list((out / "embeddings").glob("*"))) == len(COLOURS)


def test_encoding_goes_on_and_refuses_other_pictures(
    tiny_sdxl: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmd.train.latents.SHARD", 2)
    out = tmp_path / "latents"
    assert encode(tiny_sdxl, pictures, out) == 0
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) == 2
    first, times = load_file(shards[0]), [file.stat().st_mtime_ns for file in shards]
    shards[1].unlink()
    (out / "about.json").unlink()  # as after an interruption
    backbone = opened(tiny_sdxl)
    with pytest.raises(RequestError, match="no finished folder"):
        Latents(out, backbone)
    assert encode(tiny_sdxl, pictures, out) == 0
    assert shards[0].stat().st_mtime_ns == times[0], "what was there is not made again"
    source = Latents(out, backbone)
    x0, said = source.latents(5, True, torch.Generator().manual_seed(0))
    assert x0.shape == (5, backbone.channels, 8, 8)
    assert set(said) <= {f"a {colour} ball" for colour in COLOURS}
    torch.testing.assert_close(source.row(1, "low"), first["low"][1])
    other = shutil.copytree(pictures, tmp_path / "other")
    (other / "red.txt").write_text("another caption")
    capsys.readouterr()
    assert encode(tiny_sdxl, other, out) == 2
    assert "holds the latents of other pictures or sizes" in capsys.readouterr().err
    backbone.spec = opened(tiny_sdxl).spec.__class__(**{**vars(backbone.spec), "low": (16, 16)})
    with pytest.raises(RequestError, match=r"was made with low \[32, 32\], not \[16, 16\]"):
        Latents(out, backbone)


def test_clips_are_read_from_their_beginning_at_the_models_pace(clips: Path) -> None:
    x = read_pixels(clips / "red.gif", (48, 64), 9, 8)
    assert x.shape == (3, 9, 48, 64)
    assert x.min() >= -1
    assert x.max() <= 1
    assert not torch.equal(x[:, 0], x[:, 8])
    with pytest.raises(RequestError, match="has 12 frames at 8 a second; 13 are needed"):
        read_pixels(clips / "red.gif", (48, 64), 13, 8)


def test_pictures_are_cut_from_the_middle_and_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (200, 100), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    x = read_pixels(tmp_path / "clear.png", (32, 32), 1, 16)
    assert x.shape == (3, 32, 32)
    assert bool((x == 1).all())


def test_bad_folders_are_a_sentence(tmp_path: Path, tiny_sdxl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(words: str, clips: bool = False, folder: Path = tmp_path) -> None:
        with pytest.raises(RequestError, match=words):
            read_examples(folder, clips)

    said("is not a folder", folder=tmp_path / "nowhere")
    said("holds no pictures")
    said("holds no clips", clips=True)
    drawn("red").save(tmp_path / "red.png")
    said("red.png has no caption, in red.txt or in metadata.jsonl")
    (tmp_path / "red.txt").write_bytes(b"\xff\xfe\x00")
    said("red.txt cannot be read as UTF-8 text")
    (tmp_path / "red.txt").write_text("")
    said("the caption of red.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "red.png", "text": "a ball"}\n[1]\n')
    said("unlike line 2")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "red.png", "text": "a ball"}\n')
    assert [one.caption for one in read_examples(tmp_path, False)] == ["a ball"]
    (tmp_path / "red.png").write_bytes(b"no picture")
    assert encode(tiny_sdxl, tmp_path, tmp_path / "latents") == 2
    assert "red.png cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "latents" / "about.json").exists()


def test_bad_runs_are_a_sentence(tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(words: str, *arguments: object) -> None:
        assert run("pretrain", "--backbone", tiny_sdxl, *arguments) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "run" / "state.pt").exists()

    out = ("--out", tmp_path / "run")
    refused("out is missing")
    refused("latents is missing", *out)
    refused("no finished folder of `train latents`", *out, "--latents", tmp_path)
    refused("There is no training setting 'fake_rate'", *out, "--set", "fake_rate=1")
    refused("drop", *out, "--latents", tmp_path, "--set", "drop=2")
    refused("text_share must be 0 and optimizer adamw with lora", *out, "--lora", 2, "--set", "optimizer=muon")
    refused("optimizer", *out, "--set", "optimizer=sgd")
    refused(
        "still_share must be 0 for tiny-sdxl, which makes pictures, not 0.5",
        *out,
        "--latents",
        tmp_path,
        "--set",
        "still_share=0.5",
    )
    refused("world must be one of", *out, "--set", "world=atlantis")
    refused("recipe must be one of emoji-sdxl", *out, "--recipe", "sdxl-lora")
    refused("world emoji-clips is square and has 13 frames; tiny-sdxl makes 64x64", *out, "--set", "world=emoji-clips")
    assert not (tmp_path / "run" / "settings.json").exists(), "a refused run would keep the folder from the next"
    refused("shard must be no with lora", *out, "--lora", 2, "--set", "shard=yes")
