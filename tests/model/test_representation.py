"""What generative models make of data on their way: of every family, and the same for an image in any batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.data.digits import Digits
from genlab.data.image import to_float
from genlab.metrics.fine_tuning import copied
from genlab.model.base import GenerativeModel, HasFeatures, Model, in_eval_mode
from genlab.model.representation import (
    Represents,
    RepresentsTokens,
    block_output,
    block_outputs,
    features_of,
    is_represented,
    unknown_place,
)
from genlab.run import assemble
from tiny_run import MLP, SHORT, compose_small, families, plain, small, train

# The width of what is read of small networks, and whether a gradient reaches their weights.
READ = {
    "diffusion": (8, True),
    "latent_diffusion": (8, True),
    "gan": (16, True),
    "progan": (32, True),
    "stylegan2": (8, True),
    "vae": (16, True),
    "factor_vae": (10, True),
    "hierarchical_vae": (80, False),
    "vq_vae": (64, False),
    "flow": (256, True),
    "transformer": (8, True),
    "masked": (8, True),
}
HAVE_FEATURES = {"classifier", "contrastive", "contrastive_text", "jepa", "masked_autoencoder", "self_distillation"}
NOT_READ = {"captioner", "masked_language", *HAVE_FEATURES}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = train("model=vae", "model.latent_shape=[2,4,4]", "model.encoder.channels=8", "model.decoder.channels=8",
                "budget.value=8", outputs=tmp_path_factory.mktemp("autoencoder"))  # fmt: skip
    return f"model.autoencoder={run}"


def made(*overrides: str, folder: Path) -> Model:
    """A small model with random weights; biases and gains of 0 too, or it would put out nothing."""
    config = compose_small(*overrides, outputs=folder)
    assemble.build_data(config)
    config.run_dir, config.run_id = str(folder), "x"
    model = assemble.build_model(plain(config))
    torch.manual_seed(0)
    model.configure_model()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    small = torch.from_numpy(Digits().table("val").images[:6])
    return nn.functional.interpolate(to_float(small), size=(16, 16))


def test_every_family_is_known() -> None:
    assert {*READ} | NOT_READ == {*families()}


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=[pytest.mark.matrix] if f == "latent_diffusion" else []) for f in READ]
)
def test_what_a_family_is_read_as(family: str, images: Tensor, tmp_path: Path, request: Any) -> None:
    given = (request.getfixturevalue("autoencoder"),) if family == "latent_diffusion" else ()
    model = made(f"model={family}", *given, folder=tmp_path)
    assert isinstance(model, Represents)
    assert not isinstance(model, HasFeatures)
    width, has_gradient = READ[family]
    with in_eval_mode(model):
        found = features_of(model, images)
        assert found.shape == (6, width)
        assert found.dtype == torch.float32
        assert found.requires_grad == has_gradient
        torch.manual_seed(7)
        torch.testing.assert_close(features_of(model, images[[4, 1]]), found[[4, 1]], atol=1e-4, rtol=1e-3)
    assert (found.std(dim=0) > 1e-6).any(), "images differ"
    depths = [] if model.reading.layer is None else [0.0, 1.0]
    with in_eval_mode(model), torch.no_grad():
        read = [features_of(model, images, depth) for depth in depths]
        copy = copied(model)
        torch.testing.assert_close(features_of(copy, images), found.detach(), atol=1e-5, rtol=1e-5)
    assert all(torch.isfinite(features).all() for features in read)
    for option, value in (("layer", model.reading.layer), ("noise_level", model.reading.noise_level)):
        if value is None:
            assert unknown_place(model, **{"layer": None, "noise_level": None} | {option: 0.5}) == option
            with pytest.raises(ValueError, match=rf"of a {type(model).__name__} .* are read, without a {option}\."):
                features_of(model, images, **{option: 0.5})
    shared = {id(p) for p in model.parameters()} & {id(p) for p in copy.parameters()}
    assert not shared


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return made("model=diffusion", *MLP, folder=tmp_path_factory.mktemp("mlp")).eval()


def test_labels_are_not_looked_at(images: Tensor, denoiser: Model) -> None:
    """A representation is one of the image alone, also of a conditional model: what it makes with nothing told."""
    model = denoiser
    assert isinstance(model, GenerativeModel)
    assert model.conditions.num_classes == 10
    seen: list[Any] = []
    network: Any = model.network
    hook = network.register_forward_hook(lambda module, arguments, output: seen.append(arguments[2]))
    features_of(model, images)
    hook.remove()
    assert seen == [None]


def test_a_progressive_gan_is_read_at_its_stage(images: Tensor, tmp_path: Path) -> None:
    model: Any = made("model=progan", folder=tmp_path).eval()
    widths = []
    with torch.no_grad():
        for level in (0, 1, 2):
            model.generator.grow(level, 1.0)
            model.discriminator.grow(level, 1.0)
            widths.append(features_of(model, images).shape[1])
    assert widths == [16, 32, 32]


def test_noise_is_of_the_content_and_the_level_counts(images: Tensor, denoiser: Model) -> None:
    model = denoiser
    with torch.no_grad():
        own = features_of(model, images)
        torch.testing.assert_close(features_of(model, images, 0.5, 0.05), own)
        clean, noisy = features_of(model, images, noise_level=0.0), features_of(model, images, noise_level=5.0)
    assert (own - clean).abs().max() > 1e-4
    assert (own - noisy).abs().max() > 1e-3


# --- blocks -----------------------------------------------------------------------------------------------------------


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[1](self.blocks[0](x)) + 1


class Network(nn.Module):
    """Runs its blocks from the last to the first, and the first of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Inner(), Inner(), Inner()])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*reversed(self.blocks), self.blocks[0]):
            x = block(x)
        return x


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 3, 4, 4)])
def test_blocks_are_read_in_the_order_in_which_they_run(shape: tuple[int, ...]) -> None:
    network, x = Network(), torch.randn(shape)
    where = {2: (), 3: (1,), 4: (2, 3)}[len(shape)]
    means = x.mean(dim=where) if where else x
    found = block_outputs(network, lambda: network(x))
    assert len(found) == 4, "outer blocks, and one of them twice"
    for number, output in enumerate(found, start=1):
        torch.testing.assert_close(output, means + number)
    for depth, number in ((0.0, 1), (0.4, 2), (1.0, 4)):
        torch.testing.assert_close(block_output(network, lambda: network(x), depth, mean=False), x + number)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.matrix  # torch.compile
