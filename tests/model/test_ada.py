"""Adaptive discriminator augmentation against its authors' program, and how p follows the discriminator."""

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.config.tree import ConfigTree
from genlab.errors import ConfigError
from genlab.model.augment.ada import ADA
from genlab.model.augment.adaptive import Unchanging, adaptive
from genlab.model.augment.diffaugment import DiffAugment
from genlab.model.augment.pipeline import DRAWS, GROUPS, Group, Pipeline, Strength
from genlab.model.augment.resample import SYM6, bands, fold, resample
from genlab.model.gan import GAN
from genlab.model.objective.penalty import R1
from genlab.run import assemble
from genlab.run.assemble import check_config
from tiny_run import SignalAt, compose_small, only_run, plain, resume, small, train

# --- the transformations ---------------------------------------------------------------------------------------------

# Recorded from training/augment.py of NVlabs' stylegan2-ada-pytorch, with torch 2.13.0 on a CPU, where torch.rand and
# torch.randn gave the columns of ``numbers`` one after the other, normal ones through the inverse of the normal
# distribution. Of each batch, image 0 is recorded. That program pads by the worst draw of a batch, and image 2, tiny,
# makes it pad as much as it ever does.
RECORDED = Path(__file__).with_name("ada_reference.npz")
MOVES, ALL = ("blit", "geometry"), GROUPS
# The columns of a group's numbers that say whether an image gets a transformation.
WHETHER = {"blit": (1, 3, 6), "geometry": (1, 3, 5, 7, 10), "color": (1, 3, 5, 7, 9), "filter": (1, 3, 5, 7),
           "noise": (1,), "cutout": (0,)}  # fmt: skip
CASES: dict[str, tuple[tuple[Group, ...], int, dict[str, tuple[int, ...]]]] = {  # groups, channels, what there is
    "flip": (MOVES, 3, {"blit": (0,)}),
    "quarter turn": (MOVES, 3, {"blit": (1,)}),
    "integer translation": (MOVES, 3, {"blit": (2,)}),
    "scale": (MOVES, 3, {"geometry": (0,)}),
    "rotation before": (MOVES, 3, {"geometry": (1,)}),
    "stretch": (MOVES, 3, {"geometry": (2,)}),
    "rotation after": (MOVES, 3, {"geometry": (3,)}),
    "translation": (MOVES, 3, {"geometry": (4,)}),
    "all moves": (MOVES, 1, {"blit": (0, 1, 2), "geometry": (0, 1, 2, 3, 4)}),
    "brightness": (("color",), 3, {"color": (0,)}),
    "contrast": (("color",), 3, {"color": (1,)}),
    "inversion": (("color",), 3, {"color": (2,)}),
    "hue": (("color",), 3, {"color": (3,)}),
    "saturation": (("color",), 3, {"color": (4,)}),
    "all colors": (("color",), 3, {"color": (0, 1, 2, 3, 4)}),
    "all colors of gray": (("color",), 1, {"color": (0, 1, 2, 3, 4)}),
    **{f"band {i}": (("filter",), 1, {"filter": (i,)}) for i in range(4)},
    "noise": (("noise",), 3, {"noise": (0,)}),
    "cutout": (("cutout",), 3, {"cutout": (0,)}),
    "all": (ALL, 1, {group: tuple(range(len(columns))) for group, columns in WHETHER.items()}),
}


def images(channels: int, height: int, width: int, count: int = 3) -> Tensor:
    """(N, C, H, W) in [-1, 1], smooth here and rough there."""
    place = torch.arange(count * channels * height * width, dtype=torch.float64)
    return (0.01 * place**1.5).sin().float().view(count, channels, height, width)


def numbers(count: int, width: int) -> Tensor:
    """(count, width) between 0.1 and 0.9, far from regular."""
    spread = torch.arange(1, count * width + 1, dtype=torch.float64) * 0.7548776662466927 % 1
    return (0.1 + 0.8 * spread).float().view(count, width)


