"""The native library's threads and dispatch: forks, callers at once, forced instruction sets."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from tests.ops.native_ops import ISAS, native, random

from freehold.errors import ConfigError
from freehold.types import WeightFormat


def test_an_instruction_set_can_be_forced_by_argument_and_by_environment(monkeypatch) -> None:
    for isa in ISAS:
        assert native.NativeOps(1, isa).name == f"native:{isa}"
        monkeypatch.setenv("FREEHOLD_ISA", isa)
        assert native.isa() == isa
    monkeypatch.delenv("FREEHOLD_ISA")
    assert native.isa() == native.available_isas()[0]


def test_an_instruction_set_that_is_not_here_is_refused_with_those_that_are(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"'nonsense'.*this CPU runs .*scalar"):
        native.NativeOps(1, "nonsense")
    for isa in {"amx", "avx512_bf16", "avx512_vnni", "avx2"} - set(ISAS):  # known, but not here
        with pytest.raises(ConfigError, match=rf"'{isa}' is not to be had here"):
            native.NativeOps(1, isa)
    monkeypatch.setenv("FREEHOLD_ISA", "nonsense")
    with pytest.raises(ConfigError, match="nonsense"):
        native.NativeOps(1)


def test_no_threads_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_threads must be at least 1, not 0"):
        native.NativeOps(0)


def test_the_emulated_matrix_unit_is_never_chosen() -> None:
    assert "amx_emulated" not in native.available_isas()


def test_a_child_computes_the_same_though_forked_in_the_middle_of_a_product() -> None:
    ops = native.NativeOps(3)
    x, weight = random(64, 512), ops.weight(random(600, 512), WeightFormat.INT8)
    expected = ops.linear(x, weight)
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            ops.linear(x, weight)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    statuses = []
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:  # without pytest: exit at once, by status
                signal.alarm(10)  # a lock that nobody is left to open
                os._exit(0 if np.array_equal(ops.linear(x, weight), expected) else 2)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    finally:
        stop.set()
        busy.join()
    assert statuses == [0] * 5
    assert np.array_equal(ops.linear(x, weight), expected)


def test_callers_on_several_threads_take_turns() -> None:
    ops = native.NativeOps(2)
    x, weight = random(16, 512), ops.weight(random(600, 512), WeightFormat.INT4)
    expected = ops.linear(x, weight)
    is_equal = []

    def call() -> None:
        is_equal.extend(np.array_equal(ops.linear(x, weight), expected) for _ in range(50))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert is_equal == [True] * 200


def test_the_gil_is_free_while_kernels_run() -> None:
    ops = native.NativeOps(1)
    x, weight = random(256, 2048), ops.weight(random(2048, 2048), WeightFormat.FLOAT32)
    ticks, stop = [0], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1
            stop.wait(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    stop.wait(0.01)
    before = ticks[0]
    ops.linear(x, weight)  # tens of milliseconds
    after = ticks[0]
    stop.set()
    ticker.join()
    assert after > before + 1


def test_a_process_with_sleeping_threads_exits_cleanly() -> None:
    program = (
        "from freehold.ops.native import NativeOps\n"
        "import numpy as np\n"
        "ops = NativeOps(4)\n"
        "ops.rms_norm(np.ones((4096, 64), np.float32), np.ones(64, np.float32), 1e-6)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_arrays_of_a_step_are_not_fresh_pages_each_time() -> None:
    ops = native.NativeOps(1)
    weight, x = ops.weight(random(4096, 64), WeightFormat.INT8), random(512, 64)

    def num_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            _ = [ops.linear(x, weight) for _ in range(3)]  # 8 MiB each: 2,048 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    num_faults()
    assert num_faults() < 2048


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", list(WeightFormat))
def test_the_peak_of_every_format_is_measured(isa, format) -> None:
    assert native.NativeOps(1, isa).peak_operations_per_second(format) > 0
