"""`AutoencoderKLWan` as a network of still frames, for training in a third of the time.

In our autoencoder only the convolutions that halve and double the frame rate look across time; of all others' 3×3×3
taps those of earlier frames stay zero. Such a network can be run on a whole clip with two-dimensional convolutions,
frames as batch; the class itself gives the same result, latent frame by latent frame.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanResample,
    WanResidualBlock,
    patchify,
    unpatchify,
)
from torch import Tensor, nn


def suits(vae: Any) -> bool:
    """Whether an autoencoder is of our kind, as far as its configuration tells."""
    return isinstance(vae, AutoencoderKLWan) and vae.config.get("patch_size") == 2 and not vae.config.get("is_residual")


def encode(vae: AutoencoderKLWan, x: Tensor) -> Tensor:
    """Clips (B, 3, F, H, W) in [−1, 1] → posterior means (B, C, 1 + (F − 1)/T, H/8, W/8), not normalised.

    T: frames packed into one of the latents', by the halvings of time in the encoder.
    """
    part: Any = vae.encoder
    x, count = to_frames(patchify(x, vae.config["patch_size"])), len(x)
    x = conv(part.conv_in, x)
    for layer in part.down_blocks:
        x = block(layer, x, count)
    x = middle(part.mid_block, x)
    x = conv(vae.quant_conv, conv(part.conv_out, F.silu(norm(part.norm_out, x))))
    return to_clips(x, count)[:, : vae.config["z_dim"]]


def decode(vae: AutoencoderKLWan, z: Tensor) -> Tensor:
    """The inverse of `encode`, not clamped."""
    part: Any = vae.decoder
    x, count = to_frames(z), len(z)
    x = middle(part.mid_block, conv(part.conv_in, conv(vae.post_quant_conv, x)))
    for up in part.up_blocks:
        for layer in (*up.resnets, *(up.upsamplers or ())):
            x = block(layer, x, count)
    x = conv(part.conv_out, F.silu(norm(part.norm_out, x)))
    return unpatchify(to_clips(x, count), vae.config["patch_size"])


def to_frames(x: Tensor) -> Tensor:
    """(B, C, F, H, W) → (B·F, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def to_clips(x: Tensor, count: int) -> Tensor:
    """The inverse of `to_frames` for `count` clips."""
    return x.unflatten(0, (count, -1)).transpose(1, 2)


def conv(module: Any, x: Tensor) -> Tensor:
    """A causal convolution's last time tap."""
    weight = module.weight[:, :, -1]
    return F.conv2d(x, weight, module.bias, padding=weight.shape[-1] // 2)


def norm(module: Any, x: Tensor) -> Tensor:
    return (F.normalize(x.float(), dim=1) * module.scale * module.gamma.flatten()[:, None, None]).to(x.dtype)


def middle(module: Any, x: Tensor) -> Tensor:
    x = block(module.resnets[0], x, 1)
    for attention, resnet in zip(module.attentions, module.resnets[1:], strict=True):
        x = block(resnet, block(attention, x, 1), 1)
    return x


def block(module: nn.Module, x: Tensor, count: int) -> Tensor:
    """One layer on the frames of `count` clips."""
    if isinstance(module, WanResidualBlock):
        short = x if isinstance(module.conv_shortcut, nn.Identity) else conv(module.conv_shortcut, x)
        x = conv(module.conv1, F.silu(norm(module.norm1, x)))
        return short + conv(module.conv2, F.silu(norm(module.norm2, x)))
    if isinstance(module, WanAttentionBlock):
        return module(x[:, :, None])[:, :, 0]
    assert isinstance(module, WanResample), f"{type(module).__name__} is not part of our autoencoder"
    if module.mode == "upsample3d":
        x = to_frames(doubled(module.time_conv, to_clips(x, count)))
    x = module.resample(x)
    if module.mode == "downsample3d":
        x = to_frames(halved(module.time_conv, to_clips(x, count)))
    return x


def halved(time_conv: nn.Conv3d, x: Tensor) -> Tensor:
    """1 + 2n frames → 1 + n: the first stays, every other looks at two of its own and the one before."""
    if x.shape[2] == 1:
        return x
    rest = F.conv3d(x, time_conv.weight, time_conv.bias, stride=(2, 1, 1))
    return torch.cat([x[:, :, :1], rest.to(x.dtype)], dim=2)


def doubled(time_conv: nn.Conv3d, x: Tensor) -> Tensor:
    """1 + n frames → 1 + 2n: the first stays, every other becomes two, seen from itself and the two before."""
    first, rest = x[:, :, :1], x[:, :, 1:]
    if rest.shape[2] == 0:
        return x
    pair = F.conv3d(F.pad(rest, (0, 0, 0, 0, 2, 0)), time_conv.weight, time_conv.bias)
    pair = pair.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
    return torch.cat([first, pair.to(x.dtype)], dim=2)
