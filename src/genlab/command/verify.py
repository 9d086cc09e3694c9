"""``genlab verify``: run a recipe, or read a run of it, and report where its metric left its bands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genlab.command.train import train
from genlab.config.build import build
from genlab.config.overrides import name_of, parse
from genlab.config.tree import PACKAGED, ConfigTree, resolved
from genlab.errors import ConfigError
from genlab.milestones import Bands, OutsideBand
from genlab.redaction import for_terminal
from genlab.run.resume import FREE
from genlab.run.run_folder import SUMMARY

_NO_CHANGE = ("experiment", "seed", "trainer")  # like FREE, not a change of the recipe, only of how it runs


def verify(config: DictConfig, overrides: Sequence[str], run: Path | None = None) -> None:
    """Run a recipe, continue a run of it, or judge a finished one from its files.

    Raises OutsideBand at the first point where the metric is outside; ConfigError if there are no bands.
    """
    bands = _bands(config, overrides, run)
    folder = run
    try:
        if run is None or not (run / SUMMARY).exists():
            _watch(config, bands)
            train(config, overrides, run)
            folder = Path(config.run_dir)
        assert folder is not None
        _check_holds_numbers(folder, overrides)
        judged = bands.judge_files(folder, resolved(config)["budget"])
        for judgement in judged:
            judgement.check()
    except OutsideBand as error:
        where = folder or Path("" if OmegaConf.is_missing(config, "run_dir") else config.run_dir)
        raise OutsideBand(f"{error} {_what_to_look_at(where, overrides)}") from error
    told = ["", f"{folder} is within its bands:", *(f"  {judgement}" for judgement in judged)]
    print(for_terminal("\n".join(told)))


def _bands(config: DictConfig, overrides: Sequence[str], run: Path | None) -> Bands:
    node: Any = config.get("milestones")
    typed = {name_of(override): override for override in parse(overrides)}
    recipe = typed["experiment"].value() if "experiment" in typed else None
    if node is None and run is not None and recipe in _having():  # recorded since the run was made
        node = ConfigTree().compose([f"experiment={recipe}"]).milestones
        config.milestones = node
    if node is None:
        if recipe is None:
            what = "verify needs a recipe" if run is None else f"{run} is not a run of a recipe"
        else:
            what = f"experiment={recipe} has neither published nor recorded bands"
        raise ConfigError(f"{what}; these have bands: {', '.join(_having())}.")
    budget = next((name for name in typed if name.partition(".")[0] == "budget"), None)
    bands: Bands = build(OmegaConf.to_container(node), Bands, "milestones")  # type: ignore[arg-type]
    if run is None and budget is not None:
        raise ConfigError(f"{budget}: the bands are for the recipe's own budget. Leave it out.")
    if run is not None and bands.examples is not None and config.budget.value != bands.examples:
        raise ConfigError(
            f"the bands are for {bands.examples:,} examples, and {run} was trained with another budget. "
            f"Use verify experiment={recipe or '...'}."
        )
    return bands


def _check_holds_numbers(run: Path, overrides: Sequence[str]) -> None:
    """Raises ConfigError for a finished run without its curves: continuing it would not bring them back."""
    if not (run / "metrics.csv").exists():
        recipe = next((o.value() for o in parse(overrides) if name_of(o) == "experiment"), "...")
        raise ConfigError(
            f"{run} is finished, and its metrics.csv is missing: there is nothing to judge. "
            f"Use verify experiment={recipe}."
        )


def _having() -> list[str]:
    """The recipes that have bands."""
    files = sorted((PACKAGED / "experiment").glob("*.yaml"))
    return [file.stem for file in files if OmegaConf.load(file).get("milestones") is not None]  # type: ignore[union-attr, arg-type]


def _watch(config: DictConfig, bands: Bands) -> None:
    """Measure the metric at the points of the bands, and end the run if it leaves them."""
    if bands.examples is not None:
        config.budget = {"_target_": "genlab.budget.Examples", "value": bands.examples}
    if "evaluation" not in config.callbacks:
        raise ConfigError("callbacks.evaluation is missing: nothing would be measured. Use callbacks=[default].")
    also_at = {*(config.callbacks.evaluation.get("also_at") or []), *(point / 100 for point in bands.early)}
    OmegaConf.update(config, "callbacks.evaluation.also_at", sorted(also_at), force_add=True)
    node = {"_target_": "genlab.callbacks.bands.StopOutside", "bands": OmegaConf.to_container(config.milestones)}
    OmegaConf.update(config, "callbacks.milestones", node, force_add=True)


def _what_to_look_at(run: Path, overrides: Sequence[str]) -> str:
    names = [(name_of(override), override.input_line) for override in parse(overrides)]
    free = (*FREE, *_NO_CHANGE)
    changes = [line for name, line in names if not any(name == f or name.startswith(f"{f}.") for f in free)]
    if changes:
        return f"The recipe was changed: {' '.join(map(str, changes))}. Undo that, and look at {run}/metrics.csv."
    return (
        f"Look at train/ and monitor/ in {run}/metrics.csv, and compare its versions.json and config.yaml with those "
        "of a good run."
    )
