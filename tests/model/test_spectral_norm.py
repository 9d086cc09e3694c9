"""Averaged weights under spectral norm are divided by their own largest singular value, in training and after it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.checkpoint import read
from genlab.model.spectral_norm import renew_singular_vectors, singular_vectors
from genlab.run import run_folder
from genlab.run.load import load_run
from tiny_run import same, small, train

BIGGAN = small("model=gan", "model/generator=biggan", "model/discriminator=dcgan")
FAST = ("callbacks.ema.half_life=100", "callbacks.ema.ramp_up=10", "model.optimizer.lr=0.02")


def run_config(run: Path) -> DictConfig:
    return OmegaConf.create(run_folder.read_config(run))


def norms(network: nn.Module) -> Tensor:
    """Largest singular values of all normalized weights: 1 where the normalization is exact."""
    network.eval()
    return torch.stack([
        torch.linalg.matrix_norm(part.weight.detach().flatten(1), 2)
        for part in network.modules() if hasattr(part, "parametrizations")
    ])  # fmt: skip


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 7), nn.Linear(7, 3), nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3)], ids=str
)
def test_renewed_vectors_are_the_first_singular_vectors(layer: nn.Module) -> None:
    network = nn.Sequential(spectral_norm(layer))
    matrix = layer.parametrizations.weight[0]._reshape_weight_to_matrix
    with torch.no_grad():
        layer.parametrizations.weight.original.normal_()
    for vector in singular_vectors(network):
        vector.copy_(torch.randn_like(vector))
    renew_singular_vectors(network.eval())
    assert torch.linalg.matrix_norm(matrix(layer.weight), 2).item() == pytest.approx(1, abs=1e-5)
    assert [vector.norm().item() for vector in singular_vectors(network)] == pytest.approx([1, 1])


def test_only_the_named_weights_are_renewed() -> None:
    network = nn.Sequential(spectral_norm(nn.Linear(3, 4)), spectral_norm(nn.Linear(4, 3)))
    for vector in singular_vectors(network):
        vector.zero_()
    renew_singular_vectors(network, {"0.parametrizations.weight.original"})
    assert [bool(vector.any()) for vector in singular_vectors(network)] == [True, True, False, False]


def test_a_run_that_is_evaluated_samples_exactly_normalized_averages_and_trains_on_as_if_it_were_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(self: Any, trainer: Any, model: Any, num_samples: Any) -> None:
        with averaged_weights(trainer, model):
            seen.append(norms(model.generator))
        model.train()

    monkeypatch.setattr(PeriodicEvaluation, "evaluate", spy)
    run = train(*BIGGAN, *FAST, "callbacks.evaluation.times=2", "budget.value=16", outputs=tmp_path / "often")
    monkeypatch.undo()
    never = train(*BIGGAN, *FAST, "budget.value=16", outputs=tmp_path / "never")
    assert len(seen) == 2
    for values in seen:
        torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-4)
    ours, theirs = read.newest(run).content, read.newest(never).content
    assert same(ours["state_dict"], theirs["state_dict"])
    assert same(ours["ema"], theirs["ema"])
    assert {name.rsplit(".", 1)[-1] for name in ours["ema"]} & {"_u", "_v", "num_batches_tracked"} == set()
    assert any(name.endswith("running_var") for name in ours["ema"])

    model, weights = load_run(run_config(run), run)
    assert weights == "ema"
    expected = {name: p.clone() for name, p in model.state_dict().items()}
    values = norms(model.generator)
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-4)
    # As checkpoints were written once: with averages of the vectors, which are shorter than 1.
    path = read.newest(run).path
    old = read.load(path)
    vectors = {name: 0.7 * p for name, p in old["state_dict"].items() if name.endswith(("._u", "._v"))}
    assert vectors
    old["ema"] |= {name: p for name, p in vectors.items() if name.startswith("generator.")}
    torch.save(old, path)
    assert same(dict(load_run(run_config(run), run)[0].state_dict()), expected)
