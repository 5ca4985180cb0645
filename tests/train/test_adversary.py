"""The adversarial head: it learns to tell, and the student's gradient passes through it and moves nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rmd import cli
from rmd.backbones.base import Backbone
from rmd.backbones.loading import open_backbone
from rmd.checks import RequestError
from rmd.train import world
from rmd.train.adversary import Adversary, middle, telling_loss
from rmd.train.distiller import Distiller
from rmd.train.settings import Settings
from rmd.train.source import Source

CPU = torch.device("cpu")


class Bright(Source):
    """Two prompts, and latents that are all one."""

    def __init__(self, backbone: Backbone):
        self.shape = backbone.channels, *backbone.latent_size(backbone.spec.high)

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        return ["fox", "star"][:count]

    def latents(self, count: int, full: bool, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        return torch.ones(count, *self.shape), self.prompts(count, generator)


def opened(folder: Path) -> Backbone:
    backbone = open_backbone(folder, "tiny", CPU, torch.float32)
    backbone.network.requires_grad_(False)
    return backbone


def flat(weights: list[Tensor]) -> Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in weights])


@pytest.mark.parametrize("rank", [None, 2], ids=["full", "lora"])
def test_every_family_takes_part(tiny: Path, rank: int | None) -> None:
    backbone = opened(tiny)
    trainer = Distiller(backbone, Settings(gan_weight=0.5, batch=2, fake_updates=1, lora=rank, guidance=2.0))
    before = {name: flat(list(role.master.parameters())) for name, role in vars(trainer).items() if name in ROLES}
    head, g = flat(trainer.head), torch.Generator().manual_seed(0)
    values = trainer.iterate(Bright(backbone), True, g, g)
    assert values["telling"] > 0
    assert values["passing"] > 0
    for name, weights in before.items():
        assert not torch.equal(weights, flat(list(getattr(trainer, name).master.parameters()))), name
    assert not torch.equal(head, flat(trainer.head))
    left = [w for role in (trainer.student, trainer.fake) for w in role.network.parameters() if w.grad is not None]
    assert not left, "an update leaves no gradient to the next"
    assert trainer.adversary is not None
    assert not trainer.adversary.seen, "no features are kept"


ROLES = ("student", "fake")


def test_the_head_learns_to_tell(tiny_sdxl: Path) -> None:
    backbone = opened(tiny_sdxl)
    with torch.no_grad():
        prompt, g = backbone.encode(["fox", "star"]), torch.Generator().manual_seed(0)
    adversary = Adversary(backbone, prompt)
    optimizer = torch.optim.Adam(adversary.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(40):
        scores: list[Tensor] = []
        for level in (-1.0, 1.0):
            x = level + torch.randn(2, backbone.channels, 8, 8, generator=g)
            with adversary.looking():
                backbone.predict(x, 0.5, prompt)
            scores.append(adversary.scores())
        loss = telling_loss(scores[0], scores[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert float(scores[0].max()) < float(scores[1].min())


def test_its_gradient_comes_on_top_of_matching(tiny_sdxl: Path) -> None:
    """In proportion to its weight, and 0 is matching alone."""

    def gradient(weight: float) -> Tensor:
        trainer = Distiller(opened(tiny_sdxl), Settings(gan_weight=weight, batch=2, guidance=2.0))
        loss, _ = trainer.match(trainer.encode(["fox", "star"]), *(torch.Generator().manual_seed(1) for _ in range(2)))
        loss.backward()
        return flat([w.grad for w in trainer.student.network.parameters() if w.grad is not None])

    none, one, two = (gradient(weight) for weight in (0.0, 1.0, 2.0))
    assert (one - none).norm() > 1e-3 * none.norm()
    torch.testing.assert_close(two - none, 2 * (one - none), rtol=1e-3, atol=1e-6)


def test_the_middle_is_a_block(tiny: Path) -> None:
    network = opened(tiny).network
    assert any(middle(network) is part for part in network.modules())
    assert sum(p.numel() for p in middle(network).parameters()) > 0


def test_a_run_keeps_the_head(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "BLOCKS", {"cpu": 2})
    ask = ["train", "distill", "--backbone", str(tiny_sdxl), "--out", str(tmp_path / "run"), "--device", "cpu"]
    for one in ("world=emoji", "gan_weight=0.1", "batch=2", "warm_up=0", "fake_updates=1", "patience=1"):
        ask += ["--set", one]
    assert cli.main([*ask, "--steps", "2"]) == 0
    first = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["parts"]["adversary"]
    assert cli.main([*ask, "--steps", "3"]) == 0
    second = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["parts"]["adversary"]
    assert first.keys() == second.keys()
    moved = max(float((second[name] - first[name]).abs().max()) for name in first)
    assert 0 < moved < 0.01, "it went on from what was kept"
    assert (tmp_path / "run" / "student" / "rmd.json").is_file()


def test_bad_settings_are_a_sentence(tiny_sdxl: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("shard", "yes"), ("checkpointing", "yes")):
        with pytest.raises(RequestError, match="gan_weight must be 0 with shard or checkpointing"):
            Settings(gan_weight=0.5, **{name: value})
    with pytest.raises(RequestError, match="gan_weight"):
        Settings(gan_weight=-1)
    ask = ["train", "distill", "--backbone", str(tiny_sdxl), "--prompts", str(prompts), "--out", "nowhere"]
    assert cli.main([*ask, "--set", "gan_weight=0.1"]) == 2
    assert "gan_weight needs real ones" in capsys.readouterr().err
