"""Pictures of what is hidden and filled in, in a run; and a run of JEPA that begins with that run's encoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from genlab.checkpoint import read
from genlab.run import run_folder
from genlab.run.load import load_run
from tiny_run import small, train

MASKED = small("model=masked_autoencoder")
SHOWN = ("callbacks.samples.times=1", "callbacks.samples.count=3", "callbacks.samples.columns=4")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*MASKED, *SHOWN, outputs=tmp_path_factory.mktemp("masked"))


def test_the_grid_has_images_hidden_and_filled_in(run: Path) -> None:
    (path,) = (run / "samples").glob("*.png")
    assert path.name == "examples=000000000104.png"
    pixels = np.asarray(Image.open(path))[1::3, 1::3]  # enlarged threefold
    assert pixels.shape == (16, 12 * 17 - 1)  # room for four images in a row, a line between pictures
    columns = [pixels[:, 17 * i : 17 * i + 16] for i in range(9)]
    model, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    for image, masked, filled in zip(columns[::3], columns[1::3], columns[2::3], strict=True):
        hidden = (masked == 128).reshape(8, 2, 8, 2).all(axis=(1, 3))
        assert hidden.sum() >= model.mask_ratio * 64
        seen = ~np.kron(hidden, np.ones((2, 2), dtype=bool))
        assert np.array_equal(masked[seen], image[seen])
        assert np.array_equal(filled[seen], image[seen])


@pytest.mark.matrix  # another run
def test_a_run_of_jepa_begins_with_its_encoder(run: Path, tmp_path: Path) -> None:
    """Both encoders do: they are one at the start."""
    given: Any = small("model=jepa", "model.encoder.class_token=true", "model.optimizer.lr=0", "model.momentum=0.5")
    began = train(*given, f"start={run}", "start.only=[encoder.*]", outputs=tmp_path)
    before, after = read.newest(run).content["ema"], read.newest(began).state
    names = [name for name in before if name.startswith("encoder.")]
    assert len(names) > 10
    for name in names:
        assert torch.equal(after[name], before[name]), name
        assert torch.equal(after[f"context_{name}"], before[name]), name
