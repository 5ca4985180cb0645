"""The teacher's own training: noise is added to latents, and the network learns to tell it.

For fine-tuning any family on pictures or clips of one's own, and for the bundled models from their first step on; at
both sizes of the cascade, so that the teacher knows the low one too: what a cross-resolution student is distilled from.
The same loop and roles as a distillation's.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rmd.backbones.adapter import dtype_of
from rmd.backbones.base import Backbone
from rmd.backbones.cards import BackboneSpec
from rmd.backbones.folders import BACKBONE_CARD, read_json
from rmd.checks import RequestError
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.method.plan import two_stage
from rmd.method.transition import Share, white
from rmd.train.distill import swap_in, watch
from rmd.train.embeddings import Embeddings
from rmd.train.export import SETTINGS_FILE, replace_folder
from rmd.train.loop import Average, Run, generator_for, mixed, parameters, set_rate
from rmd.train.optimizers import optimizer_of
from rmd.train.roles import Adapter, Shared, Trained
from rmd.train.settings import Pretraining
from rmd.train.shares import mesh_of
from rmd.train.sheets import save_sheet
from rmd.train.source import Source
from rmd.train.together import Together

Part = Literal["high", "low", "still"]
"""What an iteration learns from: samples of full or low size, or single frames of full size."""
WARM_UP = 100
"""Iterations over which the rate rises."""
SHEET = 8
"""Pictures on a sheet; of clips a quarter, four frames each."""
SHEET_STEPS = 8
AFTER = ", trained further"
"""Said of a teacher by its name."""


class Pretrainer:
    """The network as it is trained, and its loss. backbone: whole networks in fp32 (see `command_distill.opened`)."""

    def __init__(self, backbone: Backbone, settings: Pretraining, together: Together):
        self.backbone, self.settings, self.together = backbone, settings, together
        self.embeddings: Embeddings | None = None
        self.role = role_of(backbone.network, settings, together)
        if settings.checkpointing == "yes":
            network: Any = self.role.network
            getattr(network, "base", network).enable_gradient_checkpointing()
        if settings.compile == "yes":
            self.role.network.compile(dynamic=False)
        self.call = backbone.with_network(self.role.network)
        self.texts: dict[str, Any] = text_encoders(backbone) if settings.text_share else {}
        self.others = parameters(part.requires_grad_(True) for part in self.texts.values())
        self.optimizer = optimizer_of(
            settings.optimizer, self.role.master, self.others, settings.text_share, settings.rate
        )

    def encode(self, texts: list[str]) -> Conditioning:
        """Prompts as the network takes them."""
        if self.embeddings:
            return self.embeddings(texts)
        if not self.texts:
            return self.encoded(texts)
        with mixed(self.backbone.device):
            return self.cast(self.backbone.encode(texts))

    @torch.no_grad()
    def encoded(self, texts: list[str]) -> Conditioning:
        """The same by the text encoders, which do not learn."""
        return self.cast(self.backbone.encode(texts))

    def cast(self, rows: Conditioning) -> Conditioning:
        dtype = dtype_of(self.role.network)
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in rows.items()}

    def remember(self, folder: Path, texts: list[str]) -> None:
        """Encode all captions once, each process a share; the text encoders leave memory."""
        found = Embeddings(folder, self.backbone.device, self.backbone.folder)
        found.fill(texts[self.together.index :: self.together.count], self.encoded)
        self.together.wait()
        self.embeddings = found
        self.backbone.release_text_encoders()

    def loss(self, source: Source, part: Part, g: torch.Generator, noise: torch.Generator) -> Tensor:
        """The loss on this process's share of a batch."""
        s, together = self.settings, self.together
        count = batch_of(s, part) * together.count
        given = source.stills(count, g) if part == "still" else source.latents(count, part == "high", g)
        if given is None:
            raise RequestError("latents is missing; give the folder that `train latents` wrote.")
        x0, captions = given
        dropped = torch.rand(len(x0), generator=g) < s.drop
        said = ["" if gone else caption for gone, caption in zip(dropped.tolist(), captions, strict=True)]
        u = levels(len(x0), s.low_emphasis or s.emphasis if part == "low" else s.emphasis, g)
        mine = [torch.as_tensor(together.rows(rows)) for rows in (x0, u)]
        return self.error(*mine, list(together.rows(said)), together.share(noise))

    def error(self, x0: Tensor, u: Tensor, said: list[str], noise: torch.Generator | Share) -> Tensor:
        """Mean square error of what the network is asked for (noise, velocity); u: noise levels (B,) in (0, 1)."""
        backbone, schedule = self.backbone, self.backbone.schedule
        t = schedule.paced(u, x0.shape[2:], backbone.spec.teacher_steps)
        x0 = x0.to(backbone.device)
        eps = white(x0, noise)
        answer = self.call.predict(schedule.add_noise(x0, eps, t), t, self.encode(said))
        wanted = schedule.target(x0, eps, t, backbone.prediction)
        return nn.functional.mse_loss(answer.float(), wanted)

    @torch.no_grad()
    @torch.compiler.set_stance("force_eager")  # a shape of its own is not worth compiling
    def unseen(self, held: tuple[Tensor, list[str]]) -> float:
        """The error on samples that are not trained on, with the same times and noises whenever it is asked."""
        g, noise = generator_for(0, 10**6), torch.Generator(self.backbone.device).manual_seed(0)
        u, total, size = levels(len(held[0]), 1.0, g), 0.0, self.settings.batch
        for start in range(0, len(u), size):
            some = slice(start, start + size)
            total += float(self.error(held[0][some], u[some], held[1][some], noise)) * len(u[some])
        return total / len(u)


