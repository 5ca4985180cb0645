"""Turning finished runs into the folders under checkpoints/: weights, machine-readable card, model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor

from rmd.backbones.cards import BackboneSpec
from rmd.backbones.folders import BACKBONE_CARD, STUDENT_CARD
from rmd.train.bundled import LICENCE
from rmd.train.bundled.image_start import CARD, GUIDANCE
from rmd.train.export import HISTORY, SETTINGS_FILE, history_of, replace_folder
from rmd.train.loop import LOG
from rmd.worlds import emoji, views
from rmd.worlds.emoji_judge import WORDS

PROMPTS = Path(__file__).resolve().parents[2] / "assets" / "prompts.txt"


@torch.no_grad()
def fit_rgb(vae: AutoencoderTiny, latents: Tensor) -> list[list[float]]:
    """Least squares from a latent cell to the mean colour of its 8×8 pixels: (3, C + 1), the last column a constant."""
    pixels = (vae.decoder(latents / vae.config["scaling_factor"]).clamp(-1, 1) + 1) / 2
    colour = torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    cells = latents.permute(0, 2, 3, 1).reshape(len(colour), -1)
    cells = torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
    factors = torch.linalg.lstsq(cells, colour).solution.T
    return [[round(v, 4) for v in row] for row in factors.tolist()]


def facts_of(stage: str, run: Path, **more: Any) -> dict[str, Any]:
    """One row of a model's training history, from the last line of a stage's log."""
    last = json.loads((run / LOG).read_text().splitlines()[-1])
    facts = {"stage": stage, "steps": last["step"] + 1, "samples": last["samples"], "minutes": last["minutes"]}
    return {**facts, "hardware": last["hardware"], **more}


def history(target: Path, rows: list[dict[str, Any]], continued: bool) -> list[dict[str, Any]]:
    """The published model's history with the new rows after it, or the new rows alone for a model begun anew."""
    before = json.loads((target / HISTORY).read_text()) if continued else []
    return [*before, *rows]


def as_table(rows: list[dict[str, Any]]) -> str:
    """The history for a model card."""
    lines = ["| stage | steps | samples | minutes | hardware |", "|---|---|---|---|---|"]
    lines += [f"| {r['stage']} | {r['steps']} | {r['samples']} | {r['minutes']:.0f} | {r['hardware']} |" for r in rows]
    return "\n".join(lines)


