"""space.yaml against what Spaces accept, the README block, and a deployment to a server that stands in for the Hub."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmd.backbones import catalog
from rmd.cli import main
from rmd.space import card, check, spec

ROOT = Path(__file__).resolve().parents[2]
FIELDS = spec.read(ROOT / "space.yaml")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small git checkout with everything a Space needs and a few files it does not."""
    root = tmp_path / "checkout"
    for name in ("space.yaml", "requirements.txt", "pyproject.toml", "app.py", "README.md", "LICENSE", "Makefile"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    for entry in [entry for entry in catalog.ENTRIES if entry.hub is None]:
        for folder in (entry.folder, entry.student):
            place = root / folder.relative_to(ROOT)
            place.mkdir(parents=True, exist_ok=True)
            (place / "config.json").write_text("{}")
    (root / "tests").mkdir()
    (root / "tests" / "test_x.py").write_text("")
    git(root, "init", "-q")
    git(root, "add", "-A")
    (root / "not-tracked.txt").write_text("x")
    return root


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


def change(root: Path, **fields: Any) -> None:
    known = {**spec.read(root / "space.yaml"), **fields}
    (root / "space.yaml").write_text(yaml.safe_dump({k: v for k, v in known.items() if v is not None}, sort_keys=False))


def run(root: Path, *arguments: str) -> int:
    return main(["space", *arguments, "--root", str(root)])


def test_the_repository_itself_is_ready() -> None:
    assert check.problems(ROOT) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("title", None, "space.yaml lacks title"),
        ("title", "", "title must be text of 1 to 80 characters"),
        ("emoji", "hi", "emoji must be a single emoji, not 'hi'"),
        ("colorFrom", "orange", "colorFrom must be one of red, yellow"),
        ("sdk", "streamlit", "sdk must be one of gradio"),
        ("sdk_version", "6.0.0", "sdk_version is 6.0.0, but requirements.txt has gradio"),
        ("sdk_version", 6.31, "sdk_version must look like 6.31.0"),
        ("python_version", "3.10", "but the project needs 3.11 or newer"),
        ("python_version", 3.11, "python_version must look like 3.11, in quotes"),
        ("suggested_hardware", "h900", "suggested_hardware must be one of cpu-basic"),
        ("suggested_hardware", "zero-a10g", "but ZeroGPU supports 2.8 to 2.11"),
        ("short_description", "x" * 61, "short_description must be text of 1 to 60"),
        ("app_file", "main.py", "main.py is needed by the Space, but git does not track it"),
        ("models", ["sdxl"], "models must be a list of names like"),
        ("environment", {"A": 1}, "environment must map names to texts"),
        ("secrets", ["MY TOKEN"], "secrets must be a list of names"),
        ("pinned", "no", "pinned must be true or false"),
        ("colour", "red", "colour is not a field of a Space"),
    ],
)
def test_every_problem_is_a_sentence(
    checkout: Path, name: str, value: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkout, **{name: value})
    assert run(checkout, "check") == 2
    err = capsys.readouterr().err
    assert words in err
    assert all(line.endswith(".") for line in err.strip().splitlines() if "space.yaml" in line or "needed" in line)


def test_a_good_checkout_is_said_to_be_good(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkout, "check") == 0
    assert "ready" in capsys.readouterr().out


def test_no_yaml_and_no_git_are_sentences(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "space.yaml").write_text("title: [unclosed\nsdk: {")
    assert run(checkout, "check") == 2
    assert "is no valid YAML near line" in capsys.readouterr().err
    change_back = (ROOT / "space.yaml").read_text()
    (checkout / "space.yaml").write_text(change_back)
    shutil.rmtree(checkout / ".git")
    assert run(checkout, "check") == 2
    assert "is no git checkout" in capsys.readouterr().err


def test_rendering_puts_one_block_on_top_and_keeps_the_text(checkout: Path) -> None:
    before = (checkout / "README.md").read_text()
    for _ in range(2):  # a second time replaces the block
        assert run(checkout, "render", "--out", str(checkout / "README.md")) == 0
        after = (checkout / "README.md").read_text()
        assert after.startswith("---\ntitle: ")
        assert after.endswith(before)
        assert after.count("colorFrom:") == 1
    fields = card.fields_of(after)
    assert fields is not None
    assert fields["sdk_version"] == FIELDS["sdk_version"]
    assert "secrets" not in fields
    assert "environment" not in fields
    assert run(checkout, "check") == 0


def test_a_block_that_disagrees_is_found(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkout, "render", "--out", str(checkout / "README.md")) == 0
    change(checkout, title="Another title")
    assert run(checkout, "check") == 2
    assert "does not agree with space.yaml" in capsys.readouterr().err


def test_a_rule_in_a_readme_is_no_block() -> None:
    assert card.fields_of("# Title\n\n---\na: b\n---\n") is None
    assert card.with_block("# Title\n\n---\n", FIELDS).endswith("# Title\n\n---\n")


