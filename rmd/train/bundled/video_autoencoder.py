"""The video autoencoder: a small `AutoencoderKLWan` (f8, 2 frames to one, 16 channels), trained from scratch.

Two frames to one where Wan's own has four: at this size four left what moves fast or turns a smear. As the second
generation of Wan's own, it works on 2×2 patches of pixels, which makes it four times cheaper. Only the
convolutions that halve and double the frame rate look across time, which makes training three times cheaper again
(frames.py) and much steadier; they start as plain averages and repeats. The rest (initialisation, scale equivariance,
noisy latents for the decoder) is as in image_autoencoder.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, WanResidualBlock
from torch import Tensor, nn

from rmd.train.bundled import video_frames as frames
from rmd.train.bundled.image_autoencoder import gradient_l1
from rmd.train.loop import CPU, Average, Replicas, Run, cosine, generator_for, mixed, set_rate
from rmd.train.pool import Pool
from rmd.train.sheets import save_sheet
from rmd.worlds import clips, emoji

CHANNELS, PACKED = 16, 2  # of the latents; frames in one of theirs
RATE, SEED = 1.5e-3, 11
BATCH = {"cpu": (8, 64), "cuda": (32, 128)}  # clips in a batch and the side of the crop that is seen of each
NEW, BLOCKS = 1, 192  # clips drawn anew for each step, and how many such blocks there are to draw batches from
PROBE = 12  # whole clips by which it is measured
SPAN = 9  # frames of a training clip
NOISE = 0.15  # added to latents at most; every clip has its own


def build() -> AutoencoderKLWan:
    """A fresh autoencoder with the initialisation described above (4.6 M parameters)."""
    torch.manual_seed(SEED)
    vae = AutoencoderKLWan(
        base_dim=32,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 3],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        scale_factor_temporal=PACKED,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv3d | nn.Conv2d):
                _start(module, 1.0)
        for module in vae.modules():
            if isinstance(module, WanResidualBlock):
                module.conv2.weight.mul_(0.1)
            if isinstance(module, WanResample) and hasattr(module, "time_conv"):
                _start(module.time_conv, 0.2)
                out = torch.eye(module.dim).repeat(module.time_conv.out_channels // module.dim, 1)
                taps = (1, 2) if module.mode == "downsample3d" else (2,)
                for tap in taps:
                    module.time_conv.weight[:, :, tap, 0, 0] += out / len(taps)
        # the spread of the posterior is not trained: small and the same everywhere
        vae.quant_conv.weight[CHANNELS:].zero_()
        bias: Any = vae.quant_conv.bias
        bias[CHANNELS:] = -6.0
    return vae


def _start(conv: nn.Conv2d | nn.Conv3d, gain: float) -> None:
    """Kaiming-linear in the last time tap, zero in the earlier ones and the bias."""
    weight: Tensor = conv.weight
    plane = torch.empty_like(weight if weight.ndim == 4 else weight[:, :, -1])
    nn.init.kaiming_normal_(plane, nonlinearity="linear")
    if weight.ndim == 4:
        weight.copy_(plane * gain)
    else:
        weight.zero_()
        weight[:, :, -1] = plane * gain
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def whole_clips(sprites: Tensor, blocks: int) -> Pool:
    """Clips of the world as they are, (3, FRAMES, 128, 128) in 0 … 255, one new one a step."""

    def draw(number: int) -> tuple[dict[str, Tensor], list[str]]:
        shown = clips.draw(NEW, generator_for(SEED, number))
        x = clips.render(sprites, shown.to(sprites.device))
        return {"clips": (x * 255).round().byte()}, [""] * NEW

    return Pool(draw, blocks)


def batch(pool: Pool, count: int, side: int, full: bool, generator: torch.Generator) -> Tensor:
    """(count, 3, SPAN, side, side) in [−1, 1]: crops at full size, or else at half size, there 64 pixels at most."""
    rows = []
    for clip in pool.pick("clips", count, generator)[0]:
        start = int(torch.randint(clips.FRAMES - SPAN + 1, (), generator=generator))
        x = clip[None, :, start : start + SPAN].float() / 127.5 - 1
        x = x if full else clips.shrink(x)
        room = max(0, x.shape[-1] - side) + 1
        top, left = (int(torch.randint(room, (), generator=generator)) for _ in range(2))
        rows.append(x[..., top : top + side, left : left + side])
    return torch.cat(rows)


def loss(vae: AutoencoderKLWan, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training loss and the plain reconstruction error (mean square, pixels in [−1, 1])."""
    z = frames.encode(vae, x)
    spread = NOISE * torch.rand(len(z), 1, 1, 1, 1, generator=generator)
    noisy = z + (spread * torch.randn(z.shape, generator=generator)).to(z.device)
    y = frames.decode(vae, noisy)
    half = frames.decode(vae, clips.shrink(noisy))
    z = z.float()
    moments = z.mean(dim=(0, 2, 3, 4)).square().mean() + (z.std(dim=(0, 2, 3, 4)) - 1).square().mean()
    y = y.float()
    mse = F.mse_loss(y, x)
    total = F.l1_loss(y, x) + mse + 0.5 * gradient_l1(y, x)
    total = total + 0.5 * F.l1_loss(half.float(), clips.shrink(x)) + 0.01 * moments
    return total, mse.detach()


