"""Pairs of answers for the tests of learning from preferences."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chats import lines

LENGTHS = ((3, 5, 2), (2, 4, 4), (4, 3, 7))  # of three prompts, and of their chosen and rejected answers


def by_hand(vocabulary: int, length: int = 12) -> dict[str, Tensor]:
    """A batch of three pairs of ``length`` tokens, filled up with 0."""
    tokens, answer = torch.zeros(3, 2, length, dtype=torch.long), torch.zeros(3, 2, length, dtype=torch.bool)
    mismatched, mismatched_answer = tokens.clone(), answer.clone()
    said = [[_said(7 * i + 3 * side, LENGTHS[i][1 + side], vocabulary) for side in range(2)] for i in range(3)]
    for i, (asked, *_) in enumerate(LENGTHS):
        prompt = _said(50 + i, asked, vocabulary)
        for side in range(2):
            for into, marks, own in ((tokens, answer, said[i][side]), (mismatched, mismatched_answer,
                                                                      said[(i + 1) % 3][side])):  # fmt: skip
                whole = torch.cat([prompt, own])[:length]
                into[i, side, : len(whole)] = whole
                marks[i, side, asked : len(whole)] = True
    return {
        "tokens": tokens,
        "answer": answer[..., 1:],
        "mismatched": mismatched,
        "mismatched_answer": mismatched_answer[..., 1:],
        "tie": torch.zeros(3, dtype=torch.bool),
        "index": torch.arange(3),
    }


def _said(start: int, length: int, vocabulary: int) -> Tensor:
    return (start + 11 * torch.arange(length) ** 2) % (vocabulary - 1) + 1


@torch.no_grad()
def fill(network: nn.Module, phase: float) -> None:
    """Weights that no version of torch changes."""
    for number, (_, parameter) in enumerate(sorted(network.named_parameters())):
        waves = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * (1.7 + 0.1 * number) + phase)
        is_gain = parameter.ndim == 1
        parameter.copy_(((1.0 if is_gain else 0.0) + (0.1 if is_gain else 0.25) * waves).view_as(parameter))


def pairs(folder: Path, count: int = 60) -> tuple[str, ...]:
    """The overrides that read a file of pairs."""
    rows: list[dict[str, Any]] = [{"prompt": f"{i}?", "chosen": f"= {i}", "rejected": f"no {i}"} for i in range(count)]
    path = lines(rows, folder / "pairs.jsonl")
    assert json.loads(path.read_text().splitlines()[0])["chosen"] == "= 0"
    return ("data=preferences", f"data.path={path}", f"data.cache_dir={folder / 'cache'}", "data.context=64")
