"""The RMD loop on a tiny real pipeline: what is trained, where it is re-noised, how it resumes."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_backbone
from rmd.checks import RequestError
from rmd.method.denoiser import Conditioning
from rmd.method.plan import two_stage
from rmd.method.schedule import scaled_linear
from rmd.train import distill, roles, rollout
from rmd.train.distiller import Distiller
from rmd.train.loop import Replicas, Run
from rmd.train.roles import Trained
from rmd.train.settings import Settings
from rmd.train.source import Source
from rmd.train.world import World

SCHEDULE = scaled_linear()


class PromptList(Source):
    """Two prompts and no pictures."""

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return ["fox", "star"][:count]


def encoded(backbone: Backbone) -> Conditioning:
    with torch.no_grad():
        return backbone.encode(["fox", "star"])


def weights_of(role: Trained) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in role.master.parameters()])


@pytest.fixture(scope="module")
def backbone(tiny_sdxl: Path) -> Backbone:
    loaded = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
    loaded.network.requires_grad_(False)
    return loaded


@given(st.integers(1, 8).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, k))))
def test_renoising_never_goes_below_the_steps_own_end(plan_shape: tuple[int, int]) -> None:
    steps, switch = plan_shape
    plan = two_stage(SCHEDULE, steps, switch, (4, 4), (8, 8), eta=1.0, reinjection="band")
    for index in range(steps):
        low, high = rollout.interval(plan, index)
        assert 1 - (index + 1) / steps < low < high <= 0.98 + 1e-9
        if index >= switch > 0:  # after the switch: up to its time, unless the step's own interval is smaller
            assert high <= max(1 - switch / steps, 1 - (index + 1) / steps + 0.05) + 1e-9


@pytest.mark.parametrize(("steps", "switch"), [(1, 0), (1, 1), (4, 2), (8, 8)])
def test_rollout_keeps_full_size_estimates_with_gradient(backbone: Backbone, steps: int, switch: int) -> None:
    network = copy.deepcopy(backbone.network).requires_grad_(True)
    plan = two_stage(backbone.schedule, steps, switch, (4, 4), (8, 8), eta=0.5, reinjection="band")
    prompt = encoded(backbone)
    g = torch.Generator().manual_seed(0)
    chosen, noise = rollout.random_steps(plan, 2, g), torch.randn(2, backbone.channels, 8, 8, generator=g)
    kept = rollout.rollout(backbone.with_network(network), prompt, plan, chosen, noise, g)
    assert len(kept) == min(2, steps)
    for one in kept:
        assert one.x0.shape == one.eps.shape == (2, backbone.channels, 8, 8)
        assert not one.eps.requires_grad
        network.zero_grad()
        one.x0.square().mean().backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    with torch.no_grad():
        kept = rollout.rollout(backbone.with_network(network), prompt, plan, chosen, noise, g)
    assert not any(one.x0.requires_grad for one in kept)


@pytest.mark.parametrize("kind", ["predicted", "fresh"])
@pytest.mark.parametrize(("end", "t"), [(0.5, 0.5), (0.5, 0.8), (0.0, 0.3)])
def test_a_sample_noised_again_has_the_noise_level_of_its_time(kind: rollout.Renoising, end: float, t: float) -> None:
    """Unit-variance noise handed on plus diffusion give alpha·x0 + sigma·(white noise) exactly."""
    g = torch.Generator().manual_seed(0)
    x0 = torch.full((4, 4, 64, 64), 2.0)
    kept = rollout.Kept(x0, torch.randn(x0.shape, generator=g), end, end, 0.98, torch.clone)
    times = torch.full((4,), t, dtype=torch.float64)
    x = rollout.renoise(SCHEDULE, kept, times, torch.randn(x0.shape, generator=g), kind)
    assert float(x.mean()) == pytest.approx(2 * float(SCHEDULE.alpha(t)), abs=0.02)
    assert float(x.std()) == pytest.approx(float(SCHEDULE.sigma(t)), rel=0.02)
    if end == t and kind == "predicted":  # nothing is added: the very state the next step starts from
        assert torch.allclose(x, SCHEDULE.add_noise(x0, kept.eps, t), atol=1e-6)


def test_predicted_noise_stays_in_what_is_noised_again() -> None:
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(1, 4, 64, 64, generator=g)
    kept, t = (
        rollout.Kept(torch.zeros_like(eps), eps, 0.5, 0.5, 0.98, torch.clone),
        torch.tensor([0.6], dtype=torch.float64),
    )
    x = rollout.renoise(SCHEDULE, kept, t, torch.randn(eps.shape, generator=g))
    own = float((x * eps).mean() / x.std())
    expected = float(SCHEDULE.alpha(0.6) / SCHEDULE.alpha(0.5) * SCHEDULE.sigma(0.5) / SCHEDULE.sigma(0.6))
    assert own == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("rank", [None, 2], ids=["full", "lora"])
def test_one_iteration_moves_student_and_fake_score_but_not_the_teacher(backbone: Backbone, rank: int | None) -> None:
    trainer = Distiller(backbone, Settings(lora=rank, batch=2, guidance=3.0))
    source, g = PromptList(), torch.Generator().manual_seed(5)
    frozen = {n: p.clone() for n, p in backbone.network.state_dict().items()}
    student, fake = weights_of(trainer.student), weights_of(trainer.fake)
    trainer.iterate(source, False, g, g)
    assert torch.equal(student, weights_of(trainer.student))
    assert not torch.equal(fake, weights_of(trainer.fake))
    fake = weights_of(trainer.fake)
    values = trainer.update(trainer.student, lambda: trainer.match(trainer.encode(["fox", "star"]), g, g))
    assert values["matching"] > 0
    assert not torch.equal(student, weights_of(trainer.student))
    assert torch.equal(fake, weights_of(trainer.fake))
    assert all(torch.equal(p, frozen[n]) for n, p in backbone.network.state_dict().items())


def test_adapters_on_one_base_are_three_networks(backbone: Backbone) -> None:
    """The teacher is the base as it was; student and fake_score differ from it and from each other once trained."""
    trainer = Distiller(backbone, Settings(lora=2))
    prompt, x = trainer.encode(["fox"]), torch.randn(1, backbone.channels, 8, 8)

    def outputs() -> list[torch.Tensor]:
        calls = (backbone, trainer.teacher, trainer.student_call, trainer.fake_call)
        with torch.no_grad():
            return [call.predict(x, 0.5, prompt) for call in calls]

    bare, teacher, student, fake = outputs()
    assert torch.allclose(bare, teacher, atol=1e-5)
    assert torch.allclose(teacher, student, atol=1e-5)
    assert torch.allclose(teacher, fake, atol=1e-5)
    with torch.no_grad():
        for role, size in ((trainer.student, 0.3), (trainer.fake, -0.3)):
            for weight in role.master.parameters():
                weight.add_(size)
    bare, teacher, student, fake = outputs()
    assert torch.allclose(bare, teacher, atol=1e-5)
    assert not torch.allclose(teacher, student, atol=1e-3)
    assert not torch.allclose(student, fake, atol=1e-3)


def test_an_adapter_that_is_in_use_is_not_chosen_again(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing goes through every layer of the base, which takes as long as a call of a large one."""
    trainer, chosen = Distiller(backbone, Settings(lora=2)), []
    base = trainer.student.network.base
    choose, leave = base.set_adapter, base.disable_adapters
    monkeypatch.setattr(base, "set_adapter", lambda name: (chosen.append(name), choose(name)))
    monkeypatch.setattr(base, "disable_adapters", lambda: (chosen.append("none"), leave()))
    prompt, x = trainer.encode(["fox"]), torch.randn(1, backbone.channels, 8, 8)
    with torch.no_grad():
        for call in (trainer.fake_call, trainer.student_call, trainer.student_call, trainer.teacher, trainer.teacher):
            call.predict(x, 0.5, prompt)
    assert chosen[-2:] == ["student", "none"]
    assert len(chosen) <= 3


