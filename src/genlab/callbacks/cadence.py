"""When periodic work is due: at points spread evenly over the budget, in any unit."""

from collections.abc import Sequence


class Cadence:
    """``times`` points of a run, the last one its end, and further ones at shares of the budget in (0, 1).

    A run that is continued does not go back to the points it has passed.
    """

    def __init__(self, times: int, also_at: Sequence[float] = ()):
        if times < 0:
            raise ValueError(f"times must be 0 or more, got {times}.")
        if not all(0 < share < 1 for share in also_at):
            raise ValueError(f"also_at must be shares of the budget between 0 and 1, got {list(also_at)}.")
        self.times = times
        self.others = sorted(
            share for share in set(also_at) if not times or abs(share * times - round(share * times)) > 1e-6
        )
        self._passed = 0

    def start(self, fraction: float) -> None:
        """Start where ``fraction`` of the budget, in [0, 1], is already used."""
        self._passed = self._points(fraction)

    def reached(self, fraction: float) -> bool:
        """Whether a point was passed since the last call."""
        passed = self._points(fraction)
        new, self._passed = passed > self._passed, max(passed, self._passed)
        return new

    def is_due(self, fraction: float) -> bool:
        """What :meth:`reached` would return, without passing the point."""
        return self._points(fraction) > self._passed

    def ahead(self, fraction: float) -> int:
        """How many points come after ``fraction`` of the budget."""
        return self._points(1.0) - self._points(fraction)

    def _points(self, fraction: float) -> int:
        # 0.57 of 100 is 56.99999999999999
        return int(fraction * self.times + 1e-9) + sum(share <= fraction + 1e-9 for share in self.others)
