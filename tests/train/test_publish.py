"""Published folders replace the old ones whole and say nothing of the machine that made them."""

import json
from pathlib import Path

import pytest

from rmd.train.publish import quality, replace_folder


def test_a_folder_is_replaced_whole_and_forgets_where_its_parts_came_from(tmp_path: Path) -> None:
    target = tmp_path / "model"
    (target / "unet").mkdir(parents=True)
    (target / "unet" / "old.txt").write_text("old")

    def fill(folder: Path) -> None:
        (folder / "unet").mkdir()
        (folder / "unet" / "config.json").write_text(json.dumps({"_name_or_path": str(tmp_path), "in_channels": 4}))

    replace_folder(target, fill)
    assert not (target / "unet" / "old.txt").exists()
    assert json.loads((target / "unet" / "config.json").read_text()) == {"in_channels": 4}


def test_a_failed_publication_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "card.json").write_text('{"steps": 7}')

    def fill(folder: Path) -> None:
        (folder / "card.json").write_text('{"ste')
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_folder(target, fill)
    assert json.loads((target / "card.json").read_text()) == {"steps": 7}
    assert [one.name for one in tmp_path.iterdir()] == ["model"], "nothing half-written stays"


@pytest.mark.parametrize("measured", [{"detail": 0.04}, {}], ids=["with detail", "older figures"])
def test_quality_goes_into_the_cards(tmp_path: Path, measured: dict[str, float]) -> None:
    folders = {name: tmp_path / name for name in ("measured", "base", "student", "assets")}
    for folder in folders.values():
        folder.mkdir()
    result = {"prompts": 2, "metric": {}, "teacher": {"object_top1": 1}, "student": [], **measured}
    (folders["measured"] / "quality.json").write_text(json.dumps(result))
    (folders["measured"] / "teacher.png").write_bytes(b"picture")
    (folders["base"] / "backbone.json").write_text(json.dumps({"name": "Base"}))
    (folders["student"] / "rmd.json").write_text(json.dumps({"name": "Student"}))
    quality(**folders, prefix="sheet-clips-")
    assert (folders["assets"] / "sheet-clips-teacher.png").read_bytes() == b"picture"
    assert json.loads((folders["base"] / "backbone.json").read_text()) == {"name": "Base", **measured}
    assert json.loads((folders["student"] / "rmd.json").read_text())["quality"]["prompts"] == 2
    assert json.loads((folders["student"] / "quality.json").read_text()) == result
