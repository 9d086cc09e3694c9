"""DiT training: genlab's network beside Meta's, with the same weights."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.denoising_step import timed_steps
from benchmarks.floor import PRECISIONS, matmul_rate, operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from genlab.model.condition_kind import Label
from genlab.model.network.dit import DiT

CLASSES = 10
AIMS = {("fp32", "fp32"): 1.2, ("bf16", "bf16"): 1.6}  # ours, theirs


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Forward, backward and fused AdamW of both, told a class."""
    side, batch = options.size(32, 8), options.size(8, 2)
    width, depth, heads = options.size(384, 16), options.size(4, 1), options.size(6, 2)
    work = f"DiT {width}x{depth}, {side} px"
    ours = DiT((3, side, side), {"label": Label(CLASSES)}, width=width, depth=depth, num_heads=heads)
    ours = ours.to(options.device).train()
    try:
        theirs: Any = of_meta(options, side, width, depth, heads).to(options.device).train()
    except peers.Missing as missing:
        yield Skipped("dit", work, str(missing))
        return
    x, target = torch.randn(2, batch, 3, side, side, device=options.device)
    noise_level = torch.rand(batch, device=options.device)
    label = torch.randint(CLASSES, (batch,), device=options.device)
    calls: dict[str, Callable[[], Tensor]] = {
        "genlab": lambda: ours(x, noise_level, {"label": label}),
        "Meta's DiT": lambda: theirs(x, 1000 * noise_level, label),
    }
    copy_weights(ours, theirs)
    with torch.no_grad():
        a, b = (call() for call in calls.values())
    apart = float((a - b).abs().max() / b.abs().max())
    assert apart < 1e-4, f"with the same weights, outputs are apart by {apart:.1e} of the largest"
    flops = operations(lambda: (calls["genlab"]() - target).square().mean().backward())
    networks: dict[str, nn.Module] = {"genlab": ours, "Meta's DiT": theirs}
    measured = timed_steps(networks, calls, target, options)
    for precision, dtype in PRECISIONS.items():
        rate = matmul_rate(dtype, options.device)
        for other in dict.fromkeys(("fp32", precision)):
            yield row(
                "dit",
                f"{work}, {precision}",
                measured,
                f"Meta's DiT {other}",
                f"same weights: outputs within {apart:.0e} of the largest",
                ours=f"genlab {precision}",
                aim=AIMS.get((precision, other)),
                floor=flops / rate,
                device=options.device,
                flops=flops,
                matmul_rate=rate,
            )


def of_meta(options: Options, side: int, width: int, depth: int, heads: int) -> nn.Module:
    """Raises Missing."""
    peers.package("timm")
    code = peers.module(options, "dit", "models")
    return code.DiT(
        input_size=side,
        patch_size=2,
        in_channels=3,
        hidden_size=width,
        depth=depth,
        num_heads=heads,
        num_classes=CLASSES,
        class_dropout_prob=1e-9,
        learn_sigma=False,
    )


@torch.no_grad()
def copy_weights(ours: Any, theirs: Any) -> None:
    """Theirs into ours; what starts at zero is drawn anew first, so that all of it is seen.

    Their last layer has a patch's pixels before its channels, and their modulations have shift before scale.
    """
    for parameter in theirs.parameters():
        if parameter.requires_grad and not parameter.any():
            parameter.normal_(std=0.02)
    theirs.y_embedder.dropout_prob = 0.0
    patch, channels = theirs.patch_size, theirs.out_channels
    ours.stem.weight.copy_(theirs.x_embedder.proj.weight.flatten(1))
    ours.stem.bias.copy_(theirs.x_embedder.proj.bias)
    ours.positions.copy_(theirs.pos_embed[0])
    _linear(ours.noise_level.hidden, theirs.t_embedder.mlp[0])
    _linear(ours.noise_level.out, theirs.t_embedder.mlp[2])
    table = theirs.y_embedder.embedding_table.weight
    ours.told["label"].rows.weight[1:].copy_(table[:CLASSES])
    if len(table) > CLASSES:
        ours.told["label"].rows.weight[0].copy_(table[CLASSES])
    for mine, block in zip(ours.blocks, theirs.blocks, strict=True):
        _linear(mine.attention.qkv, block.attn.qkv)
        _linear(mine.attention.out, block.attn.proj)
        _linear(mine.mlp[0], block.mlp.fc1)
        _linear(mine.mlp[2], block.mlp.fc2)
        _modulation(mine.modulation, block.adaLN_modulation[1], (1, 0, 2, 4, 3, 5))
    last = theirs.final_layer
    _modulation(ours.modulation, last.adaLN_modulation[1], (1, 0))
    for mine, other in ((ours.out.weight, last.linear.weight), (ours.out.bias, last.linear.bias)):
        mine.copy_(other.unflatten(0, (patch * patch, channels)).transpose(0, 1).flatten(0, 1))


def _linear(ours: Any, theirs: Any) -> None:
    ours.weight.copy_(theirs.weight)
    ours.bias.copy_(theirs.bias)


def _modulation(ours: Any, theirs: Any, order: tuple[int, ...]) -> None:
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        chunks = other.chunk(len(order))
        mine.copy_(torch.cat([chunks[i] for i in order]))
