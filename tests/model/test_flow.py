"""Flows: they invert, their log-determinant is the Jacobian's, and the family does with them what it says."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.config.build import fits
from genlab.model.base import GenerativeModel, HasLatent, HasLikelihood, HasPrior
from genlab.model.bits_per_dim import bits_per_dim, dequantize
from genlab.model.flow import Flow
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.network.mlp import MLP
from genlab.model.network.real_nvp import RealNVP
from genlab.model.network.tarflow import TarFlow
from genlab.model.parts import DenoisingNetwork, FlowNetwork
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream
from told import labels

LABELS = torch.tensor([0, 2, -1, 1])


def tarflow(shape: tuple[int, int, int] = (1, 4, 4), num_classes: int | None = 3, **changes: Any) -> TarFlow:
    return TarFlow(shape, labels(num_classes), **{"width": 16, "num_blocks": 3, "depth": 2, "num_heads": 2, **changes})


def real_nvp(shape: tuple[int, int, int] = (1, 4, 4), num_classes: int | None = 3, **changes: Any) -> RealNVP:
    return RealNVP(shape, labels(num_classes), **{"width": 16, "depth": 4, **changes})


def randomise(network: nn.Module) -> Any:
    """Away from the identity of initialization, as far as training goes."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


every = pytest.mark.parametrize("make", [tarflow, real_nvp])


def flow(network: Callable[[], nn.Module] = tarflow, **changes: Any) -> Flow:
    arguments: dict[str, Any] = {
        "network": network,
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "schedule": Constant(),
        "shape": (1, 4, 4),
        "told": {"label": {"size": 3}},
    }
    model = Flow(**{**arguments, **changes})
    model.configure_model()
    return randomise(model)


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_inverts(make: Callable, dtype: torch.dtype, tolerance: float) -> None:
    network = randomise(make()).to(dtype)
    x, told = torch.randn(4, 1, 4, 4, dtype=dtype), {"label": LABELS}
    z, _ = network(x, told)
    assert (z - x).abs().max() > 0.1
    torch.testing.assert_close(network.inverse(z, told), x, rtol=0, atol=tolerance)
    assert (network.inverse(z, None) - x).abs().max() > 0.01  # the label counts


@every
def test_log_determinant_is_the_jacobians(make: Callable) -> None:
    network = randomise(make()).double()
    x, told = torch.randn(4, 1, 4, 4, dtype=torch.float64), {"label": LABELS}
    _, log_det = network(x, told)
    for i in range(len(x)):
        label = {"label": LABELS[i : i + 1]}

        def one(flat: Tensor, label: dict[str, Tensor] = label) -> Tensor:
            return network(flat.view(1, 1, 4, 4), label)[0].flatten()

        jacobian = torch.autograd.functional.jacobian(one, x[i].flatten())
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(log_det[i].item(), abs=1e-9)


@every
def test_starts_as_the_identity(make: Callable) -> None:
    network, x = make().eval(), torch.randn(4, 1, 4, 4)
    z, log_det = network(x, {"label": LABELS})
    assert (log_det == 0).all()
    torch.testing.assert_close(z.flatten(1).sort().values, x.flatten(1).sort().values)  # up to the order of pixels


@every
def test_no_label_is_no_condition(make: Callable) -> None:
    network, x = randomise(make()), torch.randn(4, 1, 4, 4)
    torch.testing.assert_close(network(x, {"label": torch.full((4,), -1)}), network(x, None))
    assert randomise(make(num_classes=None))(x, None)[0].shape == x.shape


def test_a_block_sees_only_the_tokens_before() -> None:
    block = randomise(tarflow()).blocks[0].double()
    x = torch.randn(1, 4, 4, dtype=torch.float64)  # (N, T, features)
    jacobian = torch.autograd.functional.jacobian(lambda x: block(x, None)[0], x)[0, :, :, 0]  # (T, F, T, F)
    reach = jacobian.abs().amax(dim=(1, 3))  # (T, T): how much token i of z depends on token j of x
    assert (reach.triu(1) == 0).all()
    assert (reach.tril() > 0).sum() == 10
    own = jacobian[torch.arange(4), :, torch.arange(4)]  # (T, F, F)
    assert (own - torch.diag_embed(own.diagonal(dim1=1, dim2=2)) == 0).all()  # within a token: elementwise


