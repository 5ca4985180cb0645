"""Results: what speed-up means, what JSON and PNG hold, and files that are whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rmd.backbones.cards import StudentSpec
from rmd.checks import RequestError
from rmd.disk import ensure_writable
from rmd.engine.files import save_png
from rmd.engine.results import Done, Output, Result, StageTiming, Timings
from rmd.method.plan import two_stage
from rmd.method.schedule import scaled_linear
from rmd.request import GenerateRequest

PICTURE = Image.new("RGB", (64, 64), "navy")
CARD = StudentSpec("Small", "Base", "MIT", 4, 2, 1.0, "band", "By hand.", {})


def finished(teacher: bool = True, card: StudentSpec | None = CARD) -> Done:
    plan = two_stage(scaled_linear(), 4, 2, (4, 4), (8, 8), eta=1, reinjection="band")
    stages = (StageTiming((4, 4), 2, 0.1), StageTiming((8, 8), 2, 0.3))
    fast = Output((PICTURE,), Timings(0.05, stages, 0.1, 0.05, 4))
    slow = Output((PICTURE,), Timings(0.05, (StageTiming((8, 8), 50, 14.9),), 0.0, 0.05, 100))
    request = GenerateRequest("id", "un renard 🦊", seed=7)
    return Done(request, plan, fast, slow if teacher else None, card, "cpu", "float32", "a CPU")


def test_speedup_is_teacher_over_student() -> None:
    """Denoiser: all network calls and the switch, 14.9 over 0.5. End to end: with encoding and decoder, 15 over 0.6."""
    speedup = finished().result.speedup
    assert speedup is not None
    assert speedup["denoiser"] == pytest.approx(14.9 / 0.5)
    assert speedup["end_to_end"] == pytest.approx(15.0 / 0.6)
    assert finished(teacher=False).result.speedup is None


def test_json_holds_everything_but_the_pictures() -> None:
    data = json.loads(json.dumps(finished().result.as_dict()))
    assert data["request"]["prompt"] == "un renard 🦊"
    assert [stage["size"] for stage in data["plan"]["stages"]] == [[4, 4], [8, 8]]
    assert data["timings"]["student"]["denoiser"] == pytest.approx(0.5)
    assert data["timings"]["teacher"]["nfe"] == 100
    assert data["distilled"] is True
    assert data["student"] == "Small"
    assert "teacher" not in finished(teacher=False).result.as_dict()["timings"]


def test_a_result_reads_its_own_json() -> None:
    for done in (finished(), finished(teacher=False), finished(card=None)):
        assert Result.from_dict(json.loads(json.dumps(done.result.as_dict()))) == done.result


def test_results_of_earlier_versions_are_read() -> None:
    """Settings and figures that did not exist yet take their defaults."""
    data = json.loads(json.dumps(finished().result.as_dict()))
    for name in ("frames", "fps", "hardware", "teacher_cached"):
        del data[name]
    del data["request"]["decoder"]
    found = Result.from_dict(data)
    assert (found.frames, found.hardware, found.request.decoder) == (1, "cpu", "full")
    assert found.speedup == finished().result.speedup


@pytest.mark.parametrize("broken", [{}, {"request": 3}, {"timings": []}, {"plan": {"stages": []}}, {"frames": "x"}])
def test_what_is_no_result_is_refused(broken: dict[str, Any]) -> None:
    data = {**finished().result.as_dict(), **broken} if broken else {}
    with pytest.raises(RequestError):
        Result.from_dict(data)


def test_label_without_a_student() -> None:
    assert finished(card=None).result.label == "not distilled: the teacher's own weights in the cascade"


def test_png_holds_its_settings(tmp_path: Path) -> None:
    settings = finished().result.as_dict()
    path = tmp_path / "new" / "student.png"
    save_png(PICTURE, path, settings)
    with Image.open(path) as image:
        image.load()
        assert json.loads(image.text["rmd"]) == json.loads(json.dumps(settings))  # type: ignore[attr-defined]
        assert image.convert("RGB").tobytes() == PICTURE.tobytes()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["student.png"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    save_png(PICTURE, path, {})
    with Image.open(path) as image:
        assert image.size == (64, 64)


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Lets this process write no file beyond `limit` bytes, which is what a full disk looks like to it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noisy_picture() -> Image.Image:
    """One that does not compress."""
    pixels = torch.randint(256, (256, 256, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


@pytest.mark.parametrize("existing", [True, False])
def test_no_room_for_the_whole_file(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "a.png"
    if existing:
        path.write_text("old")
    with small_files(20_000), pytest.raises(RequestError, match=r"a\.png cannot be written: "):
        save_png(noisy_picture(), path, {})
    assert [p.name for p in tmp_path.iterdir()] == (["a.png"] if existing else [])
    assert not existing or path.read_text() == "old"


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Image.Image, path: Path, **_: Any) -> None:
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(RequestError, match="cannot be written: No space left on device"):
        save_png(PICTURE, tmp_path / "a.png", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for call in (lambda: save_png(PICTURE, tmp_path / "out" / "a.png", {}), lambda: ensure_writable(tmp_path / "out")):
        with pytest.raises(RequestError, match="cannot be written"):
            call()
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RequestError, match="cannot be written: Permission denied"):
        save_png(PICTURE, tmp_path / "a.png", {})


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc, where nobody may make folders")
def test_a_folder_nobody_may_make() -> None:
    with pytest.raises(RequestError, match="/proc/rmd"):
        ensure_writable(Path("/proc/rmd"))


def test_trying_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    ensure_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