def teacher(runs: Path, target: Path, continued: bool) -> None:
    """checkpoints/…: the pipeline, backbone.json, the training's history and README.md."""
    source = runs / "teacher" / "teacher"
    card: dict[str, Any] = {
        **CARD,
        "name": f"{CARD['name']} (bundled)",
        "known_words": [c.name for c in emoji.concepts()],
        "colours": list(emoji.COLOURS),
        "caption_words": list(views.CAPTION_WORDS),
        "attributes": [word for words in WORDS.values() for word in words],
        "prompts": PROMPTS.read_text().splitlines(),
        "rgb_factors": factors_of(source / "vae"),
    }
    BackboneSpec(id="check", **{k: v for k, v in card.items() if k != "rgb_factors"})  # the reader's own shape
    stages = {"autoencoder": "autoencoder", "text": "text encoder's lesson", "teacher": "teacher"}
    made = [facts_of(words, runs / name) for name, words in stages.items() if (runs / name / LOG).exists()]
    rows = history(target, made, continued)

    def fill(folder: Path) -> None:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(SETTINGS_FILE), dirs_exist_ok=True)
        (folder / BACKBONE_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (folder / HISTORY).write_text(json.dumps(rows, indent=1) + "\n")
        (folder / "README.md").write_text(teacher_card(folder, rows))

    replace_folder(target, fill)


def teacher_card(folder: Path, rows: list[dict[str, Any]]) -> str:
    """README.md of the pipeline in `folder`."""
    networks = {"vae": AutoencoderTiny, "unet": UNet2DConditionModel}
    millions = {name: kind.from_pretrained(folder / name).num_parameters() / 1e6 for name, kind in networks.items()}
    return TEACHER_CARD.format(history=as_table(rows), words=word_list(), guidance=GUIDANCE, **millions)


def factors_of(folder: Path) -> list[list[float]]:
    """`fit_rgb` of an autoencoder's folder, on views of the world."""
    vae = AutoencoderTiny.from_pretrained(folder, dtype=torch.float32)
    x = views.render(emoji.load_sprites(), views.draw(64, torch.Generator().manual_seed(0))) * 2 - 1
    with torch.no_grad():
        return fit_rgb(vae, vae.encoder(x) * vae.config["scaling_factor"])


def decoder(run: Path, target: Path) -> None:
    """checkpoints/… with the decoder of `run`: its weights, the card's map to colours, the history and README.md."""
    rows = history(target, [facts_of("decoder, the encoder kept", run)], True)
    card = json.loads((target / BACKBONE_CARD).read_text())
    card["rgb_factors"] = factors_of(run / "vae")
    made = AutoencoderTiny.from_pretrained(run / "vae", dtype=torch.float16)

    def fill(folder: Path) -> None:
        shutil.copytree(target, folder, dirs_exist_ok=True)
        shutil.rmtree(folder / "vae")
        made.save_pretrained(folder / "vae")
        (folder / BACKBONE_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (folder / HISTORY).write_text(json.dumps(rows, indent=1) + "\n")
        (folder / "README.md").write_text(teacher_card(folder, rows) + OLDER)

    replace_folder(target, fill)


def student(runs: Path, base: Path, target: Path, continued: bool) -> None:
    """checkpoints/…-student of the image model."""
    write_student(runs / "distill", base, target, continued, CARD, STUDENT_CARD_TEXT)


def write_student(run: Path, base: Path, target: Path, continued: bool, like: dict[str, Any], words: str) -> None:
    """The finished distillation in `run` as a student folder: weights, rmd.json, the training's history and README.md.

    like: the base's card, for the default plan. words: README.md with places for `history`, `base` and `card`.
    """
    rows = history(target, history_of(run / "student") or [facts_of("distillation", run)], continued)
    card = json.loads((run / "student" / STUDENT_CARD).read_text())
    card |= {"base_model": base.name, "licence": LICENCE} | {
        name: like[name] for name in ("default_steps", "default_switch")
    }

    def fill(folder: Path) -> None:
        shutil.copytree(run / "student", folder, dirs_exist_ok=True)
        (folder / STUDENT_CARD).write_text(json.dumps(card, indent=1) + "\n")
        (folder / HISTORY).write_text(json.dumps(rows, indent=1) + "\n")
        (folder / "README.md").write_text(words.format(history=as_table(rows), base=base.name, card=card))

    replace_folder(target, fill)


def quality(measured: Path, base: Path, student: Path, assets: Path, prefix: str) -> None:
    """Put what `python -m rmd evaluate` measured into and beside the cards, its sheets after `prefix` into `assets`."""
    result = json.loads((measured / "quality.json").read_text())
    text = json.dumps(result, indent=1) + "\n"
    card = json.loads((student / STUDENT_CARD).read_text())
    card["quality"] = {k: result[k] for k in ("prompts", "metric", "teacher", "student")}
    (student / STUDENT_CARD).write_text(json.dumps(card, indent=1) + "\n")
    if "detail" in result:  # figures of an earlier version have none
        own = json.loads((base / BACKBONE_CARD).read_text())
        (base / BACKBONE_CARD).write_text(json.dumps({**own, "detail": result["detail"]}, indent=1) + "\n")
    readme = base / "README.md"
    if readme.exists():
        readme.write_text(readme.read_text().replace(OLDER, ""))
    for folder in (base, student):
        (folder / "quality.json").write_text(text)
    for sheet in sorted(measured.glob("*.png")):
        shutil.copyfile(sheet, assets / f"{prefix}{sheet.name}")


def word_list() -> str:
    """What the model can draw, as the lines of its card."""
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

A `StableDiffusionXLPipeline` at small size, trained from scratch by this repository: 256 px pictures of emoji, solid or
flat, anywhere on coloured backgrounds. It is the many-step teacher of the demo and the base of the student beside it.

- **Parts**: UNet {unet:.1f} M parameters (v-prediction, SDXL's noise table), CLIP text encoder 3.2 M, AutoencoderTiny
  {vae:.2f} M (f8, 4 channels); fp16 safetensors.
- **Data**: Microsoft Fluent Emoji (MIT), the 3D pictures of npm `@lobehub/fluent-emoji-3d` 1.1.0 and the drawings of
  npm `@lobehub/fluent-emoji-flat` 1.1.0, put on plain or softly graded backgrounds in any size from half the canvas on,
  at any place, upright or tilted by up to 20 degrees, one in two mirrored (`rmd/worlds/views.py`); tokenizer from
  `emojibase-data` 17.0.0 labels and tags (MIT). See NOTICE.
- **Captions** name the object, mostly the background, and sometimes size, place, tilt, side and style; what they leave
  open, the seed decides.
- **Recipe**: the text encoder first learns what the words look like (`rmd/train/bundled/image_lesson.py`); then text
  encoder and UNet train together, one batch in four at 128 px. A picture is used about five
  times, each with another noise.
- **Commands**: `python -m rmd train data`, `autoencoder`, `text`, `start`, `pretrain --recipe emoji-sdxl-gpu`,
  `publish-teacher`.
- **Defaults**: 50 Euler steps, classifier-free guidance {guidance}.
- **Limits**: it knows the words below and nothing else; one object per picture.

## Training

{history}

The last teacher's UNet began anew (two levels instead of three), its text encoder and autoencoder went on from those
before. Tried at equal time: Muon in place of AdamW, 45 s each on an H100, held-out loss 0.164 against 0.146 (its steps
took twice as long there; after 200 steps each it was 0.164 against 0.189); 75 minutes more on two CPU threads for the
teacher before, no better. Compiled, a step at full size takes 111 ms in place of 177 on an H100.

Short trials on a CPU (AMD EPYC with bfloat16; one thread each, another trial on the second core), none of them adopted;
one run each, with scripts that are not part of the repository:

- *Coarser latents (f16).* An AutoencoderTiny with one halving more and 16 channels, 15 minutes from nothing: 20.7 dB on
  unseen pictures, one of the shipped shape 26.5 dB. So the UNet was tried on the shipped latents with 2×2 cells folded
  into one of 16 channels, where no autoencoder loses anything; 40 minutes from nothing each, 80 pictures:

  | | samples | held-out loss | object told right | detail error | FD to real pictures |
  |---|---|---|---|---|---|
  | the shipped shape (batch 12, 40 at the low size) | 14,152 | 0.178 | 40 ± 10% | 0.167 ± 0.012 | 259 ± 14 |
  | folded (batch 16, 40) | 42,552 | 0.173 | 91 ± 7% | 0.139 ± 0.010 | 273 ± 12 (15 ± 9 more) |
  | folded (batch 40, 96) | 43,312 | 0.192 | 79 ± 9% | 0.143 ± 0.010 | 283 ± 12 (24 ± 9 more) |

  (Beside the first and the third a scoring ran for ten of the 40 minutes, which cost each some four.)
  Folded, it learns sooner what to draw and later how: the cells show. Both are far from the shipped one (0.069), so
  this does not tell which would end better. What spoke against it is what the model is for: a call at the low size
  takes 76% of one at the full size (22 and 29 ms, two threads), as shipped 50% (30 and 60 ms); in float32 62% and 44%.
  From the shipped UNet's own weights it was worse than from nothing: 0.30 after 23 minutes.
- *A decoder more robust to noise.* The shipped one (noise up to 0.2) trained 15 minutes more with noise up to 0, 0.2
  and 0.4, on 120 of the teacher's latents (25 steps; detail error 0.049 ± 0.005), paired differences to the shipped:
  detail error -0.0003 ± 0.0007, -0.0006 ± 0.0007, -0.0003 ± 0.0002; FD to real pictures +0.3 ± 1.1, -0.7 ± 0.6,
  +1.2 ± 1.4. With half of each batch latents of 600 real pictures that the teacher drew again from a quarter to half of
  its way: -0.0014 ± 0.0005, but softer (sharpness 0.88 of the shipped's) and FD +3.0 ± 1.2. What the teacher draws
  wrong is not the decoder's to mend: 78% of the squared error (60 pictures) is within the object, 41% is coarser than
  16 pixels.
- *Two processes of one thread* (`torchrun --nproc-per-node 2`, gloo) in place of one of two threads, the same samples,
  nothing else running: 100 updates took 217 and 206 s, the last 50 of them 88 and 91, held-out loss after them 0.444
  and 0.437.
- *Network shape*: three levels (96, 176 and 256 channels, 21.3 M) as before, two threads, nothing else running: 100
  updates from nothing took 162 s, held-out loss 0.446, with two levels 206 s, 0.437. So three learn faster on a CPU;
  but a low-size call takes 40 of the full size's 61 ms with three, 31 of 61 with two, which is why there are two.
- *torch.compile* on that CPU: none; the C++ that PyTorch 2.13 writes for this UNet in bf16 declares a variable twice.

## Measured quality

`quality.json` here (written by `python -m rmd evaluate`) and the contact sheets in `assets/`.

## Known words

{words}
- background colours: white, gray, black, light blue, blue, green, yellow, orange, pink, purple
- size: small, big; place: on the left, on the right, at the top, at the bottom, in the middle; tilt: tilted left,
  tilted right; side: mirrored; style: 3d, flat
"""

OLDER = """
The figures in `quality.json` were measured before the last decoder; those in `assets/evidence/` say with which weights.
"""
"""Of a card whose decoder was changed alone, until `publish-quality`."""

STUDENT_CARD_TEXT = """---
license: apache-2.0
base_model: {base}
pipeline_tag: text-to-image
---
# RMD student of {base}

A few-step, guidance-free student that starts at 128 px and ends at 256 px, distilled with distribution matching along
the resolution trajectory (RMD, arXiv 2603.06136). One set of weights for any plan: 1 to 8 steps, any switch point.

- **Recipe**: plain guidance distillation as a warm-up, then distribution matching (any switch, any eta, mostly `band`
  re-injection), three updates of the fake score for each of the student, samples noised again through the step's end
  with the predicted noise. Two students, one of random plans (1 to 8 steps, guidance 2), one of 2 + 2 alone (guidance
  2.5); their mean; from there on random plans with guidance 1.4.
- **Last run**: {card[training]}.
- **Commands**: in `docs/training.md`: `train distill` with `emoji-sdxl-soft`, with `emoji-sdxl-short`, `train average`,
  `train distill`, `publish-student`.
- **Default plan**: 2 low-resolution + 2 high-resolution steps, eta {card[eta]}, `{card[reinjection]}`.
- **Data and licence**: as its base model; see NOTICE.

## Training

{history}

Minutes of one CPU thread each, while another run had the second core. Tried: guidance 2.5 and 2 throughout, 1.7 in
the last run, the student before (636 iterations of batch 128 on an H100), and its mean with either of the first two;
Fréchet distances to the teacher at 2 + 2: 36, 33, 36, 34, 32 and 32 (± 4), sharpness 1.22, 1.18, 1.09, 1.20, 1.15 and
1.20 of the teacher's. Two hours more from this one moved little (`docs/evidence.md`, "What falls short"). Of this
one: the tables in `assets/evidence/`.

## Measured quality

`quality.json` here (written by `python -m rmd evaluate`) and the contact sheets in `assets/`.
"""
