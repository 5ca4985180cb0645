"""Stage 2: the bundled teacher, an SDXL-class pipeline trained from scratch on two resolutions.

v-prediction (at few steps an eps prediction near pure noise is divided by a tiny alpha; v is not), SDXL's
noise table, stratified times, classifier-free dropout, the text encoder trained jointly. The first part of
the run sees 128 px only, where a view costs a quarter; the rest mixes both sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from rmd.backbones.cards import with_article
from rmd.train.bundled import image_layout as layout
from rmd.train.bundled import image_text as text
from rmd.train.loop import Average, Replicas, Run, generator_for, mixed, parameters, set_rate
from rmd.train.sheets import save_sheet
from rmd.worlds import emoji

RATE, SEED = 5e-4, 2
ENCODER_SHARE = 0.2  # of the rate, for the text encoder, which comes trained from layout.py
DROP = 0.1  # captions replaced by "" for classifier-free guidance
HIGH, LOW = 32, 16  # latent cells of 256 px and 128 px
BATCH = {HIGH: 12, LOW: 40}
VIEWS = 60  # composed pictures per concept


def build_unet() -> UNet2DConditionModel:
    """A fresh UNet of SDXL's kind at small width (20.8 M parameters, attention on the three coarse levels)."""
    channels = (64, 128, 192, 224)
    return UNet2DConditionModel(
        sample_size=HIGH,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
        up_block_types=(*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
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


def size_ids(cells: int, count: int) -> torch.Tensor:
    """SDXL's six size numbers (original, crop corner, target) in pixels, (count, 6)."""
    pixels = float(cells * 8)
    return torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]]).expand(count, 6)


@torch.no_grad()
def precompute(data: Path, vae: AutoencoderTiny, path: Path) -> dict[str, torch.Tensor]:
    """Latents of VIEWS pictures per concept at both sizes, with their concept and colour indices; cached in `path`."""
    if path.exists():
        return torch.load(path, weights_only=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    high, low, concept, colour = [], [], [], []
    colours = list(emoji.COLOURS.values())
    vae = vae.eval().to(memory_format=torch.channels_last)
    for i, item in enumerate(emoji.concepts()):
        g = generator_for(SEED, i)
        picture = emoji.load_picture(emoji.picture_folder(data) / item.file)
        pick = [v % len(colours) for v in range(VIEWS)]
        images = torch.stack([emoji.compose(picture, colours[c], g) for c in pick]) * 2 - 1
        for x, out in ((images, high), (F.avg_pool2d(images, 2), low)):
            for part in x.split(24):
                z = vae.encoder(part.contiguous(memory_format=torch.channels_last))
                out.append((z * vae.config["scaling_factor"]).half().contiguous())
        concept += [i] * VIEWS
        colour += pick
    latents = {
        "high": torch.cat(high),
        "low": torch.cat(low),
        "concept": torch.tensor(concept),
        "colour": torch.tensor(colour),
    }
    torch.save(latents, path.with_suffix(".partial"))
    path.with_suffix(".partial").rename(path)
    return latents


def draw_times(count: int, emphasis: float, generator: torch.Generator) -> torch.Tensor:
    """Stratified table indices 0..999; emphasis > 1 moves them towards noise (a shift of the uniform grid)."""
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    u = emphasis * u / (1 + (emphasis - 1) * u)
    return (u * 1000).long().clamp(0, 999)


def rate_factor(step: int, steps: int) -> float:
    """Warm-up, constant to 30%, then linear to 2%: a run can be cut short by resuming it with fewer steps."""
    if step < 200:
        return (step + 1) / 200
    return max(0.02, min(1.0, (1 - step / steps) / 0.7))


def cells_for(step: int, low_until: int, generator: torch.Generator) -> int:
    """Only the low resolution at first, then three high-resolution batches to one low."""
    if step < low_until:
        return LOW
    return HIGH if torch.rand((), generator=generator) < 0.75 else LOW


@dataclass(frozen=True)
class Parts:
    """What is trained, and what it is trained with."""

    vae: AutoencoderTiny
    tokenizer: CLIPTokenizer
    encoder: CLIPTextModelWithProjection
    unet: UNet2DConditionModel


def new_parts(data: Path, folder: Path, vae_folder: Path) -> Parts:
    """Fresh networks; the text encoder takes its first lesson (layout.py) here."""
    vae = AutoencoderTiny.from_pretrained(vae_folder)
    words = 50 * [c.name for c in emoji.concepts()] + 200 * [*emoji.COLOURS, "background", "emoji", "3d"]
    tokenizer = text.build_tokenizer(emoji.label_texts(data) + words)  # often enough to become whole tokens
    torch.manual_seed(SEED)
    encoder = text.build_encoder(tokenizer)
    layout.train(tokenizer, encoder, precompute(data, vae, folder / "latents.pt"), folder / "layout")
    return Parts(vae, tokenizer, encoder, build_unet())


def published_parts(folder: Path) -> Parts:
    """The networks of a published teacher, to train it further."""
    return Parts(
        AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32),
        CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=torch.float32),
        UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32),
    )


