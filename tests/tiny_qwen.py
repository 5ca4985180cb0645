"""Tiny pipelines of the families with a Qwen3 for prompts, genuine classes with random weights: Z-Image, FLUX.2."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from rmd.backbones.random_weights import qwen_tokenizer
from tests.tiny_flow import CARD, roused

WIDTH = 16
ZIMAGE_CARD = {**CARD, "name": "Tiny Z-Image", "high": [64, 64], "low": [32, 32]}
FLUX2_CARD = {**CARD, "name": "Tiny FLUX.2", "high": [64, 64], "low": [32, 32]}


def tiny_qwen(kind: type, words: int, layers: int) -> Any:
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=words, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=512,
    )  # fmt: skip
    return kind(config)


def autoencoder(kind: type, **named: Any) -> Any:
    torch.manual_seed(5)
    return kind(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **named,
    )  # fmt: skip


def tiny_zimage_transformer(seed: int, layers: int = 2) -> ZImageTransformer2DModel:
    torch.manual_seed(seed)
    made = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=layers, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    return roused(made)


def tiny_zimage(shift: float = 6.0) -> ZImagePipeline:
    """64 px pictures of 8×8 latent cells; patches of 2×2."""
    tokenizer = qwen_tokenizer(512)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=autoencoder(
            AutoencoderKL, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=tiny_qwen(Qwen3Model, len(tokenizer), layers=3),
        tokenizer=tokenizer,
        transformer=tiny_zimage_transformer(0),
    )


def tiny_flux2_transformer(seed: int, layers: int = 1) -> Flux2Transformer2DModel:
    torch.manual_seed(seed)
    made = Flux2Transformer2DModel(
        in_channels=16, num_layers=layers, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * WIDTH, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )  # fmt: skip
    return roused(made)


def tiny_flux2(distilled: bool = False) -> Flux2KleinPipeline:
    """64 px pictures of 8×8 latent cells, packed by 2×2; the shift follows tokens and steps."""
    tokenizer = qwen_tokenizer(512)
    vae = autoencoder(AutoencoderKLFlux2)
    with torch.no_grad():  # of a trained one: neither nought nor one
        vae.bn.running_mean.copy_(torch.linspace(-0.3, 0.4, 16))
        vae.bn.running_var.copy_(torch.linspace(0.5, 2.0, 16))
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256,
            max_image_seq_len=4096, time_shift_type="exponential",
        ),
        vae=vae,
        text_encoder=tiny_qwen(Qwen3ForCausalLM, len(tokenizer), layers=28),
        tokenizer=tokenizer,
        transformer=tiny_flux2_transformer(0),
        is_distilled=distilled,
    )  # fmt: skip
