"""The video autoencoder: a small `AutoencoderKLWan` (f8, 2 frames to one, 16 channels), trained from scratch.

Two frames to one where Wan's own has four: at this size four left what moves fast or turns a smear. As the second
generation of Wan's own, it works on 2×2 patches of pixels, which makes it four times cheaper. Only the
convolutions that halve and double the frame rate look across time, which makes training three times cheaper again
(frames.py) and much steadier: with all taps open the first clips undid what the stills had taught. Training begins with
stills; then come clips, those convolutions starting as plain averages and repeats. The rest (initialisation, scale
equivariance) is as in rmd/train/autoencoder.py.
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
from rmd.train.loop import Average, Replicas, Run, cosine, generator_for, mixed, set_rate
from rmd.train.sheets import save_sheet
from rmd.worlds import clips

CHANNELS, PACKED = 16, 2  # of the latents; frames in one of theirs
RATE, SEED = 1.5e-3, 11
STILLS = 0.12  # share of the steps that see single frames only
SIDE = 64  # pixels of the training crops
BATCH = {"stills": 32, "clips": 8}
SPAN = 9  # frames of a training clip, beginning at a latent frame's first


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


class Clips:
    """The objects in all their movements, kept so that a training clip only needs a background."""

    def __init__(self, data: Path):
        kinds = [(clips.OBJECTS[i], clips.MOTIONS[j]) for i, j in clips.pairs()]
        self.moved = [
            (clips.move(clips.source(data, name, motion), motion) * 255).round().byte() for name, motion in kinds
        ]

    def draw(self, generator: torch.Generator, start: int = 0, span: int = clips.FRAMES) -> Tensor:
        """`span` frames of a random clip, (1, 3, span, 128, 128) in [−1, 1]."""
        i, k = (int(torch.randint(n, (), generator=generator)) for n in (len(self.moved), len(clips.COLOURS)))
        moved = self.moved[i][:, start : start + span].float() / 255
        return clips.place(moved, clips.COLOURS[k], generator)[None] * 2 - 1

    def batch(self, kind: str, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, T, 64, 64): crops at full size and whole frames at half size; T is 1 for stills, else SPAN."""
        rows = []
        for i in range(count):
            blocks = (clips.FRAMES - SPAN) // PACKED + 1
            start, span = PACKED * int(torch.randint(blocks, (), generator=generator)), SPAN
            if kind == "stills":
                start, span = int(torch.randint(clips.FRAMES, (), generator=generator)), 1
            x = self.draw(generator, start, span)
            if i % 2:
                x = clips.shrink(x)
            room = x.shape[-1] - SIDE + 1
            top, left = (int(torch.randint(room, (), generator=generator)) for _ in range(2))
            rows.append(x[..., top : top + SIDE, left : left + SIDE])
        return torch.cat(rows)


def loss(vae: AutoencoderKLWan, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training loss and the plain reconstruction error (mean square, pixels in [−1, 1])."""
    z = frames.encode(vae, x)
    noisy = z + 0.05 * torch.randn(z.shape, generator=generator)
    y = frames.decode(vae, noisy)
    half = frames.decode(vae, clips.shrink(noisy))
    z = z.float()
    moments = z.mean(dim=(0, 2, 3, 4)).square().mean() + (z.std(dim=(0, 2, 3, 4)) - 1).square().mean()
    y = y.float()
    mse = F.mse_loss(y, x)
    total = F.l1_loss(y, x) + mse + 0.5 * gradient_l1(y, x)
    total = total + 0.5 * F.l1_loss(half.float(), clips.shrink(x)) + 0.01 * moments
    return total, mse.detach()


def train(data: Path, folder: Path, steps: int = 2400, start: Path | None = None) -> AutoencoderKLWan:
    """Train or resume in `folder`; writes `folder/vae` (diffusers format) and sample sheets.

    start: a folder of an autoencoder to go on from, whose training then has no stills.
    """
    clips.fetch(data)
    vae = build() if start is None else AutoencoderKLWan.from_pretrained(start, dtype=torch.float32)
    stills = STILLS * steps if start is None else 0
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = Average({"vae": vae}, decay=0.995)
    run = Run(folder, {"vae": vae, "optimizer": optimizer, "average": average})
    source = Clips(data)
    g = generator_for(SEED, 10**6)
    probe = torch.cat([source.draw(g) for _ in range(4)])
    workers = torch.get_num_threads()
    replicas = Replicas((vae,), workers)

    def backward(vae: AutoencoderKLWan, kind: str, seed: int) -> dict[str, float]:
        g = generator_for(SEED, seed)
        x = source.batch(kind, -(-BATCH[kind] // workers), g)
        with mixed():
            total, mse = loss(vae, x, g)
        total.backward()
        return {"loss": total.item(), "mse": mse.item()}

    for step in run.steps(steps, "video autoencoder"):
        set_rate(optimizer, RATE * cosine(step, steps))
        kind = "stills" if step < stills else "clips"
        optimizer.zero_grad(set_to_none=True)
        values = replicas.accumulate(backward, [(kind, step * workers + i) for i in range(workers)])
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update()
        run.samples += BATCH[kind]
        if (step + 1) % 200 == 0 or step + 1 == steps:
            average.swap()
            out = reconstruct(vae, probe)
            rows = torch.cat([pair.transpose(0, 1) for pair in torch.stack([probe[:2], out[:2]], 1).flatten(0, 1)])
            save_sheet(rows, folder / f"sheet-{step + 1:05d}.png", clips.FRAMES)
            psnr = {f"psnr_{x.shape[-1]}": quality(vae, x) for x in (probe, clips.shrink(probe))}
            average.swap()
            run.log(**values, **psnr)
    average.swap()
    save(vae, source, folder / "vae")
    return vae


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, x: Tensor) -> Tensor:
    with mixed():
        out = frames.decode(vae, frames.encode(vae, x))
    return out.float().clamp(-1, 1)


def quality(vae: AutoencoderKLWan, x: Tensor) -> float:
    """PSNR in dB of reconstructed clips (pixels taken in [0, 1])."""
    return float(-10 * torch.log10(((reconstruct(vae, x) - x) / 2).square().mean()))


@torch.no_grad()
def save(vae: AutoencoderKLWan, source: Clips, folder: Path) -> None:
    """Measure the latents' mean and spread per channel, note them in the configuration and write the folder."""
    g = generator_for(SEED, 10**6 + 1)
    with mixed():
        parts = []
        for _ in range(12):
            x = source.draw(g)
            for size in (x, clips.shrink(x)):
                parts.append(frames.encode(vae, size).float().transpose(0, 1).flatten(1))
    z = torch.cat(parts, dim=1)
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in z.mean(dim=1).tolist()],
        latents_std=[round(v, 4) for v in z.std(dim=1).tolist()],
    )
    vae.save_pretrained(folder)
