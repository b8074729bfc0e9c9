"""Packed weights kept on disk, so that only a checkpoint's first start rounds and lays them out.

A folder beside the checkpoint, `.freehold/<digest>.<format>.<layout>`, holds `packed.bin` and
`index.json`. The file is mapped: the workers of one model share its pages. It may be deleted at
any time. Knows neither tensors nor layouts: an Ops gives and takes bytes under a name. Read
`layers.py` for who asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from freehold.errors import CheckpointError
from freehold.model import json_file
from freehold.ops import Ops, PackedBytes, Weight

log = logging.getLogger(__name__)

Model = TypeVar("Model")

FOLDER = ".freehold"
DATA, INDEX = "packed.bin", "index.json"
MIN_CHECKPOINT_BYTES = 128 << 20  # smaller ones are packed sooner than a folder is looked after
MAX_INDEX_BYTES = 64 << 20
_PARTIAL = "partial-"
_PAGE = mmap.ALLOCATIONGRANULARITY  # where each weight starts
_MADV_POPULATE_READ = 22  # Linux 5.14; Python's mmap has no name for it


class Packs(Protocol):
    """Used in a `with` block, whose end without an error says that all weights were taken."""

    are_kept: bool  # after the block: on disk now, where they were not before

    def take(self, name: str, pack: Callable[[], Weight]) -> Weight:
        """The weight kept as `name`, or what `pack` makes, which may then be kept."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None: ...


class NoPacks:
    """Keeps nothing."""

    are_kept = False

    def take(self, name: str, pack: Callable[[], Weight]) -> Weight:
        return pack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass


def build_with_packs(
    build: Callable[[Packs], Model], checkpoint: Path, digest: str, weight_format: str, ops: Ops
) -> Model:
    """What `build` makes of the packs of `open_packs`; of those on disk also when they were made
    just now."""
    with open_packs(checkpoint, digest, weight_format, ops) as packs:
        model = build(packs)
    if not packs.are_kept:
        return model
    del model  # and the pages it mapped
    _forget_pages(checkpoint / FOLDER)
    with open_packs(checkpoint, digest, weight_format, ops) as packs:
        return build(packs)


def open_packs(checkpoint: Path, digest: str, weight_format: str, ops: Ops) -> Packs:
    """Those of an earlier start if they are whole, else new ones. None where the Ops packs
    nothing, the checkpoint is small, or nothing can be written: this is logged and costs time at
    each start, nothing else. `digest` is Checkpoint.digest()'s."""
    files = sorted(checkpoint.glob("*.safetensors"))
    stats = [file.stat() for file in files]
    if ops.pack_layout is None or sum(s.st_size for s in stats) < MIN_CHECKPOINT_BYTES:
        return NoPacks()
    # The digest reads samples: an edit in place that it misses still changes a time.
    stamp = f"{digest} {[s.st_mtime_ns for s in stats]}".encode()
    name = f"{hashlib.sha256(stamp).hexdigest()[:16]}.{weight_format}.{ops.pack_layout}"
    folder = checkpoint / FOLDER
    if (kept := KeptPacks.open(folder / name, ops)) is not None:
        return kept
    try:
        _remove_abandoned(folder)
        return NewPacks(folder / name, ops)
    except OSError as error:
        log.warning("packed weights cannot be kept in %s: %s", folder, error.strerror)
        return NoPacks()


class KeptPacks(NoPacks):
    """An earlier start's, mapped."""

    def __init__(self, data: npt.NDArray[np.uint8], entries: dict[str, Any], ops: Ops) -> None:
        self._data = data
        self._entries = entries
        self._ops = ops

    @classmethod
    def open(cls, directory: Path, ops: Ops) -> KeptPacks | None:
        """None if there is nothing, or something else than was written to its end."""
        try:
            index = json_file.read_object(directory / INDEX, MAX_INDEX_BYTES)
            with (directory / DATA).open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != index["num_bytes"]:
                    return None
                return cls(_map(file, 0, index["num_bytes"]), index["weights"], ops)
        except (CheckpointError, OSError, KeyError, TypeError, ValueError):
            return None

    def take(self, name: str, pack: Callable[[], Weight]) -> Weight:
        try:
            offset, num_bytes, form = self._entries[name]
            piece = self._data[offset : offset + num_bytes]
            return self._ops.unpacked(PackedBytes(tuple(form), piece))
        except (KeyError, TypeError, ValueError):
            log.warning("the packed weight %s is damaged on disk and made anew", name)
            return pack()


