"""The distillation losses as functions of tensors."""

import pytest
import torch

from rmd.train import losses


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_matching_gradient_points_from_fake_to_teacher() -> None:
    x0 = random(0, 2, 4, 8, 8).requires_grad_()
    teacher, fake = random(1, 2, 4, 8, 8), random(2, 2, 4, 8, 8)
    losses.matching_loss(x0, teacher, fake).backward()
    assert x0.grad is not None
    step = -x0.grad.flatten(1)
    direction = (teacher - fake).flatten(1)
    assert (torch.cosine_similarity(step, direction) > 0.7).all()
    assert torch.equal(step.sign(), direction.sign())


def test_matching_rests_when_teacher_and_fake_agree() -> None:
    x0 = random(0, 2, 4, 8, 8).requires_grad_()
    same = random(1, 2, 4, 8, 8)
    loss = losses.matching_loss(x0, same, same)
    loss.backward()
    assert x0.grad is not None
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert x0.grad.abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 4, 5, 8, 8)])
def test_means_run_over_all_but_the_batch(shape: tuple[int, ...]) -> None:
    x = random(0, *shape)
    assert losses.per_sample(x).shape == (3,)
    assert torch.allclose(losses.per_sample(x)[1], x[1].mean())


def test_each_sample_has_its_own_scale() -> None:
    """A sample far from the teacher does not drown one that is near (the scale is per sample, not per batch)."""
    x0 = torch.zeros(2, 4, 8, 8)
    teacher = torch.stack([torch.full((4, 8, 8), 10.0), torch.full((4, 8, 8), 1.0)])
    fake = torch.zeros_like(teacher)
    both = losses.matching_loss(x0, teacher, fake)
    assert both.item() == pytest.approx(0.984, abs=0.02)  # each sample contributes about |target| / |x0 − teacher| = 1


def test_denoising_weight_is_the_velocity_error() -> None:
    """With v-prediction, (snr + 1)·|x0 error|² is the error of v: checked through the definition v = a·eps − s·x0."""
    a, s = 0.6, 0.8
    x0, eps, v = random(0, 2, 4, 8, 8), random(1, 2, 4, 8, 8), random(2, 2, 4, 8, 8)
    estimate = a * (a * x0 + s * eps) - s * v
    snr = torch.full((2,), (a / s) ** 2)
    expected = (v - (a * eps - s * x0)).square().mean()
    assert losses.denoising_loss(estimate, x0, snr).item() == pytest.approx(expected.item(), rel=1e-4)


def test_weight_is_bounded_near_clean() -> None:
    x0, estimate = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    assert losses.denoising_loss(estimate, x0, torch.tensor([1e9])).item() == pytest.approx(20.0)
