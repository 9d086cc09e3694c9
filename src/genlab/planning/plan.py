"""``genlab plan``: finds the model size and batch size for a budget on this machine, measured on a few steps."""

import math
import multiprocessing
import shlex
import time
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig

from genlab import started_as
from genlab.budget import Budget, Examples, Flops, Seconds
from genlab.callbacks.checkpoint import Checkpoints
from genlab.command.overview import clip_batch_size
from genlab.config.build import build
from genlab.config.overrides import name_of, parse
from genlab.errors import ConfigError, ResourceError
from genlab.planning.knobs import Knob, Size, changed, find_knobs, plain, size_of
from genlab.planning.probe import Failed, Measured, Trying, probe
from genlab.planning.table import Row, show
from genlab.planning.upkeep import Upkeep
from genlab.run.assemble import build_data
from genlab.trust.places import typed, work_in

_SECONDS = 2.0  # of timed steps of the config's own size; half of that for other sizes
_PATIENCE = 30.0  # seconds in all, after which no further size is tried
_MEMORY, _SLOW = "out of memory", "too slow"  # why a size could not be measured
_PATIENCE_FOR_ONE = 60.0  # seconds for a size that does not answer
# Times the widths and depths of the config: itself, a smaller one, then upwards until one is too slow or too large.
_SIZES = ((1, 1), (0.5, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2))


def plan(
    config: DictConfig,
    overrides: Sequence[str],
    *,
    hours: float | None,
    flops: float | None,
    examples: int | None,
    steps: int,
) -> None:
    """Measure a few sizes, print a table, and recommend a command.

    Raises ConfigError for two budgets, an invalid one, or a batch that the data cannot fill, and ResourceError if not
    even the smallest batch fits.
    """
    budget, line = _budget(config, hours, flops, examples)
    began = time.monotonic()
    data = build_data(config)
    clip_batch_size(config, data, overrides)
    knobs = find_knobs(config)
    devices = _one_device(config)
    data.check(devices)
    keep = _kept(config)
    rows: list[Row] = []
    count = len(data.dataset("train"))
    for size in _sizes(config, knobs):
        if rows and time.monotonic() - began > _PATIENCE:
            break
        new = list(_try(config, size, budget, devices, count))
        rows += new
        if size.parameters > rows[0].size.parameters and not any(row.steps >= steps for row in new):
            break  # larger ones are slower still
    best, reason = recommend(rows, steps, chooses=isinstance(budget, Seconds))
    show(rows, knobs, budget, count, keep, devices, mark=best)
    print(f"\n{reason}\n\n    {_command(config, overrides, best, line)}")


def _budget(
    config: DictConfig, hours: float | None, flops: float | None, examples: int | None
) -> tuple[Budget, list[str]]:
    """The requested budget, by default the config's own, and the options that set it."""
    given = {"hours": hours, "flops": flops, "examples": examples}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are two budgets. Choose one of hours, flops and examples.")
    if not named:
        node = {str(key): config.budget[key] for key in config.budget}
        return build(node, Budget, "budget"), []
    ((name, value),) = named.items()
    if value <= 0:
        raise ConfigError(f"{name} must be above 0, got {value:g}.")
    if name == "hours":
        return Seconds(3600 * value), ["budget=seconds", f"budget.value={3600 * value:.0f}"]
    if name == "flops":
        return Flops(value), ["budget=flops", f"budget.value={value:g}"]
    return Examples(int(value)), ["budget=examples", f"budget.value={int(value)}"]


def _one_device(config: DictConfig) -> int:
    """Set the config to one device, and return how many it had."""
    devices = config.trainer.get("devices", 1)
    if not isinstance(devices, int) or devices < 1:
        raise ConfigError(f"trainer.devices={devices}: a plan needs their number, e.g. trainer.devices=1.")
    devices *= config.trainer.get("num_nodes", 1)
    if devices > 1:
        config.trainer.devices, config.trainer.num_nodes, config.trainer.strategy = 1, 1, "auto"
    return devices


def _kept(config: DictConfig) -> int:
    target = f"{Checkpoints.__module__}.{Checkpoints.__qualname__}"
    nodes = [node for node in config.get("callbacks", {}).values() if node and node.get("_target_") == target]
    return nodes[0].get("keep", 2) if nodes else 0


def _sizes(config: DictConfig, knobs: Sequence[Knob]) -> Iterator[Size]:
    seen: list[int] = []
    for width, depth in _SIZES:
        size = size_of(config, knobs, width, depth)
        if size is not None and size.parameters not in seen:
            seen.append(size.parameters)
            yield size