class NewPacks:
    """Written as they are made and used from the file: packing takes the memory of one weight.
    Pages that were written are small ones: whoever can should load again from KeptPacks."""

    def __init__(self, directory: Path, ops: Ops) -> None:
        """Raises OSError where nothing can be written."""
        self._directory = directory
        self._ops = ops
        self._entries: dict[str, Any] = {}
        self.are_kept = False
        directory.parent.mkdir(exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=directory.parent))
        # Unbuffered: a failed write leaves nothing behind that closing would try again.
        self._file: FileIO | None = (self._partial / DATA).open("w+b", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # says that somebody is at work here

    def take(self, name: str, pack: Callable[[], Weight]) -> Weight:
        weight = pack()
        if self._file is None:
            return weight
        packed = self._ops.packed(weight)
        try:
            view = self._keep(self._file, name, packed)
        except OSError as error:
            self._give_up(error.strerror)
            return weight
        return self._ops.unpacked(PackedBytes(packed.form, view))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._file is None:
            return
        if error is not None:
            self._give_up("loading failed")
            return
        index = {"num_bytes": self._file.tell(), "weights": self._entries}
        try:
            os.fsync(self._file.fileno())
            (self._partial / INDEX).write_text(json.dumps(index), encoding="utf-8")
            _move(self._partial, self._directory)
        except OSError as full:
            self._give_up(full.strerror)
            return
        self._file.close()
        self.are_kept = True
        _remove_outdated(self._directory)

    def _keep(self, file: FileIO, name: str, packed: PackedBytes) -> npt.NDArray[np.uint8]:
        offset, num_bytes = file.tell(), packed.bytes.nbytes
        _write(file, packed.bytes.data)
        _write(file, memoryview(bytes(-num_bytes % _PAGE)))
        self._entries[name] = [offset, num_bytes, packed.form]
        return _map(file, offset, num_bytes)

    def _give_up(self, reason: str | None) -> None:
        """What is mapped stays readable; what is not stays in memory."""
        log.warning("packed weights are not kept in %s: %s", self._directory.parent, reason)
        assert self._file is not None
        self._file.close()
        self._file = None
        shutil.rmtree(self._partial, ignore_errors=True)


def _write(file: FileIO, data: memoryview) -> None:
    """All of it: one call writes no more than 2 GiB."""
    while data:
        data = data[file.write(data) :]


def _map(file: FileIO, offset: int, num_bytes: int) -> npt.NDArray[np.uint8]:
    """A read-only view of a file's pages, which are fetched now, not under the first request, and
    in huge pages where kernel and file system have them for files."""
    mapped = mmap.mmap(file.fileno(), num_bytes, access=mmap.ACCESS_READ, offset=offset)
    for advice in (mmap.MADV_HUGEPAGE, _MADV_POPULATE_READ):
        with contextlib.suppress(OSError):  # an older kernel fetches small pages, when touched
            mapped.madvise(advice)
    return np.frombuffer(mapped, np.uint8)


def _forget_pages(folder: Path) -> None:
    """Let the kernel read what was written anew: in huge pages where it can."""
    for path in folder.glob(f"*/{DATA}"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _move(partial: Path, directory: Path) -> None:
    """Into place in one step. If another start was quicker, its bytes are these bytes too."""
    if directory.exists() and not (directory / INDEX).exists():
        shutil.rmtree(directory)  # damaged by hand
    try:
        partial.rename(directory)
    except OSError:
        if not (directory / INDEX).exists():
            raise
        shutil.rmtree(partial)


def _remove_outdated(directory: Path) -> None:
    """Packs of an earlier content of this checkpoint, or in an earlier layout."""
    digest, _, layout = directory.name.split(".")
    for other in directory.parent.glob("*.*.*"):
        its_digest, _, its_layout = other.name.split(".", 2)
        if (its_digest, its_layout) != (digest, layout):
            shutil.rmtree(other, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """What starts that were killed have left half-written: nobody holds its lock any more."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(OSError), (partial / DATA).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(partial, ignore_errors=True)
