"""Fixtures for all tests: a tiny pipeline's folder and a student that fits it (see tests/tiny.py)."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; see rmd/__init__.py
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
import torch
from hypothesis import settings

from tests.tiny import BACKBONE_CARD, STUDENT_CARD, tiny_pipeline, tiny_unet

torch.set_num_threads(1)  # for networks this small, threads only cost
# what is compared to the last digits is compared in fp32, whatever this machine's processor is fast in
torch.cpu.get_capabilities = dict

settings.register_profile("default", deadline=None)  # a busy machine is slow, not wrong
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder in diffusers' format: 64 px pictures of 8×8 latent cells, 32 px in the low stage."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    tiny_pipeline().save_pretrained(folder)
    (folder / "backbone.json").write_text(json.dumps(BACKBONE_CARD))
    return folder


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student folder that fits `tiny_sdxl` (other weights than the teacher's)."""
    folder = tmp_path_factory.mktemp("students") / "tiny-student"
    tiny_unet(7).save_pretrained(folder / "unet")
    (folder / "rmd.json").write_text(json.dumps(STUDENT_CARD))
    return folder