def test_blocks_read_in_turns() -> None:
    """The first block cannot tell the first token of the last; the second one can."""
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)

    def first_of_last(num_blocks: int) -> float:
        network = randomise(tarflow(num_blocks=num_blocks)).double()
        jacobian = torch.autograd.functional.jacobian(lambda x: network(x, None)[0], x).view(16, 16)
        return jacobian.view(4, 4, 4, 4)[0, 0, 3, 3].abs().item()  # of pixel (0, 0) by pixel (3, 3)

    assert first_of_last(1) == 0
    assert first_of_last(2) > 0


def test_the_cache_changes_nothing() -> None:
    """Against the definition: token t of the inverse from a whole pass over the tokens before it."""
    block = randomise(tarflow()).blocks[0].double()
    z, told = torch.randn(4, 4, 4, dtype=torch.float64), {"label": LABELS}
    x = torch.zeros_like(z)
    for t in range(4):
        with torch.no_grad():
            mapped = block(x, told)[0][:, t]  # (x_t - shift) / scale, and linear in x_t
            moved = block(x + (torch.arange(4) == t)[:, None], told)[0][:, t]
        x[:, t] = (z[:, t] - mapped) / (moved - mapped)
    torch.testing.assert_close(block.inverse(z, told, 1.0), x, rtol=0, atol=1e-9)


@every
def test_guidance_extrapolates_from_no_label(make: Callable) -> None:
    network = randomise(make()).double()
    z, told = torch.randn(4, 1, 4, 4, dtype=torch.float64), {"label": LABELS}
    close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-9)
    close(network.inverse(z, told, 1 + 1e-12), network.inverse(z, told))
    close(network.inverse(z, told, 1e-12), network.inverse(z, None))
    guided = network.inverse(z, told, 2.0)
    differs = (guided - network.inverse(z, told)).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert differs.tolist() == [True, True, False, True]  # without a label there is nothing to follow


def test_slots_tell_flows_from_denoisers() -> None:
    flows, denoisers = Callable[[], FlowNetwork], Callable[[], DenoisingNetwork]
    assert fits(TarFlow, flows, partial=True)
    assert fits(RealNVP, flows, partial=True)
    assert not fits(MLP, flows, partial=True)
    assert not fits(TarFlow, denoisers, partial=True)


def test_arguments_are_checked() -> None:
    for changes, match in [({"patch_size": 3}, "patch_size"), ({"num_heads": 3}, "num_heads")]:
        with pytest.raises(ValueError, match=match):
            tarflow(**changes)
    with pytest.raises(ValueError, match="two numbers"):
        RealNVP((1, 1, 1), {})
    for changes, match in [({"noise_std": -1.0}, "noise_std"), ({"condition_dropout": 2.0}, "condition_dropout"),
                           ({"guidance": ClassifierFree(2.0), "condition_dropout": 0.0}, "guidance")]:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            flow(**changes)


# --- the family -------------------------------------------------------------------------------------------------------


def test_contract() -> None:
    model = flow()
    assert isinstance(model, GenerativeModel)
    assert isinstance(model, HasLikelihood)
    assert isinstance(model, HasLatent)
    with pytest.raises(ValueError, match="labels"):
        model.sample(1, {"label": torch.tensor([3])})


@every
def test_a_sample_is_the_same_in_any_batch(make: Callable) -> None:
    model = flow(make, guidance=ClassifierFree(1.5))
    labels = torch.arange(12) % 3
    together = model.sample(12, {"label": labels}, RandomStream.for_samples(1, range(12)))
    alone = model.sample(1, {"label": labels[7:8]}, RandomStream.for_samples(1, [7]))
    torch.testing.assert_close(together[7:8], alone, rtol=0, atol=1e-5)
    assert (together[0] - together[3]).abs().max() > 0.01  # one class, two samples


def test_sampling_inside_inference_mode() -> None:
    model = flow()
    stream = functools.partial(RandomStream.for_samples, 1, range(2))
    with torch.inference_mode():
        inside = model.sample(2, {"label": torch.tensor([0, 1])}, stream())
    torch.testing.assert_close(inside, model.sample(2, {"label": torch.tensor([0, 1])}, stream()))


