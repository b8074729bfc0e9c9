"""What this machine allows: plain reads of memory, and multiplications of each kind, a second.

The probes (`ladder.cpp`) are compiled for the CPU at hand. They use vector instructions: on a CPU
with a matrix unit the integer and BF16 peaks are higher than what is said here.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from freehold.ops.native import NativeOps

SOURCE = Path(__file__).parent / "ladder.cpp"
PEAKS = ("int8", "bf16", "float32")


def num_threads() -> int:
    return len(os.sched_getaffinity(0))


def name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    isa = NativeOps(num_threads=1).isa
    return f"{model}, {num_threads()} cores, {isa}, {platform.system()}"


@functools.cache
def library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "ladder.so"
        command = ["g++", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
        subprocess.run([*command, str(SOURCE), "-o", str(target)], check=True)
        loaded = ctypes.CDLL(str(target))
    for peak in PEAKS:
        function = getattr(loaded, f"peak_{peak}")
        function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
    return loaded


def limits() -> dict[str, float]:
    """Of all cores together; the best of a few tries, since only others make it less."""
    found = {"read_bytes_per_second": NativeOps().read_bytes_per_second()}
    for peak in PEAKS:
        found[f"{peak}_operations_per_second"] = max(_peak(peak) for _ in range(3))
    return found


def _peak(kind: str) -> float:
    """By each thread's own clock, which stands still while others use its core."""
    function = getattr(library(), f"peak_{kind}")
    speeds: list[float] = []

    def one_thread() -> None:
        started = time.thread_time()
        operations = function(10_000_000)
        speeds.append(operations / (time.thread_time() - started))

    threads = [threading.Thread(target=one_thread) for _ in range(num_threads())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(speeds)


if __name__ == "__main__":
    print(name())
    for key, value in limits().items():
        print(f"{key}: {value / 1e9:,.1f} G")
