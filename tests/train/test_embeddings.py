"""Prompts of a file are encoded once, before a run, and text encoders leave."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rmd.backbones.loading import open_backbone
from rmd.train.distill import train
from rmd.train.distiller import Distiller
from rmd.train.embeddings import Embeddings
from rmd.train.settings import Settings
from rmd.train.source import PromptFile


def test_kept_prompts_are_what_the_text_encoders_say(tiny: Path, tmp_path: Path) -> None:
    backbone = open_backbone(tiny, "tiny", torch.device("cpu"), torch.float32)
    prompts = ["a fox", "a star on a blue background", "", "a fox"]
    kept, asked = Embeddings(tmp_path, backbone.device, tiny), []
    with torch.no_grad():
        kept.fill(prompts, backbone.encode)
        kept.fill([*prompts, "a dog"], lambda texts: (asked.extend(texts), backbone.encode(texts))[1])
        for some in (prompts[1:], ["a dog"]):
            for name, value in backbone.encode(some).items():
                assert torch.allclose(kept(some)[name], value, atol=1e-6)
    assert asked == ["a dog"]
    assert len(list(tmp_path.iterdir())) == 4


def test_other_text_encoders_are_asked_again(tiny_sdxl: Path, tmp_path: Path) -> None:
    base, device = shutil.copytree(tiny_sdxl, tmp_path / "base"), torch.device("cpu")
    before = Embeddings(tmp_path / "kept", device, base).path("a fox")
    assert Embeddings(tmp_path / "kept", device, base).path("a fox") == before
    weights = next((base / "text_encoder_2").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes())  # of the same size, at another time
    assert Embeddings(tmp_path / "kept", device, base).path("a fox") != before


def test_a_run_asks_its_text_encoders_before_it_begins_and_never_again(
    tiny_sdxl: Path, tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
    iterate, there = Distiller.iterate, []

    def watched(self: Distiller, *given: object) -> object:
        there.append(backbone.text_encoders())  # type: ignore[attr-defined]
        return iterate(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Distiller, "iterate", watched)
    settings = Settings(steps=2, warm_up=1, batch=2, fake_updates=1, sheet_every=1)
    train(backbone, PromptFile(prompts), settings, tmp_path / "run")
    assert there == [[]]
    assert len(list((tmp_path / "run" / "embeddings").iterdir())) == 2
    assert (tmp_path / "run" / "sheet.png").is_file()


def test_kept_and_asked_prompts_train_the_same_student(tiny_sdxl: Path, tmp_path: Path, prompts: Path) -> None:
    backbone = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
    source, found = PromptFile(prompts), []
    for kept in (True, False):
        trainer = Distiller(backbone, Settings(batch=2, fake_updates=1))
        if kept:
            trainer.remember(tmp_path, source.lines)
        g = torch.Generator().manual_seed(0)
        trainer.iterate(source, True, g, g)
        found.append(torch.cat([p.detach().flatten() for p in trainer.student.master.parameters()]))
    assert torch.allclose(*found, atol=1e-6)
