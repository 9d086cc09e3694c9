"""Opens a saved run: its config with the options typed now, restricted if the run is not the user's own."""

from collections.abc import Sequence

from omegaconf import DictConfig

from genlab.config.tree import ConfigTree
from genlab.run.run_folder import find, read_config, read_overrides
from genlab.trust.own_runs import is_own
from genlab.trust.strangers import (
    check_overrides,
    check_watchers,
    leave_out_watchers,
    withdraw_consent,
    withhold_places,
)
from genlab.trust.written_paths import check_written_paths, move_paths


def open_run(tree: ConfigTree, run: str, typed: Sequence[str], *, trains: bool) -> tuple[DictConfig, list[str]]:
    """The config of the run in the folder ``run``, changed as ``typed``, and what was typed when it was made.

    ``trains``: it will go on, with its loggers and callbacks. Whoever made it, consent has to be typed now.
    Raises CheckpointError, ConfigError and StorageError.
    """
    folder = find(run)
    saved, own = read_overrides(folder), is_own(folder)
    if not own:
        check_overrides(saved, run)
    config = tree.change(read_config(folder), saved, typed)
    withdraw_consent(config, typed)
    move_paths(config, folder)
    if not own:
        withhold_places(config)
        if not trains:
            leave_out_watchers(config)
        check_written_paths(config, folder, typed, services=trains)
        check_watchers(config, run, typed)
    return config, saved
