"""The reader of the bundled image model's world, trained on its pictures: see `rmd.worlds.emoji_judge`."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from rmd.train.loop import CPU, Run, cosine, generator_for, mixed, set_rate
from rmd.worlds import emoji, views
from rmd.worlds.emoji_judge import SIDE, WEIGHTS, Reader, Reading
from rmd.worlds.views import Views

RATE, SEED = 1e-3, 5
BATCH = {"cpu": 64, "cuda": 512}


def blurred(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures as a model may draw them: a share of each batch softened, all with a little grain."""
    soft = F.interpolate(F.avg_pool2d(x, 2), size=x.shape[-2:], mode="bilinear", align_corners=False)
    share = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
    grain = torch.randn(x.shape, generator=generator, device=x.device)
    return torch.lerp(x, soft, share) + 0.04 * grain


def loss(reading: Reading, shown: Views) -> Tensor:
    """Cross-entropies of what is one of several, squares of the pose in its own units."""
    sided = torch.tensor([c.sided for c in emoji.concepts()], device=shown.concept.device)[shown.concept].float()
    side = F.binary_cross_entropy_with_logits(reading.mirrored, shown.mirrored.float(), weight=sided)
    pose = torch.stack([shown.scale, shown.x, shown.y, shown.angle], dim=1)
    unit = torch.tensor([0.1, 0.1, 0.1, 0.15], device=pose.device)
    return (
        F.cross_entropy(reading.concept, shown.concept)
        + F.cross_entropy(reading.style, shown.style)
        + F.cross_entropy(reading.colour, shown.colour)
        + side
        + 2 * F.mse_loss(reading.pose / unit, pose / unit)
    )


def train(
    folder: Path,
    steps: int = 20000,
    minutes: float | None = None,
    device: torch.device = CPU,
    target: Path = WEIGHTS,
) -> None:
    """Train or resume in `folder`; writes the weights as fp16 safetensors to `target` at the end."""
    sprites = F.avg_pool2d(emoji.load_sprites().flatten(0, 1).float(), 2)
    sprites = sprites.unflatten(0, (-1, len(emoji.STYLES))).to(device)
    torch.manual_seed(SEED)
    reader = Reader().to(device)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=1e-2, fused=True)
    run = Run(folder, {"reader": reader, "optimizer": optimizer}, minutes, device)
    noise = torch.Generator(device)
    for step in run.steps(steps, "judge"):
        noise.manual_seed(SEED * 1_000_003 + step)
        g = generator_for(SEED, step)
        set_rate(optimizer, RATE * min(1, (step + 1) / 200) * cosine(int(1000 * run.progress), 1000, warmup=0))
        shown = views.draw(BATCH[device.type], g).to(device)
        x = blurred(F.avg_pool2d(views.render(sprites, shown, 2 * SIDE), 2) * 2 - 1, noise)
        with mixed(device):
            reading = reader(x)
        total = loss(reading, shown)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        run.samples += len(x)
        if (step + 1) % 200 == 0 or run.last:
            right = (reading.concept.argmax(dim=1) == shown.concept).float().mean()
            run.log(loss=float(total), right=float(right))
    save_file({k: v.half().contiguous().cpu() for k, v in reader.state_dict().items()}, target)
