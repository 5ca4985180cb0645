"""Teachers kept on disk: found by what decides them, bounded, and never half there."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rmd.engine.results import Done, Output
from rmd.engine.session import Session
from rmd.engine.teacher_cache import TeacherCache
from rmd.request import GenerateRequest, make_request
from rmd.serve.offer import Offer
from rmd.serve.runner import Runner


@pytest.fixture
def request_(tiny_sdxl: Path) -> GenerateRequest:
    return make_request({"backbone": str(tiny_sdxl), "prompt": "a fox", "seed": 3, "teacher_steps": 2})


@pytest.fixture
def done(request_: GenerateRequest) -> Done:
    return next(event for event in Session(previews=False).generate(request_) if isinstance(event, Done))


def test_what_was_kept_comes_back_as_it_was(done: Done, tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    assert cache.get(done.request) is None
    cache.put(done)
    found = cache.get(replace(done.request, steps=2, switch=1, eta=0.5))  # these do not decide the teacher
    assert found is not None
    output, measured = found
    assert done.teacher is not None
    assert output.image.tobytes() == done.teacher.image.tobytes()
    assert output.timings == done.teacher.timings
    assert output.timings.nfe == done.teacher.timings.nfe
    assert re.fullmatch(r".*CPU.*, \w+, on 20\d\d-\d\d-\d\d", measured)


@pytest.mark.parametrize(
    "other", [{"prompt": "a star"}, {"negative": "x"}, {"seed": 4}, {"teacher_steps": 3}, {"guidance": 2.0}], ids=str
)
def test_other_settings_are_another_teacher(done: Done, tmp_path: Path, other: dict[str, object]) -> None:
    cache = TeacherCache(tmp_path)
    cache.put(done)
    assert cache.get(replace(done.request, **other)) is None


def test_other_weights_are_another_teacher(done: Done, tiny_sdxl: Path, tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    cache.put(done)
    weights = next((tiny_sdxl / "unet").glob("*.safetensors"))
    before = weights.stat()
    os.utime(weights, (before.st_atime, before.st_mtime + 5))
    assert cache.get(done.request) is None
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.get(done.request) is not None


def test_clips_keep_every_frame(done: Done, tmp_path: Path) -> None:
    assert done.teacher is not None
    first = done.teacher.image
    frames = (first, first.transpose(0), first.transpose(1), first.transpose(1))
    teacher = Output(frames, done.teacher.timings, fps=12)
    cache = TeacherCache(tmp_path)
    cache.put(replace(done, teacher=teacher))
    found = cache.get(done.request)
    assert found is not None
    assert [frame.tobytes() for frame in found[0].frames] == [frame.tobytes() for frame in frames]
    assert found[0].fps == 12


def test_the_oldest_make_room(done: Done, tmp_path: Path) -> None:
    TeacherCache(tmp_path / "one").put(done)
    size = next((tmp_path / "one").glob("*.png")).stat().st_size
    cache = TeacherCache(tmp_path, limit=int(2.5 * size))
    requests = [replace(done.request, seed=seed) for seed in range(10, 14)]
    for age, request in enumerate(requests):
        cache.put(replace(done, request=request))
        path = max(tmp_path.glob("*.png"), key=lambda p: p.stat().st_mtime_ns)
        os.utime(path, (0, 1000 + age))
    assert [cache.get(request) is not None for request in requests] == [False, False, True, True]


def test_damage_and_an_unwritable_folder_only_cost_time(done: Done, tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path)
    cache.put(done)
    path = next(tmp_path.glob("*.png"))
    path.write_bytes(path.read_bytes()[:100])
    assert cache.get(done.request) is None
    (tmp_path / "file").write_text("")
    TeacherCache(tmp_path / "file" / "folder").put(done)


def test_the_app_says_that_a_teacher_is_cached(tiny_sdxl: Path, tmp_path: Path) -> None:
    runner = Runner(Session(), Offer([tiny_sdxl]), tmp_path / "out", cache=TeacherCache(tmp_path / "teachers"))
    values = {"backbone": tiny_sdxl.name, "prompt": "a fox", "seed": 3, "teacher_steps": 4}
    runs = [list(runner.run(runner.request(values), "ann")) for _ in range(2)]
    first, second = (next(event for event in run if isinstance(event, Done)) for run in runs)
    assert first.teacher is not None
    assert second.teacher is not None
    assert first.teacher_cached is None
    assert second.teacher_cached
    assert second.teacher.timings == first.teacher.timings
    assert second.result.as_dict()["teacher_cached"] == second.teacher_cached
    assert second.request.teacher
    assert len(runs[1]) < len(runs[0]), "no teacher steps the second time"
