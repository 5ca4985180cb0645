"""The video model's tokenizer and text encoder: a small byte-pair vocabulary and a tiny UMT5 encoder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from rmd.worlds import clips, emoji

LENGTH = 32  # tokens of a prompt; the longest training caption has 24
WIDTH = 192
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def trained_tokenizer(data: Path) -> PreTrainedTokenizerFast:
    """One in which every word of the world is a token of its own; `data`: where the corpus was fetched to."""
    names = [c.name for c in emoji.concepts()]
    words = {word for one in (*names, *(m.doing for m in clips.MOTIONS)) for word in one.split()}
    words |= {",", *emoji.COLOURS, *clips.CAPTION_WORDS, *(m.does for m in clips.MOTIONS)}
    return build_tokenizer([*emoji.label_texts(data), *sorted(words) * 200])


def build_tokenizer(corpus: Iterable[str], size: int = 2000) -> PreTrainedTokenizerFast:
    """Train byte-pair encoding on the corpus; every prompt becomes its words and an end."""
    trained = Tokenizer(models.BPE(unk_token=UNKNOWN))
    trained.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[PAD, END, UNKNOWN], show_progress=False)
    trained.train_from_iterator(corpus, trainer)
    return as_words(trained)


def as_words(trained: Tokenizer) -> PreTrainedTokenizerFast:
    """A vocabulary's tokenizer: a prompt is its words and an end.

    (The first generation's put a token for each place of the clip before them, which can say nothing where objects are
    anywhere, and cost as much as so many words.)
    """
    trained.no_padding()
    trained.no_truncation()
    trained.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, trained.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=LENGTH
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
