"""Warns of known training failures, with a remedy: a winning discriminator, mode collapse, exploding gradients,
preferences that make all known answers unlikely, rewards that teach nothing or are gamed, features that collapse."""

import warnings
from collections.abc import Mapping
from math import isfinite
from statistics import median
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from genlab.callbacks.diversity import classes_drawn, distance_ratio
from genlab.callbacks.feature_collapse import FeatureCollapse
from genlab.callbacks.policy_failures import PolicyFailures
from genlab.callbacks.preference_failures import PreferenceFailures
from genlab.callbacks.samples import SampleGrid
from genlab.model.base import GenerativeModel, Model
from genlab.sampling.draw import asked_of

_FIRST_LOOKS = 10  # the first steps are all looked at, for a first norm to compare with
_KEPT_LOOKS = 50  # norms whose median is the usual norm
_GROWTH = 10.0  # largest growth of a healthy gradient since the first step


class FailureMonitor(Callback):
    """Warns, once each and on one line, of known failures, and logs the values it uses under ``monitor/``.

    * **The discriminator wins**: it classifies (nearly) all real and generated images correctly for long, so the
      generator's gradient vanishes (Arjovsky and Bottou 2017, arXiv:1701.04862, sec. 2). Measured by
      ``train/accuracy_real`` and ``train/accuracy_fake``, which any family may log. The opposite is not a failure: at
      equilibrium, too, a discriminator is right half of the time.
    * **Mode collapse**: the samples of the grid (:class:`SampleGrid`, which has to come before this callback) are much
      more alike than held-out images of their class; or, of a model without labels on data with labels, classes are
      missing among them. Noise images are far apart, so they do not count as collapse.
    * **Exploding gradients**: the norm of an optimizer's gradient, before clipping, is ``exploding`` times its running
      median, or ten times that of the very first step's, twice in a row, since once may be a bad batch. Or it is
      not finite, except under a loss scaler, which finds its scale that way. The norm is that of the unscaled gradient,
      and with sharded weights that of the first rank's shard.
    * **Displacement and divergence**, of families that learn from preferences: :class:`PreferenceFailures`.
    * **Equal groups, cut answers and over-optimization**, of those that learn from rewards: :class:`PolicyFailures`.

    * **Collapse of features**, of self-supervised families: :class:`FeatureCollapse`.

    At the start every discriminator wins, an untrained model may draw blank images, and all features are alike: none of
    these is reported in the first ``grace`` of the budget, nor before ``grace_examples``.

    Scores and gradients are looked at when the loggers are (``trainer.log_every_n_steps``), so that the steps between
    wait for nothing. Nothing is drawn, changed or exchanged between ranks: training is the same, to the last
    bit, without it. What it knows stands in the checkpoint, so that a run that goes on is warned of nothing twice.
    """

    def __init__(
        self,
        pinned: float = 0.99,  # accuracy on real and on generated images above which the discriminator has won
        window: int = 10_000,  # examples that the accuracies are averaged over
        alike: float = 0.35,  # pairwise distance of samples, relative to the data's, below which they are collapsed
        grace: float = 0.15,  # share of the budget in which only gradients are judged
        grace_examples: int = 10_000,  # the same, as a number of examples
        exploding: float = 100.0,  # times the usual norm of the gradient
        chosen_fall: float = 1.0,  # nats that a token of chosen answers may lose, of preferences
        divergence: float = 2.0,  # nats of a token that the policy may be from its reference
    ):
        self.pinned, self.window, self.alike = pinned, window, alike
        self.grace, self.grace_examples, self.exploding = grace, grace_examples, exploding
        self.accuracies = {"real": Average(window), "fake": Average(window)}
        self.gradients: dict[str, Norms] = {}  # by optimizer
        self.preferences = PreferenceFailures(chosen_fall, divergence)
        self.policies = PolicyFailures()
        self.collapse = FeatureCollapse()
        self.said: set[str] = set()
        self._looks = 0  # at scores
        self._names: list[str] = []  # of the optimizers

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self._names = optimizer_names(trainer.optimizers, pl_module)
        for average in self.accuracies.values():
            if average.seen is None:
                average.seen = pl_module.progress.examples  # a continued run may get this callback late

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, Model)
        if not trainer.is_global_zero:
            return
        name = self._names[trainer.optimizers.index(optimizer)]
        norms = self.gradients.setdefault(name, Norms())
        looks = _looks(trainer)
        if looks == norms.looks and len(norms.recent) >= _FIRST_LOOKS:
            return
        norms.looks = looks
        scaler = _scaler(trainer)
        norm = gradient_norm(optimizer)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            norm /= scaler.get_scale()  # a fused optimizer unscales its gradients as it steps
        if scaler is not None and not isfinite(norm):
            return
        usual = norms.usual
        if norms.explode(norm, self.exploding):
            clipped = trainer.gradient_clip_val is not None or pl_module.gradient_clip_val is not None
            self.say(
                f"gradient {name}",
                f"the gradient{f' of the {name}' if name else ''} explodes: after {pl_module.progress.examples:,} "
                f"examples its norm is {norm:.3g}; usual is {usual:.3g}. "
                f"{'Lower' if clipped else 'Set trainer.gradient_clip_val=1.0, or lower'} the learning rate "
                f"({'model.discriminator_optimizer.lr' if name == 'discriminator' else 'model.optimizer.lr'}).",
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        self.note_step(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        values: dict[str, float] = {}
        grid = next((c for c in trainer.callbacks if isinstance(c, SampleGrid)), None)  # type: ignore[attr-defined]
        if grid is not None and grid.drawn is not None and grid.drawn[0] == pl_module.progress.examples:
            assert isinstance(pl_module, GenerativeModel)
            values |= self.watch_samples(trainer, pl_module, grid.drawn[1])
        self._log(trainer, pl_module, values)

    def note_step(self, trainer: Trainer, model: Model) -> None:
        """Log the values of the step that need no samples, once: also before it is saved for a sample grid."""
        looks = _looks(trainer)
        if not trainer.is_global_zero:
            return
        if model.learns_from and not self.preferences.knows_start:
            self.preferences.add_first(model.latest(), model.progress.examples)
        if looks <= self._looks:
            return
        self._looks = looks
        values = self.watch_discriminator(trainer, model)
        for failure, sentence in self.preferences.look(trainer.callback_metrics, model.progress.examples).items():
            self.say(failure, sentence)
        judges = model.held_back()
        for failure, sentence in self.policies.look(trainer.callback_metrics, model.progress.examples, judges).items():
            self.say(failure, sentence)
        if self.judges(model):
            for failure, sentence in self.collapse.look(
                trainer.callback_metrics, model.progress.examples, model.most_rank
            ).items():
                self.say(failure, sentence)
        for name, norms in self.gradients.items():
            if norms.last is not None:
                values[f"gradient_norm{f'_{name}' if name else ''}"] = norms.last
        self._log(trainer, model, values)

    def _log(self, trainer: Trainer, model: Model, values: Mapping[str, float]) -> None:
        if values:
            named = {f"monitor/{name}": value for name, value in values.items()}
            for logger in trainer.loggers:
                step = trainer.fit_loop.epoch_loop._batches_that_stepped
                logger.log_metrics(model.progress.logged() | named, step=step)

    def judges(self, model: Model) -> bool:
        return model.progress.fraction > self.grace and model.progress.examples >= self.grace_examples

    def watch_discriminator(self, trainer: Trainer, model: Model) -> dict[str, float]:
        shares = trainer.callback_metrics
        if "train/accuracy_real" not in shares or "train/accuracy_fake" not in shares:
            return {}
        for kind, average in self.accuracies.items():
            average.add(float(shares[f"train/accuracy_{kind}"]), model.progress.examples)
        real, fake = (average.value for average in self.accuracies.values())
        if min(real, fake) >= self.pinned and self.accuracies["real"].is_full and self.judges(model):
            self.say(
                "discriminator",
                f"the discriminator wins: after {model.progress.examples:,} examples it is right about {real:.1%} of "
                f"the real and {fake:.1%} of the generated images, so the generator learns little. Use "
                "model/augment=diffaugment, model/augment=ada or model/objective/penalty=r1, or lower "
                "model.discriminator_optimizer.lr.",
            )
        return {"accuracy_real": real, "accuracy_fake": fake}

    def watch_samples(self, trainer: Trainer, model: GenerativeModel, samples: torch.Tensor) -> dict[str, float]:
        """``samples``: (N, C, H, W) uint8, on the CPU."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        held_out = data.table("val")
        remedy = (
            "Use model/augment=diffaugment or model/objective/penalty=r1, or lower model.optimizer.lr."
            if "train/accuracy_fake" in trainer.callback_metrics
            else "Lower model.optimizer.lr, or model.guidance where it is above 1."
        )
        values: dict[str, float] = {}
        labels = model.conditions.label_of(asked_of(model, range(len(samples))))
        labels = None if labels is None else labels.cpu()
        ratio = distance_ratio(samples, labels, held_out)
        if ratio is not None:
            values["pairwise_distance_ratio"] = ratio
            if self.judges(model) and ratio < self.alike:
                self.say(
                    "alike",
                    f"samples{' of a class' if labels is not None else ''} are nearly alike after "
                    f"{model.progress.examples:,} examples (pairwise distance {ratio:.2f} of the data's): mode "
                    f"collapse. {remedy}",
                )
        if labels is None and held_out.labels is not None:
            drawn, missing = classes_drawn(samples, data.table("train"), held_out)
            values["classes_drawn"] = len(drawn)
            if missing and self.judges(model):
                names = ", ".join(held_out.names[label] for label in missing)
                self.say(
                    "classes",
                    f"{len(samples)} samples after {model.progress.examples:,} examples show none of the class"
                    f"{'es' * (len(missing) > 1)} {names} (by the nearest training image): mode collapse. {remedy}",
                )
        return values

    def say(self, what: str, sentence: str) -> None:
        """Once each."""
        if what not in self.said:
            self.said.add(what)
            warnings.warn(sentence, stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        return {
            "said": sorted(self.said),
            "looks": self._looks,
            "preferences": self.preferences.state_dict(),
            "policies": self.policies.state_dict(),
            "collapse": self.collapse.state_dict(),
            "accuracies": {kind: vars(average).copy() for kind, average in self.accuracies.items()},
            "gradients": {name: vars(norms).copy() for name, norms in self.gradients.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.said, self._looks = set(state_dict["said"]), state_dict["looks"]
        for kind, values in state_dict["accuracies"].items():
            vars(self.accuracies[kind]).update(values, window=self.window)
        if "preferences" in state_dict:
            self.preferences.load_state_dict(state_dict["preferences"])
        if "policies" in state_dict:
            self.policies.load_state_dict(state_dict["policies"])
        if "collapse" in state_dict:
            self.collapse.load_state_dict(state_dict["collapse"])
        for name, values in state_dict["gradients"].items():
            self.gradients[name] = Norms()
            vars(self.gradients[name]).update(values)


class Average:
    """An exponential average over ``window`` examples, and at least ten values, that come at uneven intervals."""

    def __init__(self, window: int):
        self.window = window
        self.value = 0.0
        self.count = 0  # values so far
        self.seen: int | None = None  # examples at the last value, or at the start of this callback
        self.covered = 0  # examples that have values
        self.weight = 0.0  # of all values so far; below 1 at the start

    def add(self, value: float, examples: int) -> None:
        """``value`` stands for the examples since the last one."""
        new = examples - (self.seen or 0)
        share = min(0.1, new / self.window)
        self.covered += new
        self.count, self.seen = self.count + 1, examples
        self.weight = share + (1 - share) * self.weight
        self.value += (value - self.value) * share / max(self.weight, 1e-12)

    @property
    def is_full(self) -> bool:
        return self.count >= 10 and self.covered >= self.window


class Norms:
    """What the norm of a gradient usually is."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last: float | None = None
        self.recent: list[float] = []  # the finite ones
        self.high = 0  # looks in a row at which it was far above the usual
        self.looks = 0

    @property
    def usual(self) -> float:
        """nan before the first look."""
        if self.first is None:
            return float("nan")
        return min(median(self.recent), _GROWTH * self.first) if self.first > 0 else median(self.recent)

    def explode(self, norm: float, factor: float) -> bool:
        """Add a norm. Whether it is the second in a row that is ``factor`` times the usual, or not finite."""
        self.last = norm
        if not isfinite(norm):
            return True
        self.high = self.high + 1 if self.usual > 0 and norm > factor * self.usual else 0
        self.first = norm if self.first is None else self.first
        self.recent = [*self.recent, norm][-_KEPT_LOOKS:]
        return self.high > 1


def gradient_norm(optimizer: Optimizer) -> float:
    """The gradient norm over all weights of an optimizer; over this rank's shards if they are sharded."""
    slopes = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    mine = [slope.to_local() if isinstance(slope, DTensor) else slope for slope in slopes]
    if not mine:
        return 0.0
    return float(torch.stack(torch._foreach_norm([g.detach() for g in mine], dtype=torch.float32)).norm())


def optimizer_names(optimizers: list[Optimizer], model: torch.nn.Module) -> list[str]:
    """The part of the model that each trains, e.g. "generator"; its number if there is none, "" for a single one."""
    if len(optimizers) == 1:
        return [""]
    owner = {id(p): name.partition(".")[0] for name, p in model.named_parameters()}
    parts = [{owner[id(p)] for group in o.param_groups for p in group["params"]} for o in optimizers]
    return [min(owners) if len(owners) == 1 else str(number) for number, owners in enumerate(parts)]


def _looks(trainer: Trainer) -> int:
    """How often the loggers will have logged by the end of this step."""
    return (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) // trainer.log_every_n_steps  # type: ignore[attr-defined]


def _scaler(trainer: Trainer) -> torch.amp.GradScaler | None:
    plugin = trainer.precision_plugin
    return plugin.scaler if isinstance(plugin, MixedPrecision) else None
