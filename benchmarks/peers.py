"""Who is measured, in which Python it lives, and how it gets the seeded random checkpoint.

Conversions are kept beside the checkpoints and made once. Knows no measuring (`engines/`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import checkpoints

HERE = Path(__file__).parent
Convert = Callable[[str, str, Path, Path], Path]


@dataclass(frozen=True)
class Peer:
    name: str
    script: str  # in engines/
    needs: str  # modules it imports
    python: str
    convert: Convert  # (shape, format, cache, scratch) -> what its engine opens


def checkpoint(shape: str, cache: Path) -> Path:
    if shape == "freehold-nano":
        return HERE.parent / "src" / "freehold" / "models" / "nano"
    return checkpoints.build(shape, cache)


def _as_links(shape: str, format: str, cache: Path, scratch: Path) -> Path:
    """A folder of links to the checkpoint's files: packed weights are kept in it, so the first
    round packs and the others find them."""
    folder = scratch / f"{shape}-{format}"
    folder.mkdir()
    for file in checkpoint(shape, cache).iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file.resolve())
    return folder


def gguf(shape: str, format: str, cache: Path, python: str) -> Path:
    """Written by the Python that has the gguf package, once."""
    suffix = "" if format == "int4" else f".{format}"
    target = cache / f"{shape}{suffix}.gguf"
    if not target.exists():
        partial = target.with_suffix(".partial")
        script = str(HERE / "gguf_peer.py")
        command = [python, script, str(checkpoint(shape, cache)), str(partial), format]
        subprocess.run(command, check=True)
        partial.rename(target)
    return target


def _openvino(shape: str, format: str, cache: Path, python: str) -> Path:
    target = cache / f"{shape}.{format}.openvino"
    if not (target / "complete").exists():
        script = str(HERE / "openvino_peer.py")
        command = [python, script, str(checkpoint(shape, cache)), str(target)]
        if subprocess.run(command).returncode:
            raise SystemExit("no conversion to OpenVINO: leave it out by --peers llama.cpp")
        (target / "complete").touch()
    return target


PEERS = {
    "freehold": ("freehold_engine.py", "freehold"),
    "llama.cpp": ("llama_cpp_engine.py", "llama_cpp, gguf"),
    "openvino": ("openvino_engine.py", "openvino_genai"),
    "transformers": ("transformers_engine.py", "torch, transformers"),
}


def has_modules(python: str, modules: str) -> bool:
    return subprocess.run([python, "-c", f"import {modules}"], capture_output=True).returncode == 0


def installed(wanted: list[str], peer_python: str, openvino_python: str) -> dict[str, Peer]:
    pythons = {"llama.cpp": peer_python, "openvino": openvino_python}
    found = {}
    for name in ["freehold", *wanted]:
        script, needs = PEERS[name]
        python = pythons.get(name, sys.executable)
        if not has_modules(python, needs):
            print(f"{name} is left out: {python} lacks {needs}", file=sys.stderr)
            continue
        found[name] = Peer(name, script, needs, python, _converter(name, python))
    return found


def _converter(name: str, python: str) -> Convert:
    if name == "freehold":
        return _as_links
    if name == "llama.cpp":
        return lambda shape, format, cache, scratch: gguf(shape, format, cache, python)
    if name == "openvino":
        return lambda shape, format, cache, scratch: _openvino(shape, format, cache, python)
    return lambda shape, format, cache, scratch: checkpoint(shape, cache)
