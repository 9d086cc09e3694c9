"""Prompts without their answers, for models that answer and are told how good that was."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import KeyedDataset
from genlab.data.sampler import Keys


class Prompted(KeyedDataset):
    """Prompts by (epoch, index) keys.

    A batch has ``prompt`` (N, P) int64, -1 before those that are shorter than the longest; ``index`` (N,), the number
    of the conversation in its split; and ``held_out`` (N,) bool, whether that is not the training split.
    """

    def __init__(self, prompts: Sequence[np.ndarray], held_out: bool):  # (L,) tokens of each
        self.prompts, self.held_out = prompts, held_out

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        index = [number for _, number in keys]
        longest = max(len(self.prompts[number]) for number in index)
        rows = np.full((len(index), longest), -1, np.int64)
        for row, number in enumerate(index):
            rows[row, longest - len(self.prompts[number]) :] = self.prompts[number]
        return {
            "prompt": torch.from_numpy(rows),
            "index": torch.tensor(index),
            "held_out": torch.full((len(index),), self.held_out),
        }