def levels(count: int, emphasis: float, g: torch.Generator) -> Tensor:
    """Stratified noise levels in (0, 1), in any order, so that every process sees all; emphasis above 1 moves them
    towards noise."""
    u = (torch.arange(count) + torch.rand(count, generator=g, dtype=torch.float64)) / count
    u = u[torch.randperm(count, generator=g)]
    return emphasis * u / (1 + (emphasis - 1) * u)


def part_of(settings: Pretraining, progress: float, g: torch.Generator) -> Part:
    """What an iteration is on; progress: of the run, in [0, 1]."""
    if float(torch.rand((), generator=g)) < settings.low_share or progress < settings.low_first:
        return "low"
    return "still" if settings.still_share and float(torch.rand((), generator=g)) < settings.still_share else "high"


def batch_of(settings: Pretraining, part: Part) -> int:
    """Samples of an iteration, of each process."""
    return {"high": None, "low": settings.low_batch, "still": settings.still_batch}[part] or settings.batch


def text_encoders(backbone: Any) -> dict[str, Any]:
    """The pipeline's text encoders by their names."""
    return {name: getattr(backbone.pipe, name) for name in backbone.text_encoders()}


def role_of(network: Any, settings: Pretraining, together: Together) -> Trained:
    """How the one network is held: whole, shared out, or with a LoRA."""
    device = together.device
    if settings.lora is not None:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            return Adapter(network.requires_grad_(False), "teacher", settings.lora)
    if settings.shard == "no":
        return Trained(network.float().requires_grad_(True), device)
    if together.count == 1:
        raise RequestError("shard must be no for one process, not yes; start several with accelerate launch.")
    return Shared(network.cpu().float().requires_grad_(True), device, mesh_of(device, together.count))


def train(
    backbone: Backbone, source: Source, settings: Pretraining, folder: Path, together: Together | None = None
) -> Path:
    """Train a loaded backbone further, or go on where the run in `folder` stopped; returns `folder/teacher`, a folder
    in diffusers' format (with a LoRA, the network that it makes, and the LoRA alone in `folder/lora`)."""
    for part in backbone.parts():
        part.requires_grad_(False)
    together = together or Together(backbone.device)
    trainer = Pretrainer(backbone, settings, together)
    held = source.held_out(settings.held_out) if settings.held_out else None
    if source.texts is not None and not trainer.texts:
        trainer.remember(folder / "embeddings", ["", *source.texts])
    role = trainer.role
    average = Average({"teacher": role.master, **trainer.texts}, settings.average)
    weights, optimizer = role.kept(trainer.optimizer)
    parts = {"teacher": weights, **trainer.texts, "optimizer": optimizer, "average": average}
    run = Run(folder, parts, settings.minutes, backbone.device, settings.save_minutes * 60, together)
    role.spread()
    together.begin_tracking(asdict(settings))
    noise = torch.Generator(backbone.device)
    totals: dict[str, list[Tensor]] = {}
    for step in run.steps(settings.steps, "pretrain"):
        g = generator_for(settings.seed, step)
        noise.manual_seed(settings.seed * 1_000_003 + step)
        decay = max(0.02, min(1.0, (1 - run.progress) / 0.5))
        set_rate(trainer.optimizer, settings.rate * min((step + 1) / WARM_UP, decay))
        part = part_of(settings, run.progress, g)
        source.at(step)
        values: list[Tensor] = []
        for _ in range(settings.accumulate):
            loss = trainer.loss(source, part, g, noise)
            (loss / settings.accumulate).backward()
            values.append(loss.detach())
        role.step(trainer.optimizer, trainer.others, settings.clip, together.average_gradients)
        average.update()
        run.samples += batch_of(settings, part) * settings.accumulate * together.count
        totals.setdefault(f"loss_{part}", []).append(torch.stack(values).mean())
        if (step + 1) % 50 == 0 or run.last:
            row = {name: float(together.mean(torch.stack(own).mean())) for name, own in totals.items()}
            if held is not None:
                swap_in(average, role)
                row["held_out"] = trainer.unseen(held)
                swap_in(average, role)
            run.log(**row)
            watch(row)
            totals = {}
        if (step + 1) % settings.sheet_every == 0:
            swap_in(average, role)
            sheet(trainer, source, folder / f"sheet-{step + 1:05d}.png")
            swap_in(average, role)
    swap_in(average, role)
    sheet(trainer, source, folder / "sheet.png")
    export(trainer, folder)
    together.end_tracking()
    together.wait()
    return folder / "teacher"


