"""One safetensors file: its header checked as strictly as the reference library, its tensors
handed out as read-only views of the memory map, never copied.

Knows nothing of models or of the other shards. Read `checkpoint.py` next.

Format: 8 bytes, little-endian length of the header; the header, a JSON object of
name -> {dtype, shape, data_offsets}; the data. Whatever the `safetensors` library refuses is
refused here. Refused here though the library takes it: a key given twice (it keeps the last),
a tensor or dtype written in another JSON type than the format says, an empty tensor with a
dimension that no array can have, and more dimensions than an array can have.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeGuard

import ml_dtypes
import numpy as np

from freehold.errors import CheckpointError
from freehold.model.json_file import json_type, shown

MAX_HEADER_BYTES: Final = 100_000_000  # the library's bound
MAX_DIMENSIONS: Final = 32  # NumPy 1's; NumPy 2 has 64
_MAX_NESTING: Final = 125  # what the library's JSON parser has left inside a tensor's entry
_MAX_SIZE: Final = (1 << 64) - 1

BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8},
        **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
        **{"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32},
        **{"C64": 64, "F64": 64, "I64": 64, "U64": 64},
    }
)
"""Bits an element of each dtype the format knows."""

_NUMPY: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    **{
        f"{kind}{bits}": np.dtype(f"<{kind.lower()}{bits // 8}")
        for kind in "IU"
        for bits in (8, 16)
    },
    **{
        f"{kind}{bits}": np.dtype(f"<{kind.lower()}{bits // 8}")
        for kind in "IU"
        for bits in (32, 64)
    },
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "C64": np.dtype("<c8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}  # not F4 and F6: their elements share bytes, which no NumPy view can show


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the header says of one tensor. `offset` counts from the start of the file."""

    name: str
    dtype: str  # as the format spells it: "BF16", "F8_E4M3", ...
    shape: tuple[int, ...]
    num_bytes: int
    file: str  # the file's name inside the checkpoint
    offset: int


