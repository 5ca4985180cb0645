"""The architecture's rules, read from the source: imports only go down, and the files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("rmd/**/*.py"), *ROOT.glob("app.py")])
FILES = [*SOURCES, *sorted(ROOT.glob("tests/**/*.py"))]
MAX_LINES = 320

HOUSE = (
    ("rmd.checks",),
    ("rmd.disk", "rmd.method"),
    ("rmd.request",),
    ("rmd.backbones",),
    ("rmd.engine", "rmd.arguments"),
    ("rmd.worlds", "rmd.space"),
    ("rmd.train",),
    ("rmd.study",),
    ("rmd.serve",),
    ("rmd.ui",),
    ("rmd.cli",),
    ("rmd.__main__", "app"),
)
"""The floors from the ground up: an import goes down or stays inside its part."""
LAYERS = {part: level for level, parts in enumerate(HOUSE) for part in parts}
ALLOWED = {
    "gradio": ("app", "rmd.serve", "rmd.ui"),
    "diffusers": ("rmd.backbones", "rmd.train"),
    "ray": ("rmd.engine.fleet", "rmd.engine.replica"),
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


def part_of(name: str) -> str:
    """The part of the house a module lies in."""
    parts = [part for part in LAYERS if inside(name, part)]
    assert parts, f"{name} has no floor; give it one in {Path(__file__).name}"
    return parts[0]


def layer(name: str) -> int:
    return LAYERS[part_of(name)]


def own(name: str) -> bool:
    return name.startswith("rmd.") or name == "app"


@pytest.mark.parametrize("path", [p for p in SOURCES if module(p) != "rmd"], ids=module)
def test_imports_only_go_down(path: Path) -> None:
    level, home = layer(module(path)), part_of(module(path))
    others = {name for name in imported(path) if own(name) and part_of(name) != home}
    upward = {name for name in others if layer(name) >= level}
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
    """Only the cascade advances a latent from time to time: nobody else uses the transition's re-injection, but for the
    trainer's noising of what a step of that loop gave."""
    users = {module(p) for p in SOURCES if "reinject" in names_in(p)}
    assert users == {"rmd.method.cascade", "rmd.train.rollout"}


def names_in(path: Path) -> set[str]:
    """Every name and attribute that a file uses (not the strings, and not what it defines)."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_this_test_sees_imports(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        "import gradio as gr\nfrom rmd.engine import session\ndef f():\n    from rmd.backbones import loading\n"
    )
    assert imported(source) == {"gradio", "rmd.engine.session", "rmd.backbones.loading"}
