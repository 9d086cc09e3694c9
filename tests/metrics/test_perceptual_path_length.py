"""Path lengths of decoders whose paths are known, against torch-fidelity, and on any batch size."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.generative_model_modulewrapper import GenerativeModelModuleWrapper
from torch_fidelity.metric_ppl import KEY_METRIC_PPL_RAW, calculate_ppl
from torch_fidelity.registry import SAMPLE_SIMILARITY_REGISTRY
from torch_fidelity.sample_similarity_base import SampleSimilarityBase

from genlab.config.build import resolve
from genlab.config.tree import ConfigTree
from genlab.data.digits import Digits
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics import perceptual_path_length
from genlab.metrics.distance.pixels import PixelDistance
from genlab.metrics.perceptual_path_length import PerceptualPathLength, slerp, trimmed_mean
from genlab.model.base import HasPrior
from given_text import GivenText
from told import classes

DIM = 6
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(1 * 4 * 4, DIM, generator=GENERATOR)


class Decoder(nn.Module):
    """Latents to images (N, 1, 4, 4) by any function of ``WEIGHT @ z``."""

    latent_prior = "standard normal"
    latent_shape = (DIM,)
    device = torch.device("cpu")

    def __init__(self, shape: Callable[[Tensor], Tensor] = lambda x: x, num_classes: int | None = None):
        super().__init__()
        self.shape, self.conditions, self.asked = shape, classes(num_classes), []

    def decode(self, z: Tensor, condition: Any = None) -> Tensor:
        assert z.dtype == torch.float32
        self.asked.append(None if condition is None else condition["label"].tolist())
        return self.shape(z @ WEIGHT.T).view(-1, 1, 4, 4)

    forward = decode


def measured(model: Any, seed: int = 0, **options: Any) -> PerceptualPathLength:
    metric = PerceptualPathLength(PixelDistance(), **{"num_samples": 40, "discard": 0.0} | options)
    metric.measure(model, Digits(), "val", 8, seed)
    return metric


# --- the path ---------------------------------------------------------------------------------------------------------


def speed(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """d/dt of the great circle, by hand. (N, D), (N, D), (N, 1) -> (N, D)."""
    angle = ((a * b).sum(dim=1) / a.norm(dim=1) / b.norm(dim=1)).acos()[:, None]
    return angle / angle.sin() * (-((1 - t) * angle).cos() * a + (t * angle).cos() * b)


def test_slerp_keeps_to_the_circle_at_constant_speed() -> None:
    a, b = torch.randn(2, 50, DIM, generator=GENERATOR, dtype=torch.float64)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    t = torch.rand(50, generator=GENERATOR, dtype=torch.float64)
    middle = slerp(a, b, t)
    torch.testing.assert_close(middle.norm(dim=1), torch.ones(50, dtype=torch.float64))
    angle = (a * b).sum(dim=1).acos()
    torch.testing.assert_close((a * middle).sum(dim=1).acos(), t * angle, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(slerp(a, b, torch.ones(50)), b)
    torch.testing.assert_close(slerp(a, 3 * a, torch.full((50,), 0.5)), 2 * a)  # of one direction: the line
    assert slerp(a, -a, t).isfinite().all()
    rows = slerp(a.view(50, 2, 3), b.view(50, 2, 3), t)  # over all of a latent, whatever its shape
    torch.testing.assert_close(rows.flatten(1), middle)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "slope"),
    [(lambda x: x, torch.ones_like), (torch.sin, torch.cos), (lambda x: x.tanh(), lambda x: 1 - x.tanh().square())],
    ids=["linear", "sine", "tanh"],
)
def test_length_is_the_squared_speed_of_the_image(shape: Callable, slope: Callable) -> None:
    """By the chain rule; float32 images and a step of 1e-4 leave an error of 1e-3."""
    z0, z1 = torch.randn(2, 200, DIM, generator=GENERATOR)
    t = torch.rand(200, generator=GENERATOR)
    metric = PerceptualPathLength(PixelDistance())
    found = metric.lengths_of(Decoder(shape), z0, z1, t, None)
    a, b, weight = z0.double(), z1.double(), WEIGHT.double()
    along = speed(a, b, t.double()[:, None]) @ weight.T
    expected = (along * slope(slerp(a, b, t) @ weight.T)).square().mean(dim=1)
    torch.testing.assert_close(found.double(), expected, rtol=5e-3, atol=5e-3)
    assert found.double().mean() == pytest.approx(float(expected.mean()), rel=1e-3)


def test_mean_of_a_linear_decoder_by_quadrature() -> None:
    """Angles have density sin^(d-2), lengths are chi; the mean speed, times |W|^2 / d, is a double integral."""
    angle = np.linspace(0, math.pi, 4002)[1:-1, None]
    t = (np.arange(200) + 0.5)[None] / 200
    both = 2 * math.exp(2 * (math.lgamma((DIM + 1) / 2) - math.lgamma(DIM / 2)))  # E|a| E|b|; E|a|^2 is DIM
    near, far = np.cos((1 - t) * angle), np.cos(t * angle)
    squared = (angle / np.sin(angle)) ** 2 * (DIM * (near**2 + far**2) - 2 * near * far * both * np.cos(angle))
    density = np.sin(angle) ** (DIM - 2) / (np.sin(angle) ** (DIM - 2)).sum()
    expected = (squared.mean(axis=1, keepdims=True) * density).sum() * float(WEIGHT.square().sum()) / DIM / 16
    metric = measured(Decoder(), num_samples=4000)
    lengths = torch.cat(metric.lengths)
    error = float(lengths.std() / 4000**0.5)
    assert error < 0.03 * expected
    assert abs(float(metric.compute()["path_length"]) - expected) < 4 * error


def test_equals_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose paths begin at one end, t = 0, whose latents are NumPy's, and whose own slerp is in float32: so the step
    is larger here."""

    class Pixels(SampleSimilarityBase):
        def __init__(self, name: str, **kwargs: Any):
            super().__init__(name)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).square().flatten(1).mean(dim=1)

    monkeypatch.setitem(SAMPLE_SIMILARITY_REGISTRY, "pixels", Pixels)
    theirs = calculate_ppl(
        1, input1=GenerativeModelModuleWrapper(Decoder(torch.sin), DIM, "normal", 0), input1_model_num_samples=50,
        ppl_sample_similarity="pixels", ppl_epsilon=0.01, ppl_z_interp_mode="slerp_any", ppl_reduction="none",
        ppl_discard_percentile_lower=None, ppl_discard_percentile_higher=None, batch_size=20, cuda=False,
        verbose=False, rng_seed=7,
    )[KEY_METRIC_PPL_RAW]  # fmt: skip
    rng = np.random.RandomState(7)
    z0, z1 = (torch.from_numpy(rng.randn(50, DIM)).float() for _ in range(2))
    ours = PerceptualPathLength(PixelDistance(), epsilon=0.01).lengths_of(
        Decoder(torch.sin), z0, z1, torch.zeros(50), None
    )
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3)


