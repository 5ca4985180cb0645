"""A run's folder: a state that is whole whatever happens, and an end that is asked for."""

import os
import signal
from pathlib import Path

import pytest
import torch

from rmd.checks import RequestError
from rmd.train import loop
from rmd.train.loop import Run


def started(folder: Path, **more: float) -> tuple[Run, torch.nn.Linear]:
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 2)
    return Run(folder, {"net": net}, **more), net  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_end_finishes_its_step_and_saves(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    run, net = started(tmp_path)
    done = []

    def train() -> None:
        for step in run.steps(100, "test"):
            if step == 3:
                os.kill(os.getpid(), number)
            with torch.no_grad():
                net.weight.fill_(step)
            done.append(step)

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == [0, 1, 2, 3]
    assert signal.getsignal(number) == before
    again, net = started(tmp_path)
    assert again.step == 4
    assert net.weight[0, 0].item() == 3


def test_a_full_disk_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = started(tmp_path)
    run.step = 5
    run.save()
    whole = (tmp_path / loop.STATE).read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(whole[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(loop.torch, "save", full)
        run.step = 6
        with pytest.raises(RequestError, match="No space left"):
            run.save()
    assert (tmp_path / loop.STATE).read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [loop.STATE]
    assert started(tmp_path)[0].step == 5


def test_a_run_killed_in_mid_save_goes_on_from_the_state_before(tmp_path: Path) -> None:
    run, _ = started(tmp_path)
    run.step = 5
    run.save()
    (tmp_path / ".rmd-half.pt").write_bytes(b"half a state")  # what a killed process leaves
    assert started(tmp_path)[0].step == 5


def test_progress_follows_steps_or_the_clock(tmp_path: Path) -> None:
    run, _ = started(tmp_path, minutes=2.0)
    run.total, run.step, run.seconds = 10, 5, 0.0
    assert run.progress == 0.5
    run.seconds = 90.0
    assert run.progress == 0.75
    run.seconds = 500.0
    assert run.progress == 1
