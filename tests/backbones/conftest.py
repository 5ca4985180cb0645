"""A folder of every supported pipeline class, tiny and genuine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_flow import SD3_CARD, WAN_CARD, tiny_sd3, tiny_wan
from tests.tiny_qwen import FLUX2_CARD, ZIMAGE_CARD, tiny_flux2, tiny_zimage


@pytest.fixture(scope="session")
def folders(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name: sdxl, sd3 without and with T5, wan with either solver, zimage, flux2."""
    made = {"sdxl": tiny_sdxl}
    pipelines: dict[str, tuple[Any, dict[str, Any]]] = {
        "sd3": (tiny_sd3(False), SD3_CARD), "sd3-t5": (tiny_sd3(True), SD3_CARD), "wan": (tiny_wan(), WAN_CARD),
        "wan-euler": (tiny_wan("euler"), WAN_CARD), "zimage": (tiny_zimage(), ZIMAGE_CARD),
        "flux2": (tiny_flux2(), FLUX2_CARD),
    }  # fmt: skip
    for name, (pipe, card) in pipelines.items():
        made[name] = tmp_path_factory.mktemp("models") / name
        pipe.save_pretrained(made[name])
        (made[name] / "backbone.json").write_text(json.dumps(card))
    return made