class SafetensorsFile:
    """An open file. Views stay valid while anything refers to them, also after `close`."""

    def __init__(
        self, mapped: mmap.mmap, header: bytes, tensors: dict[str, TensorInfo], meta: dict[str, str]
    ) -> None:
        self._mapped: mmap.mmap | None = mapped
        self.header = header  # as it stands in the file, padding included
        self.num_bytes = len(mapped)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self.metadata: Mapping[str, str] = MappingProxyType(meta)

    @classmethod
    def open(cls, path: Path) -> SafetensorsFile:
        """Check the header and map the file; no page of the data is read.

        Raises CheckpointError, naming `path.name`, for whatever is wrong with it.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise CheckpointError(f"{path.name} is not a regular file.")
                header = _read_header(file.read, status.st_size, path.name)
                tensors, metadata = parse_header(header, status.st_size, path.name)
                mapped = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise CheckpointError(f"{path.name} is missing.") from None
        except OSError as error:
            raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.") from None
        return cls(mapped, header, tensors, metadata)

    def tensor(self, name: str) -> np.ndarray[Any, Any]:
        """A read-only view of the file's own pages, of the header's shape and dtype.

        The address is aligned only as well as the writer of the file cared to.
        Raises CheckpointError for a name that is not there and for F4 and F6 tensors.
        """
        info = self._info(name)
        if (dtype := _NUMPY.get(info.dtype)) is None:
            raise CheckpointError(
                f"Tensor {name} in {info.file} is stored as {info.dtype}, which this version "
                "does not read; convert it to BF16 or F8_E4M3."
            )
        if self._mapped is None:
            raise ValueError(f"{info.file} is closed")
        if info.num_bytes == 0:
            empty = np.empty(info.shape, dtype)
            empty.flags.writeable = False
            return empty
        return np.ndarray(info.shape, dtype, buffer=self._mapped, offset=info.offset)

    def release(self, name: str) -> None:
        """Tell the kernel that the tensor's pages may leave this process's memory.

        A hint: views stay valid, and a later read fetches the pages from the file again.
        """
        info = self._info(name)
        if self._mapped is not None and info.num_bytes:
            start = info.offset - info.offset % mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_DONTNEED, start, info.offset + info.num_bytes - start)

    def sample(self, num_samples: int, sample_bytes: int) -> Iterator[bytes]:
        """Evenly spaced pieces of the data, the first and the last bytes among them."""
        if self._mapped is None:
            raise ValueError("the file is closed")
        start = 8 + len(self.header)
        last = max(start, self.num_bytes - sample_bytes)
        for i in range(num_samples):
            at = start + (last - start) * i // max(1, num_samples - 1)
            yield self._mapped[at : at + sample_bytes]

    def close(self) -> None:
        """Let the map go. It is unmapped with the last view of it: never under one.

        (No explicit mmap.close(): NumPy's views do not lock the map against it.)
        """
        self._mapped = None

    def _info(self, name: str) -> TensorInfo:
        if (info := self.tensors.get(name)) is None:
            raise CheckpointError(f"There is no tensor {name} in the file.")
        return info


def _read_header(read: Any, file_bytes: int, file: str) -> bytes:
    prefix: bytes = read(8)
    if prefix == b"version ":  # "version https://git-lfs.github.com/spec/v1"
        raise CheckpointError(
            f"{file} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`."
        )
    if len(prefix) < 8:
        raise CheckpointError(
            f"{file} is truncated: {file_bytes} bytes, where a safetensors file has at least 8."
        )
    num_bytes = int.from_bytes(prefix, "little")
    if num_bytes > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{file} is not a safetensors file: it gives its header {num_bytes:,} bytes, "
            f"where {MAX_HEADER_BYTES:,} is the format's most."
        )
    if 8 + num_bytes > file_bytes:
        raise CheckpointError(
            f"{file} is truncated: its header should end at byte {8 + num_bytes:,}, but the file "
            f"has {file_bytes:,} bytes."
        )
    header: bytes = read(num_bytes)
    return header


def parse_header(
    header: bytes, file_bytes: int, file: str
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors in the order of the data, and `__metadata__`; raises CheckpointError."""
    entries = _parse_json(header, file)
    metadata = _check_metadata(entries.pop("__metadata__", None), file)
    data_start = 8 + len(header)
    tensors = [_check_entry(name, entry, data_start, file) for name, entry in entries.items()]
    tensors.sort(key=lambda info: (info.offset, info.num_bytes))
    end = data_start
    for info in tensors:  # the data is covered once, without hole or overlap
        if info.offset != end:
            what = "overlaps the tensor before it" if info.offset < end else "leaves a hole"
            _malformed(
                file, f"tensor {shown(info.name)} {what} at byte {info.offset - data_start:,}"
            )
        end += info.num_bytes
    if end > file_bytes:
        raise CheckpointError(
            f"{file} is truncated: its header describes {end:,} bytes, but the file has "
            f"{file_bytes:,}; fetch it again."
        )
    if end < file_bytes:
        _malformed(file, f"{file_bytes - end:,} bytes after the last tensor belong to none")
    return {info.name: info for info in tensors}, metadata


def _parse_json(header: bytes, file: str) -> dict[str, Any]:
    try:
        text = header.decode("utf-8")
        entries = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
        if "\\u" in text:  # an escaped lone surrogate parses, but is not text
            json.dumps(entries, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        _malformed(file, f"{error.msg} at byte {error.pos:,} of the header's JSON")
    except UnicodeError:
        _malformed(file, "the header is not UTF-8 text")
    except RecursionError:
        _malformed(file, "the header is nested too deeply")
    except ValueError as error:
        _malformed(file, str(error))
    if not isinstance(entries, dict):
        _malformed(file, f"the header is {json_type(entries)}, not an object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} is given twice in the header")
    return entries


def _integer(text: str) -> int | float:
    # -0 and what exceeds 64 bits are floating point to the library, and so no sizes.
    if text == "-0" or len(text) > 20:
        return _finite(text)
    return int(text)


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError("a number in the header is out of range")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} in the header is not JSON")


def _check_metadata(value: object, file: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _malformed(file, "__metadata__ must be an object of strings")
    return value


def _check_entry(name: str, entry: object, data_start: int, file: str) -> TensorInfo:
    label = f"tensor {shown(name)}"
    if not isinstance(entry, dict):
        _malformed(file, f"the entry of {label} is {json_type(entry)}, not an object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        given = shown(json.dumps(dtype))
        _malformed(file, f"the dtype of {label} is {given}, none of {', '.join(BITS)}")
    if not _are_sizes(shape):
        _malformed(file, f"the shape of {label} is not an array of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _malformed(file, f"the data_offsets of {label} are not a start and an end")
    num_elements = _count_elements(shape)
    if num_elements is None:
        _malformed(file, f"the shape of {label} is one no array can have")
    num_bytes = offsets[1] - offsets[0]
    if num_elements * BITS[dtype] != 8 * num_bytes:
        _malformed(
            file,
            f"{label}, {dtype} of shape {list(shape)}, takes {num_elements * BITS[dtype] / 8:,g} "
            f"bytes, but its data_offsets span {num_bytes:,}",
        )
    extra = [value for key, value in entry.items() if key not in ("dtype", "shape", "data_offsets")]
    if _is_deeper(extra, _MAX_NESTING):
        _malformed(file, f"the entry of {label} is nested too deeply")
    return TensorInfo(name, dtype, tuple(shape), num_bytes, file, data_start + offsets[0])


def _count_elements(shape: list[int]) -> int | None:
    """None where the product passes 64 bits, with or (for NumPy) without the zeros in it."""
    if len(shape) > MAX_DIMENSIONS:
        return None
    non_zero = math.prod(size for size in shape if size)
    return None if non_zero * 8 >= 1 << 63 else math.prod(shape)


def _are_sizes(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= _MAX_SIZE for value in values
    )


def _is_deeper(values: list[Any], limit: int) -> bool:
    for _ in range(limit):
        nested = [value for value in values if isinstance(value, list | dict)]
        if not nested:
            return False
        values = [x for each in nested for x in (each.values() if isinstance(each, dict) else each)]
    return any(isinstance(value, list | dict) for value in values)


def _malformed(file: str, what: str) -> NoReturn:
    raise CheckpointError(f"{file} is not a valid safetensors file: {what}.")
