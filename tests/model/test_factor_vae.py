"""FactorVAE: the total correlation by a density ratio, permuted latents, and what each network learns from."""

import math
from typing import Any

import pytest
import torch
from linear_vae import SHAPE, LinearDecoder, LinearEncoder, Z
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.draws import Draws
from genlab.model.factor_vae import FactorVAE, permute_dims
from genlab.model.likelihood.gaussian import Gaussian
from genlab.model.network.latent_discriminator import LatentMLP
from genlab.model.schedule import Constant


class Quadratic(nn.Module):
    """The logarithm of a ratio of two Gaussian densities, exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(Z, Z))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, latent: Tensor) -> Tensor:
        z = latent.flatten(1)
        return ((z @ self.matrix) * z).sum(dim=1) + self.bias


def factor_vae(discriminator: Any = Quadratic, **settings: Any) -> FactorVAE:
    model = FactorVAE(LinearEncoder, LinearDecoder, discriminator, Gaussian(0.4), torch.optim.Adam, torch.optim.Adam,
                      Constant(), SHAPE, {}, (Z, 1, 1), **settings)  # fmt: skip
    model.configure_model()
    return model


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_density_ratio_of_gaussians_gives_their_total_correlation(rho: float) -> None:
    """-log(1 - rho^2) / 2 nats, of two normal latents that are correlated by rho."""
    model = factor_vae()
    noise = torch.randn(8_000, Z, generator=torch.Generator().manual_seed(0))
    z = torch.stack([noise[:, 0], rho * noise[:, 0] + math.sqrt(1 - rho**2) * noise[:, 1]], dim=1)[..., None, None]
    other = permute_dims(z, torch.rand(8_000, Z, generator=torch.Generator().manual_seed(1)))
    solver = torch.optim.LBFGS(model.discriminator.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = model.discriminator_loss(z, other)
        value.backward()
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        found = model.discriminator(z).mean()
    assert float(found) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.06)


def test_permuted_latents_keep_their_marginals_and_lose_their_correlation() -> None:
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(5000, 1, generator=generator)
    z = torch.cat([row, 2 * row, -row], dim=1).view(5000, 3, 1, 1)
    found = permute_dims(z, torch.rand(5000, 3, generator=generator))
    assert torch.equal(found.flatten(1).sort(dim=0).values, z.flatten(1).sort(dim=0).values)
    correlation = torch.corrcoef(found.flatten(1).T)
    assert (correlation - torch.eye(3)).abs().max() < 0.05
    identity = torch.arange(5000.0)[:, None].expand(-1, 3) / 5000
    assert torch.equal(permute_dims(z, identity), z)


def test_the_loss_is_that_of_a_vae_and_the_total_correlation() -> None:
    torch.manual_seed(0)
    model = factor_vae(gamma=3.0, beta=2.0)
    with torch.no_grad():
        model.discriminator.matrix.normal_()
    x, noise = torch.randn(8, *SHAPE), torch.randn(8, Z)
    losses, z = model.costs(x, None, noise)
    posterior = model.posterior(x, None)
    assert torch.equal(z, posterior.at(noise.view_as(posterior.mean)))
    size = math.prod(SHAPE)
    torch.testing.assert_close(losses["total_correlation"], model.discriminator(z).mean() / size)
    expected = losses["reconstruction"] + 2 * losses["kl"] + 3 * losses["total_correlation"]
    torch.testing.assert_close(losses["loss"], expected)
    assert {name.partition(".")[0] for name, _ in model.averaged()} == {"encoder", "decoder"}


def test_the_discriminator_learns_from_its_own_loss_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = factor_vae(gamma=3.0)
    with torch.no_grad():
        model.discriminator.matrix.normal_()
    monkeypatch.setattr(model, "draws", lambda: Draws(0, 0, 1, torch.device("cpu")))
    monkeypatch.setattr(model, "permuted", lambda z, draws: z)
    monkeypatch.setattr(model, "manual_backward", lambda loss: loss.backward())
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(model, "at_optimizer_step", lambda batch_idx: False)
    own = model.discriminator_loss
    monkeypatch.setattr(model, "discriminator_loss", lambda z, permuted: torch.zeros((), requires_grad=True))
    batch = {"image": torch.randn(8, *SHAPE)}
    model.training_step(batch, 0)
    assert model.discriminator.matrix.grad is None
    assert model.encoder.mean.weight.grad.abs().sum() > 0
    monkeypatch.setattr(model, "discriminator_loss", own)
    model.training_step(batch, 0)
    assert model.discriminator.matrix.grad.abs().sum() > 0


def test_ranks_permute_the_latents_of_all() -> None:
    """Their shares together are what one process has, where each has every second example of the batch."""
    latents = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    alone = permute_dims(latents, Draws(3, 0, 1, torch.device("cpu")).rand_of_all(4, 6))
    shares = [
        permute_dims(latents, Draws(3, rank, 2, torch.device("cpu")).rand_of_all(4, 3))[rank::2] for rank in (0, 1)
    ]
    assert torch.equal(torch.stack(shares, dim=1).flatten(0, 1), alone)


def test_a_perceptron_of_latents() -> None:
    network = LatentMLP((3, 2, 2), width=5, depth=2)
    assert [tuple(layer.weight.shape) for layer in network.blocks] == [(5, 12), (5, 5)]
    assert network(torch.randn(4, 3, 2, 2)).shape == (4,)
    with pytest.raises(ValueError, match="depth=0"):
        LatentMLP((3, 1, 1), depth=0)
    with pytest.raises(ValueError, match="gamma=-1"):
        factor_vae(gamma=-1.0)


def test_what_is_refused() -> None:
    model = factor_vae()
    with pytest.raises(ConfigError, match=r"permutes latents of a batch\. Use a larger data\.batch_size"):
        model.training_step({"image": torch.zeros(1, *SHAPE)}, 0)
    sharded = FactorVAE(LinearEncoder, LinearDecoder, Quadratic, Gaussian(0.4), torch.optim.Adam, torch.optim.Adam,
                        Constant(), SHAPE, {}, (Z, 1, 1))  # fmt: skip
    sharded._device_mesh = object()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"cannot be sharded .* Use trainer=ddp"):
        sharded.configure_model()