def train(data: Path, folder: Path, parts: Parts, steps: int = 6000, low_steps: int = 300, seed: int = SEED) -> None:
    """Train or resume in `folder`; writes `folder/pipeline` (a diffusers folder) at the end.

    low_steps: how many steps see the low resolution only. seed: of everything drawn while training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vae, tokenizer, encoder = parts.vae, parts.tokenizer, parts.encoder
    latents = precompute(data, vae, folder / "latents.pt")
    names, colours = [c.name for c in emoji.concepts()], list(emoji.COLOURS)
    unet = parts.unet.to(memory_format=torch.channels_last)
    scheduler = build_scheduler()
    alpha = scheduler.alphas_cumprod.sqrt()
    sigma = (1 - scheduler.alphas_cumprod).sqrt()
    weights = parameters([unet, encoder])
    groups = [{"params": parameters([unet])}, {"params": parameters([encoder]), "share": ENCODER_SHARE}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    average = Average({"unet": unet, "encoder": encoder}, decay=0.999)
    run = Run(folder, {"unet": unet, "encoder": encoder, "optimizer": optimizer, "average": average})
    pipe = StableDiffusionXLPipeline(
        vae=vae, text_encoder=None, text_encoder_2=encoder, tokenizer=None, tokenizer_2=tokenizer, unet=unet,
        scheduler=scheduler, force_zeros_for_empty_prompt=False, add_watermarker=False,
    )  # fmt: skip
    replicas = Replicas((unet, encoder), 2)

    def backward(
        unet: UNet2DConditionModel,
        encoder: CLIPTextModelWithProjection,
        captions: list[str],
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
    ) -> dict[str, float]:
        a, s = alpha[t][:, None, None, None], sigma[t][:, None, None, None]
        with mixed():
            features, pooled = text.encode(tokenizer, encoder, captions)
            added = {"text_embeds": pooled, "time_ids": size_ids(x0.shape[-1], len(x0))}
            v = unet(a * x0 + s * eps, t, features, added_cond_kwargs=added).sample
        loss = F.mse_loss(v.float(), a * eps - s * x0)
        loss.backward()
        return {"loss": loss.item()}

    totals: dict[int, list[float]] = {HIGH: [], LOW: []}
    for step in run.steps(steps, "teacher"):
        g = generator_for(seed, step)
        set_rate(optimizer, RATE * rate_factor(step, steps))
        cells = cells_for(step, low_steps, g)
        store = latents["high" if cells == HIGH else "low"]
        pick = torch.randint(len(store), (BATCH[cells],), generator=g)
        x0 = store[pick].float().contiguous(memory_format=torch.channels_last)
        captions = [
            "" if torch.rand((), generator=g) < DROP else emoji.caption(names[c], colours[k], g)
            for c, k in zip(latents["concept"][pick].tolist(), latents["colour"][pick].tolist(), strict=True)
        ]
        t = draw_times(len(x0), 2.0 if cells == HIGH else 1.3, g)
        t = t[torch.randperm(len(t), generator=g)]  # every share sees all noise levels
        eps = torch.randn(x0.shape, generator=g)
        optimizer.zero_grad(set_to_none=True)
        half = len(x0) // 2
        shares = [(captions[part], x0[part], eps[part], t[part]) for part in (slice(half), slice(half, None))]
        loss = replicas.accumulate(backward, shares)["loss"]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        average.update()
        run.samples += len(x0)
        totals[cells].append(loss)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            run.log(**{f"loss_{c * 8}": sum(v) / len(v) for c, v in totals.items() if v})
            totals = {HIGH: [], LOW: []}
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            average.swap()
            for size in (LOW, HIGH) if step >= low_steps else (LOW,):
                save_sheet(sample(pipe, size), folder / f"sheet-{step + 1:05d}-{size * 8}.png", 8)
            average.swap()
    average.swap()
    export(pipe, folder / "pipeline")


def sample(pipe: StableDiffusionXLPipeline, cells: int, steps: int = 20, guidance: float = 3.5) -> torch.Tensor:
    """Sixteen pictures of fixed prompts, (16, 3, S, S) in [-1, 1], made by the pipeline itself."""
    names, colours = [c.name for c in emoji.concepts()], list(emoji.COLOURS)
    prompts = [
        f"{with_article(names[i * 13 % len(names)])} on a {colours[i % len(colours)]} background" for i in range(16)
    ]
    pipe.set_progress_bar_config(disable=True)
    with mixed():
        out = pipe(
            prompts, height=cells * 8, width=cells * 8, num_inference_steps=steps, guidance_scale=guidance,
            generator=torch.Generator().manual_seed(SEED), output_type="pt",
        )  # fmt: skip
    return out.images.float() * 2 - 1  # type: ignore[union-attr]


def export(pipe: StableDiffusionXLPipeline, folder: Path) -> None:
    """Write the pipeline as fp16 safetensors in diffusers' format."""
    partial = folder.with_suffix(".partial")
    pipe.to(torch.float16)
    pipe.save_pretrained(partial)
    partial.rename(folder)
