"""What generation_config.json asks for is what a request gets that asks for nothing."""

from __future__ import annotations

import pytest

from freehold.errors import CheckpointError
from freehold.model.generation_config import GenerationConfig


def test_what_the_file_says_is_the_default_and_what_it_leaves_out_is_not():
    said = {
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "max_new_tokens": 256,
        "do_sample": True,
    }
    sampling = GenerationConfig.from_dict(said).sampling()
    assert sampling == {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 256}
    assert GenerationConfig.from_dict({}).sampling() == {}


def test_no_sampling_is_temperature_0_and_top_k_below_0_is_off():
    said = {"do_sample": False, "temperature": 0.6, "top_k": -1}
    assert GenerationConfig.from_dict(said).sampling() == {"temperature": 0.0, "top_k": 0}


@pytest.mark.parametrize(
    "said",
    [{"temperature": -1}, {"top_p": "0.9"}, {"top_k": True}, {"max_new_tokens": 0}],
    ids=lambda said: next(iter(said)),
)
def test_a_field_out_of_bounds_is_named(said):
    with pytest.raises(CheckpointError, match=next(iter(said))):
        GenerationConfig.from_dict(said)
