"""The bundled video teacher: a Wan-class pipeline trained from scratch at two resolutions.

Flow matching with the velocity as target, stratified times, classifier-free dropout; the text encoder is trained by
layout.py alone and stays as it is, so that every caption is encoded once for the whole run. The first part of the run
sees the low resolution only, where a view costs a quarter; the rest mixes both sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast, UMT5EncoderModel

from rmd.train.bundled import video_frames as frames
from rmd.train.bundled import video_layout as layout
from rmd.train.bundled import video_text as text
from rmd.train.bundled.image_teacher import export, rate_factor
from rmd.train.loop import Average, Replicas, Run, generator_for, mixed, set_rate
from rmd.train.sheets import save_sheet
from rmd.worlds import clips, emoji

RATE, SEED = 1e-3, 12
DROP = 0.1  # captions replaced by "" for classifier-free guidance
BATCH = {"high": 12, "low": 48}
EMPHASIS = {"high": 3.0, "low": 1.5}  # shift of the drawn times towards noise
HIGH_SHARE = 0.75  # of the steps, once both sizes are seen
SHIFT = 3.0  # of the sampler's times, Wan's own for its lower resolution


def build_transformer() -> WanTransformer3DModel:
    """A fresh transformer of Wan's kind at small width (6.2 M parameters), its blocks open from the first step on."""
    width, heads = 256, 4
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


def in_threads(work: Callable[[int], None], count: int) -> None:
    """`work(0)` to `work(count − 1)`, each in a thread that computes alone."""
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, range(count)))


def normalised(vae: AutoencoderKLWan, x: Tensor) -> Tensor:
    """The latents of clips (B, 3, F, H, W) in [−1, 1] as the transformer takes them."""
    with mixed():
        z = frames.encode(vae, x).float()
    shape = (1, -1, 1, 1, 1)
    mean, std = (torch.tensor(vae.config[f"latents_{name}"]).view(shape) for name in ("mean", "std"))
    return (z - mean) / std


