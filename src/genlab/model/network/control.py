"""What the controlled networks share: the encoder of hints, and a network with its branch (Zhang et al. 2023)."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS = 32  # between the convolutions of a hint


class HintEncoder(nn.Module):
    """A hint to what is added to a network's first feature map; 0 at the start."""

    def __init__(self, hint_channels: int, patch_size: int, width: int):
        super().__init__()
        self.first = nn.Conv2d(hint_channels, _CHANNELS, 3, padding=1)
        self.second = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)
        self.to_patches = nn.PixelUnshuffle(patch_size)
        self.out = nn.Conv2d(_CHANNELS * patch_size**2, width, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, hint: Tensor) -> Tensor:
        """(N, hint_channels, H, W) -> (N, width, H / patch_size, W / patch_size)."""
        h = F.silu(self.second(F.silu(self.first(hint.to(self.first.weight.dtype)))))
        return self.out(self.to_patches(h))


@runtime_checkable
class Controllable(Protocol):
    """A denoising network that takes the outputs of a branch as ``control``."""

    def control_branch(self, hint_channels: int) -> nn.Module:
        """A branch: (x, noise_level, condition, hint) -> tensors, all 0 at the start."""
        ...

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Mapping[str, Tensor] | None,
        control: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """As :class:`genlab.model.parts.DenoisingNetwork`."""
        ...


class ControlledNetwork(nn.Module):
    """A frozen network and its branch. Only the branch is in the state dict and among the parameters."""

    def __init__(self, network: nn.Module, branch: nn.Module, key: str, strength: float):
        """``key``: of the hint in a condition; ``strength``: a factor of what the branch puts out."""
        super().__init__()
        self.branch, self.key, self.strength = branch, key, strength
        self._network = (network,)  # in a tuple, so that it is not a submodule

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """As the network, given the rest of ``condition``; rows whose hint is NaN, or all without one, are its own."""
        (network,) = self._network
        told = {key: value for key, value in (condition or {}).items() if key != self.key} or None
        hint = None if condition is None else condition.get(self.key)
        if hint is None:
            return network(x, noise_level, told)
        shown = ~hint.flatten(1).isnan().any(dim=1)
        control = self.branch(x, noise_level, told, hint.nan_to_num(0.0))
        factor = self.strength * shown.to(x.dtype)
        return network(x, noise_level, told, [c * factor.view(-1, *[1] * (c.ndim - 1)) for c in control])
