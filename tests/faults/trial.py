"""One attempt to break a promise."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from faults.runs import Place


@dataclass(frozen=True)
class Trial:
    """``act`` raises whatever shows that the promise does not hold."""

    name: str  # <promise>/<what>/<number>
    act: Callable[[Place], None]
    tried: int = 1  # faults that it makes


def spread(choices: Sequence[str], count: float) -> Iterator[tuple[str, str]]:
    """``count`` (at least 1) names, and a choice for each: all choices in turn, in an order by chance."""
    choices = random.Random(0).sample(choices, len(choices))
    for number in range(max(1, round(count))):
        choice = choices[number % len(choices)]
        yield f"{choice}/{number // len(choices)}", choice
