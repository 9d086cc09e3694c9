"""``start=<file>.pkl``: the weights of StyleGAN2 networks that their authors' programs saved, by genlab's names.

Read are stylegan2-ada-pytorch's files and those of StyleGAN2 from stylegan3, by :mod:`genlab.interop.network_pickle`,
which executes nothing. The generator is the averaged one, ``G_ema``.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from genlab.checkpoint.tensors import as_bytes, sha256_of
from genlab.errors import CheckpointError, ConfigError
from genlab.files.paths import read_path
from genlab.interop.network_pickle import ReadNetwork, read_networks

_ARCHITECTURES = {"orig": "plain", "skip": "skip", "resnet": "residual"}
_LAYERS = {"conv0": "up", "conv1": "conv", "torgb": "to_colors", "skip": "beside"}  # of a block of a generator
_CRITIC_LAYERS = {"fromrgb": "from_colors", "conv0": "conv", "conv1": "down", "skip": "beside"}
_TAIL = {"fromrgb": "from_colors", "conv": "conv", "fc": "hidden", "out": "out"}  # of a discriminator, at 4x4
_INNER = {"noise_strength": "strength", "noise_const": "constant", "affine.weight": "style.weight",
          "affine.bias": "style.bias"}  # fmt: skip
# What the constructors are told beside sizes, and the one value of it that is built here.
_BUILT: dict[str, Any] = {
    "activation": "lrelu", "lr_multiplier": 0.01, "w_avg_beta": 0.995, "embed_features": None, "layer_features": None,
    "resample_filter": [1, 3, 3, 1], "kernel_size": 3, "mbstd_num_channels": 1, "cmap_dim": None,
}  # fmt: skip
_WITHOUT_EFFECT = {
    "fp16_channels_last",
    "fused_modconv_default",
    "freeze_layers",
    "img_channels",
    "img_resolution",
    "num_fp16_res",
}


class StyleGAN2Origin:
    """Weights and settings of a file. Raises ConfigError: there is none."""

    kind = "ema"  # of the generator's weights

    def __init__(self, where: str, option: str):
        self.where, self.option, self.path = where, option, read_path(where).absolute()
        if not self.path.is_file():
            raise ConfigError(f"{option}={where}: there is no such file. Name a .pkl file that is there, or a run.")

    @cached_property
    def networks(self) -> tuple[ReadNetwork, ReadNetwork]:
        """The averaged generator, and the discriminator. Raises CheckpointError."""
        found = read_networks(self.path)
        for name, class_name in (("G_ema", "Generator"), ("D", "Discriminator")):
            if name not in found or found[name].class_name != class_name:
                raise CheckpointError(
                    f"{self.path} has no {name} that is a {class_name} of StyleGAN2: it cannot be used."
                )
        return found["G_ema"], found["D"]

    def settings(self) -> dict[str, Any]:
        """What the file's networks need of a config, by path: ``model.latent_dim`` and others.

        Raises CheckpointError: it is damaged, or its networks have something that is not built here.
        """
        generator, critic = (_Settings(network, self.path) for network in self.networks)
        layers = sum(name.startswith("mapping.fc") and name.endswith("weight") for name in self.networks[0].tensors)
        found = {
            "model.latent_dim": generator.take("z_dim"),
            "model.generator.style_width": generator.take("w_dim"),
            "model.generator.mapping_layers": layers,
            "model.generator.noise": generator.take("use_noise", True),
            "model.discriminator.mapping_layers": critic.take("num_layers", 8),
            "model.discriminator.group_size": critic.take("mbstd_group_size", 4),
        }
        generator.take("num_layers", None)
        for part, settings, usual in (("generator", generator, "skip"), ("discriminator", critic, "resnet")):
            found[f"model.{part}.architecture"] = _ARCHITECTURES[settings.take("architecture", usual)]
            found[f"model.{part}.channel_base"] = settings.take("channel_base", 32768)
            found[f"model.{part}.channel_max"] = settings.take("channel_max", 512)
            found[f"model.{part}.clamp"] = settings.take("conv_clamp", None)
            if settings.take("c_dim", 0) == 0:
                found["model.conditions"] = []
            settings.check_rest()
        return found

    def check_settings(self, config: Mapping[str, Any]) -> None:
        """Raises ConfigError if the model of a resolved ``config`` is another than the file's networks need."""
        others = {path: value for path, value in self.settings().items() if _at(config, path) != value}
        if others:
            typed = " ".join(f"{path}={'null' if value is None else value}" for path, value in others.items())
            raise ConfigError(
                f"{self.option}={self.where}: its networks are others than this model's. Use model=stylegan2 "
                f"{typed}".replace("True", "true").replace("False", "false")
            )

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        generator, critic = self.networks
        found: dict[str, Tensor] = {}
        for network, named in ((generator, _of_generator), (critic, _of_discriminator)):
            left = dict(network.tensors)
            found |= dict(named(left))
            if left:
                raise CheckpointError(
                    f"{self.path}: its {network.class_name} has {next(iter(left))}, which StyleGAN2 has not: it cannot "
                    "be used."
                )
        return found

    def weights(self) -> Mapping[str, Tensor]:
        """By the names of a GAN's state dict. Raises CheckpointError."""
        return self._weights

    def model(self) -> dict[str, Any]:
        raise ConfigError(f"{self.option}={self.where}: a .pkl file is where a run may begin: start={self.where}")

    def content(self) -> bytes:
        return as_bytes(self._weights, {})

    def sha256(self) -> str:
        return sha256_of(self.content())


