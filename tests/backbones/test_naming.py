"""How folders are called in messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmd.backbones import catalog, hub
from rmd.backbones.folders import read_json
from rmd.backbones.naming import by_name, named
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError


def test_a_registered_folder_is_called_by_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "emoji-sdxl"
    (folder / "student").mkdir(parents=True)
    assert named(folder / "x.json") == str(folder / "x.json")  # nobody has named it
    entry = catalog.register(folder)
    assert entry.id == "emoji-sdxl-2"  # the catalog has the name already
    assert catalog.find(entry.id) == entry
    assert named(folder) == entry.id
    assert named(folder / "unet" / "config.json") == "emoji-sdxl-2/unet/config.json"
    assert named(folder / "student" / "rmd.json") == "the student of emoji-sdxl-2/rmd.json"
    assert by_name(f"no file in {folder / 'student'}, none in {folder}") == (
        "no file in the student of emoji-sdxl-2, none in emoji-sdxl-2"
    )
    with pytest.raises(RequestError, match="is not a folder on this machine"):
        catalog.register(tmp_path / "nothing")


def test_what_was_downloaded_is_called_by_its_catalog_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    sdxl = catalog.find("sdxl").hub
    assert sdxl is not None
    folder = hub.cache_folder(sdxl.repo) / "snapshots" / sdxl.revision
    folder.mkdir(parents=True)
    assert catalog.find("sdxl").folder == folder
    assert named(folder / "unet" / "config.json") == "sdxl/unet/config.json"


def test_messages_of_a_registered_folder_do_not_say_where_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    entry = catalog.register(folder)
    for fails in (lambda: read_outline(entry), lambda: read_json(folder / "model_index.json")):
        with pytest.raises(RequestError) as caught:
            fails()
        assert str(tmp_path) not in str(caught.value)
        assert "broken" in str(caught.value)
