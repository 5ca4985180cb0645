"""Turning finished video runs into the folders under checkpoints/, as rmd/train/publish.py does for images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor

from rmd.backbones.cards import BackboneSpec
from rmd.backbones.folders import BACKBONE_CARD
from rmd.train.export import HISTORY, replace_folder
from rmd.train.publish import LICENCE, as_table, facts_of, history, write_student
from rmd.worlds import clips

GUIDANCE = 2.0
PROMPTS = Path(__file__).resolve().parents[3] / "assets" / "prompts_video.txt"
PLAN = (6, 3)  # steps and switch of the default plan


@torch.no_grad()
def fit_rgb(vae: AutoencoderKLWan, latents: Tensor) -> list[list[float]]:
    """Least squares from a latent cell to the mean colour of its pixels and frames: (3, C + 1), last a constant."""
    pick = latents[torch.randperm(len(latents), generator=torch.Generator().manual_seed(0))[:12]].float()
    shape = (1, -1, 1, 1, 1)
    mean, std = (torch.tensor(vae.config[f"latents_{name}"]).view(shape) for name in ("mean", "std"))
    pixels = torch.cat([vae.decode(z[None] * std + mean).sample for z in pick]) / 2 + 0.5  # type: ignore[union-attr]
    # the first latent frame is one frame, each other the mean of several
    packed = vae.config["scale_factor_temporal"]
    frames = torch.cat([pixels[:, :, :1], F.avg_pool3d(pixels[:, :, 1:], (packed, 1, 1))], dim=2)
    colour = F.avg_pool3d(frames, (1, 8, 8)).movedim(1, -1).reshape(-1, 3)
    cells = pick.movedim(1, -1).reshape(len(colour), -1)
    cells = torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
    return [[round(v, 4) for v in row] for row in torch.linalg.lstsq(cells, colour).solution.T.tolist()]


def teacher(runs: Path, target: Path, continued: bool) -> None:
    """checkpoints/…: the pipeline, backbone.json, the training's history and README.md."""
    source = runs / "video-teacher" / "pipeline"
    latents = torch.load(runs / "video-teacher" / "latents.pt", weights_only=True)
    vae = AutoencoderKLWan.from_pretrained(source / "vae", dtype=torch.float32)
    card: dict[str, Any] = {
        "name": "Emoji Wan (bundled)",
        "high": (clips.HIGH, clips.HIGH),
        "low": (clips.LOW, clips.LOW),
        "frames": clips.FRAMES,
        "fps": clips.FPS,
        "teacher_steps": 50,
        "guidance": GUIDANCE,
        "default_steps": PLAN[0],
        "default_switch": PLAN[1],
        "licence": LICENCE,
        "known_words": [*clips.OBJECTS, *(words for m in clips.MOTIONS for words in (m.doing, m.does))],
        "colours": list(clips.COLOURS),
        "caption_words": list(clips.CAPTION_WORDS),
        "prompts": PROMPTS.read_text().splitlines(),
        "rgb_factors": fit_rgb(vae, latents["high"]),
    }
    BackboneSpec(id="check", **{k: v for k, v in card.items() if k != "rgb_factors"})  # the reader's own shape
    rows = [facts_of("teacher", runs / "video-teacher")]
    if not continued:
        rows = [
            facts_of("autoencoder", runs / "video-autoencoder"),
            facts_of("text encoder's layout lesson", runs / "video-teacher" / "layout"),
            *rows,
        ]
    rows = history(target, rows, continued)
    words = {
        "objects": ", ".join(clips.OBJECTS),
        "motions": ", ".join(m.doing for m in clips.MOTIONS),
        "colours": ", ".join(clips.COLOURS),
        "wiggling": ", ".join(clips.ANIMATED),
        "stills": len(clips.OBJECTS),
        "animated": len(clips.ANIMATED),
    }

    def fill(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / BACKBONE_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (folder / HISTORY).write_text(json.dumps(rows, indent=1) + "\n")
        (folder / "README.md").write_text(TEACHER_CARD.format(history=as_table(rows), guidance=GUIDANCE, **words))

    replace_folder(target, fill)


def student(runs: Path, base: Path, target: Path, continued: bool) -> None:
    """checkpoints/…-student of the video model."""
    write_student(runs / "video-distill", base, target, continued, PLAN, STUDENT_CARD_TEXT)


TEACHER_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# Emoji Wan, the bundled video backbone

A `WanPipeline` at small size, trained from scratch by this repository: clips of 13 frames (128 px, 8 per second) of
one emoji doing one thing on a coloured background. It is the many-step teacher of the demo and the base of the
student beside it.

- **Parts**: `WanTransformer3DModel` 6.2 M parameters (6 layers × 256, patches of 2×2 cells, velocity of a rectified
  flow, timestep shift 3), `UMT5EncoderModel` 1.5 M (3 layers × 192), `AutoencoderKLWan` 4.6 M (f8, 2 frames to one,
  16 channels, on 2×2 patches of pixels); fp16 safetensors.
- **Data**: {stills} stills of Microsoft Fluent Emoji 3D (MIT, npm `@lobehub/fluent-emoji-3d` 1.1.0), moved by formulas,
  and {animated} animated ones (MIT, npm `@lobehub/fluent-emoji-anim-1` … `-4` 1.0.0: "wiggling"), composed on plain or
  softly graded backgrounds; tokenizer from `emojibase-data` 17.0.0 labels and tags (MIT) and the captions. See NOTICE.
- **Recipe**: autoencoder on stills, then on clips; the text encoder learns to predict a clip's latents, one layout
  token per place and time (`rmd/train/video/layout.py`), and stays as it is; then the transformer, 64 px first,
  mostly 128 px later.
- **Commands**: `python -m rmd train data`, `video-autoencoder`, `video-teacher`, `publish-video-teacher`.
- **Defaults**: 50 UniPC steps, classifier-free guidance {guidance}.
- **Limits**: it knows the objects, motions and colours below and nothing else; one object and one motion per clip.

## Training

{history}

## Measured quality

`quality.json` here and the strips in `assets/sheet-video-*.png`, both written by
`python -m rmd evaluate --backbone emoji-wan` on the prompts of `assets/prompts_video.txt`. Clips to play are in
`assets/clips/`.

## Known words

- objects: {objects}
- motions: {motions}; wiggling only {wiggling}
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
- **Commands**: `python -m rmd train distill --recipe emoji-wan`, then `publish-video-student`.
- **Default plan**: 3 low-resolution + 3 high-resolution steps, eta {card[eta]}, `{card[reinjection]}`.
- **Data and licence**: as its base model; see NOTICE.

## Training

{history}

## Measured quality

`quality.json` here and the strips in `assets/sheet-video-*.png`, both written by
`python -m rmd evaluate --backbone emoji-wan` on the prompts of `assets/prompts_video.txt`.
"""
