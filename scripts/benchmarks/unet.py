"""U-Net training at 32 pixels: genlab's beside diffusers', by time for a floating-point operation."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers, product
from benchmarks.floor import PRECISIONS, autocast, matmul_rate, operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import in_turns
from genlab.model.network.unet import UNet

AIMS = {("fp32", "fp32"): 1.2, ("bf16", "fp32"): 1.8}  # ours, theirs


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Forward, backward and fused AdamW of both. The networks differ in their blocks, hence the time for an operation;
    how many they have of parameters and operations stands in the record."""
    side, batch = options.size(32, 8), options.size(8, 2)
    work = f"U-Net {side} px, per FLOP"
    ours = network_of_genlab(side, options).to(options.device).train()
    try:
        theirs = network_of_diffusers(side, options).to(options.device).train()
    except peers.Missing as missing:
        yield Skipped("unet", work, str(missing))
        return
    x, target = torch.randn(2, batch, 3, side, side, device=options.device)
    noise_level = torch.rand(batch, device=options.device)
    calls: dict[str, Callable[[], Tensor]] = {
        "genlab": lambda: ours(x, noise_level, None),
        "diffusers": lambda: theirs(x, 1000 * noise_level).sample,
    }
    assert all(call().shape == target.shape for call in calls.values())
    networks: dict[str, nn.Module] = {"genlab": ours, "diffusers": theirs}
    flops = {name: operations(lambda call=call: F.mse_loss(call(), target).backward()) for name, call in calls.items()}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    with product.settings(options.device):
        sides: dict[str, Callable[[], Any]] = {}
        for name, network in networks.items():
            for precision, dtype in PRECISIONS.items():
                optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
                run = partial(step, calls[name], target, optimizer, dtype, options.device)
                sides[f"{name} {precision}"] = run if name == "genlab" else product.untouched(run, precision="highest")
        measured = in_turns(sides, options.rounds, options.seconds, options.device, slices=1)
    for precision, dtype in PRECISIONS.items():
        rate = matmul_rate(dtype, options.device)
        for other in dict.fromkeys(("fp32", precision)):
            yield row(
                "unet",
                f"{work}, {precision}",
                measured,
                f"diffusers {other}",
                f"parameters {sizes['genlab'] / 1e6:.1f} and {sizes['diffusers'] / 1e6:.1f} M, GFLOPs a step "
                f"{flops['genlab'] / 1e9:.0f} and {flops['diffusers'] / 1e9:.0f}",
                ours=f"genlab {precision}",
                aim=AIMS.get((precision, other)),
                floor=flops["genlab"] / rate,
                device=options.device,
                work_of_peer=flops["diffusers"] / flops["genlab"],
                flops=flops["genlab"],
                flops_of_peer=flops["diffusers"],
                matmul_rate=rate,
            )


def step(
    call: Callable[[], Tensor], target: Tensor, optimizer: torch.optim.Optimizer, dtype: torch.dtype, device: str
) -> None:
    with autocast(dtype, device):
        loss = F.mse_loss(call().float(), target)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


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
