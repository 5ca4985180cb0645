"""The updates of a distillation: guidance distillation, fake_score's denoising, the student's matching."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmd.backbones.adapter import dtype_of
from rmd.backbones.base import Backbone
from rmd.checks import RequestError
from rmd.method.denoiser import Conditioning, Denoiser
from rmd.method.transition import white
from rmd.train import losses
from rmd.train.adversary import SHARE, Adversary, passing_loss, telling_loss
from rmd.train.embeddings import Embeddings
from rmd.train.graphs import Replayed
from rmd.train.roles import Adapter, Role, Shared, Trained, compute_dtype
from rmd.train.rollout import Kept, draw_times, random_plan, random_steps, renoise, rollout
from rmd.train.settings import Settings
from rmd.train.shares import mesh_of, share_out
from rmd.train.source import Source
from rmd.train.together import Together


def repeat(conditioning: Conditioning, times: int) -> Conditioning:
    return {k: torch.cat([v] * times) for k, v in conditioning.items()}


def adam(weights: Iterable[nn.Parameter], rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(weights, lr=rate, betas=(0.0, 0.95), weight_decay=1e-4, fused=True)


class Distiller:
    """The three networks, their optimisers, and the losses of which an iteration is made."""

    def __init__(self, backbone: Backbone, settings: Settings, together: Together | None = None):
        self.settings, self.together = settings, together or Together(backbone.device)
        self.embeddings: Embeddings | None = None
        self.guidance = backbone.spec.guidance if settings.guidance is None else settings.guidance
        network: Any = backbone.network
        if settings.shard == "yes":
            if self.together.count == 1:
                raise RequestError("shard must be no for one process, not yes; start several with accelerate launch.")
            device, frozen = backbone.device, network.cpu()  # in this order: a pipeline is where its first part is
            mesh = mesh_of(device, self.together.count)
            self.student, self.fake = (
                Shared(copy.deepcopy(frozen).float().requires_grad_(True), device, mesh) for _ in range(2)
            )
            share_out(frozen, mesh, compute_dtype(device))
        elif settings.lora is None:
            self.student, self.fake = (
                Trained(copy.deepcopy(network).float().requires_grad_(True), backbone.device) for _ in range(2)
            )
            dtype = dtype_of(self.student.network)
            frozen = network if dtype_of(network) == dtype else copy.deepcopy(network).to(dtype)
        else:
            base = copy.deepcopy(network).requires_grad_(False)
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed)  # of the adapters' first weights
                self.student, self.fake = (Adapter(base, name, settings.lora) for name in ("student", "fake"))
            frozen = Role(base, None)
        if settings.checkpointing == "yes":
            for role in (self.student, self.fake):
                getattr(role.network, "base", role.network).enable_gradient_checkpointing()
        self.teacher, self.student_call, self.fake_call = (
            backbone.with_network(Replayed(network)) for network in (frozen, self.student.network, self.fake.network)
        )
        said = backbone.spec.negative if settings.negative is None else settings.negative
        self.negative = self.encode([said])
        self.adversary = Adversary(self.fake_call, self.negative) if settings.gan_weight else None
        self.head = list(self.adversary.parameters()) if self.adversary else []
        self.optimizer = adam(self.student.master.parameters(), settings.rate)
        self.fake_optimizer = adam([*self.fake.master.parameters(), *self.head], settings.fake_rate)

    def remember(self, folder: Path, prompts: Sequence[str]) -> None:
        """Encode all prompts that will be asked for, each process a share of them, and keep that in a folder."""
        found = Embeddings(folder, self.teacher.device, self.teacher.folder)
        found.fill(prompts[self.together.index :: self.together.count], self.encode)
        self.together.wait()
        self.embeddings = found

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Conditioning:
        """Prompts as the networks take them."""
        if self.embeddings is not None:
            return self.embeddings(texts)
        dtype = dtype_of(self.teacher.network)
        rows = self.teacher.encode(texts).items()
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in rows}

    def guided(self, prompt: Conditioning, count: int) -> Denoiser:
        """The teacher with its guidance, for a batch of `count`."""
        return Denoiser(self.teacher, prompt, repeat(self.negative, count), self.guidance)

    def white(self, x: Tensor | Sequence[int], g: torch.Generator) -> Tensor:
        """White noise of a shape, (B, …) with this process's B."""
        shape = x.shape if isinstance(x, Tensor) else tuple(x)
        return white(torch.empty(shape, device=self.teacher.device), self.together.share(g))

    def prompts(self, source: Source, g: torch.Generator) -> Conditioning:
        """This process's share of a batch of prompts, encoded."""
        return self.encode(list(self.together.rows(source.prompts(self.settings.batch * self.together.count, g))))

    def whole(self, x: Tensor) -> int:
        """The batch of all processes."""
        return len(x) * self.together.count

    def warm_up(self, prompt: Conditioning, x0: Tensor, g: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Guidance distillation on clean latents (B, C, *S) of either size: match the guided teacher in one call."""
        drawn = torch.rand(self.whole(x0), generator=g, device=g.device, dtype=torch.float64)
        schedule, steps = self.teacher.schedule, self.teacher.spec.teacher_steps
        t = schedule.paced(torch.as_tensor(self.together.rows(drawn)).cpu() * 0.95 + 0.05, x0.shape[2:], steps)
        x = schedule.add_noise(x0, self.white(x0, g), t)
        with torch.no_grad():
            target = self.guided(prompt, len(x0))(x, t).x0
        loss = losses.guidance_loss(Denoiser(self.student_call, prompt)(x, t).x0, target)
        return loss, {"guidance": loss.detach()}

    def begin_matching(self) -> None:
        """fake_score becomes a copy of the warmed student, its optimiser fresh."""
        self.fake.master.load_state_dict(self.student.master.state_dict())
        self.fake.spread()
        self.fake_optimizer.state.clear()

    def sample(self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator, kept: int) -> list[Kept]:
        """Steps of the student on a plan of the settings."""
        s = self.settings
        plan = random_plan(self.student_call, plans, s.plan_steps, s.plan_switch, s.eta, s.reinjection)
        count = len(next(iter(prompt.values())))
        noise = self.white((count, self.teacher.channels, *plan.size), g)
        return rollout(self.student_call, prompt, plan, random_steps(plan, kept, plans), noise, self.together.share(g))

    def renoised(self, kept: list[Kept], plans: torch.Generator, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """The samples noised again and their times, steps one after the other along the batch."""
        times = [torch.as_tensor(self.together.rows(draw_times(k, self.whole(k.x0), plans))) for k in kept]
        kind, schedule = self.settings.renoising, self.teacher.schedule
        x = [renoise(schedule, k, t, self.white(k.x0, g), kind) for k, t in zip(kept, times, strict=True)]
        return torch.cat(x), torch.cat(times)

    def real(self, source: Source, g: torch.Generator) -> tuple[Tensor, Conditioning]:
        """This process's share of a batch of latents at full size, with their prompts."""
        given = source.latents(self.settings.batch * self.together.count, True, g)
        if given is None:
            raise RequestError("latents is missing; gan_weight needs real ones (`train latents`).")
        x0, said = (self.together.rows(rows) for rows in given)
        return torch.as_tensor(x0).to(self.teacher.device), self.encode(list(said))

    def denoise(
        self,
        prompt: Conditioning,
        plans: torch.Generator,
        g: torch.Generator,
        real: tuple[Tensor, Conditioning] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """fake_score's loss on samples of the student as it is now, and with `real` the adversarial head's."""
        with torch.no_grad():
            kept = self.sample(prompt, plans, g, kept=1)
            x, t = self.renoised(kept, plans, g)
        x0, snr = kept[0].x0, torch.exp(self.teacher.schedule.logsnr(t)).to(x.device)
        with self.looking():
            estimate = Denoiser(self.fake_call, prompt)(x, t).x0
        loss = losses.denoising_loss(estimate, x0, snr)
        values = {"fake": loss.detach()}
        if self.adversary is not None and real is not None:
            made = self.adversary.scores()
            with self.looking():
                noised = self.teacher.schedule.add_noise(real[0], self.white(real[0], g), t)
                self.fake_call.predict(noised, t, real[1])
            telling = telling_loss(made, self.adversary.scores())
            loss, values["telling"] = loss + SHARE * telling, telling.detach()
        return loss, values

    def match(
        self, prompt: Conditioning, plans: torch.Generator, g: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's loss: towards the teacher's distribution."""
        kept = self.sample(prompt, plans, g, self.settings.kept)
        x0, many = torch.cat([k.x0 for k in kept]), repeat(prompt, len(kept))
        x, t = self.renoised(kept, plans, g)
        with torch.set_grad_enabled(self.adversary is not None), self.looking():
            fake_x0 = Denoiser(self.fake_call, many)(x, t).x0.detach()
        with torch.no_grad():
            teacher_x0 = self.guided(many, len(x0))(x, t).x0
        loss = losses.matching_loss(x0, teacher_x0, fake_x0)
        values = {"matching": loss.detach(), "teacher_fake": losses.agreement(teacher_x0, fake_x0)}
        if self.adversary is not None:
            passing = passing_loss(self.adversary.scores())
            loss, values["passing"] = loss + self.settings.gan_weight * passing, passing.detach()
        return loss, values

    def looking(self) -> AbstractContextManager[None]:
        """Within this the adversarial head, where there is one, sees fake_score's next call."""
        return self.adversary.looking() if self.adversary is not None else nullcontext()

    def update(self, role: Trained, loss: Callable[[], tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
        """One update of a network by the mean of `accumulate` losses."""
        values: dict[str, Tensor] = {}
        for _ in range(self.settings.accumulate):
            one, values = loss()
            if isinstance(role.network, Role):
                role.network.use()  # others were called since
            (one / self.settings.accumulate).backward()
        average = self.together.average_gradients
        if role is self.fake:
            role.step(self.fake_optimizer, self.head, self.settings.clip, average)
            return values
        role.step(self.optimizer, norm=self.settings.clip, average=average)
        if self.adversary is not None:  # the student's gradient came through them
            for weight in (*self.fake.network.parameters(), *self.head):
                weight.grad = None
        return values

    def warm(self, source: Source, step: int, g: torch.Generator, noise: torch.Generator) -> dict[str, Tensor]:
        """An iteration of the warm-up, on the source's latents of both sizes or else on the student's own samples."""
        full, batch = step % 2 == 0, self.settings.batch

        def loss() -> tuple[Tensor, dict[str, Tensor]]:
            given = source.latents(batch * (1 if full else 3) * self.together.count, full, g)
            if given is not None:
                x0, said = (self.together.rows(rows) for rows in given)
                return self.warm_up(self.encode(list(said)), torch.as_tensor(x0), noise)
            prompt = self.prompts(source, g)
            with torch.no_grad():
                x0 = self.sample(prompt, g, noise, kept=1)[0].x0
            return self.warm_up(prompt, x0, noise)

        return self.update(self.student, loss)

    def iterate(self, source: Source, train_student: bool, g: torch.Generator, noise: torch.Generator) -> Any:
        """An iteration of matching: fake_score catches up, then the student moves."""
        values: dict[str, Tensor] = {}

        for _ in range(self.settings.fake_updates):
            real = self.real(source, g) if self.adversary is not None else None
            values |= self.update(self.fake, lambda real=real: self.denoise(self.prompts(source, g), g, noise, real))
        if train_student:
            values |= self.update(self.student, lambda: self.match(self.prompts(source, g), g, noise))
        return values
