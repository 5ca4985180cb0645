"""Turning finished runs into the folders under checkpoints/: weights, machine-readable card, model card."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from rmd.backbones.loading import BACKBONE_CARD, STUDENT_CARD
from rmd.config import BackboneSpec
from rmd.train import emoji

LICENCE = "apache-2.0 (weights), trained on MIT-licensed pictures"
HIGH, LOW = (256, 256), (128, 128)


def replace_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder beside `target` and put it in its place."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


@torch.no_grad()
def fit_rgb(vae: AutoencoderTiny, latents: Tensor) -> list[list[float]]:
    """Least squares from a latent cell to the mean colour of its 8×8 pixels: (3, C + 1), the last column a constant."""
    pick = latents[torch.randperm(len(latents), generator=torch.Generator().manual_seed(0))[:200]].float()
    pixels = (vae.decoder(pick / vae.config["scaling_factor"]).clamp(-1, 1) + 1) / 2
    colour = torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    cells = pick.permute(0, 2, 3, 1).reshape(len(colour), -1)
    cells = torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
    factors = torch.linalg.lstsq(cells, colour).solution.T
    return [[round(v, 4) for v in row] for row in factors.tolist()]


def facts_of(run: Path) -> dict[str, Any]:
    """Last log line of a stage: steps, minutes, samples."""
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])


def hardware() -> str:
    return f"{torch.get_num_threads()} CPU threads, {platform.machine()}, no GPU"


def teacher(runs: Path, target: Path) -> None:
    """checkpoints/…: the pipeline, backbone.json and README.md."""
    latents = torch.load(runs / "teacher" / "latents.pt", weights_only=True)
    vae = AutoencoderTiny.from_pretrained(runs / "autoencoder" / "vae")
    card = {
        "name": "Emoji SDXL (bundled)",
        "high": HIGH,
        "low": LOW,
        "teacher_steps": 50,
        "guidance": 3.5,
        "default_steps": 4,
        "default_switch": 2,
        "licence": LICENCE,
        "known_words": [c.name for c in emoji.concepts()],
        "colours": list(emoji.COLOURS),
        "rgb_factors": fit_rgb(vae, latents["high"]),
    }
    BackboneSpec(id="check", **{k: v for k, v in card.items() if k != "rgb_factors"})  # the reader's own shape
    train, ae = facts_of(runs / "teacher"), facts_of(runs / "autoencoder")

    def fill(folder: Path) -> None:
        shutil.copytree(runs / "teacher" / "pipeline", folder, dirs_exist_ok=True)
        (folder / BACKBONE_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (folder / "README.md").write_text(TEACHER_CARD.format(ae=ae, train=train, hardware=hardware(), words=words()))

    replace_folder(target, fill)


def student(runs: Path, base: Path, target: Path) -> None:
    """checkpoints/…-student: unet/, rmd.json and README.md."""
    train = json.loads((runs / "distill" / "student" / "training.json").read_text())
    card = {
        "name": "RMD student",
        "base_model": base.name,
        "licence": LICENCE,
        "default_steps": 4,
        "default_switch": 2,
        "eta": train["eta"],
        "reinjection": train["reinjection"],
        "training": f"{train['iterations']} iterations in {train['minutes']} minutes on {hardware()}; "
        "random plans, K from 1 to 8 and any switch",
        "quality": {},
    }

    def fill(folder: Path) -> None:
        shutil.copytree(runs / "distill" / "student" / "unet", folder / "unet")
        (folder / STUDENT_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (folder / "README.md").write_text(STUDENT_CARD_TEXT.format(train=train, base=base.name, hardware=hardware()))

    replace_folder(target, fill)


def quality(measured: Path, base: Path, student: Path, assets: Path) -> None:
    """Put what `python -m rmd evaluate` measured beside the cards, and its contact sheets into `assets`."""
    result = json.loads((measured / "quality.json").read_text())
    text = json.dumps(result, indent=1) + "\n"
    card = json.loads((student / STUDENT_CARD).read_text())
    card["quality"] = {k: result[k] for k in ("prompts", "metric", "teacher", "student")}
    (student / STUDENT_CARD).write_text(json.dumps(card, indent=1) + "\n")
    for folder in (base, student):
        (folder / "quality.json").write_text(text)
    for sheet in sorted(measured.glob("*.png")):
        shutil.copyfile(sheet, assets / f"sheet-{sheet.name}")


def words() -> str:
    groups: dict[str, list[str]] = {}
    for concept in emoji.concepts():
        groups.setdefault(concept.group, []).append(concept.name)
    return "\n".join(f"- {group}: {', '.join(names)}" for group, names in groups.items())


TEACHER_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# Emoji SDXL, the bundled image backbone

A `StableDiffusionXLPipeline` at small size, trained from scratch by this repository: 256 px pictures of 3D emoji on
coloured backgrounds. It is the many-step teacher of the demo and the base of the student beside it.

- **Parts**: UNet 20.8 M parameters (v-prediction, SDXL's noise table), CLIP text encoder 3.2 M, AutoencoderTiny
  1.07 M (f8, 4 channels); fp16 safetensors.
- **Data**: Microsoft Fluent Emoji 3D (MIT, npm `@lobehub/fluent-emoji-3d` 1.1.0) composed on plain or softly graded
  backgrounds; tokenizer from `emojibase-data` 17.0.0 labels and tags (MIT). See NOTICE.
- **Budget**: autoencoder {ae[minutes]} minutes ({ae[step]} steps; PSNR {ae[psnr_256]:.1f} dB at 256 px on pictures
  it never saw), teacher {train[minutes]} minutes ({train[step]} steps, {train[samples]} samples), both on {hardware}.
- **Recipe**: the text encoder first learns to predict the mean low-resolution latent of a caption, region by region
  (`rmd/train/layout.py`); then text encoder and UNet train together, 128 px first, mostly 256 px later.
- **Commands**: `python -m rmd train data`, `autoencoder`, `teacher`, `publish-teacher`.
- **Defaults**: 50 Euler steps, classifier-free guidance 3.5.
- **Limits**: it knows the objects and colours below and nothing else; one object per picture.

## Measured quality

See `quality.json` (written by `python -m rmd evaluate`) and the contact sheets in `assets/`.

## Known words

{words}
- background colours: white, gray, black, light blue, blue, green, yellow, orange, pink, purple
"""

STUDENT_CARD_TEXT = """---
license: apache-2.0
base_model: {base}
pipeline_tag: text-to-image
---
# RMD student of {base}

A few-step, guidance-free student that starts at 128 px and ends at 256 px, distilled with distribution matching along
the resolution trajectory (RMD, arXiv 2603.06136). One set of weights for any plan: 1 to 8 steps, any switch point.

- **Training**: {train[iterations]} iterations, {train[minutes]} minutes on {hardware}; random plans
  (K 1–8, any switch, any eta, mostly `band` re-injection), guidance of the teacher 3.5.
- **Command**: `python -m rmd train distill`, then `publish-student`.
- **Default plan**: 2 low-resolution + 2 high-resolution steps, eta {train[eta]}, `{train[reinjection]}`.
- **Data and licence**: as its base model; see NOTICE.

## Measured quality

See `quality.json` (written by `python -m rmd evaluate`) and the contact sheets in `assets/`.
"""
