"""A Hugging Face model directory: config.json and one or many safetensors files, opened whole.

Every shard's header is checked at opening, so that later reads can only fail on names. Knows
nothing of architectures; pickle files are recognised by name and never opened. Read
`safetensors_file.py` for the bytes and `weights.py` for what a model makes of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from freehold.errors import CheckpointError
from freehold.model import json_file
from freehold.model.json_file import shown
from freehold.model.safetensors_file import SafetensorsFile, TensorInfo

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
MAX_INDEX_BYTES: Final = 256 << 20
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
_NUM_SAMPLES, _SAMPLE_BYTES = 16, 4096


class Checkpoint:
    """An open model directory. Tensors are read-only views of the files' own pages."""

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        generation_config: dict[str, Any],
        shards: dict[str, SafetensorsFile],
        shard_of: dict[str, str],
    ) -> None:
        self.path = path
        self.config = config
        self.generation_config = generation_config
        self._shards = shards
        self._shard_of = shard_of

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read the configuration and every shard's header. No weights are read.

        Raises CheckpointError with one sentence: what is missing or malformed, and where.
        """
        directory = Path(path)
        has_weights = _check_directory(directory)
        if not has_weights:
            _refuse_without_weights(directory)
        config = json_file.read_object(directory / "config.json")
        generation_config = json_file.read_optional_object(directory / "generation_config.json")
        weight_map = None if (directory / SINGLE).exists() else _read_index(directory)
        shards = _open_shards(directory, [SINGLE] if weight_map is None else weight_map.values())
        if weight_map is None:
            weight_map = dict.fromkeys(shards[SINGLE].tensors, SINGLE)
        for name, file in weight_map.items():
            if name not in shards[file].tensors:
                raise CheckpointError(
                    f"{INDEX} says that tensor {shown(name)} is in {file}, which does not have it."
                )
        return cls(directory, config, generation_config, shards, weight_map)

    def names(self) -> tuple[str, ...]:
        """The names of all tensors, sorted."""
        return tuple(sorted(self._shard_of))

    def has(self, name: str) -> bool:
        return name in self._shard_of

    def info(self, name: str) -> TensorInfo:
        """What the header says of a tensor; raises CheckpointError if there is none such."""
        return self._shard(name).tensors[name]

    def tensor(self, name: str) -> np.ndarray[Any, Any]:
        """A read-only view, in the stored dtype and shape: BF16 and F8 as ml_dtypes.

        Raises CheckpointError for a name that is not there.
        """
        return self._shard(name).tensor(name)

    def release(self, name: str) -> None:
        """A hint that the tensor's pages may go; it stays readable."""
        self._shard(name).release(name)

    def digest(self) -> str:
        """64 hex digits over config, headers, sizes and a few sampled pages of each shard.

        Cheap and stable: two fine-tunings of one model differ, a copy or a move of the directory
        does not. It does not prove that every byte is intact.
        """
        digest = hashlib.sha256()
        digest.update(json_file.read_bytes(self.path / "config.json", json_file.MAX_CONFIG_BYTES))
        for file, shard in sorted(self._shards.items()):
            digest.update(f"\n{file} {shard.num_bytes}\n".encode())
            digest.update(shard.header)
            for piece in shard.sample(_NUM_SAMPLES, _SAMPLE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """Let the maps go, each as soon as no view of it is left."""
        for shard in self._shards.values():
            shard.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shard(self, name: str) -> SafetensorsFile:
        if (file := self._shard_of.get(name)) is None:
            raise CheckpointError(f"The checkpoint has no tensor {shown(name)}.")
        return self._shards[file]


def _check_directory(directory: Path) -> bool:
    """Whether there are safetensors to read; raises where there is not even a directory."""
    try:
        names = _file_names(directory)
    except FileNotFoundError:
        raise CheckpointError(f"There is no model directory {directory}.") from None
    except NotADirectoryError:
        raise CheckpointError(
            f"{directory} is a file; name the directory that holds config.json and the weights."
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{str(directory)!r} cannot be read: {reason}.") from None
    if not names:
        raise CheckpointError(f"The model directory {directory} is empty.")
    return SINGLE in names or INDEX in names


def _file_names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def _refuse_without_weights(directory: Path) -> None:
    names = _file_names(directory)
    shards = [name for name in names if name.endswith(".safetensors")]
    pickles = [name for name in names if Path(name).suffix.lower() in _PICKLES]
    gguf = [name for name in names if name.lower().endswith(".gguf")]
    if shards:
        raise CheckpointError(
            f"{directory} has {shards[0]} but neither {SINGLE} nor {INDEX}; "
            "one of the two must name the weights."
        )
    if pickles:
        raise CheckpointError(
            f"{directory} has its weights as a pickle file, {pickles[0]}, which can run code when "
            "it is opened and is never read; convert it to safetensors."
        )
    if gguf:
        raise CheckpointError(
            f"{directory} has its weights as GGUF, {gguf[0]}; give the Hugging Face checkpoint "
            "with safetensors that it was made from."
        )
    missing = f"{SINGLE} or {INDEX}"
    if "config.json" not in names:
        missing = f"config.json and no {SINGLE}"
    raise CheckpointError(f"{directory} is not a model directory: it has no {missing}.")


def _read_index(directory: Path) -> dict[str, str]:
    index = json_file.read_object(directory / INDEX, MAX_INDEX_BYTES)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{INDEX} has no weight_map of tensor names to files.")
    for name, file in weight_map.items():
        # Only a plain name: a path could reach any file of this machine.
        if not isinstance(file, str) or not file.endswith(".safetensors") or not _is_plain(file):
            raise CheckpointError(
                f"{INDEX} puts tensor {shown(name)} into {shown(json.dumps(file))}, which is "
                "not the plain name of a .safetensors file in the same directory."
            )
    return weight_map


def _is_plain(file: str) -> bool:
    return file.isprintable() and not set(file) & set("/\\:") and len(file.encode()) <= 255


def _open_shards(directory: Path, files: Iterable[str]) -> dict[str, SafetensorsFile]:
    names = sorted(set(files))
    # exists() follows symbolic links, and so does opening: a Hugging Face cache keeps each
    # snapshot as links to ../../blobs. Whoever can write a link here can write the weights.
    missing = [name for name in names if not (directory / name).exists()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(names)} shards named by {INDEX} are missing, the first is "
            f"{missing[0]}; fetch the rest of the checkpoint."
        )
    shards: dict[str, SafetensorsFile] = {}
    try:
        for name in names:
            shards[name] = SafetensorsFile.open(directory / name)
    except CheckpointError:
        for shard in shards.values():
            shard.close()
        raise
    return shards
