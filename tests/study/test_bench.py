"""The benchmark runs what it reports; how fast is not a matter of tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rmd.backbones import loading
from rmd.backbones.peers import few_steps, peer_names
from rmd.cli import main
from tests.tiny_flow import SD3_CARD, tiny_sd3
from tests.tiny_qwen import ZIMAGE_CARD, tiny_zimage


def test_bench_reports_every_plan_and_the_teacher(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tiny_student: Path, tmp_path: Path
) -> None:
    arguments = ["bench", "--backbone", str(tiny_sdxl), "--student", str(tiny_student), "--plans", "2/1,1/0"]
    assert main([*arguments, "--repeats", "2", "--json", "--out", str(tmp_path / "new" / "a.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == report
    rows = report["rows"]
    assert list(rows) == ["teacher", "2/1", "1/0"]
    assert (rows["teacher"]["nfe"], rows["2/1"]["nfe"], rows["1/0"]["nfe"]) == (12, 2, 1)
    assert rows["teacher"]["speedup"]["denoiser"] == 1
    fast, slow = rows["2/1"], rows["teacher"]
    assert fast["speedup"]["denoiser"] == pytest.approx(slow["denoiser"]["median"] / fast["denoiser"]["median"])
    assert fast["stage 4×4"]["min"] <= fast["stage 4×4"]["median"] <= fast["stage 4×4"]["max"]


def test_bad_repeats_are_refused(capsys: pytest.CaptureFixture[str], tiny_sdxl: Path) -> None:
    assert main(["bench", "--backbone", str(tiny_sdxl), "--repeats", "0"]) == 2
    assert "repeats must be a whole number from 1 to 1000, not 0" in capsys.readouterr().err


def test_peers_are_timed_on_the_same_weights(
    capsys: pytest.CaptureFixture[str], tiny_sdxl: Path, tiny_student: Path
) -> None:
    arguments = ["bench", "--backbone", str(tiny_sdxl), "--student", str(tiny_student), "--plans", "4/2,2/0"]
    assert main([*arguments, "--repeats", "1", "--peers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert list(rows) == ["teacher", "4/2", "2/0", "LCMScheduler 4"]
    assert rows["LCMScheduler 4"]["nfe"] == 4
    assert rows["LCMScheduler 4"]["end_to_end"]["median"] > rows["LCMScheduler 4"]["denoiser"]["median"] > 0


@pytest.mark.parametrize("name", ["sd3", "zimage"])
def test_the_scale_wise_peer_ends_where_our_plan_does(name: str, tmp_path: Path) -> None:
    pipe, card = {"sd3": (tiny_sd3(False), SD3_CARD), "zimage": (tiny_zimage(), ZIMAGE_CARD)}[name]
    pipe.save_pretrained(tmp_path / name)
    (tmp_path / name / "backbone.json").write_text(json.dumps(card))
    backbone: Any = loading.open_backbone(tmp_path / name, name, torch.device("cpu"), torch.float32)
    low, high = backbone.latent_size((32, 32)), backbone.latent_size((64, 64))
    noise = torch.randn((1, backbone.channels, *low), generator=torch.Generator().manual_seed(1))
    prompt = backbone.encode(["a fox"])
    with torch.inference_mode():
        x0 = few_steps(backbone, backbone.network, prompt, noise, 4, [1.0, 2.0, 2.0])
        plain = few_steps(backbone, backbone.network, prompt, noise, 4)
    assert x0.shape == (1, backbone.channels, *high)
    assert plain.shape == (1, backbone.channels, *low)
    assert type(backbone.pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler", "it is put back"
    assert peer_names(backbone) == {"FlowMatchLCM": False, "FlowMatchLCM, scale-wise": True}
