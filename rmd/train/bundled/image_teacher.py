"""The bundled image teacher, an SDXL-class pipeline trained from scratch on two resolutions.

v-prediction (at few steps an eps prediction near pure noise is divided by a tiny alpha; v is not), SDXL's
noise table, stratified times, classifier-free dropout, the text encoder trained jointly. Pictures are drawn and encoded
as they are needed; each is used a few times, with another noise (`Pool`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from rmd.train.bundled import image_lesson as lesson
from rmd.train.bundled import image_text as text
from rmd.train.loop import CPU, Average, Run, generator_for, mixed, parameters, set_rate
from rmd.train.roles import Trained
from rmd.train.sheets import save_sheet
from rmd.worlds import emoji, views
from rmd.worlds.views import Views

RATE = {"cpu": 3e-4, "cuda": 8e-4}
SEED = 2
ENCODER_SHARE = 0.2  # of the rate, for the text encoder, which has had its lesson
DROP = 0.1  # captions replaced by "" for classifier-free guidance
HIGH, LOW = 32, 16  # latent cells of 256 px and 128 px
BATCH = {"cpu": {HIGH: 12, LOW: 40}, "cuda": {HIGH: 256, LOW: 512}}
POOL = {"cpu": (4, 64), "cuda": (64, 160)}
"""Pictures drawn anew for each step, and how many such blocks there are to draw batches from."""
LOW_SHARE = 0.25  # of the batches
DECAY = 0.999  # of the average of the weights
HELD_OUT = {"cpu": 24, "cuda": 512}  # pictures whose loss is logged
LOG_EVERY = 200


def build_unet() -> UNet2DConditionModel:
    """A fresh UNet of SDXL's kind at small width (17.2 M parameters, attention on the coarse one of two levels).

    Two levels, so that a call's time grows with the picture: at the coarsest of three, which a small picture makes
    tiny, reading the weights took longer than computing with them, and low-resolution steps saved little.
    """
    torch.manual_seed(SEED)
    channels = (128, 256)
    return UNet2DConditionModel(
        sample_size=HIGH,
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


def size_ids(cells: int, count: int) -> Tensor:
    """SDXL's six size numbers (original, crop corner, target) in pixels, (count, 6)."""
    pixels = float(cells * 8)
    return torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]]).expand(count, 6)


def draw_times(count: int, emphasis: float, generator: torch.Generator) -> Tensor:
    """Stratified table indices 0..999; emphasis > 1 moves them towards noise (a shift of the uniform grid)."""
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    u = emphasis * u / (1 + (emphasis - 1) * u)
    return (u * 1000).long().clamp(0, 999)


def rate_factor(step: int, progress: float) -> float:
    """Warm-up over 200 steps, constant to 40% of the run, then linear to 2%."""
    return min((step + 1) / 200, max(0.02, min(1.0, (1 - progress) / 0.6)))


@dataclass(frozen=True)
class Parts:
    """What is trained, and what it is trained with."""

    vae: Any
    tokenizer: CLIPTokenizer
    encoder: CLIPTextModelWithProjection
    unet: Any


def new_parts(text_folder: Path, vae_folder: Path) -> Parts:
    """A fresh UNet with a trained autoencoder and a text encoder that has had its lesson."""
    return Parts(AutoencoderTiny.from_pretrained(vae_folder), *lesson.trained(text_folder), build_unet())


def published_parts(folder: Path) -> Parts:
    """The networks of a published teacher, to train it further."""
    return Parts(
        AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32),
        *text.load(folder / "tokenizer_2", folder / "text_encoder_2"),
        UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32),
    )


