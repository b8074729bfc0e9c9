"""Free memory as control groups leave it, and the refusal before loading."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tests.model.tiny as tiny

from freehold.errors import CheckpointError, NotEnoughMemory
from freehold.model.checkpoint import Checkpoint
from freehold.model.config import ModelConfig
from freehold.model.loading import load_model
from freehold.model.memory import (
    MIN_CONTEXT,
    available_bytes,
    check_fits,
    loaded_bytes_by_kind,
    needed_bytes,
    readable_bytes,
)
from freehold.ops.create import create
from freehold.types import WeightFormat

MIB = 1 << 20


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A tree of /proc and /sys with 1,000 MiB available to the whole machine."""
    meminfo = f"MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable: {1000 * 1024} kB\n"
    for name, text in {"proc/meminfo": meminfo, "proc/self/cgroup": cgroup, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_groups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, "0::/\n", {})) == 1000 * MIB


def test_version_2_limit_counts_without_reclaimable_file_pages(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "0::/a/b\n",
        {
            "sys/fs/cgroup/a/b/memory.max": f"{600 * MIB}\n",
            "sys/fs/cgroup/a/b/memory.current": f"{500 * MIB}\n",
            "sys/fs/cgroup/a/b/memory.stat": f"anon 1\ninactive_file {90 * MIB}\n"
            f"active_file {10 * MIB}\n",
        },
    )
    assert available_bytes(root) == 200 * MIB


def test_the_tightest_group_above_decides(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "0::/a/b\n",
        {
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/memory.current": "1\n",
            "sys/fs/cgroup/a/memory.max": f"{300 * MIB}\n",
            "sys/fs/cgroup/a/memory.current": f"{100 * MIB}\n",
        },
    )
    assert available_bytes(root) == 200 * MIB


def test_version_1_limit_in_a_container_that_sees_only_its_top(tmp_path: Path) -> None:
    top = "sys/fs/cgroup/memory"
    root = machine(
        tmp_path,
        "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n",
        {
            f"{top}/memory.limit_in_bytes": f"{256 * MIB}",
            f"{top}/memory.usage_in_bytes": f"{100 * MIB}",
            f"{top}/memory.stat": f"inactive_file 1\ntotal_inactive_file {44 * MIB}\n",
        },
    )
    assert available_bytes(root) == 200 * MIB


def test_more_used_than_allowed_is_nothing_free(tmp_path: Path) -> None:
    group = "sys/fs/cgroup"
    root = machine(
        tmp_path,
        "0::/\n",
        {f"{group}/memory.max": f"{MIB}", f"{group}/memory.current": f"{2 * MIB}"},
    )
    assert available_bytes(root) == 0


def test_without_proc_the_system_is_asked(tmp_path: Path) -> None:
    assert 0 < available_bytes(tmp_path) <= psutil.virtual_memory().total


def test_this_machine_has_some() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1 KiB"), (int(3.416 * (1 << 30)), "3.42 GiB"),
     (1010 << 30, "1,010 GiB"), (5 << 50, "5 PiB"), (5000 << 50, "5,000 PiB")],
)  # fmt: skip
def test_figures_are_readable(num_bytes: int, text: str) -> None:
    assert readable_bytes(num_bytes) == text


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(
        tmp_path_factory.mktemp("memory") / "some-model", "deepseek_v3", hidden_size=2048
    )


def test_model_that_does_not_fit_is_refused_with_both_figures(directory: Path) -> None:
    config = ModelConfig.from_dict(Checkpoint.open(directory).config)
    needed = needed_bytes(config, WeightFormat.BF16, MIN_CONTEXT)
    check_fits(directory, free_bytes=needed)
    with pytest.raises(NotEnoughMemory) as caught:
        check_fits(directory, free_bytes=needed - 1)
    message = caught.value.message
    assert message.startswith("some-model as bf16 with 512 tokens of cache needs ")
    assert message.count(readable_bytes(needed)) == 2  # needed, and free is as good as that
    assert message.endswith("is free; it would fit as int8 or int4.")
    assert str(directory.parent) not in message


def test_refusal_offers_only_what_would_fit(directory: Path) -> None:
    with pytest.raises(NotEnoughMemory, match=r"but 1 KiB is free\.$"):
        check_fits(directory, WeightFormat.INT8, free_bytes=1024)


def test_longer_context_needs_more(directory: Path) -> None:
    config = ModelConfig.from_dict(Checkpoint.open(directory).config)
    needed = [needed_bytes(config, WeightFormat.INT4, context) for context in (0, 1, 1000)]
    per_token = 3 * (32 + 8) * 2  # layers × latent and rotary key × BF16
    assert [n - needed[0] for n in needed] == [0, per_token, 1000 * per_token]


def test_broken_checkpoint_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is empty"):
        check_fits(tmp_path)


def held_bytes(part: Any) -> int:
    """Bytes of all weights a built model's parts hold."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if hasattr(part, "num_bytes"):
        return int(part.num_bytes)
    if isinstance(part, list | tuple):
        return sum(map(held_bytes, part))
    if is_dataclass(part):
        return sum(held_bytes(getattr(part, field.name)) for field in fields(part))
    return 0


@pytest.mark.parametrize("variant", ["qwen2", "qwen3", "deepseek_v2_lite", "deepseek_v3_tied"])
@pytest.mark.parametrize("quantize", ["bf16", "int8", "int4"])
def test_prediction_is_what_the_native_model_holds(
    tmp_path: Path, variant: str, quantize: str
) -> None:
    size = {"hidden_size": 512, "intermediate_size": 768, "moe_intermediate_size": 128}
    overrides = {k: v for k, v in size.items() if k in tiny.VARIANTS[variant]}
    path = tiny.write_checkpoint(tmp_path, variant, dtype="bfloat16", **overrides)
    model = load_model(path, ops=create("native", 1), quantize=WeightFormat(quantize))
    held = sum(held_bytes(part) for part in (model.embedding, model.layers, model.norm, model.head))
    predicted = sum(loaded_bytes_by_kind(model.config, WeightFormat(quantize)).values())
    assert predicted == pytest.approx(held, rel=0.05)
