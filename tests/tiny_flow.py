"""Tiny pipelines of rectified flows, genuine classes with random weights: SD3 (with and without T5) and Wan."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import T5Config, T5EncoderModel, T5Tokenizer, UMT5Config, UMT5EncoderModel

from rmd.train.bundled.image_text import build_tokenizer
from tests.tiny import CORPUS, STUDENT_CARD, WIDTH, tiny_encoder

TEXT = 2 * WIDTH  # SD3 joins two CLIP encoders; T5 is as wide as both
LENGTH = 24
CARD: dict[str, Any] = {
    "teacher_steps": 6, "guidance": 3.5, "default_steps": 4, "default_switch": 2, "licence": "Apache-2.0",
}  # fmt: skip
SD3_CARD = {**CARD, "name": "Tiny SD3", "high": [64, 64], "low": [32, 32]}
WAN_CARD = {**CARD, "name": "Tiny Wan", "high": [48, 64], "low": [32, 32], "frames": 9, "fps": 8, "shift_ratio": 1.5}
FLOW_STUDENT_CARD = {**STUDENT_CARD, "base_model": "Tiny flow"}


def t5_tokenizer(length: int = LENGTH) -> T5Tokenizer:
    """A unigram tokenizer as T5 has, trained on a few captions."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(CORPUS * 4, trainer)
    ids = trained.get_vocab()
    vocab = [
        (piece, 0.0 if piece in special else -1.0 - ids[piece] / 100) for piece in sorted(ids, key=ids.__getitem__)
    ]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


def t5_config(kind: type, width: int, words: int) -> Any:
    return kind(
        vocab_size=words, d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=2, pad_token_id=0,
        eos_token_id=1, feed_forward_proj="gated-gelu",
    )  # fmt: skip


def tiny_sd3_transformer(seed: int, layers: int = 2) -> SD3Transformer2DModel:
    torch.manual_seed(seed)
    made = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=layers, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=TEXT, caption_projection_dim=16, pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return roused(made)


def roused(network: Any) -> Any:
    """Larger weights, so that every input of an untrained network shows in its output."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return network


def tiny_sd3(t5: bool) -> StableDiffusion3Pipeline:
    """64 px pictures of 8×8 latent cells; patches of 2×2."""
    tokenizer, t5_words = build_tokenizer(CORPUS, 600), t5_tokenizer()
    torch.manual_seed(5)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    third = T5EncoderModel(t5_config(T5Config, TEXT, len(t5_words))) if t5 else None
    return StableDiffusion3Pipeline(
        transformer=tiny_sd3_transformer(0),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=tiny_encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=tiny_encoder(tokenizer),
        tokenizer_2=tokenizer,
        text_encoder_3=third,  # type: ignore[arg-type]  # may be left out
        tokenizer_3=t5_words if t5 else None,
    )


def tiny_wan_transformer(seed: int, layers: int = 2) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    made = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=WIDTH, freq_dim=16,
        ffn_dim=32, num_layers=layers, rope_max_seq_len=32,
    )  # fmt: skip
    return roused(made)


def tiny_wan(solver: str = "unipc") -> WanPipeline:
    """Clips of 9 frames of 48×64 px: 3 latent frames of 6×8 cells; patches of 1×2×2."""
    tokenizer = t5_tokenizer()
    torch.manual_seed(6)
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.8, 1.2, 2.0],
    )  # fmt: skip
    encoder = UMT5EncoderModel(t5_config(UMT5Config, WIDTH, len(tokenizer)))
    if solver == "unipc":
        scheduler: Any = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    else:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return WanPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae, scheduler=scheduler, transformer=tiny_wan_transformer(0)
    )
