"""How floats become small integers: the one rounding that the truth and the kernels share.

NumPy only, one matrix at a time; knows neither which tensor gets which format (that is
`model/formats.py`) nor how a kernel lays the integers out. Read `reference.py` next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

INT4_MAX = 7  # -8 is representable but never needed: the greatest |w| maps to 7
INT8_MAX = 127
FALLBACK_GROUP_SIZE = 32


def int4_group_size(in_features: int, wanted: int) -> int | None:
    """The largest of (wanted, 32) that divides `in_features`; None: this linear becomes INT8."""
    for group_size in (max(wanted, FALLBACK_GROUP_SIZE), min(wanted, FALLBACK_GROUP_SIZE)):
        if in_features % group_size == 0:
            return group_size
    return None


def quantize_int4(
    w: npt.NDArray[Any], group_size: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """w [out, in] → q int8 [out, in] in [-8, 7] and scales float16 [out, in / group_size].

    Symmetric: w ≈ q * scale, scale = float16(max|w| / 7) of its group. A group that is all zero,
    or so small that its scale rounds to zero, becomes zeros. Kernels store q + 8 unsigned.
    """
    num_rows, in_features = w.shape
    grouped = w.astype(np.float32).reshape(num_rows, in_features // group_size, group_size)
    scales = (np.abs(grouped).max(axis=2) / np.float32(INT4_MAX)).astype(np.float16)
    q = np.rint(_divide_or_zero(grouped, scales.astype(np.float32)[:, :, None]))
    q8 = np.clip(q, -INT4_MAX - 1, INT4_MAX).astype(np.int8)
    return q8.reshape(num_rows, in_features), scales


def quantize_int8(w: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """w [out, in] → q int8 [out, in] in [-127, 127] and scales float32 [out] (max|w| / 127)."""
    return quantize_rows(w)


def quantize_rows(x: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """x [n, dim] → q int8 [n, dim] in [-127, 127] and scales float32 [n], one a row (token).

    Rounds half to even. A zero row has scale 0 and zeros.
    """
    x = np.asarray(x, np.float32)
    scales = np.abs(x).max(axis=1) / np.float32(INT8_MAX)
    q = np.rint(_divide_or_zero(x, scales[:, None]))
    return np.clip(q, -INT8_MAX, INT8_MAX).astype(np.int8), scales


def _divide_or_zero(
    values: npt.NDArray[np.float32], scales: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """values / scales, 0 where the scale is 0."""
    safe = np.where(scales == 0, np.float32(1), scales)
    with np.errstate(over="ignore"):  # a subnormal scale can send a quotient to infinity: clipped
        return np.where(scales == 0, np.float32(0), values / safe)
