"""Shell completion: Hydra's, plus the options and flags of each command, minus what genlab refuses."""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from genlab.command.options import OPTIONS
from genlab.config.tree import FILLED_LATER, OF_SWEEPS, ConfigTree

FLAGS = ("--help", "--cfg", "--config-dir", "--shell-completion", "--version", "--multirun")
_REFUSED = ("hydra", *FILLED_LATER)  # what Hydra offers, and genlab refuses
_OF_SWEEPS = ("--multirun",)  # only trainings can be swept
_REFUSED_FLAGS = {"train": (), "compare": (*_OF_SWEEPS, "--cfg", "--config-dir")}  # of other commands: _OF_SWEEPS


def complete(command: str, argument: str, tree: ConfigTree, overrides: Sequence[str]) -> None:
    """Print the completions for bash, fish and zsh: ``argument`` is ``query=bash``. Or print what the shell evaluates
    to install or uninstall completion: ``install=bash``, ``uninstall=bash``."""
    program, _, words = os.environ.get("COMP_LINE", "").partition(" ")
    if not argument.startswith("query="):
        _ask_hydra(argument, tree, overrides)
        return
    typed, space, after = words.partition(" ")
    if Path(program).name == "genlab":
        if not space:
            print(" ".join(name for name in OPTIONS if name.startswith(typed)))
            return
        if typed in OPTIONS:  # Hydra knows no commands
            command, words = typed, after.lstrip()
    elif words.startswith("-m ") or program == "python":  # python train.py ...: the program is the script
        script, _, rest = words.partition(" ")
        if script.endswith(".py"):
            program, words = f"{program} {script}", rest
            command = Path(script).stem if Path(script).stem in OPTIONS else command
    offered = _offered(command, words, program, argument, tree, overrides)
    print(("\n" if "zsh" in argument or "fish" in argument else " ").join(offered))


def _offered(
    command: str, words: str, program: str, argument: str, tree: ConfigTree, overrides: Sequence[str]
) -> list[str]:
    *before, last = words.split(" ")
    if last.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(last) and flag not in _REFUSED_FLAGS.get(command, _OF_SWEEPS)]
    if before and before[-1] in ("--cfg", "-c"):
        return ["job"]
    is_sweep = "-m" in before or "--multirun" in before
    own = [f"{name}=" for name in OPTIONS[command] if f"{name}=".startswith(last) and "=" not in last]
    if command == "compare":
        return own
    os.environ["COMP_LINE"] = f"{program} {' '.join(w for w in (*before, last) if not w.startswith('-'))}"
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        _ask_hydra(argument, tree, overrides)
    found = [word for word in shown.getvalue().split() if not _is_refused(word, is_sweep)]
    return list(dict.fromkeys([*([] if is_sweep else own), *found]))


def _is_refused(word: str, is_sweep: bool) -> bool:
    name = word.partition("=")[0].rstrip(".")
    top = name.replace("/", ".").partition(".")[0]
    last = name.rpartition(".")[2]
    return top in _REFUSED or (top in OF_SWEEPS and not is_sweep) or last in ("_target_", "_partial_")


def _ask_hydra(argument: str, tree: ConfigTree, overrides: Sequence[str]) -> None:
    with tree.files.hydra():
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.shell_completion(config_name="train", overrides=[argument, *overrides])
