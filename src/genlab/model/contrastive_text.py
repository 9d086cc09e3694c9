"""Contrastive pretraining of images and captions (CLIP, Radford et al. 2021, arXiv:2103.00020), at any scale."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.augment.diffaugment import Augmentation
from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.condition_kind import Caption
from genlab.model.gathered import gathered
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import CaptionNetwork, PatchNetwork
from genlab.model.sharding import shard

_LARGEST_SCALE = 100.0  # of logits, as in the paper: 1 / temperature


class ContrastiveText(Model):
    """An image tower and a text tower, whose unit vectors of a picture and its caption have a large product, and a
    small one with the others of the batch: symmetric cross-entropy (figure 3 of the paper), with a learned temperature.

    It does not sample. Metrics compare pictures with captions by it: ``metrics.clip_score.model=<its run folder>``, and
    use its image features: ``metrics.extractor=<its run folder>``.

    * Negatives of a pair are the other pairs of the batch, of all ranks together. A pair with an equal caption, word
      for word, or an equal picture, pixel for pixel, is no negative, and neither is one without a caption, from which
      nothing is learned at all.
    * With accumulated gradients negatives are those of one batch, not of all that make a step: 4 batches of 64 are not
      one of 256.
    * In validation negatives are those of the batch on one rank, so the loss depends on the number of ranks; the metric
      ``retrieval``, over all of the held-out split, does not.
    """

    kinds = frozenset({"continuous"})
    feature_network = "image_encoder"
    image_encoder: Any  # networks are made in configure_model
    text_encoder: Any
    image_projection: nn.Linear
    text_projection: nn.Linear
    logit_scale: "LogitScale"

    def __init__(
        self,
        image_encoder: Callable[[], PatchNetwork],
        text_encoder: Callable[..., CaptionNetwork],
        augment: Augmentation,  # of training images; mirror images are the data's: data.flip=true
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        width: int = 64,  # of the vectors that are compared
        temperature: float = 0.07,  # at the start; never below 0.01
        seed: int = 0,
    ):
        """Raises ValueError: the data have no captions, or an argument is outside its range."""
        super().__init__(seed, schedule)
        words = told.get("caption")
        if not words or words.get("size") is None:
            raise ValueError(
                "a contrastive model of images and text needs captions, and the data have none. Use data with "
                "captions, such as data=shapes."
            )
        if width < 1:
            raise ValueError(f"width={width} must be 1 or more.")
        if temperature < 1 / _LARGEST_SCALE:
            raise ValueError(f"temperature={temperature} must be {1 / _LARGEST_SCALE} or more.")
        self.make_image_encoder, self.make_text_encoder = image_encoder, text_encoder
        self.make_optimizer, self.augment = optimizer, augment
        self.shape, self.caption = tuple(shape), Caption(**words)
        self.width, self.first_temperature = width, temperature
        for name in ("image_encoder", "text_encoder", "image_projection", "text_projection", "logit_scale"):
            self.register_module(name, None)

    def configure_model(self) -> None:
        if self.image_encoder is not None:
            return
        image_encoder: Any = self.make_image_encoder()
        text_encoder: Any = self.make_text_encoder(num_words=self.caption.num_tokens, length=self.caption.length)
        image_projection = _projection(image_encoder.width, self.width)
        text_projection = _projection(text_encoder.width, self.width)
        logit_scale = LogitScale(self.first_temperature)
        if self.device_mesh is not None:
            for part in (image_encoder, text_encoder, image_projection, text_projection, logit_scale):
                shard(part, self.device_mesh)
        self.image_encoder, self.text_encoder, self.logit_scale = image_encoder, text_encoder, logit_scale
        self.image_projection, self.text_projection = image_projection, text_projection

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.logit_scale.clamp()
        x, caption = batch[self.key], batch["caption"]
        same = Same.of(x, caption).gathered()
        if len(same.caption) < 2:
            raise ConfigError("a contrastive model needs two pairs or more in a batch. Use a larger data.batch_size.")
        seen = self.augment(x, lambda k: torch.rand(len(x), k, device=x.device))
        pairs = gathered(torch.cat([self.embed_images(seen), self.embed_captions(caption)], dim=1))
        loss, recall = self.compared(pairs[:, : self.width], pairs[:, self.width :], same)
        self.log("train/loss", loss, on_step=True, batch_size=len(x))
        self.log("train/recall_at_1", recall, on_step=True, batch_size=len(x))
        self.log("train/temperature", 1 / self.logit_scale().detach(), on_step=True, batch_size=len(x))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of images as they are, among those of this batch."""
        x, caption = batch[self.key], batch["caption"]
        loss, recall = self.compared(self.embed_images(x), self.embed_captions(caption), Same.of(x, caption))
        return {"loss": loss, "recall_at_1": recall}

    def compared(self, images: Tensor, captions: Tensor, same: "Same") -> tuple[Tensor, Tensor]:
        """The loss of pairs of unit vectors (N, width), and the share of both that are nearest to their own."""
        with torch.autocast(images.device.type, enabled=False):  # 100 times a cosine has few digits in bfloat16
            logits = self.logit_scale() * images @ captions.T
            return symmetric_cross_entropy(logits, same.no_negatives(), same.has_caption)

    def embed_images(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> unit vectors (N, width) float32."""
        return F.normalize(self.image_projection(self.image_encoder(x)[:, 0]).float(), dim=1)

    def embed_captions(self, caption: Tensor) -> Tensor:
        """Captions (N, T) int64, filled up with 0 -> unit vectors (N, width) float32."""
        return F.normalize(self.text_projection(self.text_encoder(caption)).float(), dim=1)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, width) float32: vectors of mean square 1."""
        return math.sqrt(self.width) * self.embed_images(x)


class LogitScale(nn.Module):
    """What cosines are divided by, learned as the logarithm of its reciprocal (section 2.5 of the paper)."""

    def __init__(self, start: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([-math.log(start)]))  # (1,): a sharded parameter has a dimension

    def forward(self) -> Tensor:
        """What cosines are multiplied by, (1,)."""
        return self.log_scale.float().clamp(max=math.log(_LARGEST_SCALE)).exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Put it back where an optimizer step went beyond the limit: there it would get no gradient."""
        self.log_scale.clamp_(max=math.log(_LARGEST_SCALE))


class Same:
    """Which pairs of a batch are equal: hashes of captions and of pictures, (N,) int64 each, and whether there is a
    caption at all, (N,) bool."""

    def __init__(self, picture: Tensor, caption: Tensor, has_caption: Tensor):
        self.picture, self.caption, self.has_caption = picture, caption, has_caption

    @classmethod
    def of(cls, x: Tensor, caption: Tensor) -> "Same":
        """Pictures (N, C, H, W), float, and captions (N, T) int64."""
        bits = x.detach().float().contiguous().flatten(1).view(torch.int32)
        return cls(_hash(bits), _hash(caption), (caption != 0).any(dim=1))

    def gathered(self) -> "Same":
        """Of all ranks."""
        rows = gathered(torch.stack([self.picture, self.caption, self.has_caption.long()], dim=1))
        return Same(rows[:, 0], rows[:, 1], rows[:, 2].bool())

    def no_negatives(self) -> Tensor:
        """(N, N) bool: the pairs that are not compared, the diagonal aside."""
        equal = (self.picture[:, None] == self.picture) | (self.caption[:, None] == self.caption)
        return equal | ~self.has_caption | ~self.has_caption[:, None]


def symmetric_cross_entropy(logits: Tensor, no_negatives: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of two cross-entropies: of each picture's caption among captions, of each caption's picture among
    pictures; and the share in which the own one is largest.

    ``logits``: (N, N), of pictures in rows and captions in columns; ``no_negatives``: (N, N) bool, symmetric: left out,
    but for the diagonal; ``counted``: (N,) bool. Both are 0 if nothing counts.
    """
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    kept = logits.masked_fill(no_negatives & ~own, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    nats = (F.cross_entropy(kept, target, reduction="none") + F.cross_entropy(kept.T, target, reduction="none")) / 2
    right = ((kept.argmax(dim=1) == target).float() + (kept.argmax(dim=0) == target).float()) / 2
    count = counted.sum().clamp_min(1)
    return torch.where(counted, nats, 0.0).sum() / count, torch.where(counted, right, 0.0).sum() / count


def _projection(width: int, out: int) -> nn.Linear:
    projection = nn.Linear(width, out, bias=False)
    nn.init.normal_(projection.weight, std=1 / math.sqrt(width))
    return projection


def _hash(rows: Tensor) -> Tensor:
    """Whole numbers (N, L) -> (N,) int64: equal for equal rows, and for others once in about 2^40 pairs. A sum of
    random multiples, with overflow."""
    return (rows.long() * _multiples(rows.shape[1]).to(rows.device)).sum(dim=1)


@lru_cache(maxsize=8)
def _multiples(count: int) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=torch.Generator().manual_seed(0)) | 1