class Hub(ThreadingHTTPServer):
    """As much of the Hub's HTTP interface as a deployment uses. `calls` holds (method, path, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.calls: list[tuple[str, str, Any]] = []
        self.status = 200
        self.there = [".gitattributes", "old.txt"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub  # type: ignore[assignment]

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, answer: Any, status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            rows = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in self.server.there]
            return self.reply(rows)
        rows = [{"rfilename": name} for name in self.server.there]
        return self.reply({"id": "ann/demo", "sha": "0" * 40, "siblings": rows, "tags": [], "private": False})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        lines = [json.loads(line) for line in raw.splitlines()]
        self.server.calls.append(("POST", self.path, lines[0] if len(lines) == 1 else lines))
        if self.headers["Authorization"] != "Bearer hf_test" or self.server.status != 200:
            return self.reply({"error": "no"}, self.server.status if self.server.status != 200 else 401)
        if self.path.endswith("/repos/create"):
            return self.reply({"url": f"{self.server.url}/spaces/ann/demo"})
        if "/preupload/" in self.path:
            rows = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]]
            return self.reply({"files": rows})
        if "/commit/" in self.path:
            done = {"commitUrl": f"{self.server.url}/spaces/ann/demo/commit/{'1' * 40}", "commitOid": "1" * 40}
            return self.reply({**done, "success": True})
        if self.path.endswith("/variables"):
            return self.reply({})
        return self.reply({"stage": "BUILDING", "hardware": {"current": None, "requested": "t4-small"}})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub's client talks to a server on this machine."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for place in ("huggingface_hub.constants", "huggingface_hub.hf_api.constants"):
        monkeypatch.setattr(f"{place}.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


def test_a_deployment_sends_exactly_the_planned_files(
    checkout: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkout, secrets=["MY_TOKEN"], suggested_hardware="t4-small")
    monkeypatch.setenv("MY_TOKEN", "geheim")
    assert run(checkout, "deploy", "--to", "ann/demo") == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip().endswith("/spaces/ann/demo")
    by_path = {path.removeprefix("/api/"): body for _, path, body in hub.calls}
    assert by_path["repos/create"] == {"name": "demo", "organization": "ann", "type": "space", "sdk": "gradio"} | {
        k: v for k, v in by_path["repos/create"].items() if k in ("private", "visibility")
    }
    assert by_path["spaces/ann/demo/secrets"]["value"] == "geheim"
    assert by_path["spaces/ann/demo/variables"] == {"key": "RMD_RATE_LIMIT", "value": "0"}
    assert by_path["spaces/ann/demo/hardware"]["flavor"] == "t4-small"
    commit = by_path["spaces/ann/demo/commit/main"]
    sent = {row["value"]["path"]: row["value"] for row in commit if row["key"] == "file"}
    assert set(sent) == set(check.files(checkout))
    assert "not-tracked.txt" not in sent
    assert not any(name.startswith("tests/") or name == "Makefile" for name in sent)
    assert base64.b64decode(sent["README.md"]["content"]).decode().startswith("---\ntitle: ")
    assert {row["value"]["path"] for row in commit if row["key"] == "deletedFile"} == {"old.txt"}
    assert not (checkout / "README.md").read_text().startswith("---"), "the checkout stays as it is"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the Hub does not know this token"),
        (402, "has to be paid for"),
        (403, "may not write there"),
        (404, "no such user or organisation"),
        (500, "the Hub answered with status 500"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    checkout: Path, hub: Hub, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.status = status
    assert run(checkout, "deploy", "--to", "ann/demo") == 2
    err = capsys.readouterr().err
    assert "ann/demo cannot be deployed: " in err
    assert words in err
    assert "Traceback" not in err


def test_no_token_and_no_network_are_sentences(
    checkout: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert run(checkout, "deploy", "--to", "ann/demo") == 2
    assert "log in with `hf auth login` or set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    for place in ("huggingface_hub.constants", "huggingface_hub.hf_api.constants"):
        monkeypatch.setattr(f"{place}.ENDPOINT", "http://127.0.0.1:9")
    assert run(checkout, "deploy", "--to", "ann/demo") == 2
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(("to", "words"), [("demo", "--to must look like OWNER/NAME"), ("ann/demo", "MY_TOKEN")])
def test_bad_plans_end_before_anything_is_sent(
    checkout: Path, hub: Hub, to: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkout, secrets=["MY_TOKEN"])
    assert run(checkout, "deploy", "--to", to) == 2
    assert words in capsys.readouterr().err
    assert hub.calls == []


def test_a_dry_run_lists_and_sends_nothing(checkout: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkout, "deploy", "--to", "ann/demo", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "app.py" in out
    assert "not-tracked.txt" not in out
    assert "variables: GRADIO_ANALYTICS_ENABLED=False" in out
    assert hub.calls == []
