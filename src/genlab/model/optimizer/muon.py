"""Muon for the matrices of a network and AdamW for the rest, as one optimizer."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


class Muon(Optimizer):
    """Steps of matrices are their momentum, orthogonalized (Jordan et al. 2024); other parameters take AdamW's.

    The groups tell which are which: Muon has those with ``hidden`` true. Steps are scaled to the size of
    AdamW's (Liu et al. 2025, eq. 4), so both use one learning rate and one weight decay.
    """

    takes_groups: ClassVar[bool] = True  # of genlab.model.optimizer.groups; others may be given bare parameters
    leaves_out_steps: ClassVar[bool] = True  # by found_inf
    found_inf: Tensor | None = None  # () float32: 1 has the next step change nothing, as of torch's fused optimizers

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
                optimizer.found_inf = self.found_inf  # type: ignore[union-attr]
                optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


class OrthogonalizedMomentum(Optimizer):
    """Muon by itself: :class:`torch.optim.Muon`'s steps to the last bit, and those of convolutions too.

    A convolution's kernel is the matrix of what each output channel takes from all places of all input channels. On a
    GPU matrices of one shape are orthogonalized together, since each by itself is too little work for it; a CPU is
    as quick with one at a time.
    """

    found_inf: Tensor | None = None  # as of Muon

    def __init__(self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # never given one
        for group in self.param_groups:
            given = [parameter for parameter in group["params"] if parameter.grad is not None]
            for alike in together(given):
                self._move(alike, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        """``parameters`` are of one shape."""
        slopes = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            buffer = state["momentum_buffer"]
            if self.found_inf is not None:  # the buffer's own value leaves it as it is
                gradient = torch.where(self.found_inf > 0, buffer, gradient)
            buffer.lerp_(gradient, 1 - momentum)
            slopes.append(gradient.lerp(buffer, momentum).flatten(1))  # Nesterov's
        if len(slopes) == 1:
            directions: Iterable[Tensor] = [orthogonalized(slopes[0])]
        else:
            directions = orthogonalized_stack(torch.stack(slopes)).unbind()
        for parameter, direction in zip(parameters, directions, strict=True):
            step = lr * 0.2 * max(direction.shape) ** 0.5
            if self.found_inf is None:
                parameter.mul_(1 - lr * weight_decay)
                parameter.add_(direction.reshape(parameter.shape), alpha=-step)
            else:
                is_made = 1 - self.found_inf
                parameter.mul_(1 - is_made * (lr * weight_decay))
                parameter.addcmul_(direction.reshape(parameter.shape).to(parameter.dtype), is_made, value=-step)


def together(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Parameters whose steps are computed in one go: on a GPU those of one shape, in the order of the first of each;
    elsewhere, and of sharded ones, each by itself."""
    groups: dict[Any, list[Tensor]] = {}
    for number, parameter in enumerate(parameters):
        alone = not parameter.is_cuda or isinstance(parameter, DTensor)
        key = number if alone else (parameter.flatten(1).shape, parameter.dtype, parameter.device)
        groups.setdefault(key, []).append(parameter)
    return list(groups.values())


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


def orthogonalized_stack(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """(B, M, N) -> (B, M, N) of ``dtype``: :func:`orthogonalized` of each."""
    x = matrices.to(dtype)
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x
