"""Packs texts into tensors, so that they can be metric states."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat


def packed(texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """N texts -> their bytes, uint8 (B,), and the length of each in bytes, int64 (N,)."""
    encoded = [text.encode() for text in texts]
    joined = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
    lengths = torch.tensor([len(text) for text in encoded])
    return joined[: int(lengths.sum())].to(device), lengths.to(device)


def texts_of(batch: Mapping[str, Any], real: bool) -> tuple[list[str], Tensor]:
    """The texts of a metric batch and their places, (M,): of the reference all that an example has, ``references``,
    where there are any."""
    if not real or "references" not in batch:
        return batch["text"], batch["index"]
    counts = torch.tensor([len(own) for own in batch["references"]], device=batch["index"].device)
    return [text for own in batch["references"] for text in own], batch["index"].repeat_interleave(counts)


def unpacked(
    content: list[Tensor] | Tensor,  # bytes
    lengths: list[Tensor] | Tensor,
    index: list[Tensor] | Tensor,  # (N,) places in the set
) -> dict[int, str]:
    """The texts by their place, in order; one of each place."""
    return {place: texts[0] for place, texts in grouped(content, lengths, index).items()}


def grouped(
    content: list[Tensor] | Tensor, lengths: list[Tensor] | Tensor, index: list[Tensor] | Tensor
) -> dict[int, list[str]]:
    """All texts by their place, in order."""
    everything = dim_zero_cat(content).cpu().numpy().tobytes()
    size = dim_zero_cat(lengths).cpu()
    ends = size.cumsum(0)
    texts = [everything[end - length : end].decode() for end, length in zip(ends.tolist(), size.tolist(), strict=True)]
    found: dict[int, list[str]] = {}
    for place, text in sorted(zip(dim_zero_cat(index).tolist(), texts, strict=True), key=lambda pair: pair[0]):
        found.setdefault(place, []).append(text)
    return found
