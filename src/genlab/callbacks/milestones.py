"""When to do what is done every so often: spread evenly over the budget, whatever it is counted in."""


class Milestones:
    """``times`` points of a run, the last one its end.

    A run that is continued does not go back to the points it has passed.
    """

    def __init__(self, times: int):
        if times < 0:
            raise ValueError(f"times must be 0 or more, got {times}.")
        self.times = times
        self._passed = 0

    def start(self, fraction: float) -> None:
        """``fraction`` of the budget, in [0, 1], has been used before."""
        self._passed = self._points(fraction)

    def reached(self, fraction: float) -> bool:
        """Whether a point was passed since the last call."""
        passed = self._points(fraction)
        new, self._passed = passed > self._passed, max(passed, self._passed)
        return new

    def _points(self, fraction: float) -> int:
        return int(fraction * self.times + 1e-9)  # 0.57 of 100 is 56.99999999999999
