"""Muon for the matrices of a network and AdamW for the rest, as one optimizer."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer


class Muon(Optimizer):
    """Steps of matrices are their momentum, orthogonalised (Jordan et al. 2024); other parameters take AdamW's.

    The groups tell which are which: Muon has those with ``hidden`` true. Steps are scaled to the size of
    AdamW's (Liu et al. 2025, eq. 4), so both use one learning rate and one weight decay.
    """

    takes_groups: ClassVar[bool] = True  # of genlab.model.optimizer.groups; others may be given bare parameters

    def __init__(
        self,
        params: Iterable[Any],  # groups, as genlab.model.optimizer.groups makes them
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),  # of AdamW
        weight_decay: float = 0.1,
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "hidden": False})
        matrices = [group for group in self.param_groups if group["hidden"]]
        others = [group for group in self.param_groups if not group["hidden"]]
        # A network may have none of either.
        self._muon = OrthogonalizedMomentum(matrices, lr, momentum, weight_decay) if matrices else None
        self._adamw = torch.optim.AdamW(others, lr, betas, weight_decay=weight_decay, fused=True) if others else None
        self._share()

    def _share(self) -> None:
        """Groups and state are this optimizer's: schedules, checkpoints and Lightning see one."""
        inner: dict[bool, Optimizer | None] = {True: self._muon, False: self._adamw}
        for kind, optimizer in inner.items():
            if optimizer is None:
                continue
            defaults = optimizer.defaults
            optimizer.param_groups = [group for group in self.param_groups if group["hidden"] is kind]
            for group in optimizer.param_groups:
                for name, value in defaults.items():
                    group.setdefault(name, value)
            optimizer.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in (self._muon, self._adamw):
            if optimizer is not None:
                optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


class OrthogonalizedMomentum(Optimizer):
    """Muon by itself: :class:`torch.optim.Muon`'s steps to the last bit, and those of convolutions too.

    A convolution's kernel is the matrix of what each output channel takes from all places of all input channels.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # never given one
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, parameter: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        direction = orthogonalized(gradient.lerp(state["momentum_buffer"], momentum).flatten(1))  # Nesterov's
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(direction.reshape(parameter.shape), alpha=-lr * 0.2 * max(direction.shape) ** 0.5)


def orthogonalized(matrix: Tensor) -> Tensor:
    """(M, N) -> (M, N) of bfloat16: about U V^T of the matrix U S V^T, each singular value between 0.5 and 1.3.

    Five Newton-Schulz steps with the coefficients of Jordan et al. (2024), which are steep at zero and do not settle.
    """
    x = matrix.bfloat16()
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    x = x.div(x.norm().clamp(min=1e-7))  # no singular value above 1
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x