@pytest.mark.parametrize("rank", [None, 2], ids=["full", "lora"])
def test_recomputed_activations_give_the_same_update(backbone: Backbone, rank: int | None) -> None:
    """A checkpointed call runs again in backward, after other roles have used the base."""

    def updated(checkpointing: str) -> tuple[torch.Tensor, torch.Tensor]:
        trainer = Distiller(backbone, Settings(lora=rank, batch=2, checkpointing=checkpointing, fake_updates=2))
        g = torch.Generator().manual_seed(5)
        for step in range(3):
            trainer.iterate(PromptList(), step > 0, g, g)
        return weights_of(trainer.student), weights_of(trainer.fake)

    for plain, again in zip(updated("no"), updated("yes"), strict=True):
        assert torch.allclose(plain, again, atol=1e-6)


def test_rollouts_that_are_accumulated_count_as_their_mean(backbone: Backbone) -> None:
    trainer = Distiller(backbone, Settings(accumulate=2, clip=1000.0))
    parameter, factors = next(trainer.student.master.parameters()), [1.0, 3.0]

    def loss() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return next(trainer.student.network.parameters()).float().sum() * factors.pop(), {}

    steps: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.optimizer, "step", lambda: steps.append(parameter.grad.clone()))
        trainer.update(trainer.student, loss)
    assert not factors
    assert torch.allclose(steps[0], torch.full_like(steps[0], 2.0))


