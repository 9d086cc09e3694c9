"""The text of ``--help``."""

from typing import Any

from genlab import started_as
from genlab.command.options import OPTIONS


def usage() -> str:
    return "\n".join(
        [
            "usage: genlab <command> [name=value ...]",
            "",
            "  train      train a model and evaluate it",
            "  train -m   train many, one process each",
            "  sample     draw from a trained run",
            "  edit       change a picture: fill in, vary, invert, restore, or go from it to another",
            "  directions find directions in the latent space of a run, and show what they change",
            "  chat       talk with a run that was trained on conversations",
            "  feedback   a page on which people judge samples of one run, or of two",
            "  evaluate   measure a trained run",
            "  export     write a run's weights for other programs",
            "  plan       find the model size for a time budget on this machine",
            "  verify     check a recipe against its bands",
            "  compare    put runs side by side",
            "",
            "In a clone without the command: python train.py ..., python scripts/sample.py ..., and so on.",
            "",
            "genlab <command> --help lists the options of a command.",
        ]
    )


def command_help(command: str, tree: Any) -> str:
    lines = [f"usage: {started_as.command(command)} [name=value ...]", ""]
    for name, (default, meaning) in OPTIONS[command].items():
        shown = "" if default is None else " (needed)" if default is ... else f" [{default}]"
        lines.append(f"  {name + '=':14}{meaning}{shown}")
    if command == "compare":
        return "\n".join(lines)
    new = command in ("train", "plan", "verify")
    lines += ["", "Parts, chosen by name:" if new else "Parts of the run that may be changed:"]
    width = max(len(group) for group in tree.groups()) + 2
    for group, options in tree.groups().items():
        lines.append(f"  {group + '=':{width}}{' | '.join(options)}")
    lines += [
        "",
        "Any value of the config, by its path: model.optimizer.lr=2e-4 data.batch_size=64 trainer.devices=2",
        "",
        *(
            [f"  -m                   a sweep: model=gan,vae seed=0,1,2; more: {started_as.command('train -m')} --help"]
            * (command == "train")
        ),
        "  --cfg job            print the config and stop",
        "  --config-dir DIR     a folder of your own configs, laid out like the packaged one",
        '  --shell-completion install=bash|fish|zsh     for: eval "$(genlab train -sc install=bash)"',
    ]
    return "\n".join(lines)


def sweep_help(tree: Any) -> str:
    """``tree``: the config tree of the sweep."""
    lines = [
        f"usage: {started_as.command('train -m')} [name=a,b ...] [sweep.name=value ...]",
        "",
        "Each combination of the given values is a trial, a run with its own process and folder. Values:",
        "  model=gan,vae      seed=range(0,5)      model=glob(*)      metrics=[fid],[kid]",
        "With sweep=optuna values are drawn, also from intervals:",
        "  'model.optimizer.lr=tag(log, interval(1e-5, 1e-3))'      'model.depth=int(interval(2, 8))'",
        "Repeat the same command to run only what is missing, failed or was stopped.",
        "",
        "Parts, chosen by name:",
    ]
    width = max(len(group) for group in tree.groups()) + 2
    lines += [f"  {group + '=':{width}}{' | '.join(options)}" for group, options in tree.groups().items()]
    lines += [
        "",
        "Values, shown with their meaning below; those of one part: "
        f"{started_as.command('train -m')} sweep=optuna --cfg job",
        "",
    ]
    text = (tree.folders[-1] / "sweep.yaml").read_text(encoding="utf-8")
    lines += [f"  sweep.{line.strip()}" for line in text.partition("\nsweep:\n")[2].splitlines() if line.strip()]
    return "\n".join(lines)
