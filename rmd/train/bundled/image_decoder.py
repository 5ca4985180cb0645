"""A longer training of the bundled autoencoder's decoder alone.

The encoder stays as it is, and with it every latent: teacher and student need no training again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from rmd.train.bundled.image_autoencoder import NOISE, batch, decode, evaluate, gradient_l1
from rmd.train.loop import CPU, Average, Run, cosine, generator_for, mixed, set_rate
from rmd.train.sheets import save_sheet
from rmd.worlds import emoji

RATE, SEED = 1e-3, 77
BATCH = {"cpu": (8, 128), "cuda": (32, 256)}  # pictures in a batch and the side of the crop that is seen of each


def loss(vae: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """As the autoencoder's own, for given latents: at both sizes, from latents with a little noise."""
    with torch.no_grad():
        z = vae.encoder(x)
    noisy = z + NOISE * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z)
    y, half = vae.decoder(noisy).float(), vae.decoder(F.avg_pool2d(noisy, 2)).float()
    mse = F.mse_loss(y, x)
    total = F.l1_loss(y, x) + mse + 0.5 * gradient_l1(y, x) + 0.5 * F.l1_loss(half, F.avg_pool2d(x, 2))
    return total, mse.detach()


def train(
    start: Path, folder: Path, steps: int = 5000, minutes: float | None = None, device: torch.device = CPU
) -> None:
    """Train or resume in `folder`, from the autoencoder in `start`; writes `folder/vae` and a sheet."""
    torch.manual_seed(SEED)
    sprites = emoji.load_sprites().to(device)
    vae: Any = AutoencoderTiny.from_pretrained(start, dtype=torch.float32)
    vae = vae.to(device, memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = Average({"decoder": vae.decoder}, decay=0.999)
    run = Run(folder, {"vae": vae, "optimizer": optimizer, "average": average}, minutes, device)
    probe = batch(sprites, 24, emoji.SIZE, generator_for(1, 10**6))
    for step in run.steps(steps, "decoder"):
        set_rate(optimizer, RATE * min(1, (step + 1) / 200) * cosine(int(1000 * run.progress), 1000, warmup=0))
        x = batch(sprites, *BATCH[device.type], generator_for(SEED, step)).to(memory_format=torch.channels_last)
        with mixed(device):
            total, mse = loss(vae, x)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimizer.step()
        average.update()
        run.samples += len(x)
        if (step + 1) % 500 == 0:
            average.swap()
            run.log(loss=total.item(), mse=mse.item(), **evaluate(vae, probe))
            average.swap()
    average.swap()
    run.log(**evaluate(vae, probe))
    save_sheet(torch.cat([probe[:8], decode(vae, probe[:8])]), folder / "sheet.png", 8)
    vae.save_pretrained(folder / "vae")
