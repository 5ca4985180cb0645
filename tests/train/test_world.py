"""The bundled worlds as sources: the pool, the start of a bundled teacher, and its training by the one loop."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from rmd import cli
from rmd.backbones.loading import open_backbone
from rmd.checks import RequestError
from rmd.train import world
from rmd.train.bundled import image_autoencoder as autoencoder
from rmd.train.bundled import image_start as start
from rmd.train.bundled import image_text as text
from rmd.train.pool import Drawn, Pool
from rmd.train.source import Source
from rmd.train.world import World
from rmd.worlds import clips, clips_judge

CPU = torch.device("cpu")


def numbered(number: int) -> Drawn:
    return {"x": torch.full((2, 1), float(number))}, [f"{number}a", f"{number}b"]


def test_what_a_pool_holds_depends_on_the_step_alone() -> None:
    walked, jumped = Pool(numbered, 3), Pool(numbered, 3)
    for step in range(5):
        walked.at(step)
    jumped.at(4)
    assert walked.captions == jumped.captions
    assert torch.equal(walked.rows["x"], jumped.rows["x"])
    assert sorted(walked.rows["x"].flatten().tolist()) == [4, 4, 5, 5, 6, 6]
    rows, said = walked.pick("x", 50, torch.Generator().manual_seed(0))
    assert [f"{int(x)}" for x in rows] == [caption[:-1] for caption in said]
    assert len(set(said)) == 6


def test_a_pool_draws_only_what_is_new() -> None:
    drawn: list[int] = []

    def noting(number: int) -> Drawn:
        drawn.append(number)
        return numbered(number)

    pool = Pool(noting, 3)
    for step in (0, 0, 1, 7):
        pool.at(step)
    assert drawn == [0, 1, 2, 3, 7, 8, 9]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "BLOCKS", {"cpu": 2})
    monkeypatch.setattr(world, "NEW", {"emoji": {"cpu": 2}, "emoji-clips": {"cpu": 1}})


def test_pictures_come_in_latents_of_both_sizes(tiny_sdxl: Path) -> None:
    backbone = open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)
    source = World("emoji", backbone, 0)
    high, said = source.latents(3, True, torch.Generator().manual_seed(0))
    low, again = source.latents(3, False, torch.Generator().manual_seed(0))
    assert high.shape == (3, backbone.channels, *backbone.latent_size(backbone.spec.high))
    assert low.shape == (3, backbone.channels, *backbone.latent_size(backbone.spec.low))
    assert said == again
    held, captions = source.held_out(5)
    assert len(held) == len(captions) == 5
    assert not (held[:, None] == source.pool.rows["high"][None]).flatten(2).all(dim=2).any()


def test_clips_come_as_any_autoencoder_of_the_class_makes_them(
    tiny_flow_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick way through the frames, which is for ours alone, is tested in test_video.py."""
    backbone = open_backbone(tiny_flow_folders["tiny_wan"], "tiny", CPU, torch.float32)
    backbone.spec = replace(backbone.spec, high=(32, 32), low=(16, 16), frames=clips.FRAMES)
    source = World("emoji-clips", backbone, 0)
    x0, said = source.latents(1, True, torch.Generator().manual_seed(0))
    assert x0.shape == (1, backbone.channels, *backbone.latent_size((32, 32)))
    assert clips_judge.parse_prompt(said[0]).name in clips.OBJECTS
    stills, said = source.stills(4, torch.Generator().manual_seed(0))
    assert stills.shape == (4, backbone.channels, 1, *backbone.latent_size((32, 32))[1:])
    assert len({clips_judge.parse_prompt(caption).name for caption in said}) > 1
    frame = torch.rand(1, 3, clips.FRAMES, 32, 32) * 2 - 1
    torch.testing.assert_close(source.encoded(frame)[:, :, :1], source.encoded(frame[:, :, :1]), atol=1e-4, rtol=1e-4)


def test_what_is_held_out_depends_on_the_seed_alone(tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)
    held, said = World("emoji", backbone, 0).held_out(5)
    monkeypatch.setattr(world, "NEW", {"emoji": {"cpu": 3}})
    again, words = World("emoji", backbone, 0).held_out(5)
    assert torch.equal(held, again)
    assert said == words
    assert said != World("emoji", backbone, 1).held_out(5)[1]


