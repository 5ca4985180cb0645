"""What the training tests share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny_flow import SD3_CARD, WAN_CARD, tiny_sd3, tiny_wan
from tests.tiny_qwen import FLUX2_CARD, ZIMAGE_CARD, tiny_flux2, tiny_zimage


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("# two prompts\na fox\n\na star on a blue background\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def tiny_flow_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, folders = tmp_path_factory.mktemp("flows"), {}
    made = (
        ("tiny_sd3", tiny_sd3(t5=False), SD3_CARD), ("tiny_wan", tiny_wan(), WAN_CARD),
        ("tiny_zimage", tiny_zimage(), ZIMAGE_CARD), ("tiny_flux2", tiny_flux2(), FLUX2_CARD),
    )  # fmt: skip
    for name, pipe, card in made:
        folders[name] = root / name
        pipe.save_pretrained(folders[name])
        (folders[name] / "backbone.json").write_text(json.dumps(card))
    return folders


@pytest.fixture(params=["tiny_sdxl", "tiny_sd3", "tiny_wan", "tiny_zimage", "tiny_flux2"])
def tiny(request: pytest.FixtureRequest, tiny_sdxl: Path, tiny_flow_folders: dict[str, Path]) -> Path:
    """The folder of each family's tiny pipeline."""
    return {"tiny_sdxl": tiny_sdxl, **tiny_flow_folders}[request.param]
