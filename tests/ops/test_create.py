"""Ops are chosen by name; what is not there is refused with a way out."""

from __future__ import annotations

import importlib.util

import pytest

from freehold.errors import ConfigError
from freehold.ops.create import create


def test_the_reference_needs_nothing_built():
    assert create("reference").name == "reference"


def test_auto_is_native_where_it_is_built():
    is_built = importlib.util.find_spec("freehold._native") is not None
    assert create("auto", num_threads=1).name.startswith("native" if is_built else "reference")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="auto, native or reference"):
        create("cuda")


def test_without_the_library_auto_is_the_reference_and_native_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert create("auto").name == "reference"
    with pytest.raises(ConfigError, match="--ops reference"):
        create("native")
