"""GAN training: a run of genlab's command beside a plain loop over the same networks."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.beside import training_beside
from benchmarks.floor import matmul_rate, operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row

KINDS = {
    "DCGAN": ("model/generator=dcgan", "model/discriminator=dcgan"),
    "BigGAN": ("model/generator=biggan", "model/discriminator=biggan", "model/objective=hinge"),
}


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Steps of a run with all that it does beside, but for samples and evaluation, at 32 pixels."""
    side, channels = options.size(32, 16), options.size(32, 1)
    with tempfile.TemporaryDirectory() as folder:
        images = np.random.default_rng(0).integers(0, 256, (options.size(2_000, 40), side, side, 3), dtype=np.uint8)
        np.save(Path(folder) / "images.npy", images)
        for name, choices in KINDS.items():
            batch = options.size(64 if name == "DCGAN" else 16, 4)
            told: dict[str, Any] = {}
            measured = training_beside(
                (
                    "data=array",
                    f"data.path={folder}/images.npy",
                    f"data.cache_dir={folder}/cache",
                    f"data.batch_size={batch}",
                    "model=gan",
                    *choices,
                    f"model.generator.channels={channels}",
                    f"model.discriminator.channels={channels}",
                    "model.latent_dim=64",
                ),
                partial(_peer, images, batch, name, told, options.device),
                options.rounds,
                options.size(15 if name == "DCGAN" else 5, 2),
                options.device,
            )
            rate = matmul_rate(torch.float32, options.device)
            yield row(
                "gan",
                f"{name}, {side} px",
                measured,
                "plain loop",
                told["agreement"],
                aim=1.1,
                floor=told["flops"] / rate,
                device=options.device,
                flops=told["flops"],
                matmul_rate=rate,
                batch=batch,
            )


def _peer(
    images: np.ndarray, batch: int, name: str, told: dict[str, Any], device: str, model: Any
) -> dict[str, Callable[[], object]]:
    generator, discriminator = copy.deepcopy(model.generator), copy.deepcopy(model.discriminator)
    noise = torch.randn(4, model.latent_dim, device=device)
    with torch.no_grad():
        made = [copy.deepcopy(network).eval()(noise, None) for network in (model.generator, generator)]
    assert torch.equal(*made)
    told["agreement"] = "the same networks"
    step = loop(
        generator,
        discriminator,
        torch.from_numpy(images).permute(0, 3, 1, 2),
        batch,
        model.latent_dim,
        hinge if name == "BigGAN" else classic,
        device,
    )
    told["flops"] = operations(step)
    return {"plain loop": step}


def loop(
    generator: nn.Module,
    discriminator: nn.Module,
    images: Tensor,
    batch: int,
    latent_dim: int,
    losses: tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]],
    device: str,
) -> Callable[[], None]:
    """A step as PyTorch's DCGAN example has it: images that are made once serve both turns."""
    of_discriminator, of_generator = losses
    optimizers = [torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (generator, discriminator)]
    order: list[Tensor] = []
    made = 0

    def step() -> None:
        nonlocal made
        if not order:
            order.extend(chunk for chunk in torch.randperm(len(images)).split(batch) if len(chunk) == batch)
        real = (images[order.pop()].to(device).float() / 127.5 - 1).contiguous()
        noise = torch.randn(batch, latent_dim, device=device)
        discriminator.zero_grad(set_to_none=True)
        fake = generator(noise, None)
        loss = of_discriminator(discriminator(real, None), discriminator(fake.detach(), None))
        loss.backward()
        optimizers[1].step()
        generator.zero_grad(set_to_none=True)
        generator_loss = of_generator(discriminator(fake, None))
        generator_loss.backward()
        optimizers[0].step()
        if made % 50 == 0:
            print(f"step {made}: {loss.item():.4f} {generator_loss.item():.4f}")
        made += 1

    return step


classic = (lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(), lambda fake: F.softplus(-fake).mean())
hinge = (lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(), lambda fake: -fake.mean())
