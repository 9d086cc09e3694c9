"""How spread out features are: what tells of collapse, which a self-supervised loss need not."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.model.base import Model

_MOST_ROWS = 512  # of a batch: the time that singular values take grows with the cube


def feature_std(features: Tensor) -> Tensor:
    """The mean deviation of an element of unit vectors over the batch, times the root of their number (Chen and He
    2021, arXiv:2011.10566, section 4.1): 1 if the vectors point everywhere alike, 0 if all are equal. ``features``:
    (N, D)."""
    return F.normalize(features, dim=1).std(dim=0, correction=0).mean() * features.shape[1] ** 0.5


def effective_rank(features: Tensor) -> Tensor:
    """The exponential of the entropy of the singular values of centered features (N, D), as shares of their sum (Roy
    and Vetterli 2007, section 2): k for k equal ones, at most min(N - 1, D); 1 if there are none."""
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp()


@torch.no_grad()
def log_spread(model: Model, features: Tensor) -> None:
    """Log both for a failure monitor, in steps that a logger looks at, as ``train/feature_std`` and
    ``train/effective_rank``. ``features``: (N, D), of one view of this rank's images."""
    if model.unlogged is not None or len(features) < 2:
        return
    rows = features.detach()[:_MOST_ROWS].float()
    with torch.autocast(rows.device.type, enabled=False):
        model.most_rank = min(len(rows) - 1, rows.shape[1])
        model.log("train/feature_std", feature_std(rows), on_step=True, batch_size=len(features))
        model.log("train/effective_rank", effective_rank(rows), on_step=True, batch_size=len(features))
