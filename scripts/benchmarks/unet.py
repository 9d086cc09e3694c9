"""U-Net training at 32 pixels: genlab's beside diffusers' and EDM's, by time for a floating-point operation."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.denoising_step import timed_steps
from benchmarks.floor import PRECISIONS, matmul_rate, operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from genlab.model.network.unet import UNet

AIMS = {("fp32", "fp32"): 1.2, ("bf16", "fp32"): 1.8}  # ours, theirs


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Forward, backward and fused AdamW of both. The networks differ in their blocks, hence the time for an operation;
    how many they have of parameters and operations stands in the record."""
    side, batch = options.size(32, 8), options.size(8, 2)
    work = f"U-Net {side} px, per FLOP"
    x, target = torch.randn(2, batch, 3, side, side, device=options.device)
    noise_level = torch.rand(batch, device=options.device)
    networks: dict[str, nn.Module] = {"genlab": network_of_genlab(side, options)}
    for name, make in (("diffusers", network_of_diffusers), ("EDM", network_of_edm)):
        try:
            networks[name] = make(side, options)
        except peers.Missing as missing:
            yield Skipped("unet", f"{work}, {name}", str(missing))
    if len(networks) == 1:
        return
    for network in networks.values():
        network.to(options.device).train()
    calls: dict[str, Callable[[], Tensor]] = {
        "genlab": lambda: networks["genlab"](x, noise_level, None),
        "diffusers": lambda: networks["diffusers"](x, 1000 * noise_level).sample,
        "EDM": lambda: networks["EDM"](x, noise_level, None),
    }
    flops = {name: operations(lambda name=name: F.mse_loss(calls[name](), target).backward()) for name in networks}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    measured = timed_steps(networks, calls, target, options)
    for precision, dtype in PRECISIONS.items():
        rate = matmul_rate(dtype, options.device)
        for peer in list(networks)[1:]:
            for other in dict.fromkeys(("fp32", precision)):
                yield row(
                    "unet",
                    f"{work}, {precision}",
                    measured,
                    f"{peer} {other}",
                    f"parameters {sizes['genlab'] / 1e6:.1f} and {sizes[peer] / 1e6:.1f} M, GFLOPs a step "
                    f"{flops['genlab'] / 1e9:.0f} and {flops[peer] / 1e9:.0f}",
                    ours=f"genlab {precision}",
                    aim=AIMS.get((precision, other)) if peer == "diffusers" else None,
                    floor=flops["genlab"] / rate,
                    device=options.device,
                    work_of_peer=flops[peer] / flops["genlab"],
                    flops=flops["genlab"],
                    flops_of_peer=flops[peer],
                    matmul_rate=rate,
                )


def network_of_genlab(side: int, options: Options) -> UNet:
    return UNet(
        (3, side, side),
        {},
        channels=options.size(64, 8),
        channel_mult=(1, 2, 2),
        num_blocks=options.size(2, 1),
        attention_resolutions=(side // 4,),
        num_heads=2,
        dropout=0.0,
    )


def network_of_diffusers(side: int, options: Options) -> nn.Module:
    """As wide, as deep, attention at the same resolution. Raises Missing."""
    diffusers = peers.package("diffusers")
    channels = options.size(64, 8)
    return diffusers.UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        layers_per_block=options.size(2, 1),
        block_out_channels=(channels, 2 * channels, 2 * channels),
        attention_head_dim=channels,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=options.size(32, 4),
        dropout=0.0,
    )


def network_of_edm(side: int, options: Options) -> nn.Module:
    """DDPM++ of Karras et al. (2022), as wide, as deep, attention at the same resolution. Raises Missing."""
    code = peers.module(options, "edm", "training.networks")
    return code.SongUNet(
        img_resolution=side,
        in_channels=3,
        out_channels=3,
        model_channels=options.size(64, 8),
        channel_mult=[1, 2, 2],
        num_blocks=options.size(2, 1),
        attn_resolutions=[side // 4],
        dropout=0.0,
    )
