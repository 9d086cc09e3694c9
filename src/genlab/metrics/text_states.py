"""Packs texts into tensors, so that they can be metric states."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import DataError


def packed(texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """N texts -> their bytes, uint8 (B,), and the length of each in bytes, int64 (N,)."""
    encoded = [text.encode() for text in texts]
    joined = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
    lengths = torch.tensor([len(text) for text in encoded])
    return joined[: int(lengths.sum())].to(device), lengths.to(device)


def paired(samples: dict[int, str], references: dict[int, str]) -> tuple[list[str], list[list[str]]]:
    """Samples that have a reference of the same place, and these, as sacrebleu takes them. Raises DataError if none
    has."""
    places = [place for place in samples if place in references]
    if not places:
        raise DataError("no sample has a reference to compare it with.")
    return [samples[place] for place in places], [[references[place] for place in places]]


def unpacked(
    content: list[Tensor] | Tensor,  # bytes
    lengths: list[Tensor] | Tensor,
    index: list[Tensor] | Tensor,  # (N,) places in the set
) -> dict[int, str]:
    """The texts by their place, in order."""
    everything = dim_zero_cat(content).cpu().numpy().tobytes()
    size = dim_zero_cat(lengths).cpu()
    ends = size.cumsum(0)
    texts = [everything[end - length : end].decode() for end, length in zip(ends.tolist(), size.tolist(), strict=True)]
    return dict(sorted(zip(dim_zero_cat(index).tolist(), texts, strict=True)))
