"""Drawing samples: what the loop around the network costs, how often it is evaluated, and time to equal quality."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks import product
from benchmarks.beside import in_turns_beside
from benchmarks.floor import matmul_rate, operations
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, alone, row
from benchmarks.timing import Measured, Side, Spent, timed
from genlab.config.tree import resolved
from genlab.run import run_folder
from genlab.run.assemble import build_data, build_evaluation
from genlab.run.load import load_run
from genlab.seeding import RandomStream

STEPS = 20  # of the solver that others are held against


def rows(options: Options) -> Iterator[Row | Skipped]:
    model = product.built("model=diffusion", "data=digits", *(("model.network.channels=8",) * options.quick))
    model = model.to(options.device).eval()
    batch = options.size(16, 4)
    drawn = 0

    def ours() -> None:
        nonlocal drawn
        stream = RandomStream.for_samples(0, range(drawn, drawn + batch), options.device)
        drawn += batch
        model.sample(batch, {"label": torch.arange(batch, device=options.device) % 10}, stream)

    ours()
    evaluations = model.evaluations // batch
    x = torch.randn(batch, *model.shape, device=options.device)
    told = {"label": torch.arange(batch, device=options.device) % 10}
    level = torch.ones(batch, device=options.device)

    @torch.no_grad()
    def network() -> None:
        for _ in range(evaluations):
            model.network(x, level, told)

    flops = operations(network)
    sides: dict[str, Side] = {"genlab": ours, "the network alone": network}
    measured = in_turns_beside(sides, {}, options.rounds, options.seconds, options.device)
    each = Measured({name: [spent / evaluations for spent in values] for name, values in measured.items()})
    rate = matmul_rate(torch.float32, options.device)
    yield row(
        "sampling",
        f"digits, batch {batch}: a network evaluation",
        each,
        "the network alone",
        "the same network, as often",
        floor=flops / rate / evaluations,
        device=options.device,
        evaluations=evaluations,
    )
    yield alone("sampling", "digits: evaluations a sample by default", [evaluations], "calls")
    yield from quality(options)


def quality(options: Options) -> Iterator[Row | Skipped]:
    """Of a trained run: FID by the evaluations of its default sampler and of 20 steps, and what both cost."""
    work = "digits: time to equal quality"
    if options.run is None:
        yield Skipped("sampling", work, "it needs a trained run: python train.py, then --run outputs/...")
        return
    by_default = judged(options, options.run, ())
    of_steps = judged(options, options.run, (f"model.sampler.num_steps={STEPS}",))
    yield row(
        "sampling",
        work,
        Measured({"genlab": [by_default[1]], f"{STEPS} steps": [of_steps[1]]}),
        f"{STEPS} steps",
        f"FID {by_default[0]:.3f} by default, {of_steps[0]:.3f} at {STEPS} steps, of {COUNT} samples each",
        unit="s",
        aim=2.5,
        device=options.device,
        fid=by_default[0],
        fid_of_peer=of_steps[0],
    )


COUNT = 1000


def judged(options: Options, run: Path, overrides: tuple[str, ...]) -> tuple[float, Spent]:
    """FID of 1,000 samples of a run, and the time that drawing them took."""
    config: DictConfig = OmegaConf.create(run_folder.read_config(run))
    for override in overrides:
        path, _, value = override.partition("=")
        OmegaConf.update(config, path, int(value))
    config.metrics = {name: node for name, node in config.metrics.items() if name in ("fid", "extractor")}
    config.evaluation.num_samples = COUNT
    data = build_data(config)
    model: Any = load_run(config, run)[0]
    evaluation = build_evaluation(resolved(config), run)
    task = evaluation.task.on(data, evaluation.reference).sized(COUNT, model)
    drawn: list[Any] = []
    with product.settings(options.device), contextlib.redirect_stderr(io.StringIO()):
        spent = timed(lambda: drawn.append(task.draw(model, range(COUNT), 0, evaluation.batch_size)), options.device)
        values = evaluation.score(drawn[0], data).values
    return next(value for name, value in values.items() if name.startswith("fid")), spent
