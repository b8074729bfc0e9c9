"""Blocks of the paged cache on disk, under the hash of all tokens up to them, across restarts.

Only what a second request has found in the cache is written: system prompts and documents, not
every conversation. Bounded; the least recently used goes first. A file holds one block of all
layers behind its digest, so that a damaged one is a miss. Knows no requests.
Read `block_manager.py` for who asks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

MAX_WAITING_BLOCKS = 256  # to be written; more are left out, until they are found again
_DIGEST_BYTES = 16
_SUFFIX = ".block"
_KEPT_SHARE = 0.9  # of the bound, after it was passed

Memory = Sequence[npt.NDArray[np.uint8]]  # [num_blocks, bytes], one or more a layer; writable


class PrefixStore:
    """`identity` names everything the bytes depend on: weights, kernels, layout of the cache."""

    def __init__(self, root: Path, max_bytes: int, identity: str, memory: Memory) -> None:
        """Raises OSError where the directory cannot be made."""
        self._directory = root / blake2b(identity.encode(), digest_size=12).hexdigest()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._memory = memory
        self._known = {path.stem for path in self._directory.glob(f"*{_SUFFIX}")}
        self._writer = _Writer(root, max_bytes)
        weakref.finalize(self, self._writer.end)

    def keep(self, block_hash: bytes, block: int) -> None:
        """Have a computed block written, some time soon, unless it is there."""
        name = block_hash.hex()
        if name in self._known or self._writer.is_full:
            return
        content = b"".join(part[block].tobytes() for part in self._memory)
        self._writer.write(self._path(name), content)
        self._known.add(name)

    def restore(self, block_hash: bytes, block: int) -> bool:
        """Put a block's content into the cache; False if it is not here."""
        name = block_hash.hex()
        if name not in self._known:
            return False
        path = self._path(name)
        try:
            stored = path.read_bytes()
            os.utime(path)  # used just now
        except OSError:  # not written yet, or gone: with the oldest, or the disk was full
            return False
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if digest != _digest(content) or len(content) != sum(p.shape[1] for p in self._memory):
            log.warning("the kept prefix %s is damaged; it is computed anew", path)
            path.unlink(missing_ok=True)
            self._known.discard(name)
            return False
        start = 0
        for part in self._memory:
            end = start + part.shape[1]
            part[block] = np.frombuffer(content[start:end], np.uint8)
            start = end
        return True

    def flush(self) -> None:
        """Wait until all that was kept is on disk."""
        self._writer.flush()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"


class _Writer:
    """Writes on a thread of its own. Holds no cache: a model that is let go takes its own along."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._num_bytes = sum(_size(path) for path in _files(root))
        self._queue: SimpleQueue[tuple[Path, bytes] | threading.Event | None] = SimpleQueue()
        threading.Thread(target=self._run, name="freehold-prefixes", daemon=True).start()

    @property
    def is_full(self) -> bool:
        return self._queue.qsize() >= MAX_WAITING_BLOCKS

    def write(self, path: Path, content: bytes) -> None:
        self._queue.put((path, content))

    def flush(self) -> None:
        reached = threading.Event()
        self._queue.put(reached)
        reached.wait()

    def end(self) -> None:
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                self._write(*item)
            except OSError as error:
                log.warning("a prefix is not kept in %s: %s", self._root, error.strerror)

    def _write(self, path: Path, content: bytes) -> None:
        partial = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(_digest(content) + content)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._num_bytes += _DIGEST_BYTES + len(content)
        if self._num_bytes > self._max_bytes:
            self._num_bytes = _shrink(self._root, int(self._max_bytes * _KEPT_SHARE))


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _files(root: Path) -> list[Path]:
    """Of all identities: other workers' too, and those of models that are served no more."""
    return list(root.glob("*/*.*"))


def _shrink(root: Path, max_bytes: int) -> int:
    """Remove the least recently used until at most that many bytes stay; how many did."""
    found = []
    for path in _files(root):
        with contextlib.suppress(FileNotFoundError):  # another worker was quicker
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size
    return total


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
