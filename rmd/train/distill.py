"""Stage 3: RMD, distribution matching along the resolution trajectory (method.md, section 4).

The student rolls out through the very sampler that inference uses, on random plans (K from 1 to 8, any switch, any
eta), so that every position of the demo's sliders is a trained one. Chosen steps keep their gradient; their clean
estimates, enlarged to full size where the step ran low, are matched against the teacher's full-size distribution.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_backbone, open_student
from rmd.method.cascade import CascadeSampler
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.method.plan import CascadePlan, two_stage
from rmd.train import losses
from rmd.train.loop import Average, Replicas, Run, generator_for, mixed, set_rate
from rmd.train.rollout import draw_times, random_plan, rollout
from rmd.train.sheets import save_sheet

SEED = 3
ETA, REINJECTION = 0.7, "band"  # of the default plan; training draws all of them
RATE, FAKE_RATE = 1e-4, 2e-4
BATCH = 8
THREADS = 2
WARM_UP = 300  # iterations of plain guidance distillation
FAKE_ONLY = 20  # iterations in which fake_score catches up before it guides


class Captions(Protocol):
    """Where prompts come from: the module of a backbone's world (rmd.worlds.emoji, rmd.worlds.clips)."""

    @staticmethod
    def captions_of(latents: dict[str, Tensor], pick: Tensor, generator: torch.Generator) -> list[str]: ...

    @staticmethod
    def draw_captions(count: int, generator: torch.Generator) -> list[str]: ...


def batch_size(conditioning: Conditioning) -> int:
    return len(next(iter(conditioning.values())))


def repeat(conditioning: Conditioning, times: int) -> Conditioning:
    return {k: torch.cat([v] * times) for k, v in conditioning.items()}


class Distiller:
    """The three networks, their optimisers and one iteration of training, two threads sharing every batch."""

    def __init__(self, backbone: Backbone, guidance: float):
        self.teacher, self.guidance = backbone, guidance
        self.student = copy.deepcopy(backbone.network).requires_grad_(True)
        self.fake = copy.deepcopy(backbone.network).requires_grad_(True)
        self.replicas = Replicas((self.student, self.fake), THREADS)
        self.optimizer = adam(self.student, RATE)
        self.fake_optimizer = adam(self.fake, FAKE_RATE)
        with torch.no_grad():
            self.empty = backbone.encode([""])

    def guided(self, prompt: Conditioning, count: int) -> Denoiser:
        """The teacher with its guidance, for a batch of `count`."""
        return Denoiser(self.teacher, prompt, repeat(self.empty, count), self.guidance)

    def warm_up(self, prompt: Conditioning, latents: Tensor, seed: int) -> dict[str, float]:
        """Guidance distillation on real latents (B, C, *S) of either size: match the guided teacher in one call."""

        def work(student: nn.Module, fake: nn.Module, prompt: Conditioning, x0: Tensor, seed: int) -> dict[str, float]:
            g = torch.Generator().manual_seed(seed)
            t = torch.rand(len(x0), generator=g, dtype=torch.float64) * 0.95 + 0.05
            x = self.teacher.schedule.add_noise(x0, torch.randn(x0.shape, generator=g), t)
            with mixed(cache=False):
                with torch.no_grad():
                    target = self.guided(prompt, len(x0))(x, t).x0
                loss = losses.guidance_loss(Denoiser(self.teacher.with_network(student), prompt)(x, t).x0, target)
            loss.backward()
            return {"guidance": loss.item()}

        count = len(latents) // THREADS
        shares = [
            (rows(prompt, i * count, count), latents[i * count : (i + 1) * count], seed * THREADS + i)
            for i in range(THREADS)
        ]
        values = self.replicas.accumulate(work, shares)
        self.update(self.student, self.optimizer)
        return values

    def match(self, prompt: Conditioning, seed: int, update_student: bool) -> dict[str, float]:
        """One rollout, one update of fake_score and (unless it still catches up) one of the student."""
        count = batch_size(prompt) // THREADS
        plan = random_plan(self.teacher, torch.Generator().manual_seed(seed))
        shares = [(rows(prompt, i * count, count), plan, seed * THREADS + i, update_student) for i in range(THREADS)]
        values = self.replicas.accumulate(self._match, shares)
        self.update(self.fake, self.fake_optimizer)
        if update_student:
            self.update(self.student, self.optimizer)
        return values

    def _match(
        self,
        student: nn.Module,
        fake: nn.Module,
        prompt: Conditioning,
        plan: CascadePlan,
        seed: int,
        update_student: bool,
    ) -> dict[str, float]:
        """The gradients of one thread's share."""
        # no autocast cache: a weight first cast without gradient would stay without one for the whole block
        g = torch.Generator().manual_seed(seed)
        schedule, count = self.teacher.schedule, batch_size(prompt)
        with mixed(cache=False):
            kept = rollout(self.teacher.with_network(student), prompt, plan, count, g)
            x0 = torch.cat([k.x0 for k in kept])
            many = repeat(prompt, len(kept))
            fake_denoiser = Denoiser(self.teacher.with_network(fake), many)

            t = draw_times(kept, count, g)
            x = schedule.add_noise(x0.detach(), torch.randn(x0.shape, generator=g), t)
            fake_loss = losses.denoising_loss(fake_denoiser(x, t).x0, x0.detach(), torch.exp(schedule.logsnr(t)))
            fake_loss.backward()
            values = {"fake": fake_loss.item()}
            if update_student:
                with torch.no_grad():
                    t = draw_times(kept, count, g)
                    x = schedule.add_noise(x0, torch.randn(x0.shape, generator=g), t)
                    fake_x0 = fake_denoiser(x, t).x0
                    teacher_x0 = self.guided(many, len(x0))(x, t).x0
                loss = losses.matching_loss(x0, teacher_x0, fake_x0)
                loss.backward()
                values |= {"matching": loss.item(), "teacher_fake": losses.agreement(teacher_x0, fake_x0)}
        return values

    def update(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def adam(network: nn.Module, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.0, 0.95), weight_decay=1e-4, fused=True)