def train(
    folder: Path,
    steps: int = 20000,
    minutes: float | None = None,
    start: Path | None = None,
    device: torch.device = CPU,
) -> None:
    """Train or resume in `folder`; writes `folder/vae` (diffusers format) and sample sheets.

    start: a folder of an autoencoder to go on from. minutes: see `Run`.
    """
    vae = build() if start is None else AutoencoderKLWan.from_pretrained(start, dtype=torch.float32)
    vae = vae.to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = Average({"vae": vae}, decay=0.998)
    run = Run(folder, {"vae": vae, "optimizer": optimizer, "average": average}, minutes, device)
    sprites = emoji.load_sprites().to(device)
    pool, (count, side) = whole_clips(sprites, BLOCKS), BATCH[device.type]
    probe = clips.render(sprites, clips.draw(PROBE, generator_for(SEED, 10**6)).to(device)) * 2 - 1
    # on a GPU one replica is the whole
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    replicas, rate = Replicas((vae,), workers), RATE if start is None else RATE / 2

    def backward(vae: AutoencoderKLWan, x: Tensor, seed: int) -> dict[str, float]:
        with mixed(device):
            total, mse = loss(vae, x, generator_for(SEED + 1, seed))
        total.backward()
        return {"loss": total.item(), "mse": mse.item()}

    for step in run.steps(steps, "video autoencoder"):
        set_rate(optimizer, rate * min(1, (step + 1) / 100) * cosine(int(1000 * run.progress), 1000, warmup=0))
        pool.at(step)
        x = batch(pool, count, side, step % 2 == 0, generator_for(SEED + 2, step))
        optimizer.zero_grad(set_to_none=True)
        shares = [(part, step * workers + i) for i, part in enumerate(x.chunk(workers))]
        values = replicas.accumulate(backward, shares)
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update()
        run.samples += count
        if (step + 1) % 500 == 0 or run.last:
            average.swap()
            out = reconstruct(vae, probe)
            rows = torch.stack([probe[:8, :, 6], out[:8, :, 6]], 1).flatten(0, 1)
            save_sheet(rows, folder / f"sheet-{step + 1:05d}.png", 8)
            psnr = {f"psnr_{x.shape[-1]}": quality(vae, x) for x in (probe, clips.shrink(probe))}
            average.swap()
            run.log(**values, **psnr)
    average.swap()
    run.log(**{f"psnr_{x.shape[-1]}": quality(vae, x) for x in (probe, clips.shrink(probe))})
    save(vae, pool, folder / "vae")


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, x: Tensor) -> Tensor:
    with mixed(x.device):
        out = frames.decode(vae, frames.encode(vae, x))
    return out.float().clamp(-1, 1)


def quality(vae: AutoencoderKLWan, x: Tensor) -> float:
    """Mean PSNR in dB of reconstructed clips (pixels taken in [0, 1])."""
    return float((-10 * torch.log10(((reconstruct(vae, x) - x) / 2).square().mean(dim=(1, 2, 3, 4)))).mean())


@torch.no_grad()
def save(vae: AutoencoderKLWan, pool: Pool, folder: Path) -> None:
    """Measure the latents' mean and spread per channel, note them in the configuration and write the folder."""
    x = pool.rows["clips"][:48].float() / 127.5 - 1
    with mixed(x.device):
        parts = [
            frames.encode(vae, size).float().transpose(0, 1).flatten(1)
            for some in x.split(8)
            for size in (some, clips.shrink(some))
        ]
    z = torch.cat(parts, dim=1)
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in z.mean(dim=1).tolist()],
        latents_std=[round(v, 4) for v in z.std(dim=1).tolist()],
    )
    vae.save_pretrained(folder)
