"""Catalog backbones with random weights: the same code at a tiny width, timed end to end and compared with loading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rmd.backbones import catalog, loading, random_weights
from rmd.backbones.random_weights import COMPONENTS, NOTE, RandomWeights
from rmd.checks import RequestError
from rmd.cli import main

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CLIP = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "projection_dim": 32,
    "vocab_size": 514,
}  # fmt: skip
T5 = {"d_ff": 64, "d_kv": 8, "d_model": 64, "num_heads": 2, "num_layers": 2, "vocab_size": 100}
VAE = {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4}
FOUR = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
NARROW: dict[str, dict[str, Any]] = {
    "clip-l": CLIP, "openclip-bigg": CLIP, "t5-xxl": T5, "umt5-xxl": T5, "sdxl-vae": VAE, "sd3-vae": VAE,
    "wan-vae": {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    "sdxl-unet": {
        "addition_time_embed_dim": 8, "attention_head_dim": [1, 2, 2], "block_out_channels": [16, 32, 32],
        "cross_attention_dim": 64, "layers_per_block": 1, "norm_num_groups": 8,
        "projection_class_embeddings_input_dim": 80, "transformer_layers_per_block": [1, 1, 2],
    },
    "sd3.5-medium-transformer": {
        "attention_head_dim": 8, "caption_projection_dim": 16, "dual_attention_layers": [0], "joint_attention_dim": 64,
        "num_attention_heads": 2, "num_layers": 2, "pooled_projection_dim": 64, "pos_embed_max_size": 16,
    },
    "qwen3-4b": {
        "head_dim": 8, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 28,
        "num_key_value_heads": 1, "vocab_size": 260,
    },
    "flux-vae": VAE, "flux2-vae": {**VAE, "latent_channels": 4, **FOUR},
    "z-image-transformer": {
        "axes_dims": [4, 6, 6], "cap_feat_dim": 16, "dim": 32, "n_heads": 2, "n_kv_heads": 2, "n_layers": 1,
        "n_refiner_layers": 1,
    },
    "flux2-klein-4b-transformer": {
        "attention_head_dim": 16, "axes_dims_rope": [4, 4, 4, 4], "in_channels": 16, "joint_attention_dim": 48,
        "num_attention_heads": 2, "num_layers": 1, "num_single_layers": 1, "timestep_guidance_channels": 16,
    },
    "wan2.1-1.3b-transformer": {
        "attention_head_dim": 12, "ffn_dim": 32, "freq_dim": 16, "num_attention_heads": 2, "num_layers": 2,
        "rope_max_seq_len": 32, "text_dim": 64,
    },
}  # fmt: skip
SIZES = {"high": (64, 64), "low": (32, 32)}
IDS = ("sdxl", "sd3.5-medium", "wan2.1-1.3b", "z-image", "flux2-klein-4b")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The catalog's rows with everything narrower, in an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for key, changes in NARROW.items():
        monkeypatch.setitem(COMPONENTS, key, {"config": {**COMPONENTS[key]["config"], **changes}})
    entries = []
    for entry in catalog.ENTRIES:
        if entry.spec and entry.hub:
            spec = replace(entry.spec, **SIZES, frames=min(entry.spec.frames, 9))
            entry = replace(entry, spec=spec, hub=replace(entry.hub, memory_gb=0.02, offloaded_gb=0.01))
        entries.append(entry)
    monkeypatch.setattr(catalog, "ENTRIES", tuple(entries))


@pytest.mark.parametrize("name", IDS)
def test_bench_times_an_architecture_without_any_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    arguments = ["bench", "--backbone", name, "--weights", "random", "--plans", "2/1,1/0", "--repeats", "1"]
    assert main([*arguments, "--teacher-steps", "3", "--attention", "native", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["weights"], report["student"], report["teacher_steps"]) == ("random", NOTE, 3)
    assert (report["attention"], report["compile"]) == ("native", False)
    assert 0.01 < report["peak_memory_gb"] < 100
    rows = report["rows"]
    # guidance makes two calls of each of the teacher's steps, a student's step is one
    assert {name: row["nfe"] for name, row in rows.items()} == {"teacher": 6, "2/1": 2, "1/0": 1}
    gain = rows["teacher"]["denoiser"]["median"] / rows["2/1"]["denoiser"]["median"]
    assert rows["2/1"]["speedup"]["denoiser"] == pytest.approx(gain)
    more = report["extrapolated"]
    assert more["teacher_steps"] == 50
    assert more["denoiser_speedup_not_measured"]["2/1"] == pytest.approx(gain * 50 / 3)
    assert not (tmp_path / "hub").exists()


def test_the_tiny_decoder_is_random_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", "random", "--plans", "1/0", "--repeats", "1", "--teacher-steps", "2"]
    for name in ("sdxl", "sd3.5-medium"):
        assert main(["bench", "--backbone", name, *arguments, "--decoder", "tiny", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["decoder"] == "tiny"
    assert main(["bench", "--backbone", "wan2.1-1.3b", *arguments, "--decoder", "tiny"]) == 2
    assert "decoder must be full for Wan2.1 text to video 1.3B" in capsys.readouterr().err


def test_the_table_says_what_was_timed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--backbone", "sdxl", "--weights", "random", "--plans", "1/0", "--repeats", "1"]
    assert main([*arguments, "--teacher-steps", "2"]) == 0
    out = capsys.readouterr().out
    for words in (NOTE, "teacher 2 steps", "attention native, not compiled", "GB"):
        assert words in out
    assert "extrapolated to 50 teacher steps, not measured" in out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", IDS)
def test_everything_is_as_loading_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype
) -> None:
    """Same components, shapes, dtypes, schedule and lengths of prompts as from a folder that holds these weights."""
    monkeypatch.setattr(loading, "default_dtype", lambda device: dtype)
    entry = catalog.find(name)
    made: Any = loading.whole(RandomWeights().backbone(entry, CPU))
    made.pipe.save_pretrained(tmp_path / "saved")
    read: Any = loading.open_backbone(tmp_path / "saved", name, CPU, spec=entry.spec)
    assert [type(part) for part in made.parts()] == [type(part) for part in read.parts()]
    for one, other in zip(made.parts(), read.parts(), strict=True):
        assert described(one) == described(other)
        assert not one.training
    assert torch.get_default_dtype() == torch.float32
    assert vars(made.schedule).keys() == vars(read.schedule).keys()
    assert float(made.schedule.logsnr(0.3)) == float(read.schedule.logsnr(0.3))
    assert (made.prediction, made.channels, made.grid) == (read.prediction, read.channels, read.grid)
    with torch.inference_mode():
        conditionings = [backbone.encode(["a fox on a blue background, é 🦊"]) for backbone in (made, read)]
    for key, value in conditionings[0].items():
        torch.testing.assert_close(value, conditionings[1][key])


def described(network: torch.nn.Module) -> dict[str, Any]:
    return {n: (v.shape, v.dtype, v.device) for n, v in (*network.named_parameters(), *network.named_buffers())}


@pytest.mark.parametrize(("length", "kind"), [(77, "CLIPTokenizer"), (512, "T5Tokenizer")])
@pytest.mark.parametrize("prompt", ["", "a fox", "🦊 é\tx" * 200])
def test_tokenizers_fill_the_encoders_length_with_valid_ids(prompt: str, length: int, kind: str) -> None:
    tokenizer = random_weights.TOKENIZERS[kind](length)
    ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids
    assert ids.shape == (1, length)
    assert 0 <= int(ids.min()) <= int(ids.max()) < len(tokenizer) <= 514


def test_too_little_memory_is_one_sentence_before_anything_is_built(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_weights, "free_gb", lambda device: 0.001)
    monkeypatch.setattr(random_weights, "component", None)
    assert main(["bench", "--backbone", "sdxl", "--weights", "random", "--plans", "1/0"]) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
    assert "SDXL 1.0 with random weights needs about" in err
    assert "this machine has 0 GB free." in err


@pytest.mark.parametrize(
    ("device", "free", "own", "room"),
    [(CUDA, 60, 0, True), (CUDA, 59, 60, False), (CUDA, 24, 60, False), (CUDA, 23, 99, None), (CUDA, 59, 59, None)],
)
def test_what_does_not_fit_waits_in_the_machines_memory(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, free: float, own: float, room: bool | None
) -> None:
    entry = catalog.find("wan2.1-14b")
    assert entry.hub is not None
    entry = replace(entry, hub=replace(entry.hub, memory_gb=60.0, offloaded_gb=24.0))
    monkeypatch.setattr(random_weights, "free_gb", lambda where: own if where == CPU else free)
    if room is None:
        with pytest.raises(RequestError, match=r"needs about 60 GB of memory \(or 24 GB, and 60 GB of the mac"):
            random_weights.has_room(entry, device)
    else:
        assert random_weights.has_room(entry, device) == room


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--backbone", "emoji-sdxl"],
            "--weights random is for the catalog's published backbones, not for emoji-sdxl.",
        ),
        (["--backbone", "sdxl", "--student", "dmd2-sdxl"], "--student is for stored weights"),
        (["--backbone", "sdxl", "--teacher-steps", "1"], "teacher_steps must be a whole number from 2 to 100, not 1"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["bench", "--weights", "random", *arguments]) == 2
    assert words in capsys.readouterr().err
