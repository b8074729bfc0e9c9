"""How the time of a step grows with its rows, learned from the steps themselves.

Only ratios are asked for: how long contexts are and what else the machine does cancel out. Time
decides how many guesses are computed along, never which tokens come out.
"""

from __future__ import annotations

from bisect import bisect
from itertools import pairwise

MAX_ROWS = 16  # more are not asked for, and teach nothing
_KNOTS = (1, 2, 3, 4, 6, 8, 12, MAX_ROWS)  # rows; linear between them
# Before anything is measured: INT4 on two cores. Memory bounds up to eight rows.
_PRIOR = (1.0, 1.03, 1.06, 1.08, 1.2, 1.3, 1.8, 2.2)
_SCALE_RATE = 0.3  # follows the context's growth and the machine's other work
_SHAPE_RATE = 0.1


class StepCost:
    def __init__(self) -> None:
        self._shape = list(_PRIOR)  # of the time, at each knot
        self._scale = 0.0  # seconds, by now; 0: nothing measured

    def of(self, num_rows: int) -> float:
        """The time of a step of so many rows, in steps of one row."""
        return max(1.0, self._at(num_rows) / self._shape[0])

    def of_a_row(self, num_rows: int) -> float:
        """The least that a row on top of so many adds, however many more there are."""
        i, _ = _segment(num_rows)
        knots = [num_rows, *_KNOTS[i + 1 :]]
        return min((self.of(b) - self.of(a)) / (b - a) for a, b in pairwise(knots))

    def observe(self, num_rows: int, seconds: float) -> None:
        """A step in which every row drew a token took so long."""
        if num_rows > MAX_ROWS:
            return
        expected = self._at(num_rows)
        if not self._scale:
            self._scale = seconds / expected
        # One step that the machine was away in may not teach much.
        ratio = min(max(seconds / (self._scale * expected), 0.5), 2.0)
        self._scale *= 1 + _SCALE_RATE * (ratio - 1)
        i, weight = _segment(num_rows)
        self._shape[i] *= 1 + _SHAPE_RATE * (1 - weight) * (ratio - 1)
        self._shape[i + 1] *= 1 + _SHAPE_RATE * weight * (ratio - 1)

    def _at(self, num_rows: int) -> float:
        i, weight = _segment(num_rows)
        return self._shape[i] * (1 - weight) + self._shape[i + 1] * weight


def _segment(num_rows: int) -> tuple[int, float]:
    """The knot at or below, and how far towards the next."""
    i = min(bisect(_KNOTS, num_rows), len(_KNOTS) - 1) - 1
    return i, (num_rows - _KNOTS[i]) / (_KNOTS[i + 1] - _KNOTS[i])
