"""The machine in words."""

from pathlib import Path

import torch

from rmd.backbones.machine import describe, processor


def test_a_cpu_is_its_threads_and_its_name() -> None:
    assert describe("cpu").startswith(f"{torch.get_num_threads()} CPU thread")
    assert describe("cpu").endswith(processor())


def test_the_processors_name_is_read_where_there_is_one(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text("processor\t: 0\nmodel name\t: unknown\n\nprocessor\t: 1\nmodel name\t: Fast CPU 3000\n")
    assert processor(listing) == "Fast CPU 3000"
    assert processor(tmp_path / "missing") != ""
