"""Real or generated examples for evaluation, with their labels and captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Column = Tensor | Sequence[str]


@dataclass(frozen=True)
class Examples:
    """N examples, by column: ``image`` (N, C, H, W) uint8, ``text``, N strings, or another kind of a task; and where
    the data have them or a sample is conditioned on one, ``label`` (N,) int64, -1 = none, ``caption``, N
    strings, and ``attributes`` (N, K) float32."""

    columns: Mapping[str, Column]
    length: int | None = None  # of texts: tokens of each

    @classmethod
    def of(cls, length: int | None = None, **columns: Column | None) -> "Examples":
        """Make examples of columns, of which some may be None."""
        return cls({name: rows for name, rows in columns.items() if rows is not None}, length)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def rows(self, chosen: slice | Tensor) -> "Examples":
        """A subset, in the order of ``chosen``."""
        return Examples({name: _rows(values, chosen) for name, values in self.columns.items()}, self.length)

    def mine(self, rank: int, world: int) -> "Examples":
        """This rank's share: every ``world``-th example, from number ``rank`` on."""
        return self.rows(slice(rank, None, world))


def joined(parts: Sequence[Examples]) -> Examples:
    """Concatenate parts with the same columns."""
    columns: dict[str, Column] = {}
    for name, rows in parts[0].columns.items():
        if isinstance(rows, Tensor):
            columns[name] = torch.cat([part[name] for part in parts])
        else:
            columns[name] = [row for part in parts for row in part[name]]
    return Examples(columns, parts[0].length)


def _rows(values: Column, chosen: slice | Tensor) -> Column:
    if isinstance(values, Tensor):
        return values[chosen]
    return values[chosen] if isinstance(chosen, slice) else [values[i] for i in chosen.tolist()]