@torch.no_grad()
def precompute(data: Path, vae: AutoencoderKLWan, path: Path) -> dict[str, Tensor]:
    """Latents of one clip of every object, motion and colour at both sizes, with those three's indices; cached."""
    if path.exists():
        return torch.load(path, weights_only=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    index = torch.tensor([(i, j, k) for i, j in clips.pairs() for k in range(len(clips.COLOURS))])
    high: list[Tensor] = [torch.empty(0)] * len(index)
    low = list(high)
    workers = torch.get_num_threads()
    copies = [vae, *(copy.deepcopy(vae) for _ in range(workers - 1))]

    def work(worker: int) -> None:
        with torch.no_grad():
            for row in range(worker, len(index), workers):
                i, j, k = index[row].tolist()
                motion, g = clips.MOTIONS[j], generator_for(SEED, row)
                source = clips.source(data, clips.OBJECTS[i], motion)
                x = clips.clip(source, motion, clips.COLOURS[k], g)[None] * 2 - 1
                high[row] = normalised(copies[worker], x).half()
                low[row] = normalised(copies[worker], clips.shrink(x)).half()

    in_threads(work, workers)
    names = ("object", "motion", "colour")
    latents = {"high": torch.cat(high), "low": torch.cat(low), **dict(zip(names, index.unbind(1), strict=True))}
    torch.save(latents, path.with_suffix(".partial"))
    path.with_suffix(".partial").rename(path)
    return latents


@torch.no_grad()
def encode_all(tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel) -> tuple[Tensor, Tensor]:
    """Features of every caption, (objects, motions, colours, phrasings, LENGTH, WIDTH) bf16, and of "" (1, …)."""
    shape = (len(clips.OBJECTS), len(clips.MOTIONS), len(clips.COLOURS), len(clips.PHRASING))
    texts = [
        c for name in clips.OBJECTS for m in clips.MOTIONS for k in clips.COLOURS for c in clips.captions(name, m, k)
    ]
    rows = [texts[i : i + 96] for i in range(0, len(texts), 96)] + [[""]]
    out: list[Tensor] = [torch.empty(0)] * len(rows)
    workers = torch.get_num_threads()

    def work(worker: int) -> None:
        with torch.no_grad(), mixed():
            for i in range(worker, len(rows), workers):
                out[i] = text.encode(tokenizer, encoder, rows[i]).bfloat16()

    in_threads(work, workers)
    return torch.cat(out[:-1]).unflatten(0, shape), out[-1]


@dataclass(frozen=True)
class Parts:
    """What is trained, and what it is trained with."""

    vae: AutoencoderKLWan
    tokenizer: PreTrainedTokenizerFast
    encoder: UMT5EncoderModel
    transformer: WanTransformer3DModel


def new_parts(data: Path, folder: Path, vae_folder: Path) -> Parts:
    """Fresh networks; the text encoder takes its lesson (layout.py) here."""
    vae = AutoencoderKLWan.from_pretrained(vae_folder)
    phrases = [c for name in clips.OBJECTS for m in clips.MOTIONS for c in clips.captions(name, m, "blue")]
    words = {word for phrase in (*phrases, *clips.COLOURS) for word in phrase.replace(",", "").split()}
    tokenizer = text.build_tokenizer([*emoji.label_texts(data), *sorted(words) * 200])  # enough to be whole tokens
    torch.manual_seed(SEED)
    encoder = text.build_encoder(tokenizer)
    layout.train(tokenizer, encoder, precompute(data, vae, folder / "latents.pt"), folder / "layout")
    return Parts(vae, tokenizer, encoder, build_transformer())


def published_parts(folder: Path) -> Parts:
    """The networks of a published teacher, to train it further."""
    return Parts(
        AutoencoderKLWan.from_pretrained(folder / "vae", dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder / "tokenizer"),
        UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        WanTransformer3DModel.from_pretrained(folder / "transformer", dtype=torch.float32),
    )


def optimizers(transformer: WanTransformer3DModel) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon (arXiv 2502.16982, in steps of AdamW's size) for the blocks' matrices, AdamW for all else."""
    blocks: Any = transformer.blocks
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in transformer.parameters() if id(p) not in chosen]
    return (
        torch.optim.Muon(matrices, lr=RATE, weight_decay=1e-2, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True),
    )


def draw_sigmas(count: int, emphasis: float, generator: torch.Generator) -> Tensor:
    """Stratified noise levels in (0, 1); emphasis > 1 moves them towards noise (a timestep shift)."""
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    u = emphasis * u / (1 + (emphasis - 1) * u)
    return u[torch.randperm(count, generator=generator)]  # every share of a batch sees all levels


def train(
    data: Path, folder: Path, parts: Parts, steps: int = 5000, low_steps: int | None = None, seed: int = SEED
) -> None:
    """Train or resume in `folder`; writes `folder/pipeline` (a diffusers folder) at the end.

    low_steps: how many steps see the low resolution only (a quarter unless given). seed: of everything drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    low_steps = steps // 4 if low_steps is None else low_steps
    latents = precompute(data, parts.vae, folder / "latents.pt")
    features, empty = encode_all(parts.tokenizer, parts.encoder)
    transformer = parts.transformer
    matrices, others = optimizers(transformer)
    average = Average({"transformer": transformer}, decay=0.998)
    run = Run(folder, {"transformer": transformer, "muon": matrices, "adam": others, "average": average})
    pipe = WanPipeline(
        tokenizer=parts.tokenizer, text_encoder=parts.encoder, vae=parts.vae, scheduler=build_scheduler(),
        transformer=transformer,
    )  # fmt: skip
    workers = torch.get_num_threads()
    replicas = Replicas((transformer,), workers)

    def backward(
        transformer: WanTransformer3DModel, prompt: Tensor, x0: Tensor, eps: Tensor, sigma: Tensor
    ) -> dict[str, float]:
        s = sigma.view(-1, 1, 1, 1, 1)
        with mixed():
            v = transformer((1 - s) * x0 + s * eps, sigma * 1000, prompt, return_dict=False)[0]
        loss = F.mse_loss(v.float(), eps - x0)
        loss.backward()
        return {"loss": loss.item()}

    totals: dict[str, list[float]] = {"high": [], "low": []}
    for step in run.steps(steps, "video teacher"):
        g = generator_for(seed, step)
        for optimizer in (matrices, others):
            set_rate(optimizer, RATE * rate_factor(step, steps))
            optimizer.zero_grad(set_to_none=True)
        size = "low"
        if step >= low_steps and torch.rand((), generator=g) < HIGH_SHARE:
            size = "high"
        store, count = latents[size], BATCH[size]
        pick = torch.randint(len(store), (count,), generator=g)
        x0 = store[pick].float()
        phrasing = torch.multinomial(torch.tensor(clips.PHRASING), count, replacement=True, generator=g)
        prompt = features[latents["object"][pick], latents["motion"][pick], latents["colour"][pick], phrasing].float()
        prompt[torch.rand(count, generator=g) < DROP] = empty[0].float()
        sigma = draw_sigmas(count, EMPHASIS[size], g)
        eps = torch.randn(x0.shape, generator=g)
        shares = list(zip(*(v.chunk(workers) for v in (prompt, x0, eps, sigma)), strict=True))
        loss = replicas.accumulate(backward, shares)["loss"]
        nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        matrices.step()
        others.step()
        average.update()
        run.samples += count
        totals[size].append(loss)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            run.log(**{f"loss_{k}": sum(v) / len(v) for k, v in totals.items() if v})
            totals = {"high": [], "low": []}
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            average.swap()
            for pixels in (clips.LOW, clips.HIGH) if step >= low_steps else (clips.LOW,):
                save_sheet(sample(pipe, pixels), folder / f"sheet-{step + 1:05d}-{pixels}.png", clips.FRAMES)
            average.swap()
    average.swap()
    export(pipe, folder / "pipeline")


def sample(pipe: WanPipeline, pixels: int, steps: int = 16, guidance: float = 3.0, count: int = 6) -> Tensor:
    """Clips of fixed prompts made by the pipeline itself, one motion each, (count · FRAMES, 3, S, S) in [−1, 1]."""
    prompts = [
        clips.prompt(
            *(v[i * step % len(v)] for v, step in ((clips.OBJECTS, 5), (clips.MOTIONS, 1), (clips.COLOURS, 3)))
        )
        for i in range(count)
    ]
    pipe.set_progress_bar_config(disable=True)
    with mixed():
        out = pipe(
            prompts, height=pixels, width=pixels, num_frames=clips.FRAMES, num_inference_steps=steps,
            guidance_scale=guidance, generator=torch.Generator().manual_seed(SEED), output_type="pt",
            max_sequence_length=text.LENGTH,
        )  # fmt: skip
    return out.frames.float().flatten(0, 1) * 2 - 1  # type: ignore[union-attr]