def test_a_still_of_any_source_is_the_first_latent_frame() -> None:
    class Known(Source):
        def prompts(self, count: int, generator: torch.Generator) -> list[str]:
            return ["a fox"] * count

        def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
            assert full
            return torch.arange(count * 12.0).reshape(count, 1, 3, 2, 2), self.prompts(count, generator)

    given = Known().stills(2, torch.Generator())
    assert given is not None
    assert given[1] == ["a fox"] * 2
    assert given[0].flatten().tolist() == [0, 1, 2, 3, 12, 13, 14, 15]


def test_a_model_of_clips_learns_from_single_frames_too(tiny_flow_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flow_folders["tiny_wan"], tmp_path / "tiny")
    card = json.loads((folder / "backbone.json").read_text())
    card |= {"high": [32, 32], "low": [16, 16], "frames": clips.FRAMES}
    (folder / "backbone.json").write_text(json.dumps(card))
    ask = ["train", "pretrain", "--backbone", str(folder), "--out", str(tmp_path / "run"), "--device", "cpu"]
    small = ["world=emoji-clips", "batch=2", "still_share=0.5", "still_batch=5", "low_share=0", "seed=3"]
    ask += [word for one in small for word in ("--set", one)]
    assert cli.main([*ask, "--steps", "4"]) == 0
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {"loss_high", "loss_still"} <= row.keys()
    assert row["samples"] in {2 * high + 5 * (4 - high) for high in (1, 2, 3)}


def test_a_network_that_cannot_be_compiled_is_said_in_a_sentence(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no compiler")

    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **more: compiled(self, backend=broken, **more))
    asked = ["train", "pretrain", "--backbone", str(tiny_sdxl), "--out", str(tmp_path / "run"), "--device", "cpu"]
    asked += ["--steps", "1"]
    for setting in ("world=emoji", "batch=2", "compile=yes"):
        asked += ["--set", setting]
    assert cli.main(asked) == 2
    assert "compile must be no here, not yes: this PyTorch cannot compile" in capsys.readouterr().err


def test_a_world_is_for_backbones_of_its_kind(tiny_sdxl: Path, tiny_flow_folders: dict[str, Path]) -> None:
    pictures = open_backbone(tiny_sdxl, "tiny", CPU, torch.float32)
    with pytest.raises(RequestError, match="world emoji-clips is square and has 13 frames; Tiny makes 64x64 and 1"):
        World("emoji-clips", pictures, 0)
    moving = open_backbone(tiny_flow_folders["tiny_wan"], "tiny", CPU, torch.float32)
    with pytest.raises(RequestError, match="world emoji is square and has 1 frame;"):
        World("emoji", moving, 0)


@pytest.fixture
def begun(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`start` of a fresh model."""
    tokenizer: CLIPTokenizer = text.build_tokenizer(["a fox on a blue background"] * 9, size=600)
    text.save(tokenizer, text.build_encoder(tokenizer), tmp_path / "text")
    autoencoder.build().save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(start, "HIGH", (64, 64))
    monkeypatch.setattr(start, "CARD", {**start.CARD, "high": (64, 64), "low": (32, 32), "teacher_steps": 4})
    start.begin(tmp_path / "text", tmp_path / "vae", tmp_path / "start")
    return tmp_path / "start"


def test_a_bundled_teacher_is_trained_by_the_one_loop(begun: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ask = [
        "train",
        "pretrain",
        "--recipe",
        "emoji-sdxl",
        "--backbone",
        str(begun),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    small = ["batch=2", "low_batch=3", "held_out=3", "sheet_every=9", "rate=0.5"]
    ask += [word for one in small for word in ("--set", one)]
    before = open_backbone(begun, "start", CPU, torch.float32)
    assert cli.main([*ask, "--steps", "3"]) == 0
    made = open_backbone(out / "teacher", "made", CPU, torch.float32)
    for part in ("unet", "text_encoder_2"):
        one, two = (getattr(b.pipe, part).state_dict() for b in (before, made))  # type: ignore[attr-defined]
        assert any(not torch.allclose(one[name].float(), two[name], atol=1e-3) for name in one), part
    row = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < row["held_out"] < 1000
    assert row["samples"] in {6, 7, 8, 9}
    assert made.spec.low == (32, 32)