@torch.no_grad()
@torch.compiler.set_stance("force_eager")
def sheet(trainer: Pretrainer, source: Source, path: Path) -> None:
    """Fixed prompts with guidance: the low size in the first row, the full one below. The first process writes."""
    backbone, call = trainer.backbone, trainer.call
    g, frames = generator_for(trainer.settings.seed, 10**6), backbone.spec.frames
    prompts = source.prompts(SHEET // 4 if frames > 1 else SHEET, g)
    positive, negative = trainer.encode(prompts), trainer.encode([""] * len(prompts))
    rows: list[Tensor] = []
    for pixels in (backbone.spec.low, backbone.spec.high):
        size = backbone.latent_size(pixels)
        plan = two_stage(backbone.schedule, SHEET_STEPS, 0, size, size, eta=1.0, reinjection="mix")
        x0 = noise = torch.randn((len(prompts), backbone.channels, *size), generator=g).to(backbone.device)
        denoiser = Denoiser(call, positive, negative, backbone.spec.guidance)
        for event in CascadeSampler(backbone.schedule, plan).steps(denoiser, noise, g):
            x0 = event.estimate.x0
        made = backbone.pixels(x0)
        made = made if made.ndim == 4 else made[:, :, :: max(1, frames // 4)].transpose(1, 2).flatten(0, 1)
        rows.append(nn.functional.interpolate(made, backbone.spec.high, mode="nearest"))
    if trainer.together.first:
        save_sheet(torch.cat(rows), path, len(rows[0]))


def card_of(backbone: Any) -> dict[str, Any]:
    """The trained teacher's card: its base's, without what was measured of that one."""
    spec, file, plain = backbone.spec, backbone.folder / BACKBONE_CARD, BackboneSpec.__dataclass_fields__
    card = read_json(file) if file.is_file() else {}
    card |= {name: value for name, value in asdict(spec).items() if value != plain[name].default}
    left = ("id", "detail")
    return {name: value for name, value in card.items() if name not in left} | {"name": f"{spec.name}{AFTER}"}


def export(trainer: Pretrainer, folder: Path) -> None:
    """Write the pipeline's folder with what was trained in fp16; a LoRA alone as well. The first process does."""
    backbone: Any = trainer.backbone
    role, component = trainer.role, backbone.component
    network = role.whole()
    if not trainer.together.first:
        return
    settings = json.dumps(asdict(trainer.settings), indent=1) + "\n"
    if isinstance(role, Adapter):
        layers = {f"{component}_lora_layers": role.exported()}
        replace_folder(folder / "lora", lambda partial: backbone.pipe.save_lora_weights(partial, **layers))
        network = copy.deepcopy(role.network.base).float()
        network.fuse_lora(adapter_names=[role.name])
        network.unload_lora()

    def fill(partial: Path) -> None:
        # its own network, and what was said and measured of the old one
        made = {component: network, **trainer.texts}
        left = shutil.ignore_patterns(*made, "student", "README.md", "quality.json", "training.json", ".*")
        shutil.copytree(backbone.folder, partial, ignore=left, dirs_exist_ok=True)
        for name, one in made.items():
            one.to(torch.float16).save_pretrained(partial / name)
        (partial / BACKBONE_CARD).write_text(json.dumps(card_of(backbone), indent=1) + "\n")
        (partial / SETTINGS_FILE).write_text(settings)

    replace_folder(folder / "teacher", fill)