def test_matching_begins_with_a_copy_of_the_student(backbone: Backbone) -> None:
    trainer = Distiller(backbone, Settings(batch=2))
    source, g = PromptList(), torch.Generator().manual_seed(5)
    trainer.iterate(source, False, g, g)
    for step in range(2):
        assert trainer.warm(source, step, g, g)["guidance"] > 0
    trainer.begin_matching()
    student, fake = trainer.student.master.state_dict(), trainer.fake.master.state_dict()
    assert all(torch.equal(value, fake[name]) for name, value in student.items())
    assert not trainer.fake_optimizer.state


def test_fake_score_has_caught_up_when_its_loss_no_longer_falls() -> None:
    watch = distill.CatchUp(patience=3)
    for loss in (9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.5, 3.5):
        watch.add(loss)
        assert not watch.done
    for loss in (3.5, 3.5, 3.5, 3.5):
        watch.add(loss)
    assert watch.done
    again = distill.CatchUp(3)
    again.load_state_dict(watch.state_dict())
    assert again.done


def test_losses_that_are_no_numbers_stop_a_run() -> None:
    distill.watch({"fake": 0.3})
    for bad in (float("nan"), float("inf"), 1e6):
        with pytest.raises(RequestError, match="fake"):
            distill.watch({"matching": 0.1, "fake": bad})


def test_a_half_precision_copy_follows_its_masters(monkeypatch: pytest.MonkeyPatch) -> None:
    """On hardware that is fast in bf16, updates too small for it still add up in the fp32 weights."""
    monkeypatch.setattr(roles, "default_dtype", lambda device: torch.bfloat16)
    net = torch.nn.Linear(8, 8, bias=False)
    trained = Trained(net, torch.device("cpu"))
    start, optimizer = net.weight.detach().clone(), torch.optim.SGD(net.parameters(), lr=1e-4)
    for _ in range(100):
        trained.network(torch.ones(1, 8, dtype=torch.bfloat16)).float().sum().backward()
        trained.step(optimizer, norm=1e9)
    assert torch.allclose(net.weight, start - 100 * 1e-4, atol=1e-5)
    assert torch.equal(trained.network.weight, net.weight.bfloat16())


def test_two_replicas_give_the_gradient_of_one_batch() -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(5, 3)
    x = torch.randn(8, 5)

    def work(module: torch.nn.Module, share: torch.Tensor) -> dict[str, float]:
        loss = module(share).square().mean()
        loss.backward()
        return {"loss": loss.item()}

    values = Replicas((net,), 2).accumulate(work, [(x[:4],), (x[4:],)])
    shared = net.weight.grad
    net.weight.grad = None
    whole = net(x).square().mean()
    whole.backward()
    assert shared is not None
    assert torch.allclose(shared, net.weight.grad)
    assert values["loss"] == pytest.approx(whole.item())


@pytest.mark.parametrize("rank", [pytest.param(None, marks=pytest.mark.slow), 2], ids=["full", "lora"])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    rank: int | None, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm-up, fake_score alone, matching, sheets and export; stopped after three of six iterations and resumed."""
    settings = Settings(steps=6, warm_up=2, batch=2, fake_updates=2, patience=1, lora=rank)

    def distilled(name: str) -> None:
        loaded = open_backbone(tiny_sdxl, "tiny", torch.device("cpu"), torch.float32)
        distill.train(loaded, World("emoji", loaded, 0), settings, tmp_path / name)

    def weights(name: str) -> torch.Tensor:
        state = torch.load(tmp_path / name / "state.pt", weights_only=True)
        return torch.cat([v.flatten() for v in state["parts"]["student"].values()])

    distilled("whole")

    steps = Run.steps

    def stopping(run: Run, total: int, label: str):
        for step in steps(run, total, label):
            if step == 3:
                run.save()
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(Run, "steps", stopping)
    with pytest.raises(KeyboardInterrupt):
        distilled("parts")
    monkeypatch.setattr(Run, "steps", steps)
    distilled("parts")

    assert torch.allclose(weights("whole"), weights("parts"), atol=1e-6)
    files = [list((tmp_path / name / "student").rglob("*.safetensors")) for name in ("whole", "parts")]
    assert [len(found) for found in files] == [1, 1]
    one, other = (load_file(found[0]) for found in files)
    assert all(torch.allclose(value, other[name], atol=1e-3) for name, value in one.items())
    with Image.open(tmp_path / "parts" / "sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(2**20) or []) > 50, "pictures, not one colour"
