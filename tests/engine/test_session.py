"""Session: one request at a time, stoppable at every step, and the lock free whatever happens."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from rmd.checks import Cancelled, RequestError
from rmd.engine.events import Decoded, Event, Loading, Progress, Waiting
from rmd.engine.pool import ModelPool
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.method.plan import Stage
from rmd.request import GenerateRequest, make_request

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(ModelPool(CPU))


@pytest.fixture
def settings(tiny_sdxl: Path, tiny_student: Path) -> dict[str, Any]:
    return {
        "backbone": str(tiny_sdxl), "student": str(tiny_student), "prompt": "a fox on a blue background",
        "seed": 5, "teacher_steps": 6,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(session: Session) -> Iterator[None]:
    yield
    assert not session._lock.locked()
    assert not teacher_threads()


def teacher_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "teacher"]


def done(session: Session, request: GenerateRequest) -> Done:
    last = list(session.generate(request))[-1]
    assert isinstance(last, Done)
    return last


def same(a: Image.Image, b: Image.Image) -> bool:
    return ImageChops.difference(a, b).getbbox() is None


def brief(event: Event) -> str:
    name = type(event).__name__.lower()
    return f"{event.role} {name}" if isinstance(event, Progress | Decoded) else name


def test_the_order_of_events(tiny_sdxl: Path, settings: dict[str, Any]) -> None:
    fresh = Session(ModelPool(CPU))
    expected = ["student progress"] * 4 + ["student decoded"] + ["teacher progress"] * 6 + ["teacher decoded", "done"]
    warmed = ["warming"] * 4  # the student at two sizes, the guided teacher, the decoder
    assert [brief(e) for e in fresh.generate(make_request(settings))] == [*["loading"] * 5, *warmed, *expected]
    assert [brief(e) for e in fresh.generate(make_request(settings))] == expected


def test_progress_says_where_it_is(session: Session, settings: dict[str, Any]) -> None:
    events = [e for e in session.generate(make_request(settings)) if isinstance(e, Progress)]
    student = [(e.index, e.total, e.size) for e in events if e.role == "student"]
    assert student == [(1, 4, (4, 4)), (2, 4, (4, 4)), (3, 4, (8, 8)), (4, 4, (8, 8))]
    assert [(e.index, e.total, e.size) for e in events if e.role == "teacher"] == [(i, 6, (8, 8)) for i in range(1, 7)]
    assert all(e.preview is not None and e.preview.size == (e.size[1], e.size[0]) for e in events)


@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_cancel_then_generate(session: Session, settings: dict[str, Any], after: int) -> None:
    """In the student's steps, before its decoding, between the two, in the teacher's."""
    done(session, make_request(settings))  # models are loaded from here on
    cancel = threading.Event()
    events = session.generate(make_request(settings), cancel)
    for _ in range(after):
        next(events)
    cancel.set()
    with pytest.raises(Cancelled):
        next(events)
    assert not session._lock.locked()
    assert not teacher_threads()
    assert done(session, make_request(settings)).teacher is not None


def test_cancel_before_the_start(session: Session, settings: dict[str, Any]) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        list(session.generate(make_request(settings), cancel))


@pytest.mark.parametrize("until", ["student progress", "student decoded", "teacher progress"])
def test_closing_in_the_middle_frees_everything(session: Session, settings: dict[str, Any], until: str) -> None:
    events = session.generate(make_request(settings))
    for event in events:
        if brief(event) == until:
            break
    assert session._lock.locked()
    events.close()  # type: ignore[attr-defined]
    assert not session._lock.locked()
    assert not teacher_threads()
    done(session, make_request(settings))


def test_two_requests_at_once_take_turns(session: Session, settings: dict[str, Any]) -> None:
    done(session, make_request(settings))
    order: list[tuple[str, str]] = []
    waiting, errors = threading.Event(), []

    def run(name: str, seed: int) -> None:
        try:
            for event in session.generate(make_request({**settings, "seed": seed})):
                order.append((name, brief(event)))
                if name == "first":  # hold the accelerator until the second has come
                    waiting.wait(60)
                elif isinstance(event, Waiting):
                    waiting.set()
        except BaseException as error:
            errors.append(error)

    first = threading.Thread(target=run, args=("first", 1))
    first.start()
    while not order:
        threading.Event().wait(0.01)
    second = threading.Thread(target=run, args=("second", 2))
    second.start()
    for thread in (first, second):
        thread.join(120)
    assert not errors
    assert order.count(("first", "done")) == order.count(("second", "done")) == 1
    assert ("second", "waiting") in order
    order.remove(("second", "waiting"))
    turn = order.index(("first", "done")) + 1
    assert {name for name, _ in order[:turn]} == {"first"}
    assert {name for name, _ in order[turn:]} == {"second"}


def test_cancel_while_waiting(session: Session, settings: dict[str, Any]) -> None:
    first = session.generate(make_request(settings))
    next(first)
    cancel = threading.Event()
    second = session.generate(make_request(settings), cancel)
    assert next(second) == Waiting()
    cancel.set()
    with pytest.raises(Cancelled):
        next(second)
    assert session._lock.locked()  # still the first one's
    first.close()  # type: ignore[attr-defined]


def damaged(folder: Path, target: Path, file: str) -> Path:
    shutil.copytree(folder, target)
    (target / file).write_bytes((target / file).read_bytes()[:2000])
    return target


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "model_index.json"])
def test_a_damaged_checkpoint_is_a_sentence_and_the_next_request_runs(
    session: Session, settings: dict[str, Any], tiny_sdxl: Path, tmp_path: Path, file: str
) -> None:
    target = tmp_path / "damaged"
    shutil.copytree(tiny_sdxl, target)
    (target / file).write_bytes((target / file).read_bytes()[:100])
    with pytest.raises(RequestError, match="damaged") as caught:
        list(session.generate(make_request({**settings, "backbone": str(target)})))
    assert "\n" not in str(caught.value)
    assert not session._lock.locked()
    done(session, make_request(settings))


def test_a_damaged_student_leaves_nothing_half_loaded(
    session: Session, settings: dict[str, Any], tiny_student: Path, tmp_path: Path
) -> None:
    broken = damaged(tiny_student, tmp_path / "broken", "unet/diffusion_pytorch_model.safetensors")
    with pytest.raises(RequestError, match="broken"):
        list(session.generate(make_request({**settings, "student": str(broken)})))
    assert done(session, make_request(settings)).result.distilled


def test_one_seed_is_one_picture(session: Session, settings: dict[str, Any]) -> None:
    first, second = (done(session, make_request({**settings, "eta": 0.5})) for _ in range(2))
    assert same(first.student.image, second.student.image)
    assert first.teacher is not None
    assert second.teacher is not None
    assert same(first.teacher.image, second.teacher.image)
    other = done(session, make_request({**settings, "eta": 0.5, "seed": 6}))
    assert not same(first.student.image, other.student.image)
    assert other.teacher is not None
    assert not same(first.teacher.image, other.teacher.image)


def test_the_picture_does_not_depend_on_what_ran_before(session: Session, settings: dict[str, Any]) -> None:
    alone = done(Session(ModelPool(CPU)), make_request(settings))
    done(session, make_request({**settings, "prompt": "a star", "seed": 9}))
    assert same(done(session, make_request(settings)).student.image, alone.student.image)


def test_previews_do_not_change_the_picture(session: Session, settings: dict[str, Any]) -> None:
    quiet = Session(session.pool, previews=False)
    events = list(quiet.generate(make_request(settings)))
    assert all(e.preview is None for e in events if isinstance(e, Progress))
    last = events[-1]
    assert isinstance(last, Done)
    assert same(last.student.image, done(session, make_request(settings)).student.image)


def test_the_teacher_is_the_pipeline_on_the_students_noise(session: Session, settings: dict[str, Any]) -> None:
    ours = done(session, make_request(settings)).teacher
    assert ours is not None
    pipe = session.pool.acquire(settings["backbone"], settings["student"]).teacher.pipe  # type: ignore[attr-defined]
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    theirs = pipe(
        settings["prompt"], height=64, width=64, latents=noise.to(pipe.unet.dtype), num_inference_steps=6,
        guidance_scale=3.5,
    ).images[0]  # fmt: skip
    # a value exactly between two pixel levels may go either way
    assert max(ImageChops.difference(ours.image, theirs).tobytes()) <= 1


def test_timings_are_positive_and_sum_up(session: Session, settings: dict[str, Any]) -> None:
    finished = done(session, make_request(settings))
    assert finished.teacher is not None
    for output in (finished.student, finished.teacher):
        t = output.timings
        assert min(t.encode, t.decode, *(s.seconds for s in t.stages)) > 0
        assert t.denoiser == pytest.approx(sum(s.seconds for s in t.stages) + t.switch)
        assert t.end_to_end == pytest.approx(t.encode + t.denoiser + t.decode)
    assert [(s.size, s.steps) for s in finished.student.timings.stages] == [((4, 4), 2), ((8, 8), 2)]
    assert finished.student.timings.switch > 0
    assert [(s.size, s.steps) for s in finished.teacher.timings.stages] == [((8, 8), 6)]
    assert finished.teacher.timings.switch == 0


def test_a_cached_prompt_costs_as_much_as_the_first_time(session: Session, settings: dict[str, Any]) -> None:
    request = make_request({**settings, "prompt": "a star on a blue background"})
    first, second = (done(session, request) for _ in range(2))
    assert second.student.timings.encode == first.student.timings.encode > 0


def test_the_first_encoding_after_loading_is_not_the_one_that_counts(settings: dict[str, Any]) -> None:
    session, request = Session(previews=False), make_request({**settings, "teacher": False})
    backbone = session.pool.acquire(request.backbone, request.student, request.decoder).teacher
    encode, asked = backbone.encode, []
    backbone.encode = lambda prompts: (asked.extend(prompts), encode(prompts))[1]  # type: ignore[method-assign]
    for _ in range(2):
        done(session, request)
    assert asked == [request.prompt, request.prompt, request.negative]


def test_with_a_student(session: Session, settings: dict[str, Any]) -> None:
    finished = done(session, make_request(settings))
    assert finished.result.distilled
    assert finished.result.label == "Tiny student"
    assert finished.student.timings.nfe == 4
    assert finished.teacher is not None
    assert finished.teacher.timings.nfe == 12


def test_without_a_student_it_says_not_distilled(session: Session, settings: dict[str, Any]) -> None:
    for student in ("none", None):  # asked for, or none at hand
        finished = done(session, make_request({**settings, "student": student, "teacher": False}))
        assert not finished.result.distilled
        assert finished.result.label.startswith("not distilled")
        assert finished.student.timings.nfe == 8  # with guidance
        assert finished.result.as_dict()["distilled"] is False


def test_a_student_without_a_teacher_run(session: Session, settings: dict[str, Any]) -> None:
    finished = done(session, make_request({**settings, "teacher": False}))
    assert finished.teacher is None
    assert finished.result.speedup is None


@pytest.mark.parametrize(("steps", "switch"), [(1, 0), (1, 1), (2, 2), (8, 4)])
def test_any_position_of_the_sliders_gives_a_full_picture(
    session: Session, settings: dict[str, Any], steps: int, switch: int
) -> None:
    finished = done(session, make_request({**settings, "steps": steps, "switch": switch, "teacher": False}))
    assert finished.student.image.size == (64, 64)
    assert finished.plan.steps == steps
    if switch == 0:
        assert finished.plan.stages == (Stage((8, 8), (1.0,)),)


def test_a_mapping_the_backbone_cannot_do_is_a_sentence(session: Session, settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="mapping 'shift' needs a backbone with timestep shifts"):
        list(session.generate(make_request({**settings, "mapping": "shift"})))


def test_loading_is_said_again_for_another_student(session: Session, settings: dict[str, Any]) -> None:
    done(session, make_request(settings))
    events = list(session.generate(make_request({**settings, "student": "none", "teacher": False})))
    assert events[0] == Loading(settings["backbone"])