def rows(conditioning: Conditioning, start: int, count: int) -> Conditioning:
    return {k: v[start : start + count] for k, v in conditioning.items()}


def train(
    base: Path,
    latents_file: Path,
    folder: Path,
    captions: Captions,
    steps: int = 1500,
    start: Path | None = None,
    warm_up: int | None = None,
) -> None:
    """Distil the backbone in `base` (a diffusers folder with its card); train or resume in `folder`.

    Writes `folder/student` (the network as fp16 safetensors and the rmd.json card's training facts) at the end.
    latents_file: the teacher stage's latents, for the warm-up; captions: what they and all other prompts say.
    start: a student folder to begin from instead of the teacher's own weights.
    warm_up: iterations of it, WARM_UP unless given.
    """
    warm_up = WARM_UP if warm_up is None else warm_up
    backbone = open_backbone(base, base.name, torch.device("cpu"), torch.float32)
    backbone.network.requires_grad_(False)
    distiller = Distiller(backbone, backbone.spec.guidance)
    if start is not None:
        distiller.student.load_state_dict(open_student(start, backbone)[0].network.state_dict())
    student = distiller.student
    average = Average({"student": student}, decay=0.99)
    run = Run(
        folder,
        {
            "student": student,
            "fake": distiller.fake,
            "optimizer": distiller.optimizer,
            "fake_optimizer": distiller.fake_optimizer,
            "average": average,
        },
    )
    latents = torch.load(latents_file, weights_only=True)
    totals: dict[str, list[float]] = {}
    for step in run.steps(steps, "distill"):
        g = generator_for(SEED, step)
        decay = max(0.1, min(1.0, (1 - step / steps) / 0.3, (step + 1) / 50))
        set_rate(distiller.optimizer, RATE * decay)
        set_rate(distiller.fake_optimizer, FAKE_RATE * decay)
        if step < warm_up:
            store = latents["low" if step % 2 else "high"]
            pick = torch.randint(len(store), (BATCH * (3 if step % 2 else 1),), generator=g)
            prompt = encode(backbone, captions.captions_of(latents, pick, g))
            values = distiller.warm_up(prompt, store[pick].float(), step)
            run.samples += len(pick)
        else:
            prompt = encode(backbone, captions.draw_captions(BATCH, g))
            values = distiller.match(prompt, step, update_student=step >= warm_up + FAKE_ONLY)
            run.samples += BATCH
        average.update()
        for name, value in values.items():
            totals.setdefault(name, []).append(value)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            run.log(**{k: sum(v) / len(v) for k, v in totals.items()})
            totals = {}
        if (step + 1) % 200 == 0 or step + 1 == steps:
            average.swap()
            sheet(backbone.with_network(student), captions, folder / f"sheet-{step + 1:05d}.png")
            average.swap()
    average.swap()
    facts = {"eta": ETA, "reinjection": REINJECTION, "guidance": distiller.guidance}
    export(student, folder / "student" / backbone.component, facts)


@torch.no_grad()
def encode(backbone: Backbone, texts: list[str]) -> Conditioning:
    return {k: v.float() for k, v in backbone.encode(texts).items()}


@torch.no_grad()
def sheet(student: Backbone, captions: Captions, path: Path) -> None:
    """Fixed prompts (columns) by the plans 1+0, 0+1, 1+1, 2+2, 3+1, 4+4 (rows), low + high steps.

    Eight pictures in a row, or four frames of each of three clips.
    """
    g = generator_for(SEED, 10**6)
    prompt = encode(student, captions.draw_captions(3 if student.spec.frames > 1 else 8, g))
    low_size, size = student.latent_size(student.spec.low), student.latent_size(student.spec.high)
    noise = torch.randn((batch_size(prompt), student.channels, *size), generator=g)
    pictures: list[Tensor] = []
    for low, high in ((1, 0), (0, 1), (1, 1), (2, 2), (3, 1), (4, 4)):
        plan = two_stage(student.schedule, low + high, low, low_size, size, eta=ETA, reinjection=REINJECTION)
        sampler, x0 = CascadeSampler(student.schedule, plan), noise
        with mixed(cache=False):
            for event in sampler.steps(Denoiser(student, prompt), noise, generator_for(SEED, 10**6 + 1)):
                x0 = event.estimate.x0
            pictures.append(student.pixels(x0))
    rows = [x if x.ndim == 4 else x[:, :, :: student.spec.frames // 4].transpose(1, 2).flatten(0, 1) for x in pictures]
    save_sheet(torch.cat(rows), path, len(rows[0]))


def export(student: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write the student's network in fp16 into `folder` and the facts of its training beside that."""
    student.to(torch.float16).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)  # diffusers notes the folder the base was loaded from
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder.parent / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
