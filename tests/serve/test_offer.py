"""Which students a server offers, and that nothing else can be asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rmd.backbones import catalog
from rmd.checks import RequestError
from rmd.engine.results import Done
from rmd.engine.session import Session
from rmd.serve.offer import UNDISTILLED, Offer
from rmd.serve.runner import Runner


@pytest.fixture
def offer(tiny_sdxl: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    monkeypatch.setattr(catalog, "REGISTERED", {})
    monkeypatch.setattr(catalog, "REGISTERED_STUDENTS", {})
    folder, other = shutil.copytree(tiny_sdxl, tmp_path / "tiny"), tmp_path / "another"
    shutil.copytree(tiny_student, folder / "student")
    shutil.copytree(tiny_student, other)
    return Offer([folder], [other])


def test_own_registered_and_none_are_offered(offer: Offer) -> None:
    ids = [one for one, _ in offer.students("tiny")]
    assert ids == [None, "another", "none"]
    assert offer.students("tiny")[-1][1] == UNDISTILLED
    assert offer.outline("tiny", "another").card is not None
    assert offer.outline("tiny", "none").card is None
    assert [one for one, _ in offer.students("emoji-wan")][:1] == [None]
    assert "another" not in [one for one, _ in offer.students("emoji-wan")], "it was made for another backbone"


@pytest.mark.parametrize("bad", ["/etc/passwd", "../another", "dmd2-sdxl", "", "None"])
def test_a_path_or_what_is_not_here_cannot_be_asked_for(offer: Offer, bad: str, tmp_path: Path) -> None:
    runner = Runner(Session(), offer, tmp_path / "files")
    with pytest.raises(RequestError, match="student must be one of another, none, or left out, not"):
        runner.request({"backbone": "tiny", "prompt": "a fox", "student": bad})


def test_what_does_not_exist_cannot_be_registered(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not on this machine"):
        Offer([], [tmp_path / "nothing"])


def test_the_chosen_student_makes_the_picture(offer: Offer, tmp_path: Path) -> None:
    runner = Runner(Session(previews=False), offer, tmp_path / "files")
    made: dict[str, Done] = {}
    for student in (None, "another", "none"):
        request = runner.request({"backbone": "tiny", "prompt": "a fox", "seed": 1, "teacher": False,
                                  "student": student, "eta": 1.0})  # fmt: skip
        made[str(student)] = next(e for e in runner.run(request, "me") if isinstance(e, Done))
    assert made["another"].student.frames[0].tobytes() == made["None"].student.frames[0].tobytes(), "the same weights"
    assert made["none"].student.frames[0].tobytes() != made["None"].student.frames[0].tobytes()
    assert made["none"].result.label.startswith("not distilled")
    assert offer.student_of("tiny", "another") == "another"
    assert offer.student_of("tiny", str(tmp_path / "another")) is None
