"""Latent diffusion: what comes from the other run, what is trained, and what it refuses."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.errors import ConfigError
from genlab.model.latent_diffusion import LatentDiffusion
from genlab.run import run_folder
from genlab.run.assemble import build_data
from genlab.run.load import load_run
from genlab.sampling.draw import sample_images
from tiny_run import small, train

LATENT = ("model=vae", "model.latent_shape=[2,4,4]")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small(*LATENT), outputs=tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def run(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    choices = small("model=latent_diffusion", f"model.autoencoder={autoencoder}")
    return train(*choices, outputs=tmp_path_factory.mktemp("latent"))


def test_the_autoencoder_is_that_of_the_run_and_stays_so(autoencoder: Path, run: Path) -> None:
    theirs = read.newest(autoencoder)
    weights = {**theirs.state, **theirs.content["ema"]}  # the averaged ones
    assert weights
    model, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    assert isinstance(model, LatentDiffusion)
    own = model.autoencoder.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[name], weight) for name, weight in weights.items())


def test_latents_have_the_statistics_that_were_measured(run: Path) -> None:
    """On the first global batch: mean 0 and deviation 1/2 in each channel."""
    config = OmegaConf.create(run_folder.read_config(run))
    model, _ = load_run(config, run)
    assert isinstance(model, LatentDiffusion)
    data = build_data(config)
    keys = next(iter(_first_keys(data)))
    batch = data.on_after_batch_transfer(data.dataset("train")[keys], 0)
    z = model.standardised(model.encode(batch))
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(dim=(0, 2, 3), correction=0), torch.full((2,), 0.5), atol=1e-4, rtol=0)


def _first_keys(data):
    from genlab.data.sampler import ResumableBatchSampler

    return ResumableBatchSampler(len(data.table("train")), data.batch_size, data.seed, 0, 1)


def test_the_other_run_is_needed_only_once(autoencoder: Path, run: Path, tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(folder, tmp_path / name)) for folder, name in ((autoencoder, "a"), (run, "b"))]
    config = run_folder.read_config(copies[1])
    config["pretrained"]["model.autoencoder"]["where"] = str(copies[0])
    (copies[1] / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    shutil.rmtree(copies[0])
    model, _ = load_run(OmegaConf.create(run_folder.read_config(copies[1])), copies[1])
    original, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    assert torch.equal(sample_images(model, range(3), 0), sample_images(original, range(3), 0))


def test_samples_are_decoded_latents(run: Path) -> None:
    """With a denoiser that always says 0, every latent is the mean latent, and every image its decoding."""
    model, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    assert isinstance(model, LatentDiffusion)
    model.diffusion.objective.denoise = lambda network, x, sigma, condition: torch.zeros_like(x)
    label = {"label": torch.tensor([1, 2])}
    images = model.sample(2, label)
    mean = model.latent_mean.expand(2, 2, 4, 4)
    torch.testing.assert_close(images, model.autoencoder.decode(mean, label), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("/nowhere", r"model.autoencoder=/nowhere: there is no run here"),
        ("gan", r"a GAN has no latents with a spatial shape. Name a run of model=vae or vq_vae\.$"),
        ("flow", r"a Flow has no latents with a spatial shape. Name a run of model=vae or vq_vae\.$"),
    ],
)
def test_what_cannot_be_an_autoencoder_is_refused(other: str, message: str, tmp_path: Path) -> None:
    path = other if other.startswith("/") else train(*small(f"model={other}"), "budget.value=8", outputs=tmp_path)
    with pytest.raises(ConfigError, match=message):
        command_line(["train", "model=latent_diffusion", f"model.autoencoder={path}"])


def test_an_autoencoder_of_other_images_is_refused(autoencoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"was trained on images of shape \(1, 16, 16\), the data have \(3, 32, 32\)"):
        command_line(["train", "model=latent_diffusion", f"model.autoencoder={autoencoder}", "data=shapes",
                      "data.num_train=40", "data.num_val=8", "data.batch_size=8", f"outputs={tmp_path}"])  # fmt: skip
    assert not list(tmp_path.iterdir())
