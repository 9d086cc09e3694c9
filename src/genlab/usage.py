"""What ``--help`` says."""

from typing import Any

from genlab.options import OPTIONS


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
