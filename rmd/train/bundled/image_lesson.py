"""What the image model's text encoder learns before the UNet sees a word: what the words look like.

Trained jointly from nothing, a small UNet learns the colours of a prompt soon and the shapes very late: text reaches it
as position-free vectors, and every shape has to be spelled out through them. So the encoder first learns to say how
things look: the last sixteen tokens of a prompt (padding, which in a causal encoder has read all words) each predict
one region of the object's own picture, upright and alone, and the pooled vector predicts object, style, background,
size, place, tilt and side. What a caption leaves open is predicted as its mean. Where the object goes is left to the
UNet, which has only to fetch its parts.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from rmd.train.bundled import image_text as text
from rmd.train.loop import CPU, Run, cosine, generator_for, mixed, set_rate
from rmd.worlds import emoji, views
from rmd.worlds.views import Views

GRID, SIDE = 4, 32  # regions per side, one token each; pixels of the pictures predicted
RATE, BATCH, SEED = 1e-3, 96, 4
DROP = 0.08  # empty captions, which predict the mean of everything
STEPS = 2500


def regions(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, GRID², C·h·w), row by row."""
    side = x.shape[-1] // GRID
    cells = x.unfold(2, side, side).unfold(3, side, side)  # B, C, GRID, GRID, h, w
    return cells.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def facts(shown: Views) -> Tensor:
    """What the pooled vector predicts beside the object, each of about unit size, (B, 9)."""
    table = torch.tensor(list(emoji.COLOURS.values())) / 255
    numbers = [(shown.scale - 0.72) * 7, shown.x * 8, shown.y * 8, shown.angle * 7]
    signs = [2.0 * shown.style - 1, 2.0 * shown.mirrored - 1]
    return torch.cat([torch.stack([*numbers, *signs], dim=1), (table[shown.colour] - 0.6) * 3], dim=1)


class Heads(nn.Module):
    """Linear read-outs of the encoder, used in this stage only."""

    def __init__(self) -> None:
        super().__init__()
        self.region = nn.Linear(text.WIDTH, 4 * (SIDE // GRID) ** 2)
        self.facts = nn.Linear(text.WIDTH, 9)
        self.concept = nn.Linear(text.WIDTH, len(emoji.concepts()))

    def forward(self, tokens: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted regions (B, GRID², ·), facts (B, 9) and scores of the objects (B, objects)."""
        return self.region(tokens[:, -GRID * GRID :]), self.facts(pooled), self.concept(pooled)


def train(data: Path, folder: Path, steps: int = STEPS, device: torch.device = CPU) -> None:
    """Train or resume in `folder`; writes tokenizer and encoder, as `text.load` reads them, at the end."""
    words = 50 * [c.name for c in emoji.concepts()] + 200 * [*emoji.COLOURS, *views.CAPTION_WORDS]
    tokenizer = text.build_tokenizer(emoji.label_texts(data) + words)  # often enough to become whole tokens
    torch.manual_seed(SEED)
    encoder, heads = text.build_encoder(tokenizer).to(device), Heads().to(device)
    small = emoji.load_sprites().flatten(0, 1).float() / 255
    targets = regions(F.adaptive_avg_pool2d(small, SIDE)).unflatten(0, (-1, len(emoji.STYLES))).to(device)
    targets = (targets - targets.mean()) / targets.std()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=RATE, betas=(0.9, 0.99), fused=True)
    run = Run(folder, {"encoder": encoder, "heads": heads, "optimizer": optimizer}, device=device)
    for step in run.steps(steps, "text"):
        g = generator_for(SEED, step)
        set_rate(optimizer, RATE * cosine(step, steps))
        shown = views.draw(BATCH, g)
        dropped = torch.rand(BATCH, generator=g) < DROP
        captions = ["" if d else c for c, d in zip(views.captions(shown, g), dropped.tolist(), strict=True)]
        there = shown.to(device)
        with mixed(device):
            region, said, concept = heads(*text.encode(tokenizer, encoder, captions))
        look = F.mse_loss(region.float(), targets[there.concept, there.style])
        fact = F.mse_loss(said.float(), facts(shown).to(device))
        name = F.cross_entropy(concept.float(), there.concept)
        optimizer.zero_grad(set_to_none=True)
        (look + fact + 0.2 * name).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        run.samples += BATCH
        if (step + 1) % 200 == 0 or run.last:
            run.log(look=look.item(), fact=fact.item(), name=name.item())
    text.save(tokenizer, encoder, folder)


def trained(folder: Path) -> tuple[CLIPTokenizer, CLIPTextModelWithProjection]:
    """What `train` wrote."""
    return text.load(folder / "tokenizer", folder / "encoder")
