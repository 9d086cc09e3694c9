"""What every family that edits promises: what is known stays, what is asked for is drawn, others are refused."""

import os
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.config.tree import ConfigTree
from genlab.data.image import to_float, to_pixels
from genlab.editing.edit import Search, check, inpaint, interpolate, invert, restore, revert, sdedit, way
from genlab.editing.operators import Gray, Known
from genlab.editing.space import evaluations_of, space_of
from genlab.errors import ConfigError
from genlab.model.base import GenerativeModel
from genlab.model.condition import Conditions
from genlab.model.latent_diffusion import LatentDiffusion
from genlab.model.masked import Masked
from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.mlp import MLP
from genlab.model.network.positions import Learned
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.objective.edm import EDM
from genlab.model.sampler.euler import Euler
from genlab.model.sampler.grid import Karras
from genlab.model.sampler.next_token import NextToken
from genlab.model.sampler.unmask import Unmask
from genlab.model.schedule import Constant
from genlab.model.transformer import Transformer
from genlab.run import assemble
from genlab.seeding import RandomStream
from tiny_run import compose_small, families, plain

SHAPE = (1, 16, 16)
MLP_OF = "model/network=mlp"
FAMILIES = (f"model=diffusion {MLP_OF}", "model=masked", "model=vae", "model=flow", "model=gan")
SELDOM = [pytest.param(f"model={name}", marks=pytest.mark.matrix) for name in ("hierarchical_vae", "stylegan2")]
RARE = [pytest.param(choice, marks=pytest.mark.matrix) for choice in ("model=progan", "codes")]
EVERY = pytest.mark.parametrize("choice", [*FAMILIES, "latents", "codes in order", *SELDOM, *RARE])
FEW = Search(steps=2, resamplings=2)


class Halved(GenerativeModel):
    """An autoencoder of fixed maps: a latent is the mean of four pixels, or the shade of it as a code."""

    shape, latent_shape, token_shape, num_codes = SHAPE, (1, 8, 8), (8, 8), 16
    conditions = Conditions()

    def __init__(self) -> None:
        super().__init__(0, Constant())

    def configure_model(self) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def sample(self, num_samples: int, condition: Any = None, generator: Any = None) -> Tensor:
        raise AssertionError

    def encode(self, x: Tensor, condition: Any = None) -> Tensor:
        return nn.functional.avg_pool2d(x, 2)

    def decode(self, z: Tensor, condition: Any = None) -> Tensor:
        return z.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def tokenize(self, x: Tensor) -> Tensor:
        return ((self.encode(x)[:, 0] + 1) * 7.5).round().long().clamp(0, 15)

    def detokenize(self, tokens: Tensor) -> Tensor:
        return self.decode(tokens[:, None] / 7.5 - 1)


def of_latents() -> LatentDiffusion:
    def network(shape: tuple[int, ...] = (1, 8, 8)) -> MLP:
        return MLP(shape, {}, width=8, depth=1)

    parts: Any = (Halved(), network, EDM(), Euler(3, Karras()), torch.optim.Adam, Constant())
    made = LatentDiffusion(*parts, shape=(1, 8, 8), image_shape=SHAPE, told={})
    made.latent_std.fill_(0.5)
    return made


def of_codes(in_order: bool) -> GenerativeModel:
    def network(**sizes: Any) -> TokenTransformer:
        parts: Any = {"positions": Learned, "norm": nn.LayerNorm, "feed_forward": SwiGLU}
        return TokenTransformer(width=8, depth=1, num_heads=1, **parts, **sizes)

    settings = {"optimizer": torch.optim.Adam, "schedule": Constant(), "shape": SHAPE, "vocab_size": None,
                "start_token": None, "told": {}, "tokenizer": Halved()}  # fmt: skip
    if in_order:
        return Transformer(network, NextToken(), **settings)
    return Masked(network, Unmask(3), **settings)


@cache
def model_of(choice: str) -> GenerativeModel:
    """Of random weights."""
    torch.manual_seed(0)
    if choice in ("latents", "codes", "codes in order"):
        model: Any = of_latents() if choice == "latents" else of_codes("order" in choice)
    else:
        config = compose_small(*choice.split(), outputs=Path(os.devnull))
        assemble.build_data(config)
        model = assemble.build_model(plain(config))
    model.configure_model()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # last layers begin at zero
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()  # type: ignore[no-any-return]


