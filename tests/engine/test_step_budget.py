"""A step computes what the machine has been seen to compute in time."""

from __future__ import annotations

import pytest

from freehold.engine.step_budget import MIN_TOKENS, StepBudget


def test_until_a_step_was_seen_the_whole_budget_goes():
    assert StepBudget(512, 0.2).num_tokens == 512


def test_without_a_bound_in_time_the_whole_budget_goes_always():
    budget = StepBudget(512, None)
    budget.observe(512, 100.0)
    assert budget.num_tokens == 512


def test_the_budget_settles_at_what_takes_the_wanted_time():
    budget = StepBudget(512, 0.2)
    for _ in range(30):
        budget.observe(budget.num_tokens, budget.num_tokens * 0.002)
    assert budget.num_tokens == pytest.approx(100, abs=1)
    assert budget.num_tokens_alone == pytest.approx(250, abs=3)
    for _ in range(30):
        budget.observe(budget.num_tokens, budget.num_tokens * 0.0001)
    assert budget.num_tokens == 512


def test_one_slow_step_does_not_stop_prompts():
    budget = StepBudget(512, 0.2)
    for _ in range(5):
        budget.observe(64, 3600.0)
        assert budget.num_tokens == MIN_TOKENS


def test_small_steps_say_nothing():
    budget = StepBudget(512, 0.2)
    for num_tokens in range(MIN_TOKENS):
        budget.observe(num_tokens, 1.0)
    assert budget.num_tokens == 512
