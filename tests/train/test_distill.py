"""The RMD loop on a tiny real pipeline: what is trained, where it is re-noised, how it resumes."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_backbone, open_student
from rmd.checks import RequestError
from rmd.method.plan import two_stage
from rmd.method.schedule import scaled_linear
from rmd.train import distill, loop, rollout
from rmd.train.loop import Replicas, Trained
from rmd.train.source import Pictures

SCHEDULE = scaled_linear()

WEIGHTS = "diffusion_pytorch_model.safetensors"


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
    prompt = distill.encode(backbone, ["fox", "star"])
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
    kept = rollout.Kept(x0, torch.randn(x0.shape, generator=g), end, end, 0.98)
    times = torch.full((4,), t, dtype=torch.float64)
    x = rollout.renoise(SCHEDULE, kept, times, torch.randn(x0.shape, generator=g), kind)
    assert float(x.mean()) == pytest.approx(2 * float(SCHEDULE.alpha(t)), abs=0.02)
    assert float(x.std()) == pytest.approx(float(SCHEDULE.sigma(t)), rel=0.02)
    if end == t and kind == "predicted":  # nothing is added: the very state the next step starts from
        assert torch.allclose(x, SCHEDULE.add_noise(x0, kept.eps, t), atol=1e-6)


def test_predicted_noise_stays_in_what_is_noised_again() -> None:
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(1, 4, 64, 64, generator=g)
    kept, t = rollout.Kept(torch.zeros_like(eps), eps, 0.5, 0.5, 0.98), torch.tensor([0.6], dtype=torch.float64)
    x = rollout.renoise(SCHEDULE, kept, t, torch.randn(eps.shape, generator=g))
    own = float((x * eps).mean() / x.std())
    expected = float(SCHEDULE.alpha(0.6) / SCHEDULE.alpha(0.5) * SCHEDULE.sigma(0.5) / SCHEDULE.sigma(0.6))
    assert own == pytest.approx(expected, abs=0.03)


def test_one_iteration_moves_student_and_fake_score_but_not_the_teacher(backbone: Backbone) -> None:
    trainer = distill.Distiller(backbone, 3.0, distill.Settings())
    networks = (trainer.student.master, trainer.fake.master, backbone.network)
    before = [next(n.parameters()).clone() for n in networks]
    prompt, g = distill.encode(trainer.teacher, ["fox", "star"]), torch.Generator().manual_seed(5)
    trainer.fake_update(prompt, g, g)
    assert torch.equal(before[0], next(networks[0].parameters()))
    assert not torch.equal(before[1], next(networks[1].parameters()))
    fake = next(networks[1].parameters()).clone()
    values = trainer.student_update(prompt, g, g)
    assert values["matching"] > 0
    assert not torch.equal(before[0], next(networks[0].parameters()))
    assert torch.equal(fake, next(networks[1].parameters()))
    assert torch.equal(before[2], next(networks[2].parameters()))


def test_matching_begins_with_a_copy_of_the_student(backbone: Backbone) -> None:
    trainer = distill.Distiller(backbone, 3.0, distill.Settings())
    prompt, g = distill.encode(trainer.teacher, ["fox", "star"]), torch.Generator().manual_seed(5)
    trainer.fake_update(prompt, g, g)
    trainer.warm_up(prompt, torch.randn(2, backbone.channels, 8, 8, generator=g), g)
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
    monkeypatch.setattr(loop, "default_dtype", lambda device: torch.bfloat16)
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


def test_export_can_be_opened_as_a_student(backbone: Backbone, tmp_path: Path) -> None:
    import json

    student = copy.deepcopy(backbone.network)
    expected = next(student.parameters()).clone()
    distill.export(student, tmp_path / "unet", {"iterations": 0})
    card = {
        "name": "s", "base_model": "tiny", "licence": "x", "default_steps": 4, "default_switch": 2, "eta": 0.7,
        "reinjection": "band", "training": "none", "quality": {},
    }  # fmt: skip
    (tmp_path / "rmd.json").write_text(json.dumps(card))
    assert "_name_or_path" not in json.loads((tmp_path / "unet" / "config.json").read_text())  # no path of a machine
    student, _ = open_student(tmp_path, backbone)
    assert torch.allclose(next(student.network.parameters()), expected, atol=1e-3)


def test_an_interrupted_stage_goes_on_as_if_nothing_had_happened(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm-up, fake_score alone, matching, sheets and export; stopped after three of six iterations and resumed."""
    settings = distill.Settings(steps=6, warm_up=2, batch=2, fake_updates=2, patience=1)

    def weights(name: str) -> torch.Tensor:
        state = torch.load(tmp_path / name / "state.pt", weights_only=True)
        return torch.cat([v.flatten() for v in state["parts"]["student"].values()])

    distill.train(tiny_sdxl, tmp_path / "whole", Pictures, settings)

    steps = distill.Run.steps

    def stopping(run: distill.Run, total: int, label: str):
        for step in steps(run, total, label):
            if step == 3:
                run.save()
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(distill.Run, "steps", stopping)
    with pytest.raises(KeyboardInterrupt):
        distill.train(tiny_sdxl, tmp_path / "parts", Pictures, settings)
    monkeypatch.setattr(distill.Run, "steps", steps)
    distill.train(tiny_sdxl, tmp_path / "parts", Pictures, settings)

    assert torch.allclose(weights("whole"), weights("parts"), atol=1e-6)
    exported = [load_file(tmp_path / name / "student" / "unet" / WEIGHTS) for name in ("whole", "parts")]
    assert (
        exported[0].keys()
        == exported[1].keys()
        == UNet2DConditionModel.from_pretrained(tiny_sdxl / "unet").state_dict().keys()
    )
    assert all(torch.allclose(one, exported[1][name], atol=1e-3) for name, one in exported[0].items())
    with Image.open(tmp_path / "parts" / "sheet-00006.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(2**20) or []) > 50, "pictures, not one colour"
