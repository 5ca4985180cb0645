"""Stage 1: the bundled autoencoder, an `AutoencoderTiny` (f8, 4 channels) trained from scratch.

Works because of kaiming-linear initialisation with the residual branches' last convolution scaled by 0.1;
with the default initialisation the loss stalls. A scale-equivariance term (the average-pooled latent decodes
to the half-size picture) keeps low-resolution latents close to averages of high-resolution ones, which is
what the cascade's logSNR map assumes.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import nn

from rmd.train.loop import Average, Run, cosine, generator_for, mixed, set_rate
from rmd.train.sheets import save_sheet
from rmd.worlds import emoji

WIDTH = 48
RATE, SEED = 1.5e-3, 1


def build() -> AutoencoderTiny:
    """A fresh autoencoder with the initialisation described above (1.07 M parameters)."""
    torch.manual_seed(SEED)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(0, 1, 2, 3),
        num_decoder_blocks=(4, 3, 2, 0),
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


def gradient_l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the horizontal and vertical differences of two (B, C, H, W) pictures."""
    dx = (a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
    dy = (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean()
    return dx + dy


def batch(pictures: list[torch.Tensor], step: int, steps: int) -> torch.Tensor:
    """(B, 3, S, S) in [-1, 1]: crops of full-size pictures and half-size pictures, first small, then 128 px."""
    g = generator_for(SEED, step)
    side, count = (64, 12) if step < 0.16 * steps else (128, 8)
    colours = list(emoji.COLOURS.values())
    rows = []
    for i in range(count):
        picture = pictures[int(torch.randint(len(pictures), (), generator=g))]
        colour = colours[int(torch.randint(len(colours), (), generator=g))]
        image = emoji.compose(picture, colour, g, (0.6, 1.0), 12)
        if i % 2:
            image = F.avg_pool2d(image[None], emoji.SIZE // 128)[0]
        top, left = (int(torch.randint(image.shape[-1] - side + 1, (), generator=g)) for _ in range(2))
        rows.append(image[:, top : top + side, left : left + side])
    return torch.stack(rows) * 2 - 1


def loss(vae: AutoencoderTiny, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Training loss and the plain reconstruction error (mean square, pictures in [-1, 1])."""
    z = vae.encoder(x)
    noisy = z + 0.05 * torch.randn(z.shape, generator=generator)
    y = vae.decoder(noisy)
    half = vae.decoder(F.avg_pool2d(noisy, 2))
    target = F.avg_pool2d(x, 2)
    z = z.float()
    moments = z.mean(dim=(0, 2, 3)).square().mean() + (z.std(dim=(0, 2, 3)) - 1).square().mean()
    mse = F.mse_loss(y.float(), x)
    total = F.l1_loss(y.float(), x) + mse + 0.5 * gradient_l1(y.float(), x)
    total = total + 0.5 * F.l1_loss(half.float(), target) + 0.01 * moments
    return total, mse.detach()


def train(data: Path, folder: Path, steps: int = 3200) -> AutoencoderTiny:
    """Train or resume in `folder`; writes `folder/vae` (diffusers format) and sample sheets."""
    emoji.fetch(data)
    files = sorted(emoji.picture_folder(data).glob("*.webp"))
    held_out, files = files[::40], [f for i, f in enumerate(files) if i % 40]
    pictures = [emoji.load_picture(f) for f in files]
    vae = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    average = Average({"vae": vae}, decay=0.998)
    run = Run(folder, {"vae": vae, "optimizer": optimizer, "average": average})
    g = generator_for(SEED, 10**6)
    colour = list(emoji.COLOURS.values())
    probe = torch.stack(
        [emoji.compose(emoji.load_picture(f), colour[i % 10], g, (0.9, 1.0), 12) for i, f in enumerate(held_out[:24])]
    )
    probe = probe * 2 - 1
    for step in run.steps(steps, "autoencoder"):
        set_rate(optimizer, RATE * cosine(step, steps))
        x = batch(pictures, step, steps).to(memory_format=torch.channels_last)
        with mixed():
            total, mse = loss(vae, x, generator_for(SEED + 1, step))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update()
        run.samples += len(x)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            average.swap()
            psnr = evaluate(vae, probe)
            save_sheet(torch.cat([probe[:8], decode(vae, probe[:8])]), folder / f"sheet-{step + 1:05d}.png", 8)
            average.swap()
            run.log(loss=total.item(), mse=mse.item(), **psnr)
    average.swap()
    with torch.no_grad():
        z = vae.encoder(probe)
        vae.register_to_config(scaling_factor=round(1 / float(z.std()), 4))
    vae.save_pretrained(folder / "vae")
    return vae


@torch.no_grad()
def decode(vae: AutoencoderTiny, x: torch.Tensor) -> torch.Tensor:
    return vae.decoder(vae.encoder(x)).clamp(-1, 1)


@torch.no_grad()
def evaluate(vae: AutoencoderTiny, x: torch.Tensor) -> dict[str, float]:
    """PSNR in dB (pictures in [0, 1]) at full and half size on (B, 3, 256, 256) held-out pictures."""
    half = F.avg_pool2d(x, 2)
    return {
        f"psnr_{v.shape[-1]}": float(-10 * torch.log10(((decode(vae, v) - v) / 2).square().mean())) for v in (x, half)
    }
