"""What the bundled image teacher begins from: a fresh UNet with the trained autoencoder and text encoder.

v-prediction (at few steps an eps prediction near pure noise is divided by a tiny alpha; v is not), SDXL's noise table.
`train pretrain --recipe emoji-sdxl` goes on from here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

from rmd.train.bundled import LICENCE
from rmd.train.bundled import image_lesson as lesson
from rmd.train.bundled import image_text as text
from rmd.train.export import write_pipeline

SEED = 2
HIGH, LOW, GUIDANCE = (256, 256), (128, 128), 2.5
CARD = {
    "name": "Emoji SDXL", "high": HIGH, "low": LOW, "teacher_steps": 50, "guidance": GUIDANCE, "default_steps": 4,
    "default_switch": 2, "licence": LICENCE,
}  # fmt: skip


def build_unet() -> UNet2DConditionModel:
    """A fresh UNet of SDXL's kind at small width (17.2 M parameters, attention on the coarse one of two levels).

    Two levels, so that a call's time grows with the picture: at the coarsest of three, which a small picture makes
    tiny, reading the weights took longer than computing with them, and low-resolution steps saved little.
    """
    torch.manual_seed(SEED)
    channels = (128, 256)
    return UNet2DConditionModel(
        sample_size=HIGH[0] // 8,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=tuple(c // 32 for c in channels),  # diffusers reads this as the number of heads
        cross_attention_dim=text.WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=6 * 32 + text.WIDTH,
        resnet_time_scale_shift="scale_shift",
        use_linear_projection=True,
        norm_num_groups=16,
    )


def build_scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def begin(text_folder: Path, vae_folder: Path, folder: Path) -> None:
    """Write the pipeline's folder from what the stages before wrote."""
    tokenizer, encoder = lesson.trained(text_folder)
    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderTiny.from_pretrained(vae_folder), text_encoder=None, text_encoder_2=encoder, tokenizer=None,
        tokenizer_2=tokenizer, unet=build_unet(), scheduler=build_scheduler(), force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )  # fmt: skip
    write_pipeline(pipe, CARD, folder)
