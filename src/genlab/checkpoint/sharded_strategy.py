"""Saves and restores models with sharded weights (FSDP2)."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import OptimStateKeyType
from torch.optim import Optimizer

from genlab.checkpoint.read import load
from genlab.checkpoint.shards import CONTENT, gathered, shards_of, split
from genlab.checkpoint.write import check_finite
from genlab.errors import GenlabError
from genlab.files.atomic import partial_of, prepare_folder, replace_folder, take_away, write_flushed, writing
from genlab.model.elsewhere import own_weights
from genlab.model.renamed_weights import renamed


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with other checkpoints: written atomically, read without running any code in
    them, and usable on any number of devices.

    Lightning's own shards are written in place, and their index is a pickle.
    """

    def setup_environment(self) -> None:
        if self._data_parallel_size == "auto" and isinstance(self._tensor_parallel_size, int):
            # Lightning's auto is the number of nodes, which does not cover all processes
            self._data_parallel_size = self.num_nodes * self.num_processes // self._tensor_parallel_size
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Parameters by number, as in other strategies."""
        state = super().optimizer_state(optimizer)
        if self._save_distributed_checkpoint:
            assert self.model is not None
            state = FSDP.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_ID, self.model)
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """One file, or a folder into which each process writes its shards.

        Raises NumericsError and StorageError on all processes if one of them fails.
        """
        if not self._save_distributed_checkpoint:
            super().save_checkpoint(gathered(checkpoint), filepath)
            return
        path, partial = self.broadcast((Path(filepath), partial_of(Path(filepath))))
        self._all_or_none(lambda: self._begin(partial), partial)
        self._all_or_none(lambda: self._write_own(checkpoint, partial), partial)
        self._all_or_none(lambda: self._publish(partial, path), partial)

    def _begin(self, partial: Path) -> None:
        if self.is_global_zero:
            prepare_folder(partial.parent, partial.parent.parent)
            partial.mkdir()

    def _write_own(self, checkpoint: dict[str, Any], partial: Path) -> None:
        content, own = split(checkpoint)
        check_finite(content, own["tensors"])
        if self.is_global_zero:
            whole = {"content": content, "world_size": self.world_size}
            write_flushed(partial / CONTENT, lambda file: torch.save(whole, file))
        write_flushed(partial / shards_of(self.global_rank), lambda file: torch.save(own, file))

    def _publish(self, partial: Path, path: Path) -> None:
        if self.is_global_zero:
            replace_folder(partial, path)

    def _all_or_none(self, act: Any, partial: Path) -> None:
        """Let every process ``act``. If one fails, what was written is removed and all raise its error."""
        failed: GenlabError | None = None
        try:
            with writing(partial.parent):
                act()
        except GenlabError as error:
            failed = error
        failures: list[Any] = [None] * self.world_size
        dist.all_gather_object(failures, None if failed is None else (type(failed), str(failed)))
        first = next((failure for failure in failures if failure is not None), None)
        if first is not None:
            if self.is_global_zero and partial.exists():
                take_away(partial)
            kind, message = first
            raise kind(message) from failed

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Raises CheckpointError."""
        content = load(Path(self.broadcast(checkpoint_path)))
        assert self.model is not None
        assert self.lightning_module is not None
        strict = self.lightning_module.strict_loading
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=strict)
        state = own_weights(self.lightning_module, content["state_dict"])
        set_model_state_dict(self.model, renamed(state, self.lightning_module.state_dict()), options=options)
        for optimizer, state in zip(self.optimizers, content["optimizer_states"], strict=True):
            named = FSDP.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=named, options=options)
        return content
