"""What the commands take, and what ``--help`` says of it."""

from typing import Any

# Of each command, with default and meaning; all else is the config's.
OPTIONS: dict[str, dict[str, tuple[Any, str]]] = {
    "train": {"run": (None, "continue this run, with what else is typed changed")},
    "sample": {
        "run": (..., "the run to sample from"),
        "n": (None, "how many samples. Default: 64 images, or 1 text"),
        "seed": (0, "sample i of a seed is always the same, on any batch size"),
        "label": (None, "the class of all samples; by default one class after the other"),
        "prompt": (None, "the beginning of a text, which the samples go on from"),
        "batch_size": (64, "how many at a time"),
        "out": (None, "x.png: a grid; x.npz: an array; a folder: one PNG each; x.txt. Default: in the run's samples/"),
    },
    "evaluate": {
        "run": (..., "the run to evaluate"),
        "n": (None, "how many samples; by default as many as at the end of training"),
        "seed": (None, "of the samples; by default the config's evaluation.seed"),
        "likelihood": (0, "also bits per dimension of so many held-out images (slow)"),
        "baselines": (False, "also score noise, a Gaussian a class, copies of training images, and real ones"),
    },
    "compare": {
        "runs": (..., "the runs to compare: [a,b], or a folder that holds some at any depth"),
        "out": (None, "the folder for comparison.md, .csv and .png. Default: comparison-<time> beside the runs"),
        "sort": (None, "the column that comes best first. Default: the first metric"),
        "protocol": (None, "the id of a protocol that all were measured with. Default: that of the most runs"),
        "allow_unequal": (False, "show and mark numbers that were measured otherwise, instead of refusing them"),
    },
}


def usage() -> str:
    return "\n".join([
        "usage: genlab <command> [name=value ...]", "",
        "  train      train a model and evaluate it        (python train.py ...)",
        "  sample     draw from a trained run              (python scripts/sample.py ...)",
        "  evaluate   measure a trained run                (python scripts/evaluate.py ...)",
        "  compare    put runs side by side                (python scripts/compare.py ...)", "",
        "genlab <command> --help lists the options of a command.",
    ])  # fmt: skip


def command_help(command: str, tree: Any) -> str:
    script = "python train.py" if command == "train" else f"python scripts/{command}.py"
    lines = [f"usage: {script} [name=value ...]     (or: genlab {command} ...)", ""]
    for name, (default, meaning) in OPTIONS[command].items():
        shown = "" if default is None else " (needed)" if default is ... else f" [{default}]"
        lines.append(f"  {name + '=':14}{meaning}{shown}")
    if command == "compare":
        return "\n".join(lines)
    lines += ["", "Parts, chosen by name:" if command == "train" else "Parts of the run that may be changed:"]
    width = max(len(group) for group in tree.groups()) + 2
    for group, options in tree.groups().items():
        lines.append(f"  {group + '=':{width}}{' | '.join(options)}")
    lines += [
        "",
        "Any value of the config, by its path: model.optimizer.lr=2e-4 data.batch_size=64 trainer.devices=2",
        "",
        "  --cfg job            print the config and stop",
        "  --config-dir DIR     a folder of your own configs, laid out like the packaged one",
        '  --shell-completion install=bash|fish|zsh     for: eval "$(genlab train -sc install=bash)"',
    ]
    return "\n".join(lines)
