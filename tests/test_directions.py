"""Directions in latent spaces: closed forms, samples that are moved along them, and the best of several samples."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from genlab.command.directions import shown
from genlab.data.image import to_pixels
from genlab.directions import stored
from genlab.directions.find import behind, deviations, difference, principal, sefa, separating
from genlab.directions.space import Latents, Middle, Space, Styles, space_of, steered
from genlab.directions.stored import Directions
from genlab.errors import CheckpointError, ConfigError
from genlab.model.augment.diffaugment import DiffAugment
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.model.condition import kinds_of
from genlab.model.diffusion import Diffusion
from genlab.model.flow import Flow
from genlab.model.gan import GAN
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.likelihood.gaussian import Gaussian
from genlab.model.network.autoencoder_conv import ConvDecoder
from genlab.model.network.autoencoder_mlp import MLPDecoder, MLPEncoder
from genlab.model.network.biggan import BigGANGenerator
from genlab.model.network.dcgan import DCGANGenerator
from genlab.model.network.progan import ProGANGenerator
from genlab.model.network.real_nvp import RealNVP
from genlab.model.network.sngan import SNGANGenerator
from genlab.model.network.stylegan2 import StyleGAN2Generator
from genlab.model.network.unet import UNet
from genlab.model.objective.adversarial import NonSaturating
from genlab.model.objective.edm import EDM
from genlab.model.objective.penalty import R1
from genlab.model.sampler.euler import Euler
from genlab.model.sampler.grid import Karras
from genlab.model.sampler.heun import Heun
from genlab.model.schedule import Constant
from genlab.model.vae import VAE
from genlab.sampling.best_of import BestOf
from genlab.sampling.draw import draws, sample_images
from genlab.seeding import RandomStream

LATENT, SHAPE = 6, (1, 4, 4)
LABELS = {"label": {"size": 3}}


class Linear(nn.Module):
    """x = A z, without a nonlinearity."""

    def __init__(self, told: Any):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(16, LATENT, generator=generator))

    def forward(self, noise: Tensor, condition: Any) -> Tensor:
        return (noise @ self.matrix.T).unflatten(1, SHAPE)

    def latent_maps(self) -> Tensor:
        return self.matrix


class Score(nn.Linear):
    def __init__(self, told: Any):
        super().__init__(16, 1)

    def forward(self, candidate: Tensor, condition: Any) -> Tensor:  # type: ignore[override]
        return super().forward(candidate.flatten(1))[:, 0]


def linear_gan() -> GAN:
    gan = GAN(Linear, Score, NonSaturating(R1(0.0, 1)), DiffAugment([]), torch.optim.Adam, torch.optim.Adam, Constant(),
              SHAPE, {}, latent_dim=LATENT)  # fmt: skip
    gan.configure_model()
    return gan.eval()


def streams(count: int, seed: int = 0) -> RandomStream:
    return RandomStream.for_samples(seed, range(count))


def assert_alike(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    """Rows up to their signs."""
    torch.testing.assert_close((found * expected).sum(1).abs(), torch.ones(len(found)), rtol=0, atol=atol)


def right_singular_vectors(gan: GAN) -> Tensor:
    return torch.linalg.svd(gan.generator.matrix.detach())[2]


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_sefa_of_a_linear_generator_gives_right_singular_vectors() -> None:
    gan = linear_gan()
    assert_alike(sefa(Latents(gan).first_maps(), 4), right_singular_vectors(gan)[:4])


def test_pca_of_a_linear_generators_pictures_gives_them_too() -> None:
    gan = linear_gan()
    features, points = Latents(gan).features(None, streams(4000))
    assert torch.equal(features, gan.sample(4000, None, streams(4000)).flatten(1))
    assert_alike(behind(points, features, 3), right_singular_vectors(gan)[:3], atol=0.02)


@pytest.mark.parametrize("count", [4000, 4])
def test_principal_components_are_those_of_the_singular_value_decomposition(count: int) -> None:
    """Of more rows than numbers, and of fewer."""
    rows = torch.randn(count, 7, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 8)
    vectors, scale = principal(rows, 3)
    _, values, right = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert_alike(vectors, right[:3])
    torch.testing.assert_close(scale, values[:3] / count**0.5)
    torch.testing.assert_close(deviations(rows, vectors), scale)
    assert (vectors.gather(1, vectors.abs().argmax(1, keepdim=True)) > 0).all()


def test_principal_components_of_a_gaussian() -> None:
    basis = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(2)))[0]
    sizes = torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1])
    rows = torch.randn(20000, 5, generator=torch.Generator().manual_seed(3)) * sizes @ basis.T
    vectors, scale = principal(rows, 5)
    assert_alike(vectors, basis.T, atol=1e-3)
    torch.testing.assert_close(scale, sizes, rtol=0.03, atol=0)


def test_the_direction_of_a_label_is_the_normal_of_what_separates_it() -> None:
    normal = nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5, 0.0]), dim=0)
    latents = torch.randn(4000, 4, generator=torch.Generator().manual_seed(4))
    found, accuracy = separating(latents, latents @ normal > 0.3)
    assert float(found @ normal) > 0.999
    assert accuracy > 0.98
    assert float(difference(latents, latents @ normal > 0.3) @ normal) > 0.99
    for method in (separating, difference):
        with pytest.raises(ValueError, match="on one side"):
            method(latents, torch.ones(4000, dtype=torch.bool))


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (partial(DCGANGenerator, channels=2), 200),
        (partial(SNGANGenerator, channels=2), 200),
        (partial(BigGANGenerator, channels=1, channel_mult=(2, 2), attention_resolutions=(), shared_width=2), 201),
        (partial(ProGANGenerator, channels=2), 200),
        (partial(StyleGAN2Generator, latent_dim=4, channel_base=16, channel_max=2, style_width=40), 40),
        (partial(MLPDecoder, latent_shape=(5, 2, 2), out_channels=1, width=8), 20),
        (partial(ConvDecoder, latent_shape=(200, 1, 1), out_channels=1, channels=4), 200),
        (partial(ConvDecoder, latent_shape=(20, 2, 2), out_channels=1, channels=4, max_channels=4), 80),
    ],
)
def test_what_the_first_maps_do_not_see_changes_nothing(make: Any, size: int) -> None:
    """And what they see most does."""
    torch.manual_seed(0)
    told: Any = {"told": kinds_of(LABELS, ["label"])}
    decodes = make.func in (MLPDecoder, ConvDecoder)
    network = make(
        (1, 8, 8), **told, **({} if decodes or "latent_dim" in make.keywords else {"latent_dim": size})
    ).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    maps = network.latent_maps().detach()
    assert maps.shape[1] == size
    unseen = torch.linalg.svd(maps)[2][-1]
    assert (maps @ unseen).abs().max() < 1e-5
    shape = make.keywords.get("latent_shape", (size,))
    z = torch.randn(1, size, generator=torch.Generator().manual_seed(1))

    def draw(z: Tensor) -> Tensor:
        if make.func is StyleGAN2Generator:
            return network.synthesize(z[:, None].expand(-1, network.num_styles, -1))
        return network(z.view(1, *shape), {"label": torch.tensor([1])})

    turned = z + 0.5 * unseen
    if make.func is ProGANGenerator:
        turned = z - 2 * (z @ unseen)[:, None] * unseen  # as long as it was
    with torch.no_grad():
        expected = draw(z)
        torch.testing.assert_close(draw(turned), expected, rtol=1e-4, atol=1e-4)
        assert (draw(z + sefa(maps, 1)) - expected).abs().max() > 1e-3


# --- samples that are moved -------------------------------------------------------------------------------------------

CHOICES = ("vae", "flow", "truncated", "stylegan2", "unet")
ADAM = partial(torch.optim.Adam, lr=1e-3)


def made(choice: str, **settings: Any) -> Any:
    """A small model with labels, of random weights."""
    torch.manual_seed(0)
    told, shape = kinds_of(LABELS, ["label"]), (1, 8, 8)
    model: GenerativeModel
    if choice == "vae":
        networks = (
            partial(MLPEncoder, shape, (4, 1, 1), told=told, width=8),
            partial(MLPDecoder, shape, (4, 1, 1), told=told, width=8),
        )
        model = VAE(*networks, Gaussian(), ADAM, Constant(), shape, LABELS, (4, 1, 1), temperature=0.5)
    elif choice == "flow":
        model = Flow(partial(RealNVP, shape, told, width=8, depth=2), ADAM, Constant(), shape, LABELS)
    elif choice == "unet":
        network = partial(
            UNet, shape, channels=8, channel_mult=(1, 2), num_blocks=1, attention_resolutions=(), num_heads=1
        )
        sampler = settings.get("sampler", Heun(1, Karras()))
        model = Diffusion(network, EDM(), sampler, ADAM, Constant(), shape, LABELS, guidance=ClassifierFree(2.0))
    else:
        settings = {"truncated": {"truncation": 0.7}}.get(choice, {})
        generator = partial(
            StyleGAN2Generator, channel_base=32, channel_max=8, style_width=5, mapping_layers=2, psi=0.5
        )
        networks = partial(generator if choice == "stylegan2" else DCGANGenerator, shape, latent_dim=6), Score
        model = GAN(*networks, NonSaturating(R1(0.0, 1)), DiffAugment([]), ADAM, ADAM, Constant(), shape, LABELS,
                    latent_dim=6, **settings)  # fmt: skip
    model.configure_model()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)  # away from the identity that some begin as
    return model.eval()


@pytest.mark.parametrize("choice", CHOICES)
def test_samples_are_moved_and_a_strength_of_0_gives_samples(choice: str, tmp_path: Path) -> None:
    model = made(choice)
    space: Space = space_of(model, tmp_path)
    kinds = {"stylegan2": Styles, "unet": Middle}
    assert isinstance(space, kinds.get(choice, Latents))
    found = Directions(space.kind, "pca", torch.eye(space.size)[:1], torch.ones(1), ["0"])
    condition = model.conditions.in_turn(range(3))
    points = space.points(condition, streams(3))
    assert points.shape == (3, space.size)
    plain_ = model.sample(3, condition, streams(3))
    for shift in (None, torch.zeros(3, space.size)):
        images, where = space.draw(condition, streams(3), shift)
        assert torch.equal(images, plain_)
        torch.testing.assert_close(where, points)
    spent = model.evaluations
    moved = steered(space, found.shift([0], [2.0]))(3, condition, streams(3))
    assert not torch.equal(moved, plain_)
    assert model.evaluations > spent
    assert torch.equal(model.sample(3, condition, streams(3)), plain_), "nothing of it is left"


def test_a_row_of_a_picture_has_the_sample_in_its_middle() -> None:
    gan = linear_gan()
    space = Latents(gan)
    found = Directions("latent", "sefa", sefa(space.first_maps(), 2), torch.ones(2), ["0", "1"])
    with in_eval_mode(gan):
        rows = shown(gan, space, found, n=2, strength=3.0, columns=3, seed=5).view(2, 2, 3, *SHAPE)
        expected = torch.cat([*draws(gan, range(2), None, 5, 2)])
    for row in rows:
        assert torch.equal(row[:, 1], expected)
    steps = rows[:, :, 2] - rows[:, :, 1]
    push = (3 * found.vectors @ gan.generator.matrix.T).detach()  # x = A (z + 3 d)
    torch.testing.assert_close(steps, push.view(2, 1, *SHAPE).expand(-1, 2, -1, -1, -1), rtol=0, atol=1e-5)


def test_a_shift_of_a_middle_is_that_of_an_asymmetric_step() -> None:
    """Of Euler's steps from t to s, x' = D' + (s / t)(x - D): the clean image is the shifted one's, the noise not."""
    model = made("unet", sampler=Euler(2, Karras()))
    space = Middle(model)
    shift = torch.randn(1, space.size, generator=torch.Generator().manual_seed(0))
    found, _ = space.draw(None, streams(1), shift)  # unguided
    levels = model.sampler.grid(model.sampler.num_steps).tolist()
    x = levels[0] * streams(1).randn(*model.shape)
    part = space.size // (len(levels) - 1)
    denoise, middle = model.denoiser(None), model.network.middle()
    for i, (t, s) in enumerate(pairwise(levels)):
        sigma = x.new_full((1,), t)
        with torch.no_grad():
            clean = denoise(x, sigma)
            hook = middle.register_forward_hook(
                lambda module, inputs, output, i=i: output + shift[:, i * part : (i + 1) * part].view_as(output)
            )
            moved = denoise(x, sigma)
            hook.remove()
        x = moved + s / t * (x - clean)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_a_model_without_a_space_is_refused(tmp_path: Path) -> None:
    model = made("unet")
    model.network = Score(None)
    with pytest.raises(ConfigError, match="middle of a U-Net"):
        space_of(model, tmp_path)
    with pytest.raises(ConfigError, match="no latent to move"):
        space_of(cast(GenerativeModel, Score(None)), tmp_path)


def test_a_map_that_is_not_known_is_not_guessed() -> None:
    for choice, what in (("flow", "a Flow has none"), ("unet", "a U-Net has none")):
        space = Latents(made("flow")) if choice == "flow" else Middle(made("unet"))
        with pytest.raises(ConfigError, match=f"{what}.* Use method=pca"):
            space.first_maps()


# --- files ------------------------------------------------------------------------------------------------------------


def test_directions_are_kept_as_they_are(tmp_path: Path) -> None:
    found = Directions("latent", "label", torch.eye(3)[:2], torch.tensor([1.0, 2.0]), ["cat", "7"])
    stored.write(found, tmp_path / stored.FILE)
    again = stored.read(tmp_path, "latent", 3)
    assert (again.kind, again.method, again.names) == (found.kind, found.method, found.names)
    assert torch.equal(again.vectors, found.vectors)
    assert (again.number("cat"), again.number(1)) == (0, 1)
    torch.testing.assert_close(again.shift([0, 1], [3.0, -1.0]), torch.tensor([3.0, -2.0, 0.0]))
    with pytest.raises(ConfigError, match=r"direction=dog: there is none.* Known: cat, 7"):
        again.number("dog")
    with pytest.raises(ConfigError, match="4 of the latent space"):
        stored.read(tmp_path, "latent", 4)
    content = (tmp_path / stored.FILE).read_bytes()
    for damaged in (b"", content[:-3], content.replace(b"vectors", b"rectors")):
        (tmp_path / stored.FILE).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            stored.read(tmp_path, "latent", 3)


# --- the best of several ----------------------------------------------------------------------------------------------


class Bright:
    reads: frozenset[str] = frozenset({"label"})
    described = "brightness"

    def score(self, images: Tensor, condition: Any) -> Tensor:
        """Bright ones for label 1, dark ones for label 0."""
        return images.flatten(1).mean(1) * (2 * condition["label"] - 1)


def test_the_best_of_several_samples() -> None:
    gan, labels = linear_gan(), {"label": torch.tensor([0, 1, 1])}
    gan.drawn_by = BestOf(gan, 5, Bright())
    best = torch.cat([*draws(gan, range(3), labels, 7, 3)])
    assert gan.evaluations == 15
    alone = torch.cat([*draws(gan, [1], {"label": torch.tensor([1])}, 7, 1)])
    torch.testing.assert_close(alone, best[1:2])
    counts = [torch.cat([*_best_of(gan, k, labels)]) for k in (1, 2, 5, 9)]
    scores = torch.stack([Bright().score(each, labels) for each in counts])
    assert (scores.diff(dim=0) >= 0).all(), "candidates of fewer are among those of more"
    assert (scores[-1] > scores[0]).all()
    assert torch.equal(counts[2], best)


def _best_of(gan: GAN, count: int, labels: dict[str, Tensor]) -> Any:
    gan.drawn_by = BestOf(gan, count, Bright())
    return draws(gan, range(3), labels, 7, 3)


def test_samples_of_a_model_are_those_of_what_draws_in_its_place() -> None:
    gan = linear_gan()
    before = sample_images(gan, range(3), seed=2)
    gan.drawn_by = steered(Latents(gan), torch.eye(LATENT)[0])
    moved = sample_images(gan, range(3), seed=2)
    noise = gan.noise(RandomStream.for_samples(2, range(3))) + torch.eye(LATENT)[0]
    assert torch.equal(moved, to_pixels(gan.decode(noise), 8))
    gan.drawn_by = None
    assert torch.equal(sample_images(gan, range(3), seed=2), before)
