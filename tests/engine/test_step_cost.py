"""What is learned from steps' times is how cost grows with rows, not how fast the machine is."""

from __future__ import annotations

import pytest

from freehold.engine.step_cost import MAX_ROWS, StepCost

TRUE = {1: 1.0, 2: 1.5, 3: 2.0, 4: 2.5, 6: 3.5, 8: 4.0, 12: 6.0, 16: 9.0}


def taught(seconds_of_one, cost=None):
    cost = cost or StepCost()
    for _ in range(200):
        for num_rows, relative in TRUE.items():
            cost.observe(num_rows, seconds_of_one * relative)
    return cost


@pytest.mark.parametrize("seconds_of_one", [1e-4, 0.03, 2.0])
def test_costs_come_near_the_measured_ones(seconds_of_one):
    cost = taught(seconds_of_one)
    for num_rows, relative in TRUE.items():
        assert cost.of(num_rows) == pytest.approx(relative, rel=0.1)
    assert cost.of(14) == pytest.approx((6 + 9) / 2, rel=0.1)


def test_a_machine_that_slows_down_changes_no_relation():
    cost = taught(0.01)
    before = [cost.of(num_rows) for num_rows in TRUE]
    after = [taught(0.05, cost).of(num_rows) for num_rows in TRUE]
    assert after == pytest.approx(before, rel=0.1)


def test_one_interrupted_step_teaches_little():
    cost = taught(0.01)
    before = cost.of(8)
    cost.observe(8, 10.0)
    assert before < cost.of(8) < 1.2 * before


def test_more_rows_than_are_ever_guessed_teach_nothing():
    cost = taught(0.01)
    before = [cost.of(num_rows) for num_rows in TRUE]
    cost.observe(500, 100.0)
    assert [cost.of(num_rows) for num_rows in TRUE] == before


def test_a_further_row_costs_at_least_the_flattest_part_ahead():
    cost = taught(0.01)
    for num_rows in range(1, MAX_ROWS):
        for more in range(1, MAX_ROWS + 1 - num_rows):
            assert (
                cost.of(num_rows + more) - cost.of(num_rows) > more * cost.of_a_row(num_rows) - 1e-9
            )