def test_trimmed_mean_equals_numpy() -> None:
    values = torch.randn(237, generator=GENERATOR, dtype=torch.float64)
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    kept = values[(values >= low) & (values <= high)]
    assert 230 < len(kept) < 237
    assert float(trimmed_mean(values, 0.01)) == pytest.approx(float(kept.mean()), rel=1e-12)
    assert float(trimmed_mean(values, 0.0)) == pytest.approx(float(values.mean()), rel=1e-12)


def test_float32_is_enough_for_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller step gives the same number, until rounding is as large as it: so 1e-5 is the least."""
    z0, z1 = torch.randn(2, 500, DIM, generator=GENERATOR)
    t = torch.rand(500, generator=GENERATOR)
    lengths = {
        step: float(
            PerceptualPathLength(PixelDistance(), epsilon=step).lengths_of(Decoder(torch.sin), z0, z1, t, None).mean()
        )
        for step in (1e-3, 1e-4, 1e-5)
    }
    assert lengths[1e-4] == pytest.approx(lengths[1e-3], rel=2e-3)
    assert lengths[1e-5] == pytest.approx(lengths[1e-3], rel=2e-2)


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_batches_ranks_and_order_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole chunks are the ranks' shares: to the last bit."""
    alone = measured(Decoder(torch.sin)).compute()
    for world in (2, 4):
        shares = PerceptualPathLength(PixelDistance(), num_samples=40, discard=0.0)
        for rank in reversed(range(world)):
            monkeypatch.setattr(perceptual_path_length, "rank", lambda rank=rank: rank)
            monkeypatch.setattr(perceptual_path_length, "world", lambda world=world: world)
            shares.measure(Decoder(torch.sin), Digits(), "val", 64 // world, 0)
        assert shares.compute() == alone
    monkeypatch.undo()
    assert measured(Decoder(torch.sin), seed=1).compute() != alone


def test_labels_are_asked_for_in_turn_and_both_ends_have_one() -> None:
    model = Decoder(num_classes=3)
    measured(model)
    turns = [label for asked in model.asked for label in asked[: len(asked) // 2]]
    assert turns == [i % 3 for i in range(40)]
    assert all(asked[: len(asked) // 2] == asked[len(asked) // 2 :] for asked in model.asked)


def test_names_say_which_distance_and_how_many() -> None:
    metric = PerceptualPathLength(PixelDistance(), num_samples=40)
    result = Evaluation(None, {"path_length": metric}, seed=3).run(Decoder(), Digits(), weights="ema")  # type: ignore[arg-type]
    assert set(result.values) == {"path_length_pixels_40"}
    assert result.protocol["metrics"]["path_length"]["seed"] == 3


def test_who_has_a_prior() -> None:
    """Of all families, found in the configs."""
    models = {name: resolve(target, name) for name, target in ConfigTree().targets("model")}
    having = {name for name, model in models.items() if hasattr(model, "latent_prior")}
    assert {"gan", "vae", "flow"} <= having
    assert not having & {"diffusion", "latent_diffusion", "hierarchical_vae", "vq_vae", "masked", "transformer"}
    for name in having:
        assert models[name].latent_prior == "standard normal"
        assert callable(models[name].decode)


def test_refusals() -> None:
    metric = PerceptualPathLength(PixelDistance())
    latents = SimpleNamespace(latent_shape=(2,), encode=abs, decode=abs)  # a VQ-VAE's
    assert not isinstance(latents, HasPrior)
    with pytest.raises(ConfigError, match=r"metrics=path_length: SimpleNamespace has no single latent"):
        metric.check(latents, Digits())  # type: ignore[arg-type]
    text = GivenText(np.arange(50), context=16, vocab_size=98)
    with pytest.raises(ConfigError, match="metrics=path_length is for images; the data are text"):
        metric.check(Decoder(), text)  # type: ignore[arg-type]
    for options in ({"epsilon": 1e-7}, {"num_samples": 0}, {"discard": 0.5}):
        with pytest.raises(ConfigError, match="perceptual path length"):
            PerceptualPathLength(PixelDistance(), **options)  # type: ignore[arg-type]
