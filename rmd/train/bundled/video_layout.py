"""The text encoder's first lesson, as in rmd/train/layout.py: which token stands for which place, and for which time.

Every layout token of a prompt learns to predict the clip's latents there, at both resolutions. Afterwards the encoder
stays as it is; the transformer, whose own tokens know no place but what their neighbours tell, only has to find the
layout token that belongs to each of its own.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from rmd.train.bundled import video_text as text
from rmd.train.loop import Replicas, Run, cosine, generator_for, mixed, set_rate
from rmd.worlds import clips

RATE, BATCH, SEED = 2e-3, 48, 14
DROP = 0.06  # empty captions, which predict the mean of everything


def regions(x: Tensor) -> Tensor:
    """Latents (B, C, F, H, W) → (B, LAYOUT, ·): what each layout token stands for, by time, row and column."""
    count = text.PLACES
    size = [s // n for s, n in zip(x.shape[2:], count, strict=True)]
    x = x.unflatten(4, (count[2], size[2])).unflatten(3, (count[1], size[1])).unflatten(2, (count[0], size[0]))
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


class Heads(nn.Module):
    """Linear read-outs of the layout tokens for latents of low and high resolution, used in this stage only."""

    def __init__(self, low: int, high: int):
        super().__init__()
        self.low, self.high = nn.Linear(text.WIDTH, low), nn.Linear(text.WIDTH, high)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tokens = features[:, : text.LAYOUT]
        return self.low(tokens), self.high(tokens)


def train(
    tokenizer: PreTrainedTokenizerFast,
    encoder: UMT5EncoderModel,
    latents: dict[str, Tensor],
    folder: Path,
    steps: int = 1800,
) -> None:
    """Train or resume the encoder in place."""
    low, high = regions(latents["low"]), regions(latents["high"])
    empty_low, empty_high = low.float().mean(0), high.float().mean(0)
    torch.manual_seed(SEED)
    heads = Heads(low.shape[-1], high.shape[-1])
    optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=RATE, betas=(0.9, 0.99), fused=True)
    run = Run(folder, {"encoder": encoder, "heads": heads, "optimizer": optimizer})
    workers = torch.get_num_threads()
    replicas = Replicas((encoder, heads), workers)

    def backward(
        encoder: UMT5EncoderModel, heads: Heads, captions: list[str], low: Tensor, high: Tensor
    ) -> dict[str, float]:
        with mixed():
            coarse, fine = heads(text.encode(tokenizer, encoder, captions))
        low_loss, high_loss = F.mse_loss(coarse.float(), low), F.mse_loss(fine.float(), high)
        (low_loss + high_loss).backward()
        return {"low": low_loss.item(), "high": high_loss.item()}

    totals: dict[str, list[float]] = {"low": [], "high": []}
    for step in run.steps(steps, "layout"):
        g = generator_for(SEED, step)
        set_rate(optimizer, RATE * cosine(step, steps, warmup=50))
        pick = torch.randint(len(low), (BATCH,), generator=g)
        captions = clips.captions_of(latents, pick, g)
        a, b = low[pick].float(), high[pick].float()
        dropped = torch.rand(BATCH, generator=g) < DROP
        a[dropped], b[dropped] = empty_low, empty_high
        captions = ["" if d else c for c, d in zip(captions, dropped.tolist(), strict=True)]
        size = -(-BATCH // workers)
        parts = [slice(i, i + size) for i in range(0, BATCH, size)]
        optimizer.zero_grad(set_to_none=True)
        values = replicas.accumulate(backward, [(captions[p], a[p], b[p]) for p in parts])
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        run.samples += BATCH
        for name, value in values.items():
            totals[name].append(value)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            run.log(**{k: sum(v) / len(v) for k, v in totals.items()})
            totals = {"low": [], "high": []}
