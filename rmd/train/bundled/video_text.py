"""The video model's tokenizer and text encoder: a small byte-pair vocabulary and a tiny UMT5 encoder.

`WanPipeline` masks and zeroes everything after a prompt's last token, so padding cannot carry a layout as it does in
the image model. The tokenizer's template therefore puts T5's sentinel tokens before every prompt; each of them learns
(layout.py) to stand for one place and time of the clip.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

PLACES = (7, 4, 4)
"""Layout tokens over time, height and width: a latent frame of a 2×2 block of low-resolution cells each."""
LAYOUT = PLACES[0] * PLACES[1] * PLACES[2]
LENGTH = LAYOUT + 24  # tokens of a prompt with its layout tokens; the longest training caption has 16
WIDTH = 192
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def build_tokenizer(corpus: Iterable[str], size: int = 2000) -> PreTrainedTokenizerFast:
    """Train byte-pair encoding on the corpus; every prompt becomes layout tokens, words, end."""
    sentinels = [f"<extra_id_{i}>" for i in range(LAYOUT)]
    trained = Tokenizer(models.BPE(unk_token=UNKNOWN))
    trained.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[PAD, END, UNKNOWN, *sentinels], show_progress=False)
    trained.train_from_iterator(corpus, trainer)
    special = [(token, trained.token_to_id(token)) for token in (END, *sentinels)]
    trained.post_processor = processors.TemplateProcessing(
        single=f"{' '.join(sentinels)} $A {END}", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=sentinels,
        model_max_length=LENGTH,
    )


def build_encoder(tokenizer: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    """A fresh text encoder (3 layers × 192) for the tokenizer."""
    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=32,
        num_heads=6,
        d_ff=2 * WIDTH,
        num_layers=3,
        dropout_rate=0.0,
        relative_attention_max_distance=LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    encoder = UMT5EncoderModel(config)
    with torch.no_grad():
        encoder.shared.weight.mul_(0.3)  # T5's unit spread would take AdamW long to change
    return encoder


def encode(tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, texts: list[str]) -> Tensor:
    """(B, LENGTH, WIDTH) token features, zero after a prompt's end, as `WanPipeline.encode_prompt` makes them."""
    tokens = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    features = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return features * tokens.attention_mask[..., None].to(features.dtype)
