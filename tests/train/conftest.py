"""What the training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("# two prompts\na fox\n\na star on a blue background\n", encoding="utf-8")
    return file
