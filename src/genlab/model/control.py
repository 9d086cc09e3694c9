"""Control of a trained diffusion model by hints of what is where: ControlNet (Zhang et al. 2023, arXiv:2302.05543)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.base import Condition, HasDenoiser, LearningRateSchedule, OptimizerFactory
from genlab.model.condition import Conditions
from genlab.model.condition_hint import HINT, Hint
from genlab.model.diffusion import Diffusion
from genlab.model.elsewhere import FROM_ELSEWHERE, put_weights
from genlab.model.network.control import Controllable, ControlledNetwork
from genlab.model.parts import Guidance, HintSource


class Control(Diffusion):
    """A frozen diffusion model from a run, ``base``, and a branch that is trained: a copy of the first half of its
    network, which sees a hint too, and whose outputs are added to the base's own through layers that start at zero. So
    a new one is the base, to the last bit.

    Objective, sampler, conditions and shape are those of the base. The hint is one more condition; rows without one
    are the base's own. Guidance strengthens the other conditions: both of its predictions see the hint.
    """

    is_copied: Tensor  # whether the branch has begun as a copy of the base: 0 or 1

    def __init__(
        self,
        base: Annotated[HasDenoiser, FROM_ELSEWHERE],  # the model of a trained run
        hint: HintSource,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        condition_dropout: float | Mapping[str, float] | None = None,  # of the base's conditions; None: as in the base
        guidance: Guidance | None = None,  # None: that of the base
        strength: float = 1.0,  # a factor of what the branch adds, when samples are drawn; 0: nothing
        compile: bool = False,  # the branch, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: the data are not like those of the base, or an argument is outside its range."""
        assert isinstance(base, Diffusion)
        check_data_of(base, shape, told)
        if not 0 <= strength < math.inf:
            raise ValueError(f"model.strength={strength} must be finite and at least 0.")
        super().__init__(
            base.make_network,
            base.objective,
            base.sampler,
            optimizer,
            schedule,
            shape,
            told,
            [*base.conditions.kinds],
            base.conditions.dropout if condition_dropout is None else condition_dropout,
            guidance or base.guidance,  # type: ignore[arg-type]
            compile=compile,
            seed=seed,
        )
        self.base, self.strength = base, strength
        self.hint = Hint((hint.channels(told), *shape[1:]), hint)
        self.base_conditions = Conditions(base.conditions.kinds, self.conditions.dropout)
        self.conditions = Conditions({**base.conditions.kinds, HINT: self.hint}, self.conditions.dropout)
        self.register_buffer("is_copied", torch.zeros(()))

    def new_network(self) -> nn.Module:
        self.base.configure_model()
        network = self.base.requires_grad_(False).eval().network
        if not isinstance(network, Controllable):
            raise ConfigError(
                f"model.base: its network, a {type(network).__name__}, cannot be controlled. Name a run of "
                "model/network=unet or model/network=dit."
            )
        branch = network.control_branch(self.hint.shape[0])
        return ControlledNetwork(network, branch, HINT, self.strength)  # type: ignore[arg-type]

    def frozen(self) -> Iterable[nn.Module]:
        return (self.base,)

    def on_fit_start(self) -> None:
        """Where the run is new, the branch is made a copy of the base, whose weights are there by now."""
        if not self.is_copied:
            branch, theirs = self.network.branch, self.base.network.state_dict()
            put_weights(branch, branch.copied_from(theirs))  # type: ignore[operator, arg-type, union-attr]
            self.is_copied.fill_(1)

    def loss(self, x: Tensor, condition: Condition | None, progress: float) -> Tensor:
        """The base's loss for ``x`` (N, C, H, W), with some of its conditions dropped, and never the hint. A scalar."""
        assert condition is not None
        told = {key: value for key, value in condition.items() if key != HINT}
        dropped = self.base_conditions.dropped(told or None) or {}
        return self.objective.loss(self.network, x, {**dropped, HINT: condition[HINT]}, progress)

    def unconditional(self, condition: Condition) -> Condition | None:
        nothing = super().unconditional(condition)
        return {**(nothing or {}), HINT: condition[HINT]} if HINT in condition else nothing


def check_data_of(base: Diffusion, shape: Sequence[int], told: Mapping[str, Any]) -> None:
    """Raises ValueError: data of images of ``shape`` with the conditions ``told`` are not like those that ``base`` was
    trained on."""
    if tuple(base.shape) != tuple(shape):
        raise ValueError(
            f"model.base was trained on images of shape {tuple(base.shape)}, the data have {tuple(shape)}. Name "
            "another run, or change the data."
        )
    for key, kind in base.conditions.kinds.items():
        theirs = told.get(key) or {}
        names, known = list(theirs.get("names") or ()), list(getattr(kind, "names", ()))
        if theirs.get("size") != kind.size or (names and known and names != known):
            raise ValueError(
                f"model.base was trained with a {key} of {kind.size} values, and those of the data are others. Name "
                "another run, or change the data."
            )
