"""The architecture's rules, read from the source: imports only go down, and the files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("rmd/**/*.py"), *ROOT.glob("app.py")])
FILES = [*SOURCES, *sorted(ROOT.glob("tests/**/*.py"))]
MAX_LINES = 320

MATHEMATICS, ADAPTERS, LOOP, ENGINE, STUDIES, SHELL = range(6)
LAYERS = {
    "rmd.schedule": MATHEMATICS, "rmd.plan": MATHEMATICS, "rmd.transition": MATHEMATICS, "rmd.config": MATHEMATICS,
    "rmd.backbones": ADAPTERS,
    "rmd.denoiser": LOOP, "rmd.cascade": LOOP,
    "rmd.teacher_cache": ENGINE,
    "rmd.session": ENGINE, "rmd.memory": ENGINE, "rmd.teacher": ENGINE, "rmd.results": ENGINE, "rmd.media": ENGINE,
    "rmd.hardware": ENGINE,
    "rmd.train": STUDIES, "rmd.evaluate": STUDIES, "rmd.bench": STUDIES, "rmd.sweep": STUDIES,
    "rmd.space": STUDIES, "rmd.cli": SHELL, "rmd.__main__": SHELL, "rmd.ui": SHELL, "app": SHELL,
}  # fmt: skip
ALLOWED = {
    "gradio": ("app", "rmd.ui"),
    "diffusers": ("rmd.backbones", "rmd.train"),
}
"""Packages that only some parts may know. Training builds and saves diffusers' models."""


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Every module a file imports, inside functions too; `from rmd import x` counts as rmd.x."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            name = node.module or ""
            found |= {f"{name}.{a.name}" for a in node.names} if name in PACKAGES else {name}
    return found


PACKAGES = {module(path) for path in SOURCES if path.name == "__init__.py"}
MODULES = {module(path) for path in SOURCES}


def inside(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def layer(name: str) -> int:
    levels = [level for part, level in LAYERS.items() if inside(name, part)]
    assert levels, f"{name} has no layer; give it one in {Path(__file__).name}"
    return levels[0]


def own(name: str) -> bool:
    return name.startswith("rmd.") or name == "app"


@pytest.mark.parametrize("path", [p for p in SOURCES if module(p) != "rmd"], ids=module)
def test_imports_only_go_down(path: Path) -> None:
    level = layer(module(path))
    upward = {name for name in imported(path) if own(name) and layer(name) > level}
    assert not upward, f"{module(path)} may not import {sorted(upward)}"


@pytest.mark.parametrize(("package", "places"), ALLOWED.items())
def test_packages_stay_where_they_belong(package: str, places: tuple[str, ...]) -> None:
    users = {module(p) for p in SOURCES if any(inside(name, package) for name in imported(p))}
    assert {user for user in users if not any(inside(user, place) for place in places)} == set()


def test_no_circles() -> None:
    needs = {module(p): {n for n in imported(p) if n in MODULES} for p in SOURCES}
    free: set[str] = set()
    while ready := {name for name, others in needs.items() if name not in free and others <= free | {name}}:
        free |= ready
    assert set(needs) - free == set(), "these modules import one another"


def test_there_is_one_sampling_loop() -> None:
    """Only the cascade advances a latent from time to time: nobody else uses the transition's re-injection."""
    users = {module(p) for p in SOURCES if "reinject(" in p.read_text(encoding="utf-8")}
    assert users == {"rmd.transition", "rmd.cascade"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_this_test_sees_imports(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("import gradio as gr\nfrom rmd import session\ndef f():\n    from rmd.backbones import loading\n")
    assert imported(source) == {"gradio", "rmd.session", "rmd.backbones.loading"}
