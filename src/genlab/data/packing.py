"""Rows of a fixed length that hold one sequence each, or as many as fit."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import KeyedDataset
from genlab.data.sampler import Keys


def packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The numbers of the sequences that share a row of ``room`` tokens: each goes, the longest first, where it leaves
    least room (best fit decreasing). Rows in the order of their first sequence."""
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room that is left, the row), sorted
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect_left(open_rows, (lengths[number], -1))
        if place == len(open_rows):
            left, row = room, len(rows)
            rows.append([])
        else:
            left, row = open_rows.pop(place)
        rows[row].append(number)
        if left > lengths[number]:
            insort(open_rows, (left - lengths[number], row))
    return sorted(sorted(row) for row in rows)


class Rows(KeyedDataset):
    """Sequences in rows of ``context`` + 1 tokens, by (epoch, index) keys.

    A batch has ``tokens`` (N, T + 1) int64; ``counted`` (N, T) bool, which predictions count: the one at place t is of
    token t + 1; and, where rows hold several sequences, ``segment`` (N, T + 1) int64, the number of the sequence that a
    token is of, from 1 on; 0 is padding, which follows the others and never counts.
    """

    def __init__(
        self,
        sequences: Sequence[np.ndarray],  # (L,) tokens each, at most ``context`` + 1
        counted: Sequence[np.ndarray],  # (L,) bool: whether the prediction of a token counts, of the first never
        rows: Sequence[Sequence[int]],  # numbers of sequences
        context: int,
        has_segments: bool,
    ):
        self.sequences, self.counted, self.rows, self.context = sequences, counted, rows, context
        self.has_segments = has_segments

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        shape = (len(keys), self.context + 1)
        tokens, segment, counted = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
        for i, (_, index) in enumerate(keys):
            start = 0
            for number, which in enumerate(self.rows[index], start=1):
                end = start + len(self.sequences[which])
                tokens[i, start:end], segment[i, start:end] = self.sequences[which], number
                counted[i, start:end] = self.counted[which]
                start = end
        found = {"tokens": tokens, "counted": counted[:, 1:]} | ({"segment": segment} if self.has_segments else {})
        batch = {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in found.items()}
        return {**batch, "index": torch.tensor([index for _, index in keys])}