def _try(config: DictConfig, size: Size, budget: Budget, devices: int, count: int) -> Iterator[Row]:
    """Rows of one size, in the order of their batches: those that fit, and those that do not. ``count``: the training
    examples."""
    batch = int(config.data.batch_size) // devices
    settings = plain(changed(config, size.changes))
    answers: list[Measured | Failed] = []
    upkeep: Upkeep | None = None
    while batch:
        found, upkeep = _ask(settings, batch, most=batch if size.changes or answers else count // devices)
        answers = [*found, *answers]
        if isinstance(found[0], Measured) or not found[0].memory:
            break
        batch //= 2
    for answer in answers:
        yield _row(size, answer, upkeep, budget, devices)


def _ask(settings: dict[str, Any], batch: int, most: int) -> tuple[list[Measured | Failed], Upkeep | None]:
    """Measure batches of ``batch`` to ``most`` in a separate process, within a time limit."""
    processes = _processes()
    mine, its = processes.Pipe(duplex=False)
    process = processes.Process(
        target=work_in,
        args=(typed(), probe, settings, batch, _SECONDS if most > batch else _SECONDS / 2, most, its),
        daemon=True,
    )
    process.start()  # type: ignore[attr-defined]
    its.close()
    answers: list[Measured | Failed] = []
    upkeep, trying, until = None, batch, time.monotonic() + _PATIENCE_FOR_ONE
    try:
        while mine.poll(max(0.0, until - time.monotonic())):
            told = mine.recv()
            if isinstance(told, Trying):
                trying = told.batch_size
            elif isinstance(told, Upkeep):
                upkeep = told
            else:
                answers.append(told)
        process.kill()  # type: ignore[attr-defined]
        why = _SLOW
    except EOFError:
        process.join()  # type: ignore[attr-defined]
        why = "" if process.exitcode == 0 else _MEMORY  # type: ignore[attr-defined]
    if why and trying not in [answer.batch_size for answer in answers]:
        answers.append(Failed(trying, why, memory="memory" in why))
    return answers, upkeep


def _processes() -> Any:
    """A context for processes that are not forked from this one, since its threads and devices do not survive a
    fork."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    processes = multiprocessing.get_context(kind)
    processes.set_forkserver_preload(["genlab.planning.probe"])  # imported once for all
    return processes


def _row(size: Size, answer: Measured | Failed, upkeep: Upkeep | None, budget: Budget, devices: int) -> Row:
    batch = answer.batch_size * devices
    if isinstance(answer, Failed):
        return Row(size, batch, None, _MEMORY if answer.memory else answer.why)
    step = answer.step
    if isinstance(budget, Seconds):
        steps = budget.value / step.training
    elif isinstance(budget, Flops):
        steps = budget.value / (step.flops * devices)
    else:
        steps = budget.value / batch
    steps = max(1.0, math.ceil(steps))
    whole = steps * step.wall + (0.0 if upkeep is None else upkeep.total)
    return Row(size, batch, answer, "", steps * batch, steps, steps * step.training, whole, upkeep)


def _why_none(smallest: Row) -> str:
    """Why no size fits, and what to do: ``smallest`` is the row of the smallest batch that was tried."""
    if smallest.why == _MEMORY:  # already tried down to one example
        return f"no size fits ({_MEMORY}). Try a smaller model, or trainer.precision=bf16-mixed."
    if smallest.why == _SLOW:
        return f"no size fits ({_SLOW}). Try a smaller model, or a smaller data.batch_size."
    return f"no size could be measured: {smallest.why}"


def recommend(rows: Sequence[Row], least: int, chooses: bool) -> tuple[Row, str]:
    """The recommended row, and why.

    Args:
        rows: the row of the unchanged config comes before others of its size
        least: steps that a training should make
        chooses: whether the size may be chosen; else it is the config's
    """
    fits = [row for row in rows if row.measured is not None]
    if not fits:
        raise ResourceError(_why_none(rows[0]))
    enough = [row for row in fits if row.steps >= least] if chooses else []
    if not chooses:
        own = [row for row in fits if not row.size.changes] or fits
        return own[0], "The config as it is:" if not own[0].size.changes else "The config does not fit; this does:"
    if not enough:
        most = max(fits, key=lambda row: row.steps)
        return most, f"No size makes {least:,} steps in that time; this one makes the most, {most.steps:,.0f}:"
    largest = max(row.size.parameters for row in enough)
    return (
        next(row for row in enough if row.size.parameters == largest),
        f"The largest that still makes {least:,} steps (steps=...):",
    )


def _command(config: DictConfig, overrides: Sequence[str], row: Row, budget: Sequence[str]) -> str:
    """The command to type."""
    of_budget = [o for o in overrides if budget and name_of(parse([o])[0]).partition(".")[0] == "budget"]
    words = [o for o in overrides if o not in of_budget and name_of(parse([o])[0]) not in row.size.changes]
    words += [f"{path}={value}" for path, value in row.size.changes.items()]
    if row.batch != config.data.batch_size:
        words = [o for o in words if name_of(parse([o])[0]) != "data.batch_size"] + [f"data.batch_size={row.batch}"]
    return f"{started_as.command('train')} {shlex.join([*words, *budget])}"
