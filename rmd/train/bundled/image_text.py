"""The bundled model's tokenizer and text encoder, built from configuration.

Byte-pair encoding trained on emojibase labels and tags; a small CLIP text encoder with projection, in the
place of SDXL's second encoder (the pipeline accepts `text_encoder=None`).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

LENGTH = 40  # tokens per prompt: the longest training caption has 24, the last 16 tell the looks (image_lesson.py)
WIDTH = 256
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(corpus: list[str], size: int = 2800) -> CLIPTokenizer:
    """Train CLIP-style byte-pair encoding (`</w>` marks word ends) on the corpus."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(corpus, trainer)

    state = json.loads(trained.to_str())["model"]
    vocab: dict[str, int] = state["vocab"]
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):  # every byte must also exist as a word's end
        vocab.setdefault(symbol + "</w>", len(vocab))
    merges = [tuple(pair) for pair in state["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def build_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A fresh text encoder (3 layers × 256) for the tokenizer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=8,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
    )
    return CLIPTextModelWithProjection(config)


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(B, LENGTH) token numbers."""
    out = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return out.input_ids


def features(encoder: CLIPTextModelWithProjection, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, LENGTH, WIDTH) token features and (B, WIDTH) pooled features, as SDXL's `encode_prompt` takes them.

    SDXL uses the last hidden state but one for cross-attention and the projected end token as the pooled one.
    """
    out = encoder(numbers.to(encoder.device), output_hidden_states=True)
    return out.hidden_states[-2], out.text_embeds


def encode(
    tokenizer: CLIPTokenizer, encoder: CLIPTextModelWithProjection, texts: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both of texts; see `features`."""
    return features(encoder, tokens(tokenizer, texts))


def save(tokenizer: CLIPTokenizer, encoder: CLIPTextModelWithProjection, folder: Path) -> None:
    """Write both in their libraries' formats, in fp32."""
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "encoder")


def load(tokenizer: Path, encoder: Path) -> tuple[CLIPTokenizer, CLIPTextModelWithProjection]:
    """Read both from their folders, the encoder in fp32."""
    made = CLIPTextModelWithProjection.from_pretrained(encoder, dtype=torch.float32)
    return CLIPTokenizer.from_pretrained(tokenizer), made
