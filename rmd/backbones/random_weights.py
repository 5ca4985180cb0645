"""Backbones of the catalog at full size with random weights: for timing, without any download.

Every part is the genuine class, built from its published configuration (architectures.json) right on the device and
in the dtypes that `loading` reads weights in, so that it costs what the published one costs. Only the numbers in it
mean nothing, and so do the pictures.
"""

from __future__ import annotations

import json
import string
from collections.abc import Generator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import pre_tokenizers
from torch import nn

from rmd.backbones.base import Backbone
from rmd.backbones.cards import StudentSpec
from rmd.backbones.catalog import Entry
from rmd.backbones.folders import ADAPTERS
from rmd.backbones.loading import dtypes_for, settle
from rmd.backbones.machine import default_dtype, free_gb
from rmd.backbones.parts import Part
from rmd.checks import RequestError

ROWS: dict[str, Any] = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))
COMPONENTS: dict[str, Any] = ROWS["components"]
"""Configurations by name, with the published number of parameters in 10⁹ where there are any."""
PIPELINES: dict[str, Any] = ROWS["pipelines"]
"""By catalog id: the class and the configuration's name of every component of the pipeline."""
DECODERS: dict[str, Any] = ROWS["decoders"]
"""The same of the tiny decoder, where there is one."""
NOTE = "random weights; student = the same architecture without guidance; pictures mean nothing"


class RandomWeights:
    """In the place of `loading.StoredWeights`: nothing is read, everything is made up."""

    def backbone(self, entry: Entry, device: torch.device) -> Generator[Part, None, Backbone]:
        """Raises RequestError for what is not in the catalog's tables or has no room; nothing was built then."""
        if entry.id not in PIPELINES or entry.hub is None or entry.spec is None:
            raise RequestError(f"Random weights are for {', '.join(PIPELINES)}, not for {entry.id}.")
        resident = has_room(entry, device)
        dtypes, where = dtypes_for(entry.hub.pipeline, device), device if resident else torch.device("cpu")
        parts: dict[str, Any] = {}
        for name, (kind, key) in PIPELINES[entry.id].items():
            yield Part(name)
            parts[name] = component(kind, COMPONENTS[key]["config"], where, dtypes.get(name, dtypes["default"]))
        pipe = getattr(diffusers, entry.hub.pipeline)(**parts)
        made = ADAPTERS[entry.hub.pipeline](entry.spec, pipe)
        settle(made, device, resident)
        return made

    def student(self, entry: Entry, student: str | None, teacher: Backbone) -> tuple[Backbone, StudentSpec]:
        """The teacher without guidance: what a distilled student of the same architecture costs."""
        spec = teacher.spec
        return teacher, StudentSpec(
            name=NOTE, base_model=spec.name, licence="none", default_steps=spec.default_steps,
            default_switch=spec.default_switch, eta=1.0, reinjection="band", training="None.", quality={},
            origin="published",
        )  # fmt: skip

    def decoder(self, entry: Entry, device: torch.device) -> nn.Module:
        if entry.id not in DECODERS:
            raise RequestError(f"decoder must be full for {entry.name}: there is no tiny one.")
        kind, key = DECODERS[entry.id]
        made = component(kind, COMPONENTS[key]["config"], device, default_dtype(device))
        return made.to(memory_format=torch.channels_last)


def has_room(entry: Entry, device: torch.device) -> bool:
    """Whether everything fits on the device at once; False where parts have to wait in the machine's own memory.

    Raises RequestError where it does not fit so either.
    """
    assert entry.hub is not None
    scale = default_dtype(device).itemsize / 2  # the catalog counts weights of 16 bits
    whole, least, free = entry.hub.memory_gb * scale, entry.hub.offloaded_gb * scale, free_gb(device)
    if whole <= free:
        return True
    if device.type == "cuda" and least <= free and whole <= free_gb(torch.device("cpu")):
        return False
    needed, where = f"about {whole:g} GB of memory", "this machine"
    if device.type == "cuda":
        needed, where = f"{needed} (or {least:g} GB, and {whole:g} GB of the machine's own)", "the accelerator"
    raise RequestError(f"{entry.name} with random weights needs {needed}; {where} has {free:.0f} GB free.")


def component(kind: str, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """A pipeline's component of diffusers' or transformers' class `kind`, its weights drawn in place."""
    if kind in TOKENIZERS:
        return TOKENIZERS[kind](**config)
    library = diffusers if hasattr(diffusers, kind) else transformers
    made: Any = getattr(library, kind)
    if kind.endswith("Scheduler"):
        return made.from_config({**config, "_class_name": kind})
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            network = made.from_config(config) if library is diffusers else made(made.config_class(**config))
    finally:
        torch.set_default_dtype(before)
    exact = network._keep_in_fp32_modules if library is diffusers or dtype == torch.float16 else None
    set_dtypes(network, dtype, set(exact or ()))
    return network.eval()


def set_dtypes(network: nn.Module, dtype: torch.dtype, exact: set[str]) -> None:
    """Floats in the dtypes that `from_pretrained` gives them: those of the modules named in `exact` stay in fp32."""
    stored = network.state_dict().keys()  # other buffers are computed, and stay as they were made
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point() and name in stored:
            value.data = value.data.to(torch.float32 if exact & set(name.split(".")) else dtype)


def clip_tokenizer(model_max_length: int) -> transformers.CLIPTokenizer:
    """CLIP's tokenizer with the bytes and no merges; START and END come last, as the text encoders expect."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(symbol + "</w>" for symbol in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=model_max_length)


def t5_tokenizer(model_max_length: int) -> transformers.T5Tokenizer:
    """T5's tokenizer with single characters for pieces; padding and end have T5's own ids."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.digits, *string.ascii_letters, *string.punctuation]
    vocab = [(piece, -1.0) for piece in pieces]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=model_max_length)


CHAT = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""A prompt as Qwen3 is asked: one message of a user, and the answer's beginning."""


def qwen_tokenizer(model_max_length: int) -> transformers.Qwen2Tokenizer:
    """Qwen's tokenizer with the bytes and no merges, and its signs for messages."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    made = transformers.Qwen2Tokenizer(
        vocab=vocab, merges=[], model_max_length=model_max_length, pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    made.chat_template = CHAT
    return made


TOKENIZERS = {"CLIPTokenizer": clip_tokenizer, "T5Tokenizer": t5_tokenizer, "Qwen2Tokenizer": qwen_tokenizer}
