"""Muon for the matrices of a network, AdamW for all else, as one optimiser."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Muon(Optimizer):
    """Steps of matrices are their momentum, orthogonalised (Jordan et al. 2024); other parameters take AdamW's.

    Which parameters are which the groups say: Muon has those with ``hidden`` true. Steps are scaled to the size of
    AdamW's (Liu et al. 2025, eq. 4), so both go by one learning rate and one weight decay.
    """

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
        self._muon = torch.optim.Muon(matrices, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(others, lr, betas, weight_decay=weight_decay, fused=True)
        self._share()

    def _share(self) -> None:
        """Groups and state are this optimiser's: schedules, checkpoints and Lightning see one."""
        inner = {True: self._muon, False: self._adamw}
        for kind, optimizer in inner.items():
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
        self._muon.step()
        self._adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()
