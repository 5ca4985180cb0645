"""Genuine diffusers and transformers models with tiny random weights: what the tests run instead of mocks."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from rmd.train.bundled.image_text import build_tokenizer

WIDTH = 32
CORPUS = ["a fox on a blue background", "a star on a blue background", "a tall tree, a red ball and a small boat"]
BACKBONE_CARD: dict[str, Any] = {
    "name": "Tiny",
    "high": [64, 64],
    "low": [32, 32],
    "teacher_steps": 6,
    "guidance": 3.5,
    "default_steps": 4,
    "default_switch": 2,
    "licence": "Apache-2.0",
    "known_words": ["fox", "star"],
    "colours": ["blue"],
}
STUDENT_CARD: dict[str, Any] = {
    "name": "Tiny student",
    "base_model": "Tiny",
    "licence": "Apache-2.0",
    "default_steps": 4,
    "default_switch": 2,
    "eta": 1.0,
    "reinjection": "band",
    "training": "Random weights.",
    "quality": {},
}


def tiny_unet(seed: int, width: int = 16) -> UNet2DConditionModel:
    """A UNet of SDXL's kind with two levels and random weights."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(width, 2 * width),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2),
        cross_attention_dim=WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        use_linear_projection=True,
        norm_num_groups=8,
    )


def tiny_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A two-layer CLIP text encoder with random weights."""
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def tiny_vae() -> AutoencoderTiny:
    """A narrow autoencoder of eight pixels per latent cell with random weights."""
    torch.manual_seed(2)
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
    )


def tiny_pipeline() -> StableDiffusionXLPipeline:
    """64 px pictures of 8×8 latent cells, 32 px in the low stage."""
    tokenizer = build_tokenizer(CORPUS, 600)
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=None,  # type: ignore[arg-type]  # SDXL's first encoder is left out, as in the bundled model
        text_encoder_2=tiny_encoder(tokenizer),
        tokenizer=None,  # type: ignore[arg-type]
        tokenizer_2=tokenizer,
        unet=tiny_unet(0),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            timestep_spacing="trailing",
        ),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
