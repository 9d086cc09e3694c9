"""Train the network behind metrics/extractor=digits, only on the training split of scikit-learn's digits.

    python scripts/train_digits_extractor.py

One thread of a laptop CPU: about a minute. Expected: 99 % of the held-out digits named right; features of training and
of held-out images alike (printed). Writes src/genlab/metrics/extractor/digits.safetensors, whose hash becomes part of
the protocol of every number measured with it.

The network learns to name the digits, with smoothed labels, and to redraw them from its 64 features. The second task is
there for what a classifier throws away: how a digit is drawn. Without it the features collapse to ten points, and a
generator of ten class means would score well.
"""

import math

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from genlab.data.digits import Digits
from genlab.data.image import ImageTable, to_float
from genlab.metrics.extractor.digits import WEIGHTS, DigitsNetwork
from genlab.metrics.fid import FID

EPOCHS = 60
BATCH_SIZE = 64
SEED = 0


def train(table: ImageTable) -> tuple[DigitsNetwork, nn.Linear]:
    """The network and the classifier on top of it."""
    assert table.labels is not None
    images, labels = to_float(torch.from_numpy(table.images)), torch.from_numpy(table.labels)
    network, classifier, decoder = DigitsNetwork(), nn.Linear(64, 10), nn.Linear(64, 256)
    parameters = [*network.parameters(), *classifier.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.05)
    steps = EPOCHS * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for batch in order[: len(images) // BATCH_SIZE * BATCH_SIZE].split(BATCH_SIZE):
            x = augment(images[batch])
            features = network(x)
            named = F.cross_entropy(classifier(features), labels[batch], label_smoothing=0.1)
            redrawn = F.mse_loss(decoder(features), x.flatten(1))
            optimizer.zero_grad()
            (named + 3.0 * redrawn).backward()
            optimizer.step()
            schedule.step()
    settle(network, images)
    return network.eval(), classifier


def augment(x: Tensor) -> Tensor:
    """Slightly turned, scaled, moved and noisy copies of (N, 1, H, W) in [-1, 1]."""
    angle, scale = 0.15 * torch.randn(len(x)), 1 + 0.07 * torch.randn(len(x))
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift = 0.06 * torch.randn(len(x), 2)
    affine = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    moved = F.grid_sample(x + 1, grid, align_corners=False) - 1  # outside is black
    return moved + 0.1 * torch.rand(len(x), 1, 1, 1) * torch.randn_like(moved)


@torch.no_grad()
def settle(network: DigitsNetwork, images: Tensor) -> None:
    """Replace the running statistics by those of the training images as they are."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average
    network(images)


@torch.no_grad()
def report(network: DigitsNetwork, classifier: nn.Linear, train_table: ImageTable, val_table: ImageTable) -> None:
    features = {}
    for split, table in (("train", train_table), ("val", val_table)):
        features[split] = network(to_float(torch.from_numpy(table.images)))
        right = (classifier(features[split]).argmax(dim=1).numpy() == table.labels).mean()
        print(f"{split}: {100 * right:.2f} % named right, mean norm {features[split].norm(dim=1).mean():.3f}")
    spectrum = torch.linalg.eigvalsh(features["val"].double().T.cov())
    print(f"effective rank of held-out features: {spectrum.sum() ** 2 / spectrum.square().sum():.1f} of 64")
    half = np.random.default_rng(SEED).permutation(len(features["train"]))[: len(features["val"])]
    fid = FID()
    fid.update({"features": features["val"]}, real=True)
    fid.update({"features": features["train"][half]}, real=False)
    print(f"FID of {len(half)} training images and {len(features['val'])} held-out ones: {fid.compute()['fid']:.2f}")


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    data = Digits()
    network, classifier = train(data.table("train"))
    report(network, classifier, data.table("train"), data.table("val"))
    save_file(network.state_dict(), WEIGHTS)
    print(f"wrote {WEIGHTS} ({WEIGHTS.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
