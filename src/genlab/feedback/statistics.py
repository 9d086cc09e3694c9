"""What judgments say: of the runs, and of whoever judged."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean, median, stdev

from genlab.feedback.session import Judgment, Session

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Share:
    """``part`` of ``count``, in which ties may count half."""

    part: float
    count: int

    @property
    def mean(self) -> float:
        return self.part / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 % (Wilson 1927). With ties as halves it is too wide rather than too narrow, since a half varies less
        than 0 or 1."""
        n, p, square = self.count, self.mean, _Z**2
        middle, half = p + square / (2 * n), _Z * sqrt(p * (1 - p) / n + square / (4 * n**2))
        return max(0.0, (middle - half) / (1 + square / n)), min(1.0, (middle + half) / (1 + square / n))

    def __str__(self) -> str:
        if not self.count:
            return "none yet"
        low, high = self.interval
        return f"{self.mean:.1%} of {self.count} (95 %: {low:.1%} to {high:.1%})"


def first(session: Session) -> list[Judgment]:
    """Judgments of what was seen for the first time: independent of each other, unlike those that come again."""
    return [judged for judged in session.judgments if not judged.showing.again]


def twice(session: Session) -> Iterator[tuple[Judgment, Judgment]]:
    """Both judgments of each item that came again."""
    before = {judged.showing.item: judged for judged in first(session)}
    yield from ((before[j.showing.item], j) for j in session.judgments if j.showing.again)


def self_agreement(session: Session) -> Share:
    """How often an item got the same judgment when it came again, with sides swapped."""
    same = [(one.winner, one.rating) == (other.winner, other.rating) for one, other in twice(session)]
    return Share(sum(same), len(same))


def left_share(session: Session) -> Share:
    """How often the left side won: a half, but for a bias towards a position. Without ties."""
    won = [judged.winner == judged.showing.sides[0] for judged in first(session) if judged.winner is not None]
    return Share(sum(won), len(won))


def win_rate(session: Session) -> Share:
    """Of the first source over the second; a tie counts half."""
    points = []
    for judged in first(session):
        if not session.rate:
            outputs = session.items[judged.showing.item].outputs
            points.append(0.5 if judged.winner is None else float(outputs[judged.winner].source == 0))
    return Share(sum(points), len(points))


def ratings(session: Session, source: int) -> list[int]:
    return [
        judged.rating
        for judged in first(session)
        if judged.rating is not None and session.items[judged.showing.item].outputs[0].source == source
    ]


def lines(session: Session) -> list[str]:
    """The report."""
    judged = session.judgments
    found = [f"judged: {len(judged)} of {len(session.showings)}"]
    if not judged:
        return found
    if session.rate:
        for source, name in enumerate(session.sources):
            rated = ratings(session, source)
            spread = f" ± {_Z * stdev(rated) / sqrt(len(rated)):.2f} (95 %)" if len(rated) > 1 else ""
            mean = f"{fmean(rated):.2f}{spread}" if rated else "none yet"
            found.append(f"mean rating of {name}: {mean}, {len(rated)} rated")
    else:
        ties = sum(one.winner is None for one in first(session))
        if session.sources[0] != session.sources[-1]:
            found.append(
                f"win rate of {session.sources[0]} over {session.sources[1]}: {win_rate(session)}, {ties} tied"
            )
        else:
            found.append(f"ties: {Share(ties, len(first(session)))}")
        if not session.imported:
            found.append(f"left won (without bias: 50 %): {left_share(session)}")
    if session.taken_back:
        found.append(f"taken back and judged anew: {session.taken_back}")
    if session.imported:
        return found
    seconds = [one.seconds for one in judged if one.seconds is not None]
    return [
        *found,
        f"same judgment when shown again: {self_agreement(session)}",
        f"seconds per judgment: median {median(seconds):.1f}, mean {fmean(seconds):.1f}",
    ]
