"""The Hub at its HTTP boundary: a local server answers as the Hub would, and every failure is a sentence."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants

from rmd.backbones import catalog, hub, loading
from rmd.backbones.outline import read_outline
from rmd.checks import RequestError
from rmd.cli import main


class Answers(BaseHTTPRequestHandler):
    """Answers every call alike, as set on the server."""

    def do_GET(self) -> None:
        status, headers = self.server.answer  # type: ignore[attr-defined]
        self.server.seen.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        body = b'{"error": "refused"}'
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made.seen = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with an empty cache, a token, and a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """What setting HF_ENDPOINT before the start does."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


class TinyHub(BaseHTTPRequestHandler):
    """A Hub with one repository at commit 00…01, as far as downloading asks of one."""

    COMMIT = f"{1:040x}"

    def do_GET(self) -> None:
        files: dict[str, bytes] = self.server.files  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        if "/resolve/" in path:
            name = path.split(f"/resolve/{self.COMMIT}/")[1]
            self.server.seen.append((self.command, name, self.headers.get("Range")))  # type: ignore[attr-defined]
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            return self.reply(files[name][start:], {"ETag": f'"{hashlib.sha256(files[name]).hexdigest()}"'}, start)
        if "/tree/" in path:
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self.reply(json.dumps(rows).encode(), {})
        names = [{"rfilename": name} for name in files]
        return self.reply(json.dumps({"id": "x/y", "sha": self.COMMIT, "siblings": names}).encode(), {})

    do_HEAD = do_GET

    def reply(self, body: bytes, headers: dict[str, str], start: int = 0) -> None:
        self.send_response(206 if start else 200)
        more = {"Content-Length": str(len(body)), "X-Repo-Commit": self.COMMIT, **headers}
        if start:
            more["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{start + len(body)}"
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def test_a_backbone_is_downloaded_opened_and_not_fetched_twice(
    tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), TinyHub)
    made.files = {str(f.relative_to(tiny_sdxl)): f.read_bytes() for f in tiny_sdxl.rglob("*") if f.is_file()}
    made.files |= {"big.ckpt": b"never wanted", "unet/model.onnx": b"nor this"}
    made.seen = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    use(monkeypatch, address(made))
    row = next(r for r in json.loads(catalog.ROWS.read_text()) if r["id"] == "sdxl")
    parts = ["unet", "vae", "text_encoder_2", "tokenizer_2", "scheduler"]
    spec = {**row["spec"], "high": [64, 64], "low": [32, 32]}
    row |= {"id": "tiny-hub", "repo": "x/y", "components": parts, "weights": "*.safetensors", "spec": spec}
    entry = catalog.entry_from({**row, "offloaded_gb": 0.001, "memory_gb": 0.001})
    monkeypatch.setattr(catalog, "ENTRIES", (entry,))
    assert not catalog.status(entry).usable
    with pytest.raises(RequestError, match=r"models --download tiny-hub` downloads it \(about 7 GB"):
        read_outline(catalog.find("tiny-hub"))

    progress: list[tuple[int, int]] = []
    try:
        folder = catalog.download("tiny-hub", lambda done, total: progress.append((done, total)))
        fetched = {name for command, name, _ in made.seen if command == "GET"}
        assert fetched == set(made.files) - {"big.ckpt", "unet/model.onnx", "backbone.json"}
        assert progress[-1][0] == progress[-1][1] == sum(len(made.files[name]) for name in fetched)
        made.seen.clear()
        assert catalog.download("tiny-hub") == folder
        assert [command for command, _, _ in made.seen if command == "GET"] == []
    finally:
        made.shutdown()
        made.server_close()

    found = catalog.find("tiny-hub")
    assert catalog.status(found).usable, catalog.status(found).problem
    assert read_outline(found).spec.high == (64, 64)
    assert loading.open_backbone(found.folder, "tiny-hub", torch.device("cpu"), spec=found.spec).spec == entry.spec
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    broken = catalog.status(found)
    assert (
        "unet/diffusion_pytorch_model.safetensors is missing; `python -m rmd models --download tiny-hub` goes on"
        in broken.problem
    )


def refused(monkeypatch: pytest.MonkeyPatch, endpoint: str, id: str = "sd3.5-medium") -> str:
    """What a download from a Hub at `endpoint` says."""
    use(monkeypatch, endpoint)
    with pytest.raises(RequestError) as caught:
        catalog.download(id)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def address(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, ["is gated: accept its licence on", "HF_TOKEN"]),
        (403, {"X-Error-Code": "GatedRepo"}, ["is gated: accept its licence on", "HF_TOKEN"]),
        (401, {"X-Error-Code": "RepoNotFound"}, ["was not found", "HF_TOKEN"]),
        (404, {"X-Error-Code": "RepoNotFound"}, ["was not found", "HF_TOKEN"]),
        (404, {"X-Error-Code": "RevisionNotFound"}, ["has no revision main"]),
        (501, {}, ["answered 501", "try again later"]),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    server: Any, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], words: list[str]
) -> None:
    server.answer = (status, headers)
    message = refused(monkeypatch, address(server))
    assert "stabilityai/stable-diffusion-3.5-medium" in message
    assert all(word in message for word in words), message
    path, token = server.seen[-1]
    assert "/stabilityai/stable-diffusion-3.5-medium" in path
    assert token == "Bearer hf_abc"


def test_no_network_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, "http://127.0.0.1:9")
    assert "cannot be reached at http://127.0.0.1:9; check the network" in message


def test_being_offline_on_purpose_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(monkeypatch, "http://127.0.0.1:9")


def test_nothing_is_asked_of_the_hub_before_the_user_does(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = (500, {})
    use(monkeypatch, address(server))
    assert main(["models"]) == 0
    out = tmp_path / "out"
    assert main(["generate", "--backbone", "sdxl", "--prompt", "fox", "--out", str(out)]) == 2
    assert "`python -m rmd models --download sdxl`" in capsys.readouterr().err
    assert server.seen == []
    assert not out.exists()


def test_the_command_line_says_it_with_code_2(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = (403, {"X-Error-Code": "GatedRepo"})
    use(monkeypatch, address(server))
    assert main(["models", "--download", "sd3.5-large"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "is gated" in err


def test_no_room_on_the_disk_is_a_sentence() -> None:
    with pytest.raises(RequestError, match=r"a/b needs 1000000000\.0 GB more on the disk of .* HF_HOME"):
        hub.check_room("a/b", 10**18)
    hub.check_room("a/b", 1)


def test_a_full_disk_in_the_middle_is_a_sentence() -> None:
    error = RuntimeError("download failed")
    error.__cause__ = OSError(28, "No space left on device")
    assert "is full; make room" in hub.reason("a/b", "main", error)


def test_unknown_ids_name_the_known_ones() -> None:
    with pytest.raises(RequestError, match="'nothing' cannot be downloaded; there are sdxl, dmd2-sdxl"):
        catalog.download("nothing")
    with pytest.raises(RequestError, match="comes with this program"):
        catalog.download("emoji-sdxl")
