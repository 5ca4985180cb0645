"""What is resident, what is let go, and that letting go gives the memory back."""

from __future__ import annotations

import gc
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from rmd.backbones import catalog, machine
from rmd.backbones.placement import Tuning, choose_offload, save_memory, tune
from rmd.checks import RequestError
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.request import make_request
from tests.tiny_flow import SD3_CARD, WAN_CARD, tiny_sd3, tiny_wan

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def folders(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    made = [str(tiny_sdxl)]
    for name, pipe, card in (("sd3", tiny_sd3(True), SD3_CARD), ("wan", tiny_wan(), WAN_CARD)):
        folder = tmp_path_factory.mktemp("pool") / name
        pipe.save_pretrained(folder)
        (folder / "backbone.json").write_text(json.dumps(card))
        made.append(str(folder))
    return made


def live_bytes() -> int:
    """Memory of all tensors that anything refers to."""
    gc.collect()
    seen: dict[int, int] = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and not thing.is_meta:
            storage = thing.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def one(session: Session, folder: str, seed: int = 1) -> Done:
    values = {"backbone": folder, "prompt": "a fox", "seed": seed, "teacher_steps": 2, "steps": 2, "switch": 1}
    return next(e for e in session.generate(make_request(values)) if isinstance(e, Done))


def test_switching_again_and_again_leaves_one_pipelines_tensors(folders: list[str]) -> None:
    session = Session(ModelPool(CPU))
    one(session, folders[0])
    start = live_bytes()
    for turn in range(1, 5):
        one(session, folders[turn % len(folders)])
        assert session.pool.name == folders[turn % len(folders)]
    one(session, folders[0])
    assert live_bytes() == pytest.approx(start, rel=0.03)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads Linux's /proc")
def test_switching_ten_times_gives_the_processs_memory_back(folders: list[str]) -> None:
    session = Session(ModelPool(CPU))
    for folder in (*folders, folders[0]):  # libraries load and allocators settle once
        one(session, folder)
    start = resident_bytes()
    for turn in range(1, 11):
        one(session, folders[turn % len(folders)])
    one(session, folders[0])
    assert resident_bytes() <= start * 1.03


def test_unloading_is_verified(folders: list[str], caplog: pytest.LogCaptureFixture) -> None:
    pool = ModelPool(CPU)
    pool.acquire(folders[0], None)
    assert pool.unload()
    held = pool.acquire(folders[0], None).teacher.network
    with caplog.at_level(logging.WARNING):
        assert not pool.unload()
    assert type(held).__name__ in caplog.text


def test_only_the_last_backbone_stays(folders: list[str]) -> None:
    pool = ModelPool(CPU)
    first, second, _ = folders
    kept = pool.acquire(first, None)
    assert pool.acquire(first, None) is kept
    other = pool.acquire(first, "none")
    assert other.teacher is kept.teacher  # another student needs no other teacher
    pool.acquire(second, None)
    assert [pool.resident(folder, None) for folder in folders] == [False, True, False]
    assert pool.name == second


def test_text_encoders_go_when_memory_is_short(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(ModelPool(CPU))
    plenty = one(session, folders[1])
    teacher: Any = session.pool.acquire(folders[1], None).teacher
    assert teacher.text_encoders()
    monkeypatch.setattr("rmd.engine.pool.free_gb", lambda device: 0.5)
    short = one(session, folders[1])
    assert teacher.text_encoders() == []
    assert short.student.image.tobytes() == plenty.student.image.tobytes()
    other = next(
        e
        for e in session.generate(make_request({"backbone": folders[1], "prompt": "a star", "teacher": False}))
        if isinstance(e, Done)
    )  # an unseen prompt reads them again
    assert other.student.image.size == (64, 64)
    assert teacher.text_encoders() == []


@pytest.mark.parametrize(
    ("device", "whole", "largest", "free", "level"),
    [
        (CUDA, 10, 6, 24, "none"), (CUDA, 22, 6, 24, "none"), (CUDA, 23, 6, 24, "model"), (CUDA, 60, 22, 24, "model"),
        (CUDA, 60, 28, 24, "group"), (CPU, 60, 28, 24, "none"), (torch.device("mps"), 60, 28, 24, "none"),
    ],
)  # fmt: skip
def test_the_least_offload_that_fits(
    device: torch.device, whole: float, largest: float, free: float, level: str
) -> None:
    assert choose_offload(device, whole, largest, free) == level


def test_large_results_are_decoded_in_tiles(folders: list[str]) -> None:
    vae: Any = tiny_sd3(False).vae
    save_memory(vae, 1024 * 1024)
    assert (vae.use_slicing, vae.use_tiling) == (True, False)
    save_memory(vae, 81 * 480 * 832)
    assert vae.use_tiling


def test_memory_is_known_for_this_machine() -> None:
    assert 0 < machine.free_gb(CPU) <= machine.memory_gb(CPU)


def test_too_little_memory_and_no_gpu_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = next(e for e in catalog.ENTRIES if e.id == "wan2.1-14b")
    monkeypatch.setattr(machine, "memory_gb", lambda device: 16.0)
    state = catalog.status(entry, CPU)
    assert "needs about 24 GB of memory; this machine has 16 GB." in state.problem
    assert "accelerator has 16 GB" in catalog.status(entry, CUDA).problem
    monkeypatch.setattr(machine, "memory_gb", lambda device: 128.0)
    assert "There is no GPU here" in catalog.status(entry, CPU).note
    monkeypatch.setattr(machine, "memory_gb", lambda device: 40.0)
    assert "kept in the machine's own memory" in catalog.status(entry, CUDA).note


def test_an_attention_backend_is_set_or_refused(folders: list[str]) -> None:
    pool = ModelPool(CPU, tuning=Tuning(attention="native"))
    network = pool.acquire(folders[2], None).teacher.network
    found = [p for module in network.modules() if (p := getattr(module, "processor", None)) is not None]
    processors: set[Any] = {p._attention_backend for p in found}
    assert [str(getattr(p, "value", p)) for p in processors] == ["native"]
    with pytest.raises(RequestError, match=r"attention 'magic' cannot be used here: .*must be one of"):
        tune(network, Tuning(attention="magic"))
    with pytest.raises(RequestError, match="would download"):
        tune(network, Tuning(attention="flash_hub"))
