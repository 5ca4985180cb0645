"""The RMD loop on a tiny real pipeline: what is trained, where it is re-noised, that two threads equal one."""

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
from rmd.method.plan import two_stage
from rmd.method.schedule import scaled_linear
from rmd.train import distill, rollout
from rmd.train.loop import Replicas
from rmd.worlds import emoji

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
    network = torch.nn.Module.requires_grad_(distill.copy.deepcopy(backbone.network), True)
    plan = two_stage(backbone.schedule, steps, switch, (4, 4), (8, 8), eta=0.5, reinjection="band")
    with torch.no_grad():
        prompt = backbone.encode(["fox", "star"])
    kept = rollout.rollout(backbone.with_network(network), prompt, plan, 2, torch.Generator().manual_seed(0))
    assert len(kept) == min(rollout.GRADIENT_STEPS, steps)
    for one in kept:
        assert one.x0.shape == (2, backbone.channels, 8, 8)
        network.zero_grad()
        one.x0.square().mean().backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_one_iteration_moves_student_and_fake_score_but_not_the_teacher(backbone: Backbone) -> None:
    torch.manual_seed(0)
    trainer = distill.Distiller(backbone, guidance=3.0)
    before = [p.clone() for n in (trainer.student, trainer.fake, backbone.network) for p in [next(n.parameters())]]
    with torch.no_grad():
        prompt = backbone.encode(["fox", "star"])
    trainer.match(prompt, seed=5, update_student=False)
    assert torch.equal(before[0], next(trainer.student.parameters()))
    values = trainer.match(prompt, seed=6, update_student=True)
    assert values["matching"] > 0
    assert not torch.equal(before[0], next(trainer.student.parameters()))
    assert not torch.equal(before[1], next(trainer.fake.parameters()))
    assert torch.equal(before[2], next(backbone.network.parameters()))


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

    trainer = distill.Distiller(backbone, guidance=3.0)
    expected = next(trainer.student.parameters()).clone()
    distill.export(trainer.student, tmp_path / "unet", {"iterations": 0})
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
    monkeypatch.setattr(distill, "WARM_UP", 2)
    monkeypatch.setattr(distill, "FAKE_ONLY", 1)
    g = torch.Generator().manual_seed(0)
    latents = {
        "high": torch.randn(6, 4, 8, 8, generator=g).half(),
        "low": torch.randn(6, 4, 4, 4, generator=g).half(),
        "concept": torch.arange(6),
        "colour": torch.arange(6),
    }
    torch.save(latents, tmp_path / "latents.pt")

    def weights(name: str) -> torch.Tensor:
        state = torch.load(tmp_path / name / "state.pt", weights_only=True)
        return torch.cat([v.flatten() for v in state["parts"]["student"].values()])

    distill.train(tiny_sdxl, tmp_path / "latents.pt", tmp_path / "whole", emoji, steps=6)

    steps = distill.Run.steps

    def stopping(run: distill.Run, total: int, label: str):
        for step in steps(run, total, label):
            if step == 3:
                run.save()
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(distill.Run, "steps", stopping)
    with pytest.raises(KeyboardInterrupt):
        distill.train(tiny_sdxl, tmp_path / "latents.pt", tmp_path / "parts", emoji, steps=6)
    monkeypatch.setattr(distill.Run, "steps", steps)
    distill.train(tiny_sdxl, tmp_path / "latents.pt", tmp_path / "parts", emoji, steps=6)

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
