"""Holds the table 'who may import whom' of docs/structure.md over every import in src/freehold.

Reads the syntax tree, so imports under TYPE_CHECKING and inside functions count too.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src" / "freehold"

NOUNS = {"errors", "config", "types"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "config": {"errors", "types"},
    "ops": NOUNS,
    "rpc": NOUNS,
    "model": NOUNS | {"ops"},
    "engine": NOUNS | {"ops", "model"},
    "train": NOUNS | {"ops", "model"},
    "knowledge": NOUNS,
    "monitor": NOUNS,
    "plan": NOUNS | {"model.config"},
    "balance": NOUNS,
    "compress": NOUNS | {"model", "train"},
    "learn": NOUNS | {"model", "train"},
    "serving": NOUNS | {"rpc", "engine", "knowledge", "balance"},
    "deploy": NOUNS | {"rpc"},
}
# `freehold._native` is the compiled half of ops and belongs to that room.
ALLOWED["ops"] = ALLOWED["ops"] | {"_native"}
# Weights and templates reach the engine's workers through the engine's public names alone.
FREE = {"cli", "__init__", "__main__"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def _files() -> list[Path]:
    return [p for p in sorted(SRC.rglob("*.py")) if "rpc/v1" not in p.as_posix()]


def _room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def _imports(path: Path) -> list[str]:
    """Absolute freehold modules imported by a file, relative imports resolved."""
    package = ["freehold", *path.relative_to(SRC).parts[:-1]]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == "freehold"]


def _is_allowed(room: str, module: str) -> bool:
    parts = module.split(".")[1:]
    if not parts or parts[0] in ("__version__", room):
        return True
    return any(parts[: len(a.split("."))] == a.split(".") for a in ALLOWED[room])


@pytest.mark.parametrize("path", _files(), ids=lambda p: p.relative_to(SRC).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    room = _room(path)
    if room in FREE:
        return
    assert room in ALLOWED, f"{room} is no room of docs/structure.md"
    bad = [name for name in _imports(path) if not _is_allowed(room, name)]
    assert not bad, f"{room} may not import {bad}"


def test_the_rule_itself_refuses_an_upward_import() -> None:
    assert not _is_allowed("engine", "freehold.serving.worker")
    assert not _is_allowed("engine", "freehold.rpc.channel")
    assert not _is_allowed("plan", "freehold.model.checkpoint")
    assert _is_allowed("plan", "freehold.model.config.ModelConfig")


def test_no_module_is_a_drawer() -> None:
    drawers = [
        p for p in _files() if FORBIDDEN_NAMES & set(p.relative_to(SRC).with_suffix("").parts)
    ]
    assert not drawers


def test_files_stay_under_400_lines() -> None:
    long = {p.name: n for p in _files() if (n := len(p.read_text().splitlines())) > 400}
    assert not long
