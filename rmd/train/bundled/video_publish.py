"""Turning finished video runs into the folders under checkpoints/, as rmd/train/publish.py does for images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan

from rmd.backbones.cards import BackboneSpec
from rmd.backbones.folders import BACKBONE_CARD
from rmd.train.bundled import video_frames as frames
from rmd.train.bundled.video_start import CARD, GUIDANCE
from rmd.train.export import HISTORY, SETTINGS_FILE, replace_folder
from rmd.train.publish import as_table, facts_of, history, write_student
from rmd.worlds import clips, emoji

PROMPTS = Path(__file__).resolve().parents[3] / "assets" / "prompts_video.txt"


@torch.no_grad()
def fit_rgb(vae: AutoencoderKLWan) -> list[list[float]]:
    """Least squares from a latent cell to the mean colour of its pixels and frames: (3, C + 1), last a constant."""
    x = clips.render(emoji.load_sprites(), clips.draw(12, torch.Generator().manual_seed(0)))
    shape = (1, -1, 1, 1, 1)
    mean, std = (torch.tensor(vae.config[f"latents_{name}"]).view(shape) for name in ("mean", "std"))
    latents = (frames.encode(vae, x * 2 - 1) - mean) / std
    # the first latent frame is one frame, each other the mean of several
    packed = vae.config["scale_factor_temporal"]
    mixed = torch.cat([x[:, :, :1], F.avg_pool3d(x[:, :, 1:], (packed, 1, 1))], dim=2)
    colour = F.avg_pool3d(mixed, (1, 8, 8)).movedim(1, -1).reshape(-1, 3)
    cells = latents.movedim(1, -1).reshape(len(colour), -1)
    cells = torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
    return [[round(v, 4) for v in row] for row in torch.linalg.lstsq(cells, colour).solution.T.tolist()]


def teacher(runs: Path, target: Path, continued: bool) -> None:
    """checkpoints/…: the pipeline, backbone.json, the training's history and README.md."""
    source = runs / "video-teacher" / "teacher"
    vae = AutoencoderKLWan.from_pretrained(source / "vae", dtype=torch.float32)
    card: dict[str, Any] = {
        **CARD,
        "name": f"{CARD['name']} (bundled)",
        "known_words": [*clips.OBJECTS, *(words for m in clips.MOTIONS for words in (m.doing, m.does))],
        "colours": list(emoji.COLOURS),
        "caption_words": list(clips.CAPTION_WORDS),
        "prompts": PROMPTS.read_text().splitlines(),
        "rgb_factors": fit_rgb(vae),
    }
    BackboneSpec(id="check", **{k: v for k, v in card.items() if k != "rgb_factors"})  # the reader's own shape
    rows = [facts_of("teacher", runs / "video-teacher")]
    if not continued:
        rows = [facts_of("autoencoder", runs / "video-autoencoder"), *rows]
    rows = history(target, rows, continued)
    words = {
        "objects": ", ".join(clips.OBJECTS),
        "motions": ", ".join(m.doing for m in clips.MOTIONS),
        "colours": ", ".join(emoji.COLOURS),
        "count": len(clips.OBJECTS),
    }

    def fill(folder: Path) -> None:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(SETTINGS_FILE), dirs_exist_ok=True)
        vae.to(torch.float16).save_pretrained(folder / "vae")
        (folder / BACKBONE_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (folder / HISTORY).write_text(json.dumps(rows, indent=1) + "\n")
        (folder / "README.md").write_text(TEACHER_CARD.format(history=as_table(rows), guidance=GUIDANCE, **words))

    replace_folder(target, fill)


def student(runs: Path, base: Path, target: Path, continued: bool) -> None:
    """checkpoints/…-student of the video model."""
    write_student(runs / "video-distill", base, target, continued, CARD, STUDENT_CARD_TEXT)


TEACHER_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# Emoji Wan, the bundled video backbone

A `WanPipeline` at small size, trained from scratch by this repository: clips of 13 frames (128 px, 8 per second) of
one emoji doing one thing on a coloured background. It is the many-step teacher of the demo and the base of the
student beside it.

- **Parts**: `WanTransformer3DModel` 13.8 M parameters (6 layers × 384, patches of 2×2 cells, velocity of a rectified
  flow, timestep shift 3), `UMT5EncoderModel` (3 layers × 192), `AutoencoderKLWan` 4.6 M (f8, 2 frames to one,
  16 channels, on 2×2 patches of pixels); fp16 safetensors.
- **Data**: {count} objects of Microsoft Fluent Emoji (MIT), solid or flat, in any size, place and side on plain or
  softly graded backgrounds, moved by formulas (`rmd/worlds/clips.py`); tokenizer from `emojibase-data` 17.0.0 labels
  and tags (MIT). See NOTICE.
- **Captions** name object and motion, mostly the background, and sometimes size, place, side and style; what they leave
  open, the seed decides.
- **Recipe**: text encoder and transformer train together, 64 px alone first, then mostly 128 px; a clip is used several
  times, each with another noise.
- **Commands**: `python -m rmd train data`, `video-autoencoder`, `video-start`, `pretrain --recipe emoji-wan-gpu`,
  `publish-video-teacher`.
- **Defaults**: 50 UniPC steps, classifier-free guidance {guidance}. With 1.5 its clips were no nearer to the world's
  (Fréchet distance of 96 clips 115 ± 11, with 2.0 113 ± 11).
- **Limits**: it knows the objects, motions and colours below and nothing else; one object and one motion per clip.

## Training

{history}

The autoencoder went on from one of 4,512 steps (72 minutes of two CPU threads, 29.8 dB at 128 px); it has 30.8 dB.

## Measured quality

`quality.json` here, the strips in `assets/sheet-video-*.png` and the table `assets/evidence/emoji-wan.md`, all written
by `python -m rmd evaluate --backbone emoji-wan --count 96 --seeds 2`. Clips to play are in `assets/clips/`.

## Known words

- objects: {objects}
- motions: {motions}
- background colours: {colours}
"""

STUDENT_CARD_TEXT = """---
license: apache-2.0
base_model: {base}
pipeline_tag: text-to-video
---
# RMD student of {base}

A few-step, guidance-free student that starts at 64 px and ends at 128 px, distilled with distribution matching along
the resolution trajectory (RMD, arXiv 2603.06136). One set of weights for any plan: 1 to 8 steps, any switch point.

- **Recipe**: plain guidance distillation as a warm-up, then distribution matching on random plans (1 to 8 steps, any
  switch, any eta, mostly `band` re-injection).
- **Run**: {card[training]}.
- **Commands**: `python -m rmd train distill --recipe emoji-wan-gpu`, then `publish-video-student`.
- **Default plan**: 2 low-resolution + 2 high-resolution steps, eta {card[eta]}, `{card[reinjection]}`.
- **Data and licence**: as its base model; see NOTICE.

## Training

{history}

Tried: 70 more minutes of one CPU thread (AVX512-BF16) from here with guidance 1.7, for its sharpness. 96 clips at
2 + 2: Fréchet distance to the teacher 33 ± 6 in place of 32 ± 6, diversity 0.87 ± 0.09 in place of 0.91 ± 0.08,
sharpness 0.84 ± 0.05 in place of 0.78 ± 0.05. Not nearer, so not shipped.

## Measured quality

`quality.json` here, the strips in `assets/sheet-video-*.png` and the table `assets/evidence/emoji-wan.md`, all written
by `python -m rmd evaluate --backbone emoji-wan --count 96 --seeds 2`.
"""
