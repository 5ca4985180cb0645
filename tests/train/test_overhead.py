"""What a distillation costs beside its networks: that the time is put where it belongs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmd import cli
from rmd.train.overhead import Inside


class Slow(nn.Linear):
    """A network whose calls take a while."""

    def forward(self, *given: Any) -> Any:
        time.sleep(0.05)
        return super().forward(*given)


def test_calls_backward_passes_and_optimisers_are_inside_and_nothing_else() -> None:
    network, inside, before = Slow(2, 1), Inside(torch.device("cpu")), Tensor.backward
    optimizer = torch.optim.AdamW(network.parameters())
    with inside.watching([network], [optimizer]):
        for _ in range(3):
            network(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            time.sleep(0.2)
    assert 0.15 <= inside.seconds < 0.6
    counted = inside.seconds
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert inside.seconds == counted
    assert Tensor.backward is before


@pytest.mark.parametrize("rank", ["", "2"], ids=["full", "lora"])
def test_the_command_says_it_in_a_line(
    tiny_sdxl: Path, prompts: Path, rank: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--lora", rank) if rank else ()
    command = ("train", "overhead", "--backbone", str(tiny_sdxl), "--prompts", str(prompts), "--device", "cpu")
    assert cli.main([*command, "--steps", "2", "--set", "batch=1", "--set", "fake_updates=1", *more]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "% around them" in said
    share = float(said.split("%")[0].split()[-1])
    assert 0 < share < 1000