def case(name: str) -> tuple[tuple[Group, ...], Tensor, Tensor]:
    """The groups, the images, and their random numbers; p is 1/2."""
    groups, channels, there = CASES[name]
    x = images(channels, 24, 26) if channels == 1 else images(channels, 16, 18)  # that program's filter needs 22 pixels
    of_settings = sum(DRAWS[group] for group in groups)
    u = numbers(len(x), of_settings + x[0].numel() * ("noise" in groups))
    begin = 0
    for group in groups:
        for i, column in enumerate(WHETHER[group]):
            u[:, begin + column] = 0.0 if i in there.get(group, ()) else 0.999
        if group == "geometry":
            u[2, begin : begin + 2] = 0  # as small as it gets
        begin += DRAWS[group]
    return groups, x, u


def drawn(u: Tensor) -> Any:
    def uniform(width: int) -> Tensor:
        assert width == u.shape[1]
        return u

    return uniform


@pytest.mark.parametrize("name", CASES)
def test_each_transformation_is_as_published(name: str) -> None:
    groups, x, u = case(name)
    result = Pipeline(groups, Strength())(x, drawn(u), p=0.5)
    with np.load(RECORDED) as recorded:
        torch.testing.assert_close(result[0], torch.from_numpy(recorded[name]), rtol=0, atol=1e-4)
    assert (result[0] - x[0]).abs().max() > 0.02


def test_p_0_changes_nothing_and_draws_the_same() -> None:
    _, x, u = case("all")
    assert Pipeline(ALL, Strength())(x, drawn(u), p=0) is x


def test_moves_that_do_nothing_keep_images_of_any_size() -> None:
    """The filters before and after cancel, also where an image is smaller than they are."""
    still = torch.eye(2).expand(3, 2, 2), torch.zeros(3, 2)
    for size in ((1, 1), (1, 4), (4, 4), (8, 8), (5, 9)):
        x = images(2, *size)
        torch.testing.assert_close(resample(x, *still), x, rtol=0, atol=1e-5)


def test_an_image_smaller_than_the_filters_is_reflected_as_often_as_it_takes() -> None:
    """The same as of the image that is reflected by hand."""
    x = images(1, 4, 8)
    large = x[:, :, :, fold(torch.arange(-56, 64), 8)][:, :, fold(torch.arange(-56, 60), 4)]
    linear, offset = torch.tensor([[1.2, 0.7], [-0.6, 1.1]]).expand(3, 2, 2), torch.tensor([2.3, -1.4]).expand(3, 2)
    torch.testing.assert_close(
        resample(x, linear, offset), resample(large, linear, offset)[:, :, 56:60, 56:64], rtol=0, atol=1e-5
    )


