"""One result on two processes (gloo, on the CPU) is the same as on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmd.backbones.parallel import split
from rmd.checks import RequestError
from rmd.cli import main
from tests.tiny import tiny_unet
from tests.tiny_flow import WAN_CARD, tiny_sd3_transformer, tiny_wan
from tests.tiny_qwen import FLUX2_CARD, tiny_flux2

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, torch
torch.set_num_threads(1)
torch.cpu.get_capabilities = dict
from rmd.backbones import catalog, parallel
from rmd.backbones.outline import read_outline
from rmd.backbones.placement import Tuning
from rmd.engine.pool import ModelPool
from rmd.engine.session import Session

folder, sizes = sys.argv[1], sys.argv[2:]
tokens = []

def heard(module, args, kwargs):
    tokens.append((args[0] if args else kwargs["hidden_states"]).shape[1])

with parallel.joined(2) as first:
    for size in sizes:
        values = {"backbone": folder, "prompt": "a fox", "seed": 3, "teacher_steps": 2, "size": size}
        request = parallel.agreed(read_outline(catalog.find(folder), None).request(values))
        found = []
        for processes in (1, 2):
            session = Session(ModelPool(torch.device("cpu"), Tuning(processes=processes)))
            network = session.pool.acquire(folder, None).teacher.network
            blocks = network.blocks if hasattr(network, "blocks") else network.transformer_blocks
            tokens.clear()
            blocks[-1].register_forward_pre_hook(heard, with_kwargs=True)
            *_, done = session.generate(request)
            found.append((done.student.latents, done.teacher.latents, max(tokens)))
        (s, t, whole), (shared_s, shared_t, part) = found
        assert part == whole // 2, (whole, part)
        torch.testing.assert_close(shared_s, s, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(shared_t, t, atol=1e-4, rtol=1e-4)
    if first:
        print("equal")
"""


def run_two(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["wan", "flux2"])
def test_two_processes_make_what_one_makes(family: str, tmp_path: Path) -> None:
    """Where two divides the tokens: gloo gathers no unequal parts."""
    folder, script = tmp_path / "tiny", tmp_path / "program.py"
    script.write_text(PROGRAM)
    pipe, card, sizes = {
        "wan": (tiny_wan, WAN_CARD, ["64x48", "80x64"]),
        "flux2": (tiny_flux2, FLUX2_CARD, ["64x64"]),
    }[family]
    pipe().save_pretrained(folder)
    (folder / "backbone.json").write_text(json.dumps(card))
    done = run_two(script, str(folder), *sizes)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


def test_networks_without_a_plan_are_refused() -> None:
    for network in (tiny_unet(0), tiny_sd3_transformer(0)):
        with pytest.raises(RequestError, match=f"{type(network).__name__} cannot be split among processes"):
            split(network, 2)


def test_the_command_needs_its_processes(tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["generate", "--backbone", str(tiny_sdxl), "--prompt", "a fox", "--out", str(tmp_path / "out")]
    assert main([*ask, "--context-parallel", "2"]) == 2
    assert "needs 2 processes: torchrun --nproc-per-node 2" in capsys.readouterr().err
    assert main([*ask, "--context-parallel", "0"]) == 2
    assert "--context-parallel must be 1 to 64, not 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
