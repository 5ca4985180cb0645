"""The bundled image model's autoencoder, an `AutoencoderTiny` (f8, 4 channels) trained from scratch.

Works because of kaiming-linear initialisation with the residual branches' last convolution scaled by 0.1;
with the default initialisation the loss stalls. A scale-equivariance term (the average-pooled latent decodes
to the half-size picture) keeps low-resolution latents close to averages of high-resolution ones, which is
what the cascade's logSNR map assumes. The decoder sees noisy latents, so that it forgives a model's small errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from rmd.train.loop import CPU, Average, Run, cosine, generator_for, mixed, set_rate
from rmd.train.sheets import save_sheet
from rmd.worlds import emoji, views

WIDTH = 48
BLOCKS = (10, 6, 2, 0)
"""Of the decoder, at an eighth, a quarter, a half and the whole of the picture's side: most where they are cheap."""
RATE, SEED = 1.5e-3, 1
BATCH = {"cpu": (4, 128), "cuda": (32, 256)}  # pictures in a batch and the side of the crop that is seen of each
NOISE = 0.2  # added to latents at most; every picture has its own


def build() -> AutoencoderTiny:
    """A fresh autoencoder with the initialisation described above (1.63 M parameters)."""
    torch.manual_seed(SEED)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(0, 1, 2, 3),
        num_decoder_blocks=BLOCKS,
        latent_channels=4,
    )
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            final = module.conv[-1]
            assert isinstance(final, nn.Conv2d)
            with torch.no_grad():
                final.weight.mul_(0.1)
    return vae


def gradient_l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical differences of two (B, C, H, W) pictures."""
    dx = (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
    dy = (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()
    return dx + dy


def batch(sprites: Tensor, count: int, side: int, generator: torch.Generator) -> Tensor:
    """(B, 3, side, side) in [-1, 1]: crops of the world's pictures."""
    x = views.render(sprites, views.draw(count, generator).to(sprites.device)) * 2 - 1
    top, left = (int(torch.randint(emoji.SIZE - side + 1, (), generator=generator)) for _ in range(2))
    return x[..., top : top + side, left : left + side]


def loss(vae: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Training loss and the plain reconstruction error (mean square, pictures in [-1, 1])."""
    z = vae.encoder(x)
    noisy = z + NOISE * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z)
    y = vae.decoder(noisy)
    half = vae.decoder(F.avg_pool2d(noisy, 2))
    target = F.avg_pool2d(x, 2)
    z = z.float()
    moments = z.mean(dim=(0, 2, 3)).square().mean() + (z.std(dim=(0, 2, 3)) - 1).square().mean()
    mse = F.mse_loss(y.float(), x)
    total = F.l1_loss(y.float(), x) + mse + 0.5 * gradient_l1(y.float(), x)
    total = total + 0.5 * F.l1_loss(half.float(), target) + 0.01 * moments
    return total, mse.detach()


def train(
    folder: Path,
    steps: int = 20000,
    minutes: float | None = None,
    start: Path | None = None,
    device: torch.device = CPU,
) -> None:
    """Train or resume in `folder`; writes `folder/vae` (diffusers format) and sample sheets.

    start: an autoencoder's folder to begin from. minutes: see `Run`.
    """
    sprites = emoji.load_sprites().to(device)
    vae: Any = build() if start is None else AutoencoderTiny.from_pretrained(start, dtype=torch.float32)
    vae.register_to_config(scaling_factor=1.0)
    vae = vae.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = Average({"vae": vae}, decay=0.998)
    run = Run(folder, {"vae": vae, "optimizer": optimizer, "average": average}, minutes, device)
    probe = batch(sprites, 24, emoji.SIZE, generator_for(SEED, 10**6))
    rate = RATE if start is None else RATE / 2
    for step in run.steps(steps, "autoencoder"):
        set_rate(optimizer, rate * (min(1, (step + 1) / 100) * cosine(int(1000 * run.progress), 1000, warmup=0)))
        x = batch(sprites, *BATCH[device.type], generator_for(SEED, step)).to(memory_format=torch.channels_last)
        with mixed(device):
            total, mse = loss(vae, x)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update()
        run.samples += len(x)
        if (step + 1) % 500 == 0 or run.last:
            average.swap()
            run.log(loss=total.item(), mse=mse.item(), **evaluate(vae, probe))
            average.swap()
    average.swap()
    run.log(**evaluate(vae, probe))
    save_sheet(torch.cat([probe[:8], decode(vae, probe[:8])]), folder / "sheet.png", 8)
    with torch.no_grad():
        z = vae.encoder(probe)
        vae.register_to_config(scaling_factor=round(1 / float(z.std()), 4))
    vae.save_pretrained(folder / "vae")


@torch.no_grad()
def decode(vae: Any, x: Tensor) -> Tensor:
    return vae.decoder(vae.encoder(x)).clamp(-1, 1)


@torch.no_grad()
def evaluate(vae: Any, x: Tensor) -> dict[str, float]:
    """PSNR in dB (pictures in [0, 1]) at full and half size on (B, 3, 256, 256) pictures, none of them seen."""
    half = F.avg_pool2d(x, 2)
    return {
        f"psnr_{v.shape[-1]}": float(-10 * torch.log10(((decode(vae, v) - v) / 2).square().mean())) for v in (x, half)
    }
