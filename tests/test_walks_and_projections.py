"""Walks between samples, moving pictures, and projections of pictures into a generator with styles."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from genlab.cli import run as command_line
from genlab.data.image import to_pixels
from genlab.errors import ConfigError, GenlabError, NumericsError
from genlab.model.augment.diffaugment import DiffAugment
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.model.gan import GAN
from genlab.model.network.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from genlab.model.objective.adversarial import NonSaturating
from genlab.model.objective.penalty import R1
from genlab.model.schedule import Constant
from genlab.run import assemble
from genlab.sampling import projection
from genlab.sampling.draw import sample_images
from genlab.sampling.pictures import Pictures
from genlab.sampling.projection import FeatureDistance, correlation, given, normalize, pace, project
from genlab.sampling.texts import Texts
from genlab.sampling.video import write_video
from genlab.sampling.walk import Between, check_walk, walk
from genlab.seeding import RandomStream
from tiny_run import compose_small, plain, small, train

SHAPE = (1, 16, 16)


def styled(classes: int = 0, **settings: Any) -> GAN:
    """A GAN of random weights, whose pixels have noise."""
    told = {"label": {"size": classes}} if classes else {}
    torch.manual_seed(0)

    def generator(told: Any) -> StyleGAN2Generator:
        return StyleGAN2Generator(SHAPE, told, 6, 64, 8, 8, 2, clamp=None, **settings)

    def discriminator(told: Any) -> StyleGAN2Discriminator:
        return StyleGAN2Discriminator(SHAPE, told, 64, 8, 2, clamp=None)

    gan = GAN(generator, discriminator, NonSaturating(R1(0.0, 1)), DiffAugment([]), torch.optim.Adam, torch.optim.Adam,
              Constant(), SHAPE, told, latent_dim=6)  # fmt: skip
    gan.configure_model()
    for name, parameter in gan.generator.named_parameters():
        if name.endswith("strength"):
            parameter.data.fill_(0.02)
    return gan.eval()


# --- walks ------------------------------------------------------------------------------------------------------------


def streams(count: int = 4) -> list[RandomStream]:
    return [RandomStream.for_samples(seed, range(count)) for seed in (1, 2)]


def test_numbers_between_two_streams() -> None:
    first, second = streams()
    at_start = Between(*streams(), torch.zeros(4))
    for draw in (lambda s: s.randn(3, 50), lambda s: s.rand(30), lambda s: s.randint(9, 20), lambda s: s.randn()):
        assert torch.equal(draw(at_start), draw(first))
        draw(second)
    middle, first, second = Between(*streams(), torch.full((4,), 0.5)), *streams()
    a, b, between = first.randn(1000), second.randn(1000), middle.randn(1000)
    torch.testing.assert_close(between.norm(dim=1), (a.norm(dim=1) + b.norm(dim=1)) / 2)
    torch.testing.assert_close((between * a).sum(1) / a.norm(dim=1), (between * b).sum(1) / b.norm(dim=1))
    second.rand(1000)
    first.rand(1000)
    ranks = middle.rand(1000)
    assert ((ranks >= 0) & (ranks < 1)).all()
    assert abs(ranks.var() - 1 / 12) < 0.01  # the mean of two uniform numbers has 1 / 24
    assert torch.equal(middle.randint(9, 20), second.randint(9, 20))
    assert Between(*streams(), torch.full((4,), 0.99)).randn(5).shape == (4, 5)


@pytest.mark.parametrize("choice", ["model=vae", "model=flow", "model=gan", "model=gan model.truncation=0.5"])
def test_samples_are_the_key_frames_of_any_model_with_a_prior(choice: str, tmp_path: Path) -> None:
    family, *others = choice.split()
    config = compose_small(family, *others, outputs=tmp_path)
    assemble.build_data(config)
    model = assemble.build_model(plain(config))
    model.configure_model()
    assert isinstance(model, GenerativeModel)
    with in_eval_mode(model):
        pictures = torch.cat([*walk(model, 3, 4, seed=5, batch_size=5)])
        again = torch.cat([*walk(model, 3, 4, seed=5, batch_size=64)])
    torch.testing.assert_close(again, pictures, rtol=0, atol=1e-5)
    assert len(pictures) == 12
    expected = sample_images(model, range(3), seed=5)
    assert (to_pixels(pictures[::4], 8).int() - expected.int()).abs().max() <= 1
    steps = (pictures - pictures.roll(-1, 0)).flatten(1).norm(dim=1)
    assert (steps > 0).all(), "and it is a loop"


def test_styles_are_walked_along_straight_lines_and_with_psi() -> None:
    gan = styled(3, psi=0.5)
    gan.generator.mapping.average.normal_(generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    draw = gan.generator.synthesize
    gan.generator.synthesize = lambda styles: seen.append(styles) or draw(styles)  # type: ignore[method-assign]
    pictures = torch.cat([*walk(gan, 2, 4, seed=1, batch_size=3)])
    styles = torch.cat(seen)
    torch.testing.assert_close(styles[2], (styles[0] + styles[4]) / 2)
    torch.testing.assert_close(styles[6], styles[2])  # on the way back
    torch.testing.assert_close(styles[1] - styles[0], (styles[4] - styles[0]) / 4)
    expected = sample_images(gan, range(2), seed=1)
    assert (to_pixels(pictures[::4], 8).int() - expected.int()).abs().max() <= 1


class Recorder(GenerativeModel):
    """Remembers the labels that were asked for."""

    conditions = styled(3).conditions
    device = torch.device("cpu")  # type: ignore[assignment]

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.asked: list[int] = []

    def sample(self, num_samples: int, condition: Any = None, generator: Any = None) -> Tensor:
        self.asked += condition["label"].tolist()
        return torch.zeros(num_samples, *SHAPE)

    def configure_model(self) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> None: ...


def test_the_condition_changes_half_way() -> None:
    model = Recorder()
    [*walk(model, 2, 4, seed=0, batch_size=3)]
    assert model.asked == [0, 0, 1, 1, 1, 1, 0, 0]
    model = Recorder()
    [*walk(model, 2, 2, seed=0, batch_size=3, typed={"label": torch.tensor([2])})]
    assert model.asked == [2] * 4


def noise_pictures(*shape: int, count: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(count)]


def test_a_gif_shows_its_pictures(tmp_path: Path) -> None:
    pictures = noise_pictures(3, 16, 10)  # fewer colors than a palette has
    write_video(iter(pictures), tmp_path / "a.gif", fps=30)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (5, (130, 208), 0)  # type: ignore[attr-defined]
        durations = []
        for i, picture in enumerate(pictures):
            gif.seek(i)
            durations.append(gif.info["duration"])
            assert np.array_equal(np.asarray(gif.convert("RGB"))[6::13, 6::13].transpose(2, 0, 1), picture)
    assert durations == [30, 40, 30, 30, 40]  # of 1/30 s, in whole hundredths
    (gray,) = noise_pictures(1, 16, 16, count=1)
    write_video([gray], tmp_path / "a.gif", fps=30)
    with Image.open(tmp_path / "a.gif") as gif:
        assert np.array_equal(np.asarray(gif.convert("L"))[::8, ::8], gray[0])
    clear = torch.cat([gray, torch.zeros_like(gray)])  # gray + alpha
    write_video([clear], tmp_path / "a.gif", fps=30)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (np.asarray(gif.convert("L")) == 255).all()


def test_what_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    def pictures() -> Any:
        yield from noise_pictures(*SHAPE)
        raise NumericsError("no more")

    with pytest.raises(NumericsError):
        write_video(pictures(), tmp_path / "a.gif", fps=30)
    assert not [*tmp_path.iterdir()]


def test_an_mp4_shows_its_pictures(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'genlab[video]'")
    pictures = [torch.full((1, 129, 135), 40 * i, dtype=torch.uint8) for i in range(5)]
    write_video(iter(pictures), tmp_path / "a.mp4", fps=24)
    with av.open(str(tmp_path / "a.mp4")) as video:
        (stream,) = video.streams.video
        assert (stream.width, stream.height, stream.pix_fmt) == (136, 130, "yuv420p")
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 24)
        shades = [frame.to_ndarray(format="gray").mean() for frame in video.decode(stream)]
    assert np.abs(np.array(shades) - 40 * np.arange(5)).max() < 4


# --- projections ------------------------------------------------------------------------------------------------------


def of_the_model(gan: GAN, condition: Any = None) -> Tensor:
    return gan.sample(1, condition, RandomStream.for_samples(7, [0]))


def test_a_models_own_image_is_found() -> None:
    gan = styled()
    target = of_the_model(gan)
    steps: list[int] = []
    found = project(gan, target, 80, seed=0, advance=steps.append)
    assert sum(steps) == 80
    assert len(found.distances) == 82
    assert found.distances[-1] < found.distances[0] / 20
    assert (found.image - target).square().mean().sqrt() < target.std() / 5
    assert found.styles.shape == (1, 6, 8)
    assert [tuple(map.shape) for map in found.noise] == [(1, side, side) for side in (4, 8, 8, 16, 16)]
    for map in found.noise:
        torch.testing.assert_close(map.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
        torch.testing.assert_close(map.var(correction=0), torch.tensor(1.0))
        assert correlation(map) < 0.5 / map.shape[-1] ** 2, "less than white noise has"
    torch.testing.assert_close(gan.generator.synthesize(found.styles, given(found.noise)), found.image)
    with pytest.raises(AssertionError, match="gets noise of"):
        gan.generator.synthesize(found.styles, given(found.noise[1:]))


def test_it_depends_on_its_seed_alone_and_leaves_the_model_as_it_is() -> None:
    gan = styled(3).train()
    target, condition = of_the_model(gan, {"label": torch.tensor([1])}), {"label": torch.tensor([1])}
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    torch.manual_seed(1)
    first = project(gan, target, 4, 3, condition)
    torch.manual_seed(2)
    again, other = (project(gan, target, 4, seed, condition) for seed in (3, 4))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.styles, again.styles)
    assert all(map(torch.equal, first.noise, again.noise))
    assert not torch.equal(first.image, other.image)
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())
    assert gan.training
    assert all(parameter.grad is None for parameter in gan.parameters())
    another = project(gan, target, 4, 3, {"label": torch.tensor([2])})
    assert not torch.equal(another.styles, first.styles), "it begins at the average of its class"


def test_the_noise_of_pixels_learns_from_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.sampling.projection._WEIGHT", 0.0)
    gan = styled()
    target = of_the_model(gan)
    far, near = (project(gan, target, steps, seed=0) for steps in (1, 20))  # the first step has no learning rate
    assert all((a - b).abs().max() > 0.01 for a, b in zip(far.noise, near.noise, strict=True))
    assert project(styled(noise=False), target, 2).noise == []


def test_white_noise_is_not_correlated() -> None:
    maps = torch.randn(400, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([correlation(map) for map in maps]).mean()
    assert abs(mean / (2 / 16**2 + 2 / 8**2) - 1) < 0.15
    products = torch.stack([(map * map.roll(1, 2)).mean() for map in maps])
    assert abs(products.mean()) < 4 / (400 * 256) ** 0.5
    smooth = 2 * torch.nn.functional.avg_pool2d(maps[0], 2).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert correlation(smooth) > 10 * mean
    stripes = torch.tensor([1.0, -1.0]).repeat(16, 8)[None]
    assert correlation(stripes) == 2  # -1 along rows, 1 along columns; in the pyramid nothing is left
    (shifted,) = normalized = [3 * maps[0] + 5]
    normalize(normalized)
    torch.testing.assert_close(shifted.square().mean(), torch.tensor(1.0))


def test_the_learning_rate_rises_and_falls() -> None:
    assert [round(pace(done), 3) for done in (0, 0.025, 0.05, 0.5, 0.75, 0.875, 1)] == [0, 0.5, 1, 1, 1, 0.5, 0]


def test_features_are_of_the_discriminators_blocks() -> None:
    gan = styled()
    distance = FeatureDistance(gan.discriminator)
    a, b = sample_float(2), sample_float(2, seed=1)
    assert torch.equal(distance.between(a, a), torch.zeros(2))
    both = distance.between(a, b)
    assert (both > (a - b).square().flatten(1).mean(dim=1)).all()
    torch.testing.assert_close(distance.between(a[1:], b[1:]), both[1:])
    assert not any(block._forward_hooks for block in gan.discriminator.blocks)


def sample_float(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_what_cannot_be_projected() -> None:
    with pytest.raises(ValueError, match=r"image must be \(1, 1, 16, 16\), got \(1, 1, 8, 8\)"):
        project(styled(), torch.zeros(1, 1, 8, 8), 1)
    with pytest.raises(ValueError, match="needs condition="):
        project(styled(3), torch.zeros(1, *SHAPE), 1)
    with pytest.raises(NumericsError, match="not finite"):
        project(styled(), torch.full((1, *SHAPE), torch.nan), 1)
    with pytest.raises(ConfigError, match=r"a Linear has none\. Use features=vgg"):
        FeatureDistance(torch.nn.Linear(1, 1))


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=stylegan2"), "budget.value=8", outputs=tmp_path_factory.mktemp("outputs"))


def said(capsys: pytest.CaptureFixture[str], *typed: str) -> list[str]:
    capsys.readouterr()
    command_line(["sample", *typed])
    return capsys.readouterr().out.splitlines()


def refusal(*typed: str) -> str:
    with pytest.raises(GenlabError) as caught:
        command_line(["sample", *typed])
    return str(caught.value)


def test_the_command_walks(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = said(capsys, f"run={run}", "n=3", "frames=2", "label=[1,2]")
    path = run / "samples" / "walk-seed=0-n=3-frames=2-label=1,2.gif"
    assert line == f"a loop through 3 samples, of 6 pictures: {path}"
    said(capsys, f"run={run}", "n=3", "label=[1,2]", f"out={tmp_path / 'a.npz'}")
    samples = np.load(tmp_path / "a.npz")["images"][..., 0]
    with Image.open(path) as gif:
        assert gif.n_frames == 6  # type: ignore[attr-defined]
        for i, sample in enumerate(samples):
            gif.seek(2 * i)
            shown = np.asarray(gif.convert("L"))[::8, ::8].astype(int)
            assert np.abs(shown - sample).max() <= 1
    monkeypatch.setattr("genlab.command.sample.FRAMES", 3)
    (line,) = said(capsys, f"run={run}", "n=2", f"out={tmp_path / 'b.gif'}", "fps=50")
    assert "of 6 pictures" in line


def test_the_command_projects(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)).save(picture)
    typed = (f"run={run}", f"project={picture}", "steps=3", "label=1")
    lines = said(capsys, *typed)
    assert re.fullmatch(
        r"distance \(features of the discriminator and pixels\): [\d.]+ at the start, [\d.]+ in the end", lines[0]
    )
    path = Path(lines[2].removeprefix("the picture, and what was found: "))
    assert re.fullmatch(r"projection-[0-9a-f]{8}\.png", path.name)
    assert lines[1] == f"styles and noise: {path.with_suffix('.safetensors')}"
    tensors = load_file(path.with_suffix(".safetensors"))
    assert tensors["styles"].shape == (6, 8)
    assert {name: tuple(map.shape) for name, map in tensors.items() if "noise" in name}["noise.4"] == (16, 16)
    with Image.open(path) as both:
        assert both.size == (33 * 3, 16 * 3)  # a line between them
    said(capsys, *typed, f"out={tmp_path / 'b.png'}")
    assert (tmp_path / "b.png").read_bytes() == path.read_bytes()
    assert (tmp_path / "b.safetensors").read_bytes() == path.with_suffix(".safetensors").read_bytes()
    assert said(capsys, *typed, "seed=1")[2] != lines[2]


def test_what_the_command_refuses(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    broken = tmp_path / "b.png"
    broken.write_bytes((tmp_path / "a.png").read_bytes()[:50])
    projects = (f"run={run}", f"project={tmp_path / 'a.png'}")
    for typed, line in (
        (("frames=2", "out=x.png"), r"goes into a \.gif or a \.mp4\. Use out=x\.gif, or leave frames= out"),
        (("n=1", "frames=2"), "two samples or more. Use n=2"),
        (("fps=5",), "Say how long it is: frames=30"),
        (("steps=5",), "Name a picture: project=picture.png"),
        (("features=vgg",), "Name a picture: project=picture.png"),
        (("frames=2", "fps=60"), r"at most 50 pictures a second\. Use fps=50"),
        (("frames=0",), "frames must be a whole number >= 1"),
        (("features=lpips",), "features must be discriminator or vgg, got 'lpips'"),
        ((projects[1], "frames=2"), "Leave frames= out"),
        ((projects[1],), r"draws by label\. Name the one of the picture: label=\.\.\."),
        ((projects[1], "label=[1,2]"), "Name the one of the picture"),
        ((projects[1], "label=1", "out=x.gif"), r"Use out=x\.png"),
        ((f"project={broken}", "label=1"), "is not a picture that can be read: truncated PNG"),
        (("project=nowhere.png", "label=1"), "project=nowhere.png is not a picture .* no such file"),
    ):
        assert re.search(line, refusal(f"run={run}", *typed)), typed


def test_other_models_are_refused() -> None:
    model, pictures, texts = Recorder(), Pictures(), Texts.__new__(Texts)
    with pytest.raises(ConfigError, match=r"Recorder, which makes no pictures .* Leave frames= and the \.gif"):
        check_walk(model, pictures, Path("x"))
    with pytest.raises(ConfigError, match=r"no generator with styles.* run of model=stylegan2, or leave project="):
        projection.check(model, pictures, Path("x"), {})
    for check in (check_walk, partial(projection.check, typed={})):
        check(styled(), pictures, run=Path("x"))
        with pytest.raises(ConfigError):
            check(styled(), texts, run=Path("x"))


def test_a_missing_package_or_weights(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    shown = refusal(f"run={run}", "n=2", "frames=2", f"out={tmp_path / 'a.mp4'}")
    assert "a.mp4 needs a package: pip install 'genlab[video]'" in shown
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    shown = refusal(f"run={run}", f"project={tmp_path / 'a.png'}", "label=1", "features=vgg")
    assert "features=vgg: the weights of LPIPS (vgg) are not here" in shown
    assert "Or leave features= out" in shown
