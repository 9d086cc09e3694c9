"""A short hash of a network, by which features are comparable."""

import hashlib

from torch import nn


def network_fingerprint(network: nn.Module, *descriptions: str) -> str:
    """16 hex digits of the SHA-256 of every weight and buffer, and of ``descriptions`` (preprocessing ...)."""
    digest = hashlib.sha256("\n".join(descriptions).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
