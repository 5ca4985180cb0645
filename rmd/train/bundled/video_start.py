"""What the bundled video teacher begins from: a fresh transformer and text encoder with the trained autoencoder.

`train pretrain --recipe emoji-wan` goes on from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import AutoTokenizer, PreTrainedTokenizerFast, UMT5EncoderModel

from rmd.train.bundled import LICENCE
from rmd.train.bundled import video_text as text
from rmd.train.export import write_pipeline
from rmd.worlds import clips

SEED = 12
SHIFT = 3.0  # of the sampler's times, Wan's own for its lower resolution
GUIDANCE = 2.0
CARD = {
    "name": "Emoji Wan", "high": (clips.HIGH, clips.HIGH), "low": (clips.LOW, clips.LOW), "frames": clips.FRAMES,
    "fps": clips.FPS, "teacher_steps": 50, "guidance": GUIDANCE, "default_steps": 4, "default_switch": 2,
    "licence": LICENCE,
}  # fmt: skip


def build_transformer() -> WanTransformer3DModel:
    """A fresh transformer of Wan's kind at small width (13.8 M parameters), its blocks open from the first step on."""
    torch.manual_seed(SEED)
    width, heads = 384, 6
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=16,
        out_channels=16,
        text_dim=text.WIDTH,
        freq_dim=128,
        ffn_dim=3 * width,
        num_layers=6,
        cross_attn_norm=True,
        rope_max_seq_len=64,
    )
    with torch.no_grad():
        blocks: Any = model.blocks
        for block in blocks:
            # gates begin at 1, not near 0, and what passes them small: opening them would take many steps
            block.scale_shift_table.zero_()
            block.scale_shift_table[:, [2, 5]] = 1.0
            for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                layer.weight.mul_(0.4)
        model.condition_embedder.time_proj.weight.mul_(0.3)
        model.proj_out.weight.mul_(0.3)
    return model


def build_scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)


def begin(data: Path, vae_folder: Path, folder: Path) -> None:
    """Write the pipeline's folder from the autoencoder and the tokenizer's corpus in `data`."""
    tokenizer = text.trained_tokenizer(data)
    torch.manual_seed(SEED)
    write(tokenizer, text.build_encoder(tokenizer), build_transformer(), vae_folder, folder)


def begin_again(published: Path, vae_folder: Path, folder: Path) -> None:
    """The same with the networks of a published teacher."""
    write(
        text.as_words(AutoTokenizer.from_pretrained(published / "tokenizer").backend_tokenizer),
        UMT5EncoderModel.from_pretrained(published / "text_encoder", dtype=torch.float32),
        WanTransformer3DModel.from_pretrained(published / "transformer", dtype=torch.float32),
        vae_folder,
        folder,
    )


def write(
    tokenizer: PreTrainedTokenizerFast,
    encoder: UMT5EncoderModel,
    transformer: WanTransformer3DModel,
    vae_folder: Path,
    folder: Path,
) -> None:
    pipe = WanPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=AutoencoderKLWan.from_pretrained(vae_folder),
        scheduler=build_scheduler(), transformer=transformer,
    )  # fmt: skip
    write_pipeline(pipe, CARD, folder)
