"""Stage 2a: teach the text encoder what pictures look like before the UNet sees a word.

Trained jointly from nothing, a small UNet learns the colours of a prompt soon and the shapes very late: text reaches it
as position-free vectors, and every layout has to be spelled out through them. So the encoder first learns to say where
things are: the last sixteen tokens of a prompt (padding, which in a causal encoder has read all words) each predict
one region of the mean low-resolution latent of that object and colour, the pooled vector predicts a coarse whole.
Afterwards a UNet only has to learn which token belongs to which place, once for all objects.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from rmd.train.bundled import image_text as text
from rmd.train.loop import Run, cosine, generator_for, mixed, set_rate
from rmd.worlds import emoji

GRID = 4  # regions per side, one token each
RATE, BATCH, SEED = 1e-3, 48, 4
DROP = 0.08  # empty captions, which predict the mean of everything


def mean_latents(latents: dict[str, Tensor]) -> Tensor:
    """Mean low-resolution latent per object and colour, (objects, colours, C, 16, 16)."""
    low, objects, colours = latents["low"].float(), latents["concept"], latents["colour"]
    count = int(colours.max()) + 1
    key = objects * count + colours
    sums = torch.zeros(int(key.max()) + 1, *low.shape[1:]).index_add_(0, key, low)
    return (sums / key.bincount()[:, None, None, None]).unflatten(0, (-1, count))


def regions(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, GRID², C·h·w), row by row."""
    side = x.shape[-1] // GRID
    cells = x.unfold(2, side, side).unfold(3, side, side)  # B, C, GRID, GRID, h, w
    return cells.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


class Heads(nn.Module):
    """Linear read-outs of the encoder, used in this stage only."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.region = nn.Linear(text.WIDTH, channels * (side // GRID) ** 2)
        self.whole = nn.Linear(text.WIDTH, channels * (side // 2) ** 2)

    def forward(self, tokens: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted regions (B, GRID², ·) and the coarse whole (B, ·)."""
        return self.region(tokens[:, -GRID * GRID :]), self.whole(pooled)


def train(
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModelWithProjection,
    latents: dict[str, Tensor],
    folder: Path,
    steps: int = 1500,
) -> None:
    """Train or resume the encoder in place."""
    targets = mean_latents(latents)
    empty = targets.mean(dim=(0, 1))
    names, colours = [c.name for c in emoji.concepts()], list(emoji.COLOURS)
    torch.manual_seed(SEED)
    heads = Heads(targets.shape[2], targets.shape[-1])
    optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=RATE, betas=(0.9, 0.99), fused=True)
    run = Run(folder, {"encoder": encoder, "heads": heads, "optimizer": optimizer})
    for step in run.steps(steps, "layout"):
        g = generator_for(SEED, step)
        set_rate(optimizer, RATE * cosine(step, steps))
        pick = torch.randint(len(names) * len(colours), (BATCH,), generator=g).tolist()
        dropped = (torch.rand(BATCH, generator=g) < DROP).tolist()
        pairs = [(i // len(colours), i % len(colours)) for i in pick]
        captions = [
            "" if d else emoji.caption(names[c], colours[k], g) for (c, k), d in zip(pairs, dropped, strict=True)
        ]
        target = torch.stack([empty if d else targets[c, k] for (c, k), d in zip(pairs, dropped, strict=True)])
        with mixed():
            region, whole = heads(*text.encode(tokenizer, encoder, captions))
        fine = F.mse_loss(region.float(), regions(target))
        coarse = F.mse_loss(whole.float(), F.avg_pool2d(target, 2).flatten(1))
        optimizer.zero_grad(set_to_none=True)
        (fine + coarse).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        run.samples += BATCH
        if (step + 1) % 100 == 0 or step + 1 == steps:
            run.log(fine=fine.item(), coarse=coarse.item())