class _Settings:
    """What a network was made with, taken piece by piece."""

    def __init__(self, network: ReadNetwork, path: Any):
        self.path, self.class_name = path, network.class_name
        self.left: dict[str, Any] = {}
        for name, value in network.init_kwargs.items():
            self.left.update(value if isinstance(value, dict) and name.endswith("_kwargs") else {name: value})

    def take(self, name: str, usual: Any = ...) -> Any:
        value = self.left.pop(name, usual)
        if value is ...:
            raise CheckpointError(f"{self.path}: its {self.class_name} does not say its {name}.")
        return value

    def check_rest(self) -> None:
        for name, value in self.left.items():
            if name not in _WITHOUT_EFFECT and (name not in _BUILT or _BUILT[name] != value):
                raise CheckpointError(
                    f"{self.path}: its {self.class_name} has {name}={str(value)[:50]}, which is not built here."
                )


def _at(config: Mapping[str, Any], path: str) -> Any:
    node: Any = config
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


# --- names: each generator takes what it knows out of the file's tensors ----------------------------------------------


def _of_generator(left: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield from _of_mapping(left, "generator.mapping")
    yield "generator.synthesis.constant", _taken(left, "synthesis.b4.const")
    for block, side in enumerate(_sides(left, "synthesis.")):
        there = f"generator.synthesis.blocks.{block}"
        yield from _of_layers(left, f"synthesis.b{side}", there, _LAYERS)


def _of_discriminator(left: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    if any(name.startswith("mapping.") for name in left):
        yield from _of_mapping(left, "discriminator.mapping")
    for block, side in enumerate(_sides(left, "")):
        if side > 4:
            yield from _of_layers(left, f"b{side}", f"discriminator.blocks.{block - 1}", _CRITIC_LAYERS)
    yield from _of_layers(left, "b4", "discriminator", _TAIL)


def _sides(left: Mapping[str, Tensor], beginning: str) -> list[int]:
    heads = {name[len(beginning) :].partition(".")[0] for name in left if name.startswith(f"{beginning}b")}
    return sorted(int(head[1:]) for head in heads if head[1:].isdecimal())


def _of_layers(
    left: dict[str, Tensor], here: str, there: str, layers: Mapping[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Of one block. Kernels of blurs, which are not parameters, are left where they are those of StyleGAN2."""
    for name in [name for name in left if name.startswith(f"{here}.")]:
        layer, _, inner = name.removeprefix(f"{here}.").partition(".")
        if name.endswith("resample_filter"):
            line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            if torch.equal(left[name].float(), line[:, None] * line):
                del left[name]
        elif layer in layers:
            values = _taken(left, name)
            if layer == "torgb" and inner == "weight":
                values = values.flatten(1)
            yield f"{there}.{layers[layer]}.{_INNER.get(inner, inner)}", values


def _of_mapping(left: dict[str, Tensor], there: str) -> Iterator[tuple[str, Tensor]]:
    """A linear map of a class among others is a table; without a class only its bias is left."""
    if "mapping.embed.weight" in left:
        weight, bias = _taken(left, "mapping.embed.weight"), _taken(left, "mapping.embed.bias")
        rows = weight.t() / math.sqrt(weight.shape[1]) + bias
        yield f"{there}.told.label.rows.weight", torch.cat([bias[None], rows])
    for name in [name for name in left if name.startswith("mapping.fc")]:
        number, _, inner = name.removeprefix("mapping.fc").partition(".")
        yield f"{there}.layers.{number}.{inner}", _taken(left, name)
    if "mapping.w_avg" in left:
        yield f"{there}.average", _taken(left, "mapping.w_avg")


def _taken(left: dict[str, Tensor], name: str) -> Tensor:
    if name not in left:
        raise CheckpointError(f"a network in the file has no {name}: it is not StyleGAN2's.")
    return left.pop(name).float()