def test_a_compiled_network_is_read_uncompiled() -> None:
    network, x = Network(), torch.randn(2, 3)
    network.compile(backend="eager")
    network(x)
    assert len(block_outputs(network, lambda: network(x))) == 4


def test_the_first_stream_of_a_block_is_read() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x + 1

    network = nn.Module()
    network.blocks = nn.ModuleList([Two()])
    x = torch.randn(2, 3)
    assert torch.equal(block_output(network, lambda: network.blocks[0](x), 0.0), x)  # type: ignore[index]


def test_what_has_no_blocks_or_no_features() -> None:
    with pytest.raises(ValueError, match=r"a Linear has no nn\.ModuleList named blocks"):
        block_output(nn.Linear(2, 2), lambda: None, 0.5)
    with pytest.raises(ValueError, match=r"a Linear has no features of images\."):
        features_of(nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[arg-type]
    assert not is_represented(nn.Linear(2, 2))  # type: ignore[arg-type]


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["transformer", "masked", "masked_language"])
def test_hidden_states_of_tokens(family: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be. " * 40)
    short = (given for given in SHORT if family != "masked_language" or "samples.times" not in given)
    model = made(f"model={family}", "data=text_file", f"data.path={text}", f"data.cache_dir={tmp_path}",
                 "data/tokenizer=bytes", "data.context=16", *short, folder=tmp_path / "x").eval()  # fmt: skip
    assert isinstance(model, RepresentsTokens)
    tokens = torch.randint(0, 100, (3, 16), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 9] = 101
    with torch.no_grad():
        states, changed = model.represent_tokens(tokens, 1.0), model.represent_tokens(other, 1.0)
    assert states.shape == (3, 16, 8)
    torch.testing.assert_close(states[:, :9], changed[:, :9]) if family == "transformer" else None
    assert ((states - changed).abs().amax(dim=(0, 2)) > 1e-6)[9:].any()


# --- all networks -----------------------------------------------------------------------------------------------------


@pytest.mark.matrix
def test_every_network_is_read(images: Tensor, tmp_path: Path) -> None:
    """All have blocks."""
    from test_grid import ABROAD, ONCE, options  # which takes seconds

    networks = [
        *(("diffusion", "network", name) for name in options("diffusion", "network")[0] if name not in ABROAD | ONCE),
        *(("gan", "discriminator", name) for name in options("gan", "discriminator")[0] if name not in ABROAD),
    ]
    assert len(networks) > 6
    for family, part, name in networks:
        model = made(*small(f"model={family}", f"model/{part}={name}"), folder=tmp_path / name).eval()
        with torch.no_grad():
            read = [features_of(model, images, depth) for depth in (0.0, 0.5, 1.0)]
            torch.testing.assert_close(features_of(model, images[2:3], 0.5), read[1][2:3], atol=1e-4, rtol=1e-3)
        for features in read:
            assert features.ndim == 2, name
            assert torch.isfinite(features).all(), name
            assert features.std(dim=0).max() > 1e-6, name