def picture() -> Tensor:
    """(1, C, H, W), of whole gray levels."""
    pixels = torch.randint(256, (1, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return to_float(pixels)


UNKNOWN = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
UNKNOWN[..., 4:11, 3:9] = True


def told(model: GenerativeModel, rows: int) -> Any:
    return {"label": torch.arange(rows) % 10} if model.conditions.kinds else None


def filled(model: GenerativeModel, unknown: Tensor, rows: Any = range(3), search: Search = FEW) -> Tensor:
    condition = told(model, 3)
    condition = condition and {key: value[list(rows)] for key, value in condition.items()}
    stream = RandomStream.for_samples(7, rows)
    return inpaint(model, picture().expand(len(rows), -1, -1, -1), unknown, condition, stream, search)


@EVERY
def test_what_is_known_stays_to_the_last_bit(choice: str) -> None:
    model = model_of(choice)
    found = filled(model, UNKNOWN)
    known = ~UNKNOWN.expand(3, *SHAPE)
    image = picture().expand(3, -1, -1, -1)
    assert torch.equal(found[known], image[known])
    assert torch.equal(to_pixels(found, 8)[known], to_pixels(image, 8)[known])
    assert (found != image)[~known].float().mean() > 0.5
    assert (found[0] != found[1]).any()
    torch.testing.assert_close(filled(model, UNKNOWN, range(1, 2))[0], found[1], rtol=0, atol=1e-4)


@EVERY
def test_masks_of_one_color(choice: str) -> None:
    """Nothing to replace: the picture. All of it: samples."""
    model = model_of(choice)
    assert torch.equal(filled(model, torch.zeros_like(UNKNOWN)), picture().expand(3, -1, -1, -1))
    whole = filled(model, torch.ones_like(UNKNOWN))
    assert torch.equal(whole, model.sample(3, told(model, 3), RandomStream.for_samples(7, range(3))))


def test_tokens_that_are_known_are_seen() -> None:
    """Of pixels in order: those after a place, or of a patch with a place that is unknown, do not count; those before
    it do, and known tokens are forced to what they are."""
    for choice, later in (("codes", True), ("codes in order", False)):
        model, image = model_of(choice), picture()
        unknown = torch.zeros_like(UNKNOWN)
        unknown[..., 8:10, 8:10] = True

        def drawn(image: Tensor, model: Any = model, unknown: Tensor = unknown) -> Tensor:
            many = RandomStream.for_samples(0, range(64))
            return model.complete(image.expand(64, -1, -1, -1), unknown.expand(64, -1, -1, -1), None, many)

        first = drawn(image)
        codes = Halved().tokenize(image)
        tokens = Halved().tokenize(first)
        assert (tokens != codes).flatten(1).sum(dim=1).max() == 1
        below, above, inside = image.clone(), image.clone(), image.clone()
        below[..., 10:, :], above[..., :8, :], inside[unknown] = -1.0, -1.0, 0.0
        assert torch.equal(drawn(inside), first)
        assert (Halved().tokenize(drawn(above))[:, 4, 4] != tokens[:, 4, 4]).any()
        assert (Halved().tokenize(drawn(below))[:, 4, 4] != tokens[:, 4, 4]).any() == later


def test_latents_of_unknown_pixels_are_unknown() -> None:
    space = space_of(model_of("latents"))
    assert space is not None
    unknown = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    unknown[..., 5, 3] = True
    assert space.unknown(unknown).nonzero().tolist() == [[0, 0, 2, 1]]
    image = picture()
    torch.testing.assert_close(space.decode(space.encode(image, None), None), Halved().decode(Halved().encode(image)))


def test_strength_0_changes_nothing_and_more_does() -> None:
    for choice in (FAMILIES[0], "latents"):
        model, image = model_of(choice), picture()
        stream = RandomStream.for_samples(0, [0])
        assert torch.equal(sdedit(model, image, 0.0, told(model, 1), stream), image)
        assert (sdedit(model, image, 0.5, told(model, 1), stream) != image).any()


def test_where_all_is_unknown_a_strength_below_1_is_that_of_sdedit() -> None:
    """With one pass, and steps that do not remember earlier ones."""
    for choice in (f"{FAMILIES[0]} model/sampler=euler", "latents"):
        model, stream = model_of(choice), RandomStream.for_samples(7, range(3))
        expected = sdedit(model, picture().expand(3, -1, -1, -1), 0.5, told(model, 3), stream)
        found = filled(model, torch.ones_like(UNKNOWN), search=Search(resamplings=1, strength=0.5))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        again = filled(model, UNKNOWN, search=Search(strength=0.0))
        known = ~UNKNOWN.expand(3, *SHAPE)
        assert torch.equal(again[known], picture().expand(3, -1, -1, -1)[known])
        if choice != "latents":
            assert torch.equal(again, picture().expand(3, -1, -1, -1))


def test_a_latent_picture_comes_back_from_its_noise() -> None:
    model = model_of("latents")
    image = Halved().decode(Halved().encode(picture()))
    before = evaluations_of(model)
    noise = invert(model, image, None)
    assert noise.shape == (1, 1, 8, 8)
    again = revert(model, noise, None)
    assert evaluations_of(model) - before == 160  # two ways of 40 steps of two
    assert 10 * torch.log10(4 / (again - image).square().mean()) >= 35
    passed = [z + torch.randn(z.shape, generator=torch.Generator().manual_seed(0)) for z in way(model, image, None, 5)]
    kept = revert(model, noise, None, 5, unknown=UNKNOWN, passed=passed)
    space = space_of(model)
    assert space is not None
    known = ~space.unknown(UNKNOWN)
    assert torch.equal(space.encode(kept, None)[known], space.encode(space.decode(passed[0], None), None)[known])


@pytest.mark.parametrize("choice", [*(choice for choice in FAMILIES if choice != "model=masked"), "latents", *SELDOM])
def test_both_ends_of_a_way_are_the_pictures(choice: str) -> None:
    model, first, second = model_of(choice), picture(), picture().flip(2)
    way = interpolate(
        model, first, second, 3, lambda rows: told(model, rows), steps=None if "diffusion" in choice else 5
    )
    assert way.shape == (3, *SHAPE)
    other = interpolate(
        model, second, first, 3, lambda rows: told(model, rows), steps=None if "diffusion" in choice else 5
    )
    if choice not in ("model=stylegan2",) and not model.conditions.kinds:
        torch.testing.assert_close(way, other.flip(0), rtol=0, atol=1e-3)
    if choice == "model=flow":  # invertible
        torch.testing.assert_close(way[0], first[0], rtol=0, atol=1e-3)
    assert (way[0] != way[2]).any()


def test_a_search_comes_nearer_to_what_is_known() -> None:
    for choice in ("model=vae", "model=stylegan2"):
        model = model_of(choice)
        target = model.sample(1, told(model, 1), RandomStream.for_samples(3, [0])).clamp(-1, 1)

        def missed(steps: int, model: Any = model, target: Tensor = target) -> float:
            found = inpaint(model, target, UNKNOWN, told(model, 1), RandomStream.for_samples(0, [0]), Search(steps))
            assert torch.equal(found[~UNKNOWN], target[~UNKNOWN])
            return float((found - target)[UNKNOWN].square().mean())

        assert missed(10) < missed(1), choice


# --- who is refused ---------------------------------------------------------------------------------------------------


def test_others_are_refused_with_a_reason() -> None:
    consistency = model_of(f"model=diffusion {MLP_OF} model/objective=consistency model/sampler=consistency")
    quantized = model_of("model=vq_vae")
    for model, method, reason in (
        (model_of("model=gan"), "sdedit", "method=sdedit needs a denoiser, and a GAN has none"),
        (model_of("model=masked"), "invert", "method=invert needs a denoiser, and a Masked has none"),
        (model_of("model=masked"), "interpolate", "goes through latents, and a Masked has none"),
        (quantized, "inpaint", "a VQVAE has neither a denoiser nor a prior of its latents"),
        (consistency, "invert", "model/objective=consistency gives the end of the ODE. Use method=sdedit"),
        (consistency, "interpolate", "model/objective=consistency gives the end of the ODE"),
        (consistency, "ddrm", "model/objective=consistency gives the end of the ODE"),
        (model_of("latents"), "dps", "a LatentDiffusion denoises latents, of which they are no linear function"),
    ):
        with pytest.raises(ConfigError, match=reason):
            check(model, method)
    for method in ("sdedit", "inpaint"):
        check(consistency, method)
    assert filled(consistency, UNKNOWN).isfinite().all()
    with pytest.raises(ValueError, match=r"n=1: .* Use n=2 or more"):
        interpolate(model_of("model=vae"), picture(), picture(), 1)
    for choice in ("model=gan", "model=masked"):
        with pytest.raises(
            ConfigError, match=r"strength=0\.5 is a share of the steps of diffusion.* Leave strength= out"
        ):
            filled(model_of(choice), UNKNOWN, search=Search(strength=0.5))
    for choice in ("model=gan", "model=flow"):
        with pytest.raises(ValueError, match="steps=0 must be 1 or more"):
            filled(model_of(choice), UNKNOWN, search=Search(steps=0))


# --- every method, objective, sampler and family ----------------------------------------------------------------------


def denoisers() -> Iterator[str]:
    groups = ConfigTree().groups()
    samplers = [name for name in groups["model/sampler"] if name not in ("beam_search", "next_token", "unmask")]
    for objective, sampler in product(("edm", "ddpm", "ddpm_v", "ddpm_x0", "flow_matching", "consistency"), samplers):
        if (objective == "consistency") == (sampler == "consistency"):
            yield f"model=diffusion {MLP_OF} model/objective={objective} model/sampler={sampler}"


METHODS = ("inpaint", "sdedit", "invert", "interpolate", "ddrm", "dps")


def by(method: str, model: GenerativeModel) -> Tensor:
    image, condition, stream = picture().expand(2, -1, -1, -1), told(model, 2), RandomStream.for_samples(0, range(2))
    if method == "inpaint":
        return inpaint(model, image, UNKNOWN, condition, stream, FEW)
    if method == "sdedit":
        return sdedit(model, image, 0.5, condition, stream)
    if method == "invert":
        return revert(model, invert(model, image, condition, 4), condition, 4)
    if method == "interpolate":
        return interpolate(model, image[:1], image[1:].flip(2), 2, lambda rows: told(model, rows), 4)
    operator = Known(UNKNOWN)
    found = restore(model, method, operator, operator.measure(image), condition, stream)
    torch.testing.assert_close(operator.measure(found), operator.measure(image), rtol=0, atol=1e-4)
    return found


OTHERS = [f"model={name}" for name in families() if name not in ("diffusion", "latent_diffusion")]
DRAWN_THROUGH = {(choice, method) for choice, method in zip([*denoisers()][7::11], ("dps", "ddrm"), strict=False)}


@pytest.mark.parametrize(
    ("choice", "method"),
    [
        pytest.param(choice, method, marks=[] if (choice, method) in DRAWN_THROUGH else [pytest.mark.matrix])
        for choice, method in product(denoisers(), METHODS)
    ],
)
def test_every_objective_and_sampler_edits_by_every_method(choice: str, method: str) -> None:
    model = model_of(choice)
    if "consistency" in choice and method not in ("inpaint", "sdedit"):
        with pytest.raises(ConfigError, match="objective=consistency gives"):
            by(method, model)
        return
    found = by(method, model)
    assert found.shape == (2, *SHAPE)
    assert found.isfinite().all()


@pytest.mark.matrix
@pytest.mark.parametrize(("choice", "method"), list(product([*OTHERS, "latents", "codes", "codes in order"], METHODS)))
def test_every_family_edits_or_is_refused(choice: str, method: str) -> None:
    model = model_of(choice)
    if not isinstance(model, GenerativeModel) or (tuple(getattr(model, "shape", ())) != SHAPE and choice != "latents"):
        return  # the command says what it draws, or that it does not
    try:
        found = by(method, model)
    except ConfigError as error:
        assert str(error).startswith(f"method={method}")  # noqa: PT017
        return
    assert found.shape == (2, *SHAPE)
    assert found.isfinite().all()


def test_colors_of_a_gray_picture() -> None:
    class Colored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape, self.evaluations, self.sampler = (3, 16, 16), 0, Euler(3, Karras())
            self.objective, self.guidance = None, None

        def denoiser(self, condition: Any, network: Any = None) -> Any:
            return lambda x, sigma: 0.1 * x

    gray = picture()
    for method in ("ddrm", "dps"):
        found = restore(Colored(), method, Gray(), gray, None, RandomStream.for_samples(0, [0]))  # type: ignore[arg-type]
        torch.testing.assert_close(Gray().measure(found), gray, rtol=0, atol=1e-4)
