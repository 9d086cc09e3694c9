"""Probabilistic PCA (Tipping and Bishop 1999) as a VAE: with linear networks all is known in closed form."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genlab.model.hierarchical_vae import HierarchicalVAE
from genlab.model.likelihood.gaussian import Gaussian
from genlab.model.schedule import Constant
from genlab.model.vae import VAE

SHAPE, Z, SIGMA = (1, 2, 3), 2, 0.4
SIZE = math.prod(SHAPE)


class LinearEncoder(nn.Module):
    """x -> mean A x + b and a constant log scale, through the model's soft clamp."""

    def __init__(self, out_channels: int = 2 * Z):
        super().__init__()
        self.mean = nn.Linear(SIZE, Z)
        self.raw_log_std = nn.Parameter(torch.zeros(Z))

    def forward(self, image: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        mean = self.mean(image.flatten(1))
        return torch.cat([mean, self.raw_log_std.expand_as(mean)], dim=1)[:, :, None, None]

    @torch.no_grad()
    def be_exact(self, decoder: "LinearDecoder") -> None:
        """p(z | x) of orthogonal columns W: mean M^-1 W^T (x - mu), variance sigma^2 M^-1, M = W^T W + sigma^2."""
        weight = decoder.linear.weight
        m = (weight.T @ weight).diagonal() + SIGMA**2  # (Z,)
        self.mean.weight.copy_(weight.T / m[:, None])
        self.mean.bias.copy_(-self.mean.weight @ decoder.linear.bias)
        self.raw_log_std.copy_(5 * torch.atanh((SIGMA / m.sqrt()).log() / 5))


class LinearDecoder(nn.Module):
    """z -> W z + mu, with orthogonal columns W."""

    def __init__(self, out_channels: int = 1):
        super().__init__()
        self.linear = nn.Linear(Z, SIZE)
        columns = torch.linalg.qr(torch.randn(SIZE, Z)).Q * torch.tensor([1.0, 0.5])
        self.linear.weight = nn.Parameter(columns)

    def forward(self, latent: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        return self.linear(latent.flatten(1)).unflatten(1, SHAPE)

    def marginal(self) -> torch.distributions.MultivariateNormal:
        weight = self.linear.weight.detach()
        covariance = weight @ weight.T + SIGMA**2 * torch.eye(SIZE)
        return torch.distributions.MultivariateNormal(self.linear.bias.detach(), covariance)


class OneLayer(nn.Module):
    """The same two networks as a ladder of one layer."""

    def __init__(self, out_channels: int = 1):
        super().__init__()
        self.encoder, self.decoder = LinearEncoder(), LinearDecoder()

    def forward(self, image, condition, draw, count):  # type: ignore[no-untyped-def]
        prior = torch.zeros(count, 2 * Z, 1, 1)
        return self.decoder(draw(prior, None if image is None else self.encoder(image, condition)), condition)


def linear_vae(**arguments) -> VAE:  # type: ignore[no-untyped-def]
    model = VAE(encoder=LinearEncoder, decoder=LinearDecoder, likelihood=Gaussian(SIGMA), optimizer=torch.optim.Adam,
                schedule=Constant(), shape=SHAPE, told={}, latent_shape=(Z, 1, 1), **arguments)  # fmt: skip
    model.configure_model()
    return model


def linear_hierarchy(**arguments) -> HierarchicalVAE:  # type: ignore[no-untyped-def]
    model = HierarchicalVAE(ladder=OneLayer, likelihood=Gaussian(SIGMA), optimizer=torch.optim.Adam,
                            schedule=Constant(), shape=SHAPE, told={}, latent_shapes=[(Z, 1, 1)],
                            **arguments)  # fmt: skip
    model.configure_model()
    return model
