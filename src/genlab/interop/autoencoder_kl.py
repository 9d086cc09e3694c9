"""AutoencoderKL of diffusers, the autoencoder of latent diffusion (Rombach et al. 2022): images to latents and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.condition import Condition, Conditions

_PLAIN = ("layers_per_block", "norm_num_groups", "act_fn", "use_quant_conv", "use_post_quant_conv",
          "mid_block_add_attention")  # fmt: skip
_BEFORE = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))


class AutoencoderKL(nn.Module):
    """Frozen and unconditional. A latent is the mean of the posterior; latent diffusion scales latents itself."""

    conditions = Conditions()
    network: Any  # made in configure_model

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        latent_shape: Sequence[int],  # (Z, h, w)
        block_out_channels: Sequence[int],  # of each resolution, each half the one before
        layers_per_block: int = 1,
        norm_num_groups: int = 32,
        act_fn: str = "silu",
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
        mid_block_add_attention: bool = True,
    ):
        super().__init__()
        self.shape, self.latent_shape = tuple(shape), tuple(latent_shape)
        self.settings = {name: value for name, value in locals().items() if name in _PLAIN}
        self.channels = tuple(block_out_channels)
        self.register_module("network", None)

    def configure_model(self) -> None:
        """Make the network. Raises ConfigError: diffusers is not installed."""
        if self.network is not None:
            return
        try:
            from diffusers import AutoencoderKL as Network
        except ImportError as error:
            raise ConfigError("an AutoencoderKL needs a package: pip install diffusers") from error
        depth = len(self.channels)
        self.network = Network(
            in_channels=self.shape[0],
            out_channels=self.shape[0],
            latent_channels=self.latent_shape[0],
            down_block_types=("DownEncoderBlock2D",) * depth,
            up_block_types=("UpDecoderBlock2D",) * depth,
            block_out_channels=self.channels,
            sample_size=self.shape[1],
            **self.settings,
        )
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def encode(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """(N, C, H, W) on [-1, 1] -> (N, Z, h, w)."""
        latent: Tensor = self.network.encode(x).latent_dist.mode()
        return latent

    @torch.no_grad()
    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """(N, Z, h, w) -> (N, C, H, W)."""
        image: Tensor = self.network.decode(z).sample
        return image


def knows(config: Mapping[str, Any]) -> bool:
    return config.get("_class_name") == "AutoencoderKL"


def node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config node for such a model. Raises ValueError and KeyError: it is of another kind."""
    channels, side = config["block_out_channels"], config["sample_size"]
    for name, only in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if set(config.get(name, [only])) != {only}:
            raise ValueError(f"its {name} are not all {only}")
    if not isinstance(channels, list) or type(side) is not int or side % 2 ** (len(channels) - 1):
        raise ValueError("its sample_size cannot be halved as often as it has block_out_channels")
    small = side // 2 ** (len(channels) - 1)
    return {
        "_target_": f"{AutoencoderKL.__module__}.{AutoencoderKL.__qualname__}",
        "shape": [config["in_channels"], side, side],
        "latent_shape": [config["latent_channels"], small, small],
        "block_out_channels": channels,
        **{name: config[name] for name in _PLAIN if name in config},
    }


def weights(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors by their names in :class:`AutoencoderKL`; older versions name attention differently."""
    found = {}
    for name, value in tensors.items():
        own = f"network.{name}"
        for before, now in _BEFORE:
            own = own.replace(before, now)
        found[own] = value.float()
    return found


def beside(folder: Path) -> bytes:
    """No further file is needed beside the weights."""
    return b""