def test_a_sample_without_noise_is_its_latent_decoded() -> None:
    model, told = flow(noise_std=0.0), {"label": torch.tensor([0, 1])}
    assert isinstance(model, HasPrior)
    z = RandomStream.for_samples(1, range(2)).randn(*model.latent_shape)
    torch.testing.assert_close(model.decode(z, told), model.sample(2, told, RandomStream.for_samples(1, range(2))))


def test_latents_round_trip() -> None:
    model = flow().double()
    x, told = torch.rand(4, 1, 4, 4, dtype=torch.float64) * 2 - 1, {"label": LABELS}
    z = model.encode(x, told)
    assert z.shape[1:] == model.latent_shape
    torch.testing.assert_close(model.decode(z, told), x, rtol=0, atol=1e-8)


class Gauss(nn.Module):
    """The flow of independent numbers N(MEAN, STD^2) and nothing to learn but a weight that is not used."""

    mean, std = 0.3, 0.5

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.std, x.new_full((len(x),), -x[0].numel() * math.log(self.std))

    def inverse(self, z: Tensor, condition: Any, guidance: float) -> Tensor:
        return self.mean + self.std * z


def test_denoising_is_the_posterior_mean() -> None:
    """Of noisy numbers of variance STD^2, of which noise_std^2 is noise."""
    model = flow(Gauss, told={}, noise_std=0.2)
    y = torch.randn(4, 1, 4, 4)
    gain = 1 - 0.2**2 / Gauss.std**2
    torch.testing.assert_close(model.denoise(y, None), Gauss.mean + gain * (y - Gauss.mean))


def test_a_sample_is_an_image_again() -> None:
    """Training puts level p at (2 p + 1) / 256 - 1, where bits per dimension look for it; sampling undoes that."""
    model = flow(Gauss, told={}, noise_std=0.0)
    stream = functools.partial(RandomStream.for_samples, 1, range(3))
    expected = (Gauss.mean + Gauss.std * stream().randn(1, 4, 4)) * 256 / 255
    torch.testing.assert_close(model.sample(3, None, stream()), expected)


def test_training_adds_what_it_says() -> None:
    seen: list[Tensor] = []

    class Spy(Gauss):
        def forward(self, x: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
            seen.append(x)
            return super().forward(x, condition)

    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat(5000)[:, None, None, None]
    for noise_std in (0.0, 0.3):
        flow(Spy, told={}, noise_std=noise_std).losses({"image": pixels / 127.5 - 1})
    clean = dequantize(pixels, RandomStream.for_samples(0, range(len(pixels))))
    assert (torch.floor((seen[0] + 1) * 128) == pixels).all()  # every level in its own cell
    assert (seen[0][::2].std() / clean[::2].std()).item() == pytest.approx(1, abs=0.03)
    assert seen[1][::2].std().item() == pytest.approx(0.3, rel=0.03)


def test_bits_per_dimension_of_an_untrained_flow() -> None:
    """The identity is N(0, 1) of what is dequantized: black pixels u / 128 - 1 with u uniform on [0, 1)."""
    model = Flow(tarflow, functools.partial(torch.optim.AdamW, lr=1e-3), Constant(), (1, 4, 4), {"label": {"size": 3}})
    model.configure_model()
    pixels = torch.zeros(200, 1, 4, 4, dtype=torch.uint8)
    bits = bits_per_dim(model.eval(), pixels, {"label": torch.zeros(200).long()}, RandomStream(range(200)))
    edges = torch.tensor([-1.0, 1 / 128 - 1], dtype=torch.float64)
    square = ((edges[1] ** 3 - edges[0] ** 3) / 3 * 128).item()  # E x^2
    expected = 7 + (0.5 * square + 0.5 * math.log(2 * math.pi)) / math.log(2)
    assert bits.mean().item() == pytest.approx(expected, abs=1e-4)
    assert model.likelihood_kind == "bound"  # of the discrete likelihood, as every density


def test_loss_is_the_likelihood_by_hand() -> None:
    model = flow(Gauss, told={}, noise_std=0.5)
    image = torch.zeros(20_000, 1, 2, 2)
    loss = model.losses({"image": image})["loss"].item()
    expected = 0.5 * math.log(2 * math.pi * Gauss.std**2) + (0.5**2 + Gauss.mean**2) / (2 * Gauss.std**2)
    assert loss == pytest.approx(expected, abs=0.02)
