"""Texts that people have rated, and how they are read from rows of a data set."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genlab.data.conversation import ANSWERS, Columns, Conversation, checked, text_of
from genlab.errors import DataError


@dataclass(frozen=True)
class Rated(Conversation):
    """A prompt, which may be empty, and an answer to it, with what people said of that."""

    rating: float = 0.0  # their mean
    ratings: tuple[float, ...] = ()  # of each of them, where that is known
    group: str | None = None  # held out with others of the same one

    @property
    def question(self) -> str:
        """By whose hash it is held out: its group; else its prompt; else its own text."""
        if self.group is not None:
            return json.dumps([self.group])
        return super().question if any(message["content"] for message in self.prompt) else json.dumps(self.messages)

    def row(self) -> bytes:
        return json.dumps([self.messages, self.rating, self.ratings, self.group]).encode()


def rated(
    prompt: str, text: str, said: float | tuple[float, ...], group: str | None, limits: tuple[float, float], where: str
) -> Rated:
    """``said``: the mean rating, or that of each person. Raises DataError: a rating is outside ``limits``."""
    each = said if isinstance(said, tuple) else (said,)
    wrong = [value for value in each if not limits[0] <= value <= limits[1]]
    if wrong:
        low, high = limits
        lowest, highest = min(low, *each), max(high, *each)
        raise DataError(
            f"{where}: the rating {wrong[0]:g} is not one from {low:g} to {high:g}. Correct it, or give the scale: "
            f"data.lowest={lowest:g} data.highest={highest:g}"
        )
    messages = checked([{"role": "user", "content": prompt}, {"role": ANSWERS, "content": text}], where)
    own = said if isinstance(said, tuple) else ()
    return Rated(messages, where, rating=math.fsum(each) / len(each), ratings=own, group=group)


@dataclass(frozen=True)
class RatingColumns(Columns):
    """The columns of a text (``answer``), of what it answers, if anything (``prompt``), and of its rating: a number, or
    a list of what several people said."""

    rating: str = "rating"
    group: str | None = None
    limits: tuple[float, float] = (1.0, 5.0)

    def read(self, row: Mapping[str, Any], where: str) -> Rated:
        """Raises DataError: the row is no rated text; ``where`` it stands."""
        assert self.answer is not None
        prompt = text_of(row, self.prompt, where) if self.prompt is not None and self.prompt in row else ""
        group = None if self.group is None else str(text_of(row, self.group, where))
        return rated(prompt, text_of(row, self.answer, where), self._said(row, where), group, self.limits, where)

    def _said(self, row: Mapping[str, Any], where: str) -> float | tuple[float, ...]:
        found: Any = row.get(self.rating)
        each: list[Any] = found if isinstance(found, list) else [found]
        if not each or not all(type(value) in (int, float) and math.isfinite(value) for value in each):
            raise DataError(
                f"{where}: {self.rating} is {str(found)[:100]!r}, and neither a number nor a list of numbers (it has: "
                f"{', '.join(map(str, row)) or 'nothing'}). Name the column of ratings: data.rating=..."
            )
        return tuple(map(float, each)) if isinstance(found, list) else float(each[0])
