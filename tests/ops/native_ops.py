"""What the tests of the native kernels share: which instruction sets to try, and random arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

native = pytest.importorskip("freehold.ops.native", reason="the native library is not built")

# amx_emulated has the loops of the AMX kernels over tiles in plain C++; it runs anywhere.
ISAS = [*native.available_isas(), "amx_emulated"]


def random(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
