"""On other people's machines: taken ports, shared temporary folders, old code pages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rmd.checks import RequestError
from rmd.disk import own_temporary_folder
from rmd.serve.server import check_address

ROOT = Path(__file__).parents[1]


def test_a_taken_port_is_a_sentence_and_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = subprocess.run(
            [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert app.returncode == 2
    assert app.stderr.splitlines()[-1].startswith(f"The app cannot listen on 127.0.0.1, port {port}: ")
    assert "Traceback" not in app.stderr


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_needs_no_brackets(host: str) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("there is no IPv6 here")
    check_address(host, 0)


def test_an_address_that_does_not_exist_is_a_sentence() -> None:
    with pytest.raises(RequestError, match=r"cannot listen on nowhere\.invalid, port 80.*--host"):
        check_address("nowhere.invalid", 80)


def test_the_temporary_folder_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usual = own_temporary_folder()
    assert usual.parent == tmp_path
    assert usual.stat().st_mode & 0o777 == 0o700
    assert own_temporary_folder() == usual
    usual.rmdir()
    usual.symlink_to(tmp_path)  # somebody else's trick
    other = own_temporary_folder()
    assert other != usual
    assert other.is_dir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # another account's folder
    usual.unlink()
    (tmp_path / "rmd-12345").mkdir()
    assert own_temporary_folder() not in (usual, tmp_path / "rmd-12345")


@pytest.mark.slow
def test_a_code_page_without_our_signs_loses_no_finished_run(tiny_sdxl: Path, tmp_path: Path) -> None:
    command = ["generate", "--backbone", str(tiny_sdxl), "--prompt", "a fox", "--steps", "1", "--switch", "0"]
    command += ["--teacher-steps", "2", "--out", str(tmp_path)]
    made = subprocess.run(
        [sys.executable, "-m", "rmd", *command], cwd=ROOT, capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1251"},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr.decode("cp1251")
    assert b"speed-up: " in made.stdout
    assert (tmp_path / "student.png").is_file()
