"""Uniform numbers as a pure function of (seed, position): Philox-4x32-10.

A counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11):
no state to carry, so batching, preemption and failover cannot change what is drawn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(
    counter: tuple[npt.NDArray[np.uint64], ...], key: tuple[np.uint64, np.uint64]
) -> tuple[npt.NDArray[np.uint64], ...]:
    """Ten rounds over four arrays of 32-bit words (held in uint64); the same shapes come out."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def uniforms(seed: int, start: int, count: int) -> npt.NDArray[np.float64]:
    """The numbers in [0, 1) of positions start … start + count - 1, 53 bits each."""
    positions = np.arange(start, start + count, dtype=np.uint64)
    zero = np.zeros_like(positions)
    key = (np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32))
    high, low, _, _ = philox((positions & _LOW, positions >> _32, zero, zero), key)
    bits = (high << np.uint64(21)) | (low >> np.uint64(11))
    return bits.astype(np.float64) * 2.0**-53
