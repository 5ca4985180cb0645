"""The measures whose weights are on the Hub, on tiny genuine models; and samples as other benchmarks take them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from torch import Tensor
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

from rmd.cli import main
from rmd.study.evidence import hubkit
from tests.tiny import tiny_pipeline
from tests.tiny_flow import WAN_CARD, tiny_wan

CPU = torch.device("cpu")
WORDS = ["a fox on a blue background", "a star"]


def in_cache(cache: Path, repo: str, *parts: Any) -> Path:
    """A repository as downloading leaves it."""
    place = cache / f"models--{repo.replace('/', '--')}"
    for part in parts:
        part.save_pretrained(place / "snapshots" / "abc")
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text("abc")
    return place / "snapshots" / "abc"


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of the kit's classes in the places of the large ones."""
    cache, tokenizer = tmp_path_factory.mktemp("hub"), tiny_pipeline().tokenizer_2
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    size = {"shortest_edge": 32}
    processor = CLIPProcessor(CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}), tokenizer)
    clip, pick = CLIPModel(config), CLIPModel(config)
    clip.logit_scale.data.fill_(1.0)
    in_cache(cache, hubkit.CLIP, clip, processor)
    in_cache(cache, hubkit.FITS[1].network, pick)
    in_cache(cache, hubkit.LAION, processor)
    dino = Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7)
    )
    edges = {"size": size, "crop_size": {"height": 28, "width": 28}}
    in_cache(cache, hubkit.DINO.network, dino, BitImageProcessor(**edges))
    return cache


@pytest.fixture
def there(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    return hub_cache


def pictures(frames: int) -> tuple[Tensor, list[list[Image.Image]]]:
    """Two clips as tensors and as Pillow's pictures."""
    drawn = np.random.default_rng(0).integers(0, 256, (2, frames, 48, 48, 3), dtype=np.uint8)
    pixels = torch.from_numpy(drawn).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return pixels, [[Image.fromarray(frame) for frame in clip] for clip in drawn]


@pytest.mark.parametrize("frames", [1, 3])
def test_the_scores_are_the_models_own(there: Path, frames: int) -> None:
    """CLIPScore is 100·cosine whatever the scale that the network learnt, PickScore takes that one."""
    pixels, clips = pictures(frames)
    for weights, scale in zip(hubkit.FITS, (100.0, None), strict=True):
        folders = weights.folders()
        assert folders is not None
        model, processor = CLIPModel.from_pretrained(folders[0]), CLIPProcessor.from_pretrained(folders[1])
        found = hubkit.Fit(weights, CPU)(pixels, WORDS)
        for score, clip, words in zip(found, clips, WORDS, strict=True):
            given: Any = processor(text=[words], images=clip, return_tensors="pt", padding=True)
            with torch.no_grad():
                logits = model(**given).logits_per_image[:, 0]
            expected = logits if scale is None else logits / model.logit_scale.detach().exp() * scale
            assert float(score) == pytest.approx(float(expected.clamp(min=0).mean()), rel=1e-4, abs=1e-4)


def test_a_longer_prompt_than_the_text_encoder_takes(there: Path) -> None:
    found = hubkit.Fit(hubkit.FITS[0], CPU)(pictures(1)[0], ["a fox " * 60, "a star"])
    assert torch.isfinite(found).all()


def test_dinos_features_are_its_class_tokens(there: Path) -> None:
    pixels, clips = pictures(2)
    folders = hubkit.DINO.folders()
    assert folders is not None
    model, processor = Dinov2Model.from_pretrained(folders[0]), BitImageProcessor.from_pretrained(folders[1])
    with torch.no_grad():
        first = model(**processor(images=clips[0], return_tensors="pt")).last_hidden_state[:, 0].mean(dim=0)  # type: ignore[operator]
    torch.testing.assert_close(hubkit.Dino(CPU)(pixels)[0], first, atol=1e-5, rtol=1e-4)


def test_what_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    kit = hubkit.hub_kit(CPU)
    assert kit.fits == {}
    assert kit.dino is None
    assert all(one.network in hubkit.missing() for one in (*hubkit.FITS, hubkit.DINO))


@pytest.fixture
def asked(tiny_sdxl: Path, tmp_path: Path) -> list[str]:
    card = json.loads((tiny_sdxl / "backbone.json").read_text())
    plain = shutil.copytree(tiny_sdxl, tmp_path / "plain")
    (plain / "backbone.json").write_text(json.dumps({**card, "known_words": [], "colours": []}))
    lines = "".join(json.dumps({"prompt": words, "atom_count": 1}) + "\n" for words in WORDS)
    (tmp_path / "data.jsonl").write_text(lines)
    where = ["--prompts", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "out")]
    return ["evaluate", "--backbone", str(plain), "--plans", "none", "--count", "4", "--seeds", "2", *where]


def test_a_study_takes_what_is_there(there: Path, asked: list[str], tmp_path: Path) -> None:
    assert main([*asked, "--handover", "geneval2"]) == 0
    rows = json.loads((tmp_path / "out" / "evidence.json").read_text())["rows"]
    assert {"value", "low", "high"} <= set(rows["teacher"]["clip_score"])
    assert "pick_score" in rows["not distilled, 2+2"]
    assert rows["not distilled, 2+2"]["fd_dino_teacher"]["value"] > 0
    assert "CLIPScore" in (tmp_path / "out" / "evidence.md").read_text()
    paths = json.loads((tmp_path / "out" / "geneval2" / "teacher.json").read_text())
    assert list(paths) == WORDS
    assert [Path(path).name for path in paths.values()] == ["00000.png", "00002.png"]
    assert all(Path(path).is_file() for path in paths.values())


def test_vbench_takes_clips(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*asked, "--handover", "vbench"]) == 2
    assert "vbench takes clips; this model makes pictures" in capsys.readouterr().err
    assert not (tmp_path / "out" / "vbench").exists()


@pytest.mark.slow
def test_clips_for_vbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "wan"
    tiny_wan().save_pretrained(folder)
    (folder / "backbone.json").write_text(json.dumps({**WAN_CARD, "known_words": []}))
    asked = ["evaluate", "--backbone", str(folder), "--plans", "none", "--seeds", "2"]
    asked += ["--out", str(tmp_path / "out"), "--prompts", str(tmp_path / "prompts.txt")]
    (tmp_path / "prompts.txt").write_text("\n".join(WORDS))
    assert main([*asked, "--handover", "vbench"]) == 0
    names = {path.name for path in (tmp_path / "out" / "vbench" / "teacher").iterdir()}
    assert names == {f"{words}-{index}.mp4" for words in WORDS for index in range(2)}
    assert main([*asked, "--handover", "geneval2"]) == 2
    (tmp_path / "prompts.txt").write_text("a fox/wolf")
    asked[asked.index(str(tmp_path / "out"))] = str(tmp_path / "other")
    assert main([*asked, "--handover", "vbench"]) == 2
    assert "without /, not 'a fox/wolf'" in capsys.readouterr().err


def test_a_jsonl_without_prompts_is_a_sentence(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "a fox"}\n')
    assert main(asked) == 2
    assert 'every line of a .jsonl file must be JSON with a "prompt"' in capsys.readouterr().err