def test_the_wavelet_is_what_it_is_called() -> None:
    """Orthonormal, and its high-pass filter blind to polynomials of degree 5 (Daubechies 1992, section 6.1)."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    for shift in range(6):
        assert (taps[2 * shift :] * taps[: 12 - 2 * shift]).sum().item() == pytest.approx(float(shift == 0), abs=1e-9)
    signs, places = (-1.0) ** torch.arange(12), torch.arange(12, dtype=torch.float64) - 5.5
    for degree in range(6):
        assert (signs * taps * places**degree).sum().item() == pytest.approx(0, abs=1e-6)


def test_the_bands_make_up_the_image() -> None:
    for size in (1, 4, 30):
        torch.testing.assert_close(bands(size, torch.device("cpu"), torch.float32).sum(dim=0), torch.eye(size))


def test_an_image_depends_on_its_own_numbers_alone() -> None:
    """As much as to the last bits: so nothing changes with the number of ranks."""
    _, x, u = case("all")
    together = Pipeline(ALL, Strength())(x, drawn(u), p=0.5)
    alone = Pipeline(ALL, Strength())(x[1:2], drawn(u[1:2]), p=0.5)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-6)


def test_each_transformation_has_its_probability() -> None:
    """Each of the two rotations a lower one, so that of either is p (Karras et al. 2020, appendix B.2)."""
    u = torch.rand(1000, DRAWS["geometry"], generator=torch.Generator().manual_seed(0))
    u[:, [1, 5, 10]] = 0.999  # rotations alone
    for p in (0.3, 1.0, 1.5):
        x = images(1, 2, 2, count=len(u))
        moved = (Pipeline(("geometry",), Strength(scale=0, stretch=0, translation=0))(x, drawn(u), p) - x).abs() > 1e-4
        assert moved.flatten(1).any(dim=1).float().mean().item() == pytest.approx(min(p, 1), abs=0.045)


def test_gradients_of_gradients() -> None:
    u = numbers(2, sum(DRAWS.values()) + 2 * 3 * 4)
    for group, columns in WHETHER.items():
        u[:, [sum(DRAWS[g] for g in ALL[: ALL.index(group)]) + column for column in columns]] = 0.0

    def changed(x: Tensor) -> Tensor:
        return Pipeline(ALL, Strength(cutout=0.2))(x, drawn(u), p=0.5).sin()

    x = torch.randn(2, 1, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(changed, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(changed, x, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_type_is_computed_in_float32_or_better(dtype: torch.dtype) -> None:
    """Autocast or not: a rotation in half precision would move pixels by whole ones."""
    _, x, u = case("all moves")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = Pipeline(MOVES, Strength())(x.to(dtype), drawn(u), p=0.5)
    assert result.dtype == dtype
    expected = Pipeline(MOVES, Strength())(x.to(dtype).float(), drawn(u), p=0.5)
    torch.testing.assert_close(result.float(), expected, rtol=1e-2 if dtype.itemsize == 2 else 0, atol=1e-5)


# --- how p moves -----------------------------------------------------------------------------------------------------


def test_p_follows_the_signs_as_published() -> None:
    """The rule of that program's training/training_loop.py on these scores, kimg 0.5 and 16 images a step:
    p += sign(r_t - 0.6) * (16 * 4) / 500 after every fourth step, never below 0."""
    signs = [0.5, 0.5, 0.5, 1, 0.5, 0.75, 0.75, 0.75, 1, 1, 1, 1, -1, 0, 1, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, -1, 0.5, 0.5,
             0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0.75]  # fmt: skip
    recorded = [0.128, 0.256, 0.384, 0.256, 0.128, 0, 0, 0, 0.128]
    augment = ADA((3, 8, 8), kimg=0.5)
    found = []
    for share in signs:
        right = round(8 * (1 + share))
        for scores in (torch.ones(right) * 3, torch.ones(16 - right) * -0.01):  # two passes of a step
            augment.observe(scores + 0.5, undecided=0.5)
        logged = augment.end_step()
        assert logged["augment_p"].item() == pytest.approx(augment.p)
        if "r_t" in logged:
            found.append(augment.p)
    assert found == pytest.approx(recorded, abs=1e-6)


def test_a_fixed_p_observes_nothing() -> None:
    augment = ADA((1, 8, 8), target=None, p=0.3)
    augment.observe(torch.ones(4), undecided=None)
    assert not augment.adapts
    assert {name: value.item() for name, value in augment.end_step().items()} == {"augment_p": pytest.approx(0.3)}


def test_others_keep_their_strength() -> None:
    augment = DiffAugment([])
    wrapped = adaptive(augment)
    assert isinstance(wrapped, Unchanging)
    assert wrapped.augment is augment
    assert not wrapped.adapts
    assert not wrapped.acts
    own = ADA((1, 8, 8))
    assert adaptive(own) is own


GAN_RUN = ("model=gan", "model/generator=dcgan", "model/discriminator=dcgan", "model/augment=ada",
           "model.discriminator_steps=2")  # fmt: skip


def test_stopped_in_an_interval_and_continued(tmp_path: Path) -> None:
    """After 7 of 13 steps; p changes every 4. Its rate lets every change be seen."""
    given = small(*GAN_RUN, "model.augment.kimg=0.1", "model.augment.target=0.0", "model.augment.p=0.4")
    straight = train(*given, outputs=tmp_path / "straight")
    with pytest.raises(Interrupted):
        train(*given, SignalAt.override(48), outputs=tmp_path / "stopped")
    run = only_run(tmp_path / "stopped")
    half_way = read.newest(run).content["augment"]
    assert (half_way["steps"], half_way["seen"]) == (3, 24)
    resume(run)
    one, two = (read.newest(found) for found in (straight, run))
    assert one.content["augment"] == two.content["augment"]
    assert one.content["augment"]["p"] not in (0.4, half_way["p"])
    assert one.progress.flops == two.progress.flops
    assert all(torch.equal(weight, two.state[name]) for name, weight in one.state.items())
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    logged = [float(row["train/augment_p"]) for row in rows if row["train/augment_p"]]
    assert len(logged) == 13
    assert logged[-1] == pytest.approx(one.content["augment"]["p"])
    assert any(-1 <= float(row["train/r_t"]) <= 1 for row in rows if row["train/r_t"])


def built(*overrides: str, outputs: Path) -> GAN:
    config = compose_small(*overrides, outputs=outputs)
    assemble.build_data(config)
    config.run_dir, config.run_id = "", ""
    model = assemble.build_model(plain(config))
    assert isinstance(model, GAN)
    model.configure_model()
    return model


@pytest.mark.parametrize("part", ["dcgan", "sngan", "biggan"])
def test_any_discriminator_and_the_slope_of_its_scores(part: str, tmp_path: Path) -> None:
    """Gradients reach the generator through all transformations, and through R1, of images as they were before."""
    model = built(*GAN_RUN, f"model/generator={part}", f"model/discriminator={part}", "model.augment.p=0.5",
                  f"model.augment.groups=[{','.join(ALL)}]", outputs=tmp_path)  # fmt: skip
    label, generator = {"label": torch.tensor([3, 1])}, torch.Generator().manual_seed(0)
    made = model.generator(torch.randn(2, model.latent_dim, generator=generator), label)

    def scores(candidates: Tensor) -> Tensor:
        seen = model.augment(candidates, lambda width: torch.rand(2, width, generator=generator))
        return model.discriminator(seen, label)

    scores(made).sum().backward()
    assert any(weight.grad.abs().max() > 0 for weight in model.generator.parameters() if weight.grad is not None)
    real = images(*made.shape[1:], count=2)
    model.discriminator.zero_grad()
    R1().penalty(scores, real, made, torch.zeros(2)).backward()
    slopes = [weight.grad for weight in model.discriminator.parameters() if weight.grad is not None]
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert any(slope.abs().max() > 0 for slope in slopes)


def test_gray_images_have_no_hue_and_this_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        augment = ADA((1, 4, 4), p=1.0)
        for _ in range(2):
            result = augment(torch.zeros(3, 1, 4, 4), lambda width: numbers(3, width))
    assert result.shape == (3, 1, 4, 4)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "'hue' and 'saturation'" in line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"p": 1.1}, r"p=1.1 is a probability: use a value from 0 to 1\."),
        ({"p": -0.1}, r"p=-0.1 is a probability"),
        ({"target": 1.0}, r"target=1.0 is a mean of signs: use a value between -1 and 1, or null"),
        ({"target": -1.0}, r"target=-1.0 is a mean of signs"),
        ({"kimg": 0}, r"kimg=0 must be above 0"),
        ({"interval": 0}, r"interval=0 must be >= 1"),
        (
            {"groups": ["blit", "fade"]},
            r"there is no 'fade'\. Use some of blit, geometry, color, filter, noise, cutout\.",
        ),
        ({"groups": []}, r"Use model/augment=none"),
        ({"shape": (4, 8, 8)}, r"3 channels, or 1, and these have 4\. Use model.augment.groups=\[blit,geometry\]\."),
        ({"shape": (2, 8, 8), "groups": ["color"]}, r"and these have 2\. Use model/augment=none\."),
    ],
)
def test_refused_in_a_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        ADA(**{"shape": (3, 8, 8)} | given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("groups=[blit,fade]", r"groups must be a list of blit or geometry or color or filter or noise or cutout"),
        ("strength.hue=-1", r"model.augment.strength: hue=-1 must be >= 0: 1.0 is the paper's"),
    ],
)
def test_refused_where_it_is_typed(typed: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        built(*GAN_RUN, f"model.augment.{typed}", outputs=tmp_path)


def test_critics_whose_scores_have_no_sign_need_a_fixed_p(tmp_path: Path) -> None:
    critic = (*GAN_RUN, "model/objective=wgan_gp")
    with pytest.raises(ConfigError, match=r"model.augment.target=null model.augment.p=0.2"):
        built(*critic, outputs=tmp_path)
    built(*critic, "model.augment.target=null", "model.augment.p=0.2", outputs=tmp_path)


def test_families_without_a_discriminator_refuse_it() -> None:
    with pytest.raises(ConfigError, match=r"model.augment: .*ADA does not fit here"):
        check_config(ConfigTree().compose(["model=classifier", "model/augment=ada", "data=digits"]))
