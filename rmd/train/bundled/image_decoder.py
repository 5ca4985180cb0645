"""A longer training of the bundled autoencoder's decoder alone, with more blocks where they are cheap.

The encoder stays as it is, and with it every latent: teacher and student need no training again. New blocks begin as
no change (their last convolution is nought), so the first step is as good as the decoder that is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from rmd.train.bundled.image_autoencoder import NOISE, batch, decode, evaluate, gradient_l1
from rmd.train.loop import CPU, Average, Run, cosine, generator_for, mixed, set_rate
from rmd.train.sheets import save_sheet
from rmd.worlds import emoji

BLOCKS = (10, 6, 2, 0)
"""At an eighth, a quarter, a half and the whole of the picture's side."""
RATE, SEED, BATCH, SIDE = 1e-3, 77, 8, 128


def levels(decoder: nn.Module) -> list[list[nn.Module]]:
    """The decoder's layers by the size that they work at."""
    layers: Any = decoder.get_submodule("layers")
    found: list[list[nn.Module]] = [[]]
    for layer in layers:
        if isinstance(layer, nn.Upsample):
            found.append([])
        found[-1].append(layer)
    return found


def deepened(vae: Any, blocks: tuple[int, ...] = BLOCKS) -> Any:
    """The same autoencoder with more blocks in the decoder's levels, and the same output.

    Raises ValueError where it has more of them already.
    """
    config = {k: v for k, v in dict(vae.config).items() if not k.startswith("_") and k != "block_out_channels"}
    made: Any = AutoencoderTiny(**{**config, "num_decoder_blocks": blocks})
    made.encoder.load_state_dict(vae.encoder.state_dict())
    for old, new in zip(levels(vae.decoder), levels(made.decoder), strict=True):
        plain = [[one for one in level if not isinstance(one, AutoencoderTinyBlock)] for level in (old, new)]
        for mine, theirs in zip(*plain, strict=True):
            theirs.load_state_dict(mine.state_dict())
        mine = [one for one in old if isinstance(one, AutoencoderTinyBlock)]
        theirs = [one for one in new if isinstance(one, AutoencoderTinyBlock)]
        if len(mine) > len(theirs):
            raise ValueError(f"the decoder has {len(mine)} blocks at one size, more than {len(theirs)}")
        for index, block in enumerate(theirs):
            if index < len(mine):
                block.load_state_dict(mine[index].state_dict())
            else:
                as_no_change(block)
    return made


def as_no_change(block: AutoencoderTinyBlock) -> None:
    """A new block that adds nothing yet."""
    convolutions = [layer for layer in block.conv if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.zeros_(convolutions[-1].weight)


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
    vae = deepened(AutoencoderTiny.from_pretrained(start, dtype=torch.float32))
    vae = vae.to(device, memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    average = Average({"decoder": vae.decoder}, decay=0.999)
    run = Run(folder, {"vae": vae, "optimizer": optimizer, "average": average}, minutes, device)
    probe = batch(sprites, 24, emoji.SIZE, generator_for(1, 10**6))
    for step in run.steps(steps, "decoder"):
        set_rate(optimizer, RATE * min(1, (step + 1) / 200) * cosine(int(1000 * run.progress), 1000, warmup=0))
        x = batch(sprites, BATCH, SIDE, generator_for(SEED, step)).to(memory_format=torch.channels_last)
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
