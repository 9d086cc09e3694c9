"""UNet2DConditionModel of diffusers, the network of Stable Diffusion (Rombach et al. 2022), as a denoising network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.interop.text_encoder import TextEncoder
from genlab.model.condition_kind import Caption
from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.network.embedding import CaptionEncoder, Told

_NUM_STEPS = 1000  # of the process that such networks are trained on: their time is a step of it
# Of a folder's config.json: what is passed on, and what says nothing about the function.
_PASSED_ON = ("down_block_types", "up_block_types", "block_out_channels", "mid_block_type", "layers_per_block",
              "cross_attention_dim", "attention_head_dim", "num_attention_heads", "transformer_layers_per_block",
              "norm_num_groups", "norm_eps", "act_fn", "use_linear_projection", "only_cross_attention",
              "upcast_attention", "resnet_time_scale_shift", "flip_sin_to_cos", "freq_shift", "downsample_padding",
              "mid_block_scale_factor", "conv_in_kernel", "conv_out_kernel")  # fmt: skip
_OTHER = ("sample_size", "in_channels", "out_channels", "center_input_sample", "dropout",
          "addition_embed_type_num_heads")  # fmt: skip


class UNet2DCondition(nn.Module):
    """Reads the outputs of a frozen text encoder, those of padding among them, as Stable Diffusion does; "nothing" is
    the empty text. Its sizes are those of the folder that the run starts from (``start=hf:...``)."""

    network: Any

    def __init__(
        self,
        shape: Sequence[int],  # of what is denoised, latents for example: (C, H, W)
        told: Told,  # a caption
        caption_encoder: Annotated[CaptionEncoder | None, FROM_ELSEWHERE] = None,  # hf:<the text_encoder of the model>
        settings: Mapping[str, Any] | None = None,  # of diffusers' class; from the folder in start=hf:...
    ):
        """Raises:
        ConfigError: diffusers is not installed.
        ValueError: there are no captions, no encoder, or one of another width; or diffusers does not take the settings.
        """
        super().__init__()
        kinds = [(key, kind) for key, kind in told.items() if isinstance(kind, Caption)]
        if len(kinds) != 1 or len(told) != 1:
            raise ValueError("model/network=unet2d_condition takes captions alone. Use model.conditions=[caption].")
        if not isinstance(caption_encoder, TextEncoder):
            raise ValueError(
                "model/network=unet2d_condition needs a text encoder: +model.network.caption_encoder=hf:<its folder>"
            )
        ((self.key, self.kind),) = kinds
        if not self.kind.names:
            raise ValueError("model/network=unet2d_condition needs data that provide the words of their captions.")
        try:
            from diffusers import UNet2DConditionModel
        except ImportError as error:
            raise ConfigError("a UNet2DConditionModel needs a package: pip install diffusers") from error
        caption_encoder.configure_model()
        caption_encoder.gives_padding = True
        self.encoder = caption_encoder.requires_grad_(False)
        self.network = UNet2DConditionModel(
            sample_size=shape[1], in_channels=shape[0], out_channels=shape[0], **dict(settings or {})
        )
        width = self.network.config.cross_attention_dim
        if width != caption_encoder.width:
            raise ValueError(
                f"the network reads texts of width {width}, and model.network.caption_encoder gives "
                f"{caption_encoder.width}. Name the text_encoder that belongs to it."
            )

    def middle(self) -> nn.Module:
        """At the coarsest resolution, after which the way up begins."""
        block: nn.Module = self.network.mid_block
        return block

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``x``: (N, C, H, W); ``noise_level``: (N,), t / 1000; ``condition``: by key, N rows each. -> (N, C, H, W)."""
        texts = [""] if condition is None or self.key not in condition else self.kind.words(condition[self.key])
        _, words = self.encoder.encode_words(texts)
        read = words.tokens.to(x.dtype).expand(len(x), -1, -1)
        output: Tensor = self.network(x, noise_level * _NUM_STEPS, encoder_hidden_states=read).sample
        return output


def knows(config: Mapping[str, Any]) -> bool:
    return config.get("_class_name") == "UNet2DConditionModel"


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The argument ``settings`` for a folder's config.json. Raises ValueError: it has something that is not built."""
    for name, value in config.items():
        plain = value in (None, False, 0, "default", "positional", 1.0) or name.startswith("_")
        if name not in (*_PASSED_ON, *_OTHER) and not plain:
            raise ValueError(f"{name}={value} is not supported")
    if config.get("in_channels", 4) != config.get("out_channels", 4):
        raise ValueError("in_channels and out_channels differ, as in networks for inpainting")
    if config.get("center_input_sample"):
        raise ValueError("center_input_sample=True is not supported")
    return {name: config[name] for name in _PASSED_ON if config.get(name) is not None}


def node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What of a config node such a network's folder says. Raises ValueError."""
    return {"_target_": f"{UNet2DCondition.__module__}.{UNet2DCondition.__qualname__}", "settings": settings_of(config)}


def weights(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors by their names in :class:`UNet2DCondition`."""
    return {f"network.{name}": value.float() for name, value in tensors.items()}


def beside(folder: Path) -> bytes:
    """No further file is needed beside the weights."""
    return b""
