"""The tensors of a checkpoint, checked against what the config implies before any is read.

Resolves FP8 blocks to float32. Knows neither architectures (they say which tensors they expect)
nor packing. Read `layers.py` next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from freehold.errors import CheckpointError
from freehold.model.config import ModelConfig

Shape = tuple[int, ...]

FLOAT_DTYPES = ("F32", "BF16", "F16")
FP8_DTYPE = "F8_E4M3"
SCALE_SUFFIX = "_scale_inv"
MAX_NAMED = 3


class TensorInfo(Protocol):
    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> Shape: ...


class TensorFiles(Protocol):
    """What is needed of `freehold.model.checkpoint.Checkpoint`."""

    def names(self) -> Iterable[str]: ...

    def info(self, name: str, /) -> TensorInfo: ...

    def tensor(self, name: str, /) -> npt.NDArray[Any]: ...

    def release(self, name: str, /) -> None: ...


class WeightSource:
    """Reads the tensors named in `expected` (name → shape), which it has found to be all there.

    Raises CheckpointError if one is missing, has another shape or a type we cannot read, or if
    the files hold tensors that this config does not account for.
    """

    def __init__(
        self, files: TensorFiles, expected: Mapping[str, Shape], config: ModelConfig
    ) -> None:
        self._files = files
        self._expected = expected
        self._block_shape = config.quantization.block_shape if config.quantization else None
        names = set(files.names())
        _refuse_missing(expected.keys() - names)
        for name, shape in expected.items():
            self._check(name, shape, names)
        scales = {name + SCALE_SUFFIX for name in expected if self._is_fp8(name)}
        _refuse_unexpected(
            name for name in names - expected.keys() - scales if not _is_ignorable(name, config)
        )

    def has(self, name: str) -> bool:
        return name in self._expected

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """A read-only view of the file, as stored; FP8 becomes a new float32 array."""
        tensor = self._files.tensor(name)
        if not self._is_fp8(name):
            return tensor
        assert self._block_shape is not None
        return dequantize_fp8(tensor, self._files.tensor(name + SCALE_SUFFIX), self._block_shape)

    def release(self, name: str) -> None:
        """The tensor is packed: its pages may go."""
        self._files.release(name)

    def _is_fp8(self, name: str) -> bool:
        return self._files.info(name).dtype == FP8_DTYPE

    def _check(self, name: str, shape: Shape, names: set[str]) -> None:
        found = self._files.info(name)
        _check_shape(name, shape, found.shape)
        if found.dtype in FLOAT_DTYPES:
            return
        if found.dtype != FP8_DTYPE or len(shape) != 2:
            raise CheckpointError(
                f"Tensor {name} is stored as {found.dtype}; "
                f"{', '.join(FLOAT_DTYPES)} and block-wise {FP8_DTYPE} matrices can be read."
            )
        if self._block_shape is None:
            raise CheckpointError(
                f"Tensor {name} is {FP8_DTYPE}, but config.json has no quantization_config with "
                f"quant_method 'fp8': config and weights disagree."
            )
        if name + SCALE_SUFFIX not in names:
            _refuse_missing({name + SCALE_SUFFIX})
        blocks = tuple(-(-n // block) for n, block in zip(shape, self._block_shape, strict=True))
        _check_shape(name + SCALE_SUFFIX, blocks, self._files.info(name + SCALE_SUFFIX).shape)


def dequantize_fp8(
    q: npt.NDArray[Any], scales: npt.NDArray[Any], block_shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """q float8_e4m3fn [out, in] times its block's scale [out / rows, in / columns] → float32."""
    rows, columns = block_shape
    weight = q.astype(np.float32)
    by_column = np.repeat(scales.astype(np.float32), columns, axis=1)[:, : q.shape[1]]
    for block, scale in enumerate(by_column):
        weight[block * rows : (block + 1) * rows] *= scale
    return weight


def _check_shape(name: str, expected: Shape, found: Shape) -> None:
    if tuple(found) != expected:
        raise CheckpointError(
            f"Tensor {name} has the shape {list(found)}, but config.json implies "
            f"{list(expected)}: config and weights disagree."
        )


def _refuse_missing(names: Iterable[str]) -> None:
    if missing := sorted(names):
        raise CheckpointError(
            f"The checkpoint has no tensor {_listed(missing)}, which config.json implies: "
            f"config and weights disagree, or a file is missing."
        )


def _refuse_unexpected(names: Iterable[str]) -> None:
    if unexpected := sorted(names):
        raise CheckpointError(
            f"The checkpoint holds {_listed(unexpected)}, which config.json does not imply: "
            f"config and weights disagree."
        )


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_ignorable(name: str, config: ModelConfig) -> bool:
    """Frequencies we compute, a tied head stored twice, multi-token-prediction layers."""
    if name.endswith("rotary_emb.inv_freq"):
        return True
    if name == "lm_head.weight":
        return config.tie_word_embeddings
    layer = re.match(r"model\.layers\.(\d{1,6})\.", name)
    end = config.num_hidden_layers
    return layer is not None and end <= int(layer[1]) < end + config.num_mtp_layers