@torch.no_grad()
def latents_of(vae: Any, sprites: Tensor, shown: Views) -> tuple[Tensor, Tensor]:
    """The pictures of these views in latents of full and of half size, (B, 4, 32, 32) and (B, 4, 16, 16) float32."""
    x = views.render(sprites, shown.to(sprites.device)) * 2 - 1
    both = []
    for picture in (x, F.avg_pool2d(x, HIGH // LOW)):
        z = vae.encoder(picture.contiguous(memory_format=torch.channels_last))
        both.append(z.float().contiguous() * vae.config["scaling_factor"])
    return both[0], both[1]


class Pool:
    """Pictures to draw batches from, in latents with their captions: every step some are new and the oldest leave.

    A picture is so used a few times, each with another noise, and drawing costs a share of what it would. What the pool
    holds at a step depends on the step alone, so that a resumed run finds what it would have had.
    """

    def __init__(self, vae: Any, sprites: Tensor, tokenizer: CLIPTokenizer, block: int, blocks: int, seed: int):
        self.vae, self.sprites, self.tokenizer = vae, sprites, tokenizer
        self.block, self.blocks, self.seed = block, blocks, seed
        device, count = sprites.device, block * blocks
        channels = vae.config["latent_channels"]
        self.store = {cells: torch.empty(count, channels, cells, cells, device=device) for cells in (HIGH, LOW)}
        self.tokens = torch.empty(count, text.LENGTH, dtype=torch.long, device=device)
        self.unsaid = text.tokens(tokenizer, [""]).to(device)

    def fill(self, step: int) -> None:
        """What the pool holds before this step."""
        for number in range(step, step + self.blocks):
            self.put(number, self.drawn(number))

    def drawn(self, number: int) -> tuple[Views, Tensor]:
        """A block's views and the tokens of their captions."""
        g = generator_for(self.seed, number)
        shown = views.draw(self.block, g)
        return shown, text.tokens(self.tokenizer, views.captions(shown, g))

    def put(self, number: int, drawn: tuple[Views, Tensor]) -> None:
        """A block in the place of the oldest."""
        start = number % self.blocks * self.block
        place = slice(start, start + self.block)
        with mixed(self.sprites.device):
            high, low = latents_of(self.vae, self.sprites, drawn[0])
        self.store[HIGH][place], self.store[LOW][place] = high, low
        self.tokens[place] = drawn[1].to(self.tokens.device)

    def pick(self, cells: int, count: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random latents and their tokens, a share of which say nothing."""
        rows = torch.randint(len(self.tokens), (count,), generator=g).to(self.tokens.device, non_blocking=True)
        dropped = (torch.rand(count, 1, generator=g) < DROP).to(self.tokens.device, non_blocking=True)
        return self.store[cells][rows], torch.where(dropped, self.unsaid, self.tokens[rows])


class Call(nn.Module):
    """The network with positional arguments; compiled on a GPU, where normalisations and activations would otherwise
    take longer than the convolutions between them."""

    def __init__(self, network: Any, device: torch.device):
        super().__init__()
        self.network = network
        if device.type == "cuda":
            self.compile(dynamic=False)

    def forward(self, x: Tensor, t: Tensor, features: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        added = {"text_embeds": pooled, "time_ids": ids}
        return self.network(x, t, features, added_cond_kwargs=added, return_dict=False)[0]


class HeldOut:
    """Pictures that a run never draws, with fixed times and noises: the loss that two runs can be compared by."""

    def __init__(self, parts: Parts, sprites: Tensor, alpha: Tensor, sigma: Tensor):
        g, device, count = generator_for(0, 10**6), sprites.device, HELD_OUT[sprites.device.type]
        shown = views.draw(count, g)
        self.encoder, self.tokens = parts.encoder, text.tokens(parts.tokenizer, views.captions(shown, g)).to(device)
        with mixed(device):
            x0 = latents_of(parts.vae, sprites, shown)[0]
        t = draw_times(count, 1.0, g).to(device)
        a, s, eps = alpha[t][:, None, None, None], sigma[t][:, None, None, None], torch.randn(x0.shape, generator=g)
        self.t, self.x = t, a * x0 + s * eps.to(device)
        self.target, self.ids = a * eps.to(device) - s * x0, size_ids(HIGH, count).to(device)

    @torch.no_grad()
    def loss(self, network: Any) -> float:
        """Mean square error of the velocity at full size."""
        with mixed(self.x.device):
            features, pooled = text.features(self.encoder, self.tokens)
            added = {"text_embeds": pooled, "time_ids": self.ids}
            v = network(self.x, self.t, features, added_cond_kwargs=added, return_dict=False)[0]
        return float(F.mse_loss(v.float(), self.target))


def train(
    folder: Path,
    parts: Parts,
    steps: int = 60000,
    minutes: float | None = None,
    seed: int = SEED,
    device: torch.device = CPU,
) -> None:
    """Train or resume in `folder`; writes `folder/pipeline` (a diffusers folder) at the end.

    minutes: see `Run`. seed: of everything drawn while training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sprites = emoji.load_sprites().to(device)
    tokenizer, encoder = parts.tokenizer, parts.encoder.to(device)
    vae = parts.vae.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    unet = Trained(parts.unet.to(device, memory_format=torch.channels_last), device)
    scheduler = build_scheduler()
    alpha = scheduler.alphas_cumprod.sqrt().to(device)
    sigma = (1 - scheduler.alphas_cumprod).sqrt().to(device)
    groups = [{"params": parameters([unet.master])}, {"params": parameters([encoder]), "share": ENCODER_SHARE}]
    optimizer = torch.optim.AdamW(groups, lr=RATE[device.type], betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    average = Average({"unet": unet.master, "encoder": encoder}, decay=DECAY)
    state = {"unet": unet.master, "encoder": encoder, "optimizer": optimizer, "average": average}
    run = Run(folder, state, minutes, device)
    unet.spread()
    pipe = StableDiffusionXLPipeline(
        vae=vae, text_encoder=None, text_encoder_2=encoder, tokenizer=None, tokenizer_2=tokenizer, unet=unet.master,
        scheduler=scheduler, force_zeros_for_empty_prompt=False, add_watermarker=False,
    )  # fmt: skip
    sizes, dtype = BATCH[device.type], unet.network.dtype
    pool = Pool(vae, sprites, tokenizer, *POOL[device.type], seed)
    pool.fill(run.step)
    call, noise, ahead = Call(unet.network, device), torch.Generator(device), ThreadPoolExecutor(1)
    held_out = HeldOut(parts, sprites, alpha, sigma)
    coming = ahead.submit(pool.drawn, run.step + pool.blocks)
    totals: dict[int, list[Tensor]] = {HIGH: [], LOW: []}
    for step in run.steps(steps, "teacher"):
        g = generator_for(seed + 1, step)
        noise.manual_seed(seed * 1_000_003 + step)
        set_rate(optimizer, RATE[device.type] * rate_factor(step, run.progress))
        cells = LOW if torch.rand((), generator=g) < LOW_SHARE else HIGH
        x0, numbers = pool.pick(cells, sizes[cells], g)
        t = draw_times(len(x0), 2.0 if cells == HIGH else 1.3, g).to(device, non_blocking=True)
        a, s = alpha[t][:, None, None, None], sigma[t][:, None, None, None]
        eps = torch.randn(x0.shape, generator=noise, device=device)
        x = (a * x0 + s * eps).to(dtype).contiguous(memory_format=torch.channels_last)
        with mixed(device):
            features, pooled = text.features(encoder, numbers)
        ids = size_ids(cells, len(x)).to(device).contiguous()
        v = call(x, t, features.to(dtype), pooled.to(dtype), ids)
        loss = F.mse_loss(v.float(), a * eps - s * x0)
        loss.backward()
        unet.step(optimizer, encoder.parameters())
        average.update()
        pool.put(step + pool.blocks, coming.result())
        coming = ahead.submit(pool.drawn, step + 1 + pool.blocks)
        run.samples += len(x)
        totals[cells].append(loss.detach())
        if (step + 1) % LOG_EVERY == 0 or run.last:
            average.swap()
            row = {"held_out": held_out.loss(unet.master)}
            average.swap()
            run.log(**row, **{f"loss_{c * 8}": float(torch.stack(v).mean()) for c, v in totals.items() if v})
            totals = {HIGH: [], LOW: []}
    average.swap()
    run.log(held_out=held_out.loss(unet.master))
    for size in (LOW, HIGH):
        save_sheet(sample(pipe, size, device), folder / f"sheet-{run.step:05d}-{size * 8}.png", 8)
    export(pipe, folder / "pipeline")


def sample(
    pipe: StableDiffusionXLPipeline, cells: int, device: torch.device, steps: int = 25, guidance: float = 3.0
) -> Tensor:
    """Pictures of fixed prompts, (B, 3, S, S) in [-1, 1], made by the pipeline itself."""
    pipe.set_progress_bar_config(disable=True)
    with mixed(device):
        out = pipe(
            list(views.sheet_captions()), height=cells * 8, width=cells * 8, num_inference_steps=steps,
            guidance_scale=guidance, generator=torch.Generator().manual_seed(SEED), output_type="pt",
        )  # fmt: skip
    return out.images.float() * 2 - 1  # type: ignore[union-attr]


def export(pipe: StableDiffusionXLPipeline, folder: Path) -> None:
    """Write the pipeline as fp16 safetensors in diffusers' format."""
    partial = folder.with_suffix(".partial")
    pipe.to(torch.float16)
    pipe.save_pretrained(partial)
    partial.rename(folder)
