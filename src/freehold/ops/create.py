"""Chooses the Ops a process runs on, by name. Knows no models; imports the native library lazily,
so that the reference works where nothing is compiled. Read `reference.py` next.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from freehold.errors import ConfigError
from freehold.ops import Ops
from freehold.ops.reference import ReferenceOps

OpsName = Literal["auto", "native", "reference"]


def create(name: OpsName = "auto", num_threads: int | None = None) -> Ops:
    """Ops by name; `auto` is native where the library is built, else the reference.

    Raises ConfigError for an unknown name, and for `native` where it is not built.
    """
    if name not in ("auto", "native", "reference"):
        raise ConfigError(f"Unknown ops '{name}': use auto, native or reference.", param="ops")
    is_built = importlib.util.find_spec("freehold._native") is not None
    if name == "reference" or (name == "auto" and not is_built):
        return ReferenceOps()
    if not is_built:
        raise ConfigError(
            "The native library is not built: install Freehold again, or choose --ops reference.",
            param="ops",
        )
    try:
        from freehold.ops.native import NativeOps
    except ImportError as error:
        raise ConfigError(
            f"The native library cannot be loaded; build it again. ({error})", param="ops"
        ) from error
    return NativeOps(num_threads)
