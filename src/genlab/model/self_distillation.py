"""Self-distillation of images: a student predicts what its momentum teacher says of other views (BYOL, DINO)."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.augment.views import Views, numbers_by_index
from genlab.model.averages import running_statistics
from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory, in_eval_mode
from genlab.model.gathered import gathered
from genlab.model.momentum import cosine_momentum, follow
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import DistillationObjective, FeatureNetwork
from genlab.model.sharding import shard
from genlab.model.spread import log_spread


class SelfDistillation(Model):
    """An encoder and a projector, the teacher, that are a running average of a student's, which learns to predict what
    they say of other views of the same image, without labels and without negatives.

    It does not sample. Probes and metrics use its features: ``metrics.extractor=<its run folder>``.

    * ``encoder`` and ``projector`` are the teacher's. Features are those of its encoder, as DINO's paper has it; BYOL's
      keeps the student, of which the teacher is the average. ``start=`` puts weights into the teacher, and the student
      begins as its copy.
    * After every optimizer step the teacher's weights move a little towards the student's: by 1 - momentum, which falls
      to 0 over the run. They are an average already, so the EMA of the run is of the student alone, which only the loss
      in validation needs.
    * No gradient goes to the teacher. It has no dropout. Its batch norms normalize by the batch that it sees, as the
      student's do, and the statistics that they keep of it are its own, not averages of the student's.
    * Each view passes the networks on its own, so that batch norms, which are over all ranks, see one at a time.
    * Views are a function of (seed, examples seen, index of the image); in validation of (seed, index).
    """

    kinds = frozenset({"continuous"})
    feature_network = "encoder"
    copies = {"student.encoder.": "encoder.", "student.projector.": "projector."}  # noqa: RUF012
    encoder: Any  # networks are made in configure_model
    projector: Any
    student: "Student"

    def __init__(
        self,
        encoder: Callable[[], FeatureNetwork],
        objective: DistillationObjective,
        views: Views,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        momentum: float = 0.996,  # of the teacher, a step, at the start of the run; 1 at its end
        compile: bool = False,  # the encoders, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: a momentum outside [0, 1], or only one view."""
        super().__init__(seed, schedule)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum={momentum} must be in [0, 1]: use 0.996, or 0.99 for a short run.")
        if views.count + views.num_local < 2:
            raise ValueError("self-distillation compares views of an image, and there is one. Use model/views=byol.")
        self.make_encoder, self.make_optimizer, self.views = encoder, optimizer, views
        self.objective, self.shape, self.momentum = objective, tuple(shape), momentum
        self.compile_networks = compile
        for name in ("encoder", "projector", "student"):
            self.register_module(name, None)

    def configure_model(self) -> None:
        if self.encoder is not None:
            return
        encoder: Any = self.make_encoder()
        if self.views.num_local:
            self.check_small_views(encoder)
        projector: Any = self.objective.projector(encoder.num_features)
        student = Student(
            copy.deepcopy(encoder), copy.deepcopy(projector), self.objective.predictor(projector.num_outputs)
        )
        teacher = encoder.requires_grad_(False), projector.requires_grad_(False)
        parts = (*teacher, student.encoder, student.projector, student.predictor)
        if self.compile_networks:
            encoder.compile()
            student.encoder.compile()
        if self.device_mesh is not None:
            for part in parts:
                if any(True for _ in part.parameters()):
                    shard(part, self.device_mesh)
        self.encoder, self.projector, self.student = *teacher, student

    def check_small_views(self, encoder: nn.Module) -> None:
        """Raises ConfigError: the encoder takes no images of their size."""
        device = next(encoder.parameters()).device
        with torch.device("cpu"):  # networks may be made without memory
            size = self.views.local(torch.zeros(1, *self.shape), lambda k: torch.zeros(1, k)).shape[2:]
        try:
            with torch.no_grad(), in_eval_mode(encoder):
                encoder(torch.zeros(2, *size, device=device))
        except RuntimeError as error:
            raise ConfigError(
                f"small views are {size[1]} x {size[2]} pixels, and a {type(encoder).__name__} takes images of the "
                "size of the data alone. Use model.views.num_local=0, or model/encoder=resnet."
            ) from error

    def frozen(self) -> Iterable[nn.Module]:
        return () if self.encoder is None else (self.encoder, self.projector)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in chain.from_iterable(part.modules() for part in self.frozen()):
            if isinstance(module, _BatchNorm):
                module.train(mode)
        return self

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The student's weights, and the statistics of its batch norms, which go with them."""
        yield from super().averaged()
        yield from running_statistics(self.student, "student")

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.make_optimizer(parameter_groups(self.student))
        optimizer.register_step_post_hook(lambda *_: self.move_teacher())
        return optimizer

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for p in self.objective.held(self.student.projector, self.progress.fraction):
            p.grad = None

    @property
    def momentum_now(self) -> float:
        return cosine_momentum(self.momentum, self.progress.fraction)

    def move_teacher(self) -> None:
        """Move the teacher's weights towards the student's, as after every optimizer step."""
        follow(self.encoder, self.student.encoder, self.momentum_now)
        follow(self.projector, self.student.projector, self.momentum_now)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x = batch[self.key]
        if len(x) < 2:
            raise ConfigError(
                "self-distillation needs two images or more on each device. Use a larger data.batch_size."
            )
        said = self.compared(x, batch["index"], self.progress.examples)
        self.objective.follow(gathered(said.teacher.mean(dim=(0, 1))[None]).mean(dim=0))
        self.log("train/loss", said.loss, on_step=True, batch_size=len(x))
        self.log("train/teacher_momentum", self.momentum_now, on_step=True, batch_size=len(x))
        log_spread(self, said.features)
        return said.loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """As in training, with the same views in every validation; nothing is updated."""
        return {"loss": self.compared(batch[self.key], batch["index"], examples=0).loss}

    def compared(self, x: Tensor, index: Tensor, examples: int) -> "Said":
        """Of images (N, C, H, W), whose views are those of their ``index`` (N,) after ``examples``."""
        uniform = numbers_by_index(self.seed, examples, index)
        views = list(self.views(x, uniform))  # G of (N, C, H, W)
        with torch.no_grad():
            features = [self.encoder(view) for view in views]
            teacher = torch.stack([self.projector(f) for f in features])
        if self.views.num_local:
            views += list(self.views.local(x, uniform))
        student = torch.stack([self.student(view) for view in views])  # (V, N, D)
        with torch.autocast(x.device.type, enabled=False):
            return Said(self.objective.loss(student, teacher, self.progress.fraction), teacher, features[0])

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, num_features) float32, of the teacher's encoder."""
        return self.encoder(x).float()  # type: ignore[no-any-return]


class Said(NamedTuple):
    """Of a batch."""

    loss: Tensor  # a scalar
    teacher: Tensor  # what the teacher says of the views that it sees, (G, N, D)
    features: Tensor  # of its encoder, of the first view, (N, num_features)


class Student(nn.Module):
    """What is trained: an encoder, a projector and, where the objective has one, a predictor."""

    def __init__(self, encoder: Any, projector: nn.Module, predictor: nn.Module):
        super().__init__()
        self.encoder, self.projector, self.predictor = encoder, projector, predictor

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D)."""
        return self.predictor(self.projector(self.encoder(images)))  # type: ignore[no-any-return]
