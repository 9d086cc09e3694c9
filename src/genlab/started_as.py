"""How genlab was started, so that suggested commands work as they are printed."""

import os
import shlex
import sys
from pathlib import Path


def command(name: str) -> str:
    """``genlab sample``, or ``python scripts/sample.py`` where a script of a clone was started, with the path as typed.

    ``name``: train, sample, directions, chat, feedback, evaluate, export, plan, verify or compare;
    ``train -m`` for a sweep.
    """
    name, space, flags = name.partition(" ")
    folder = _clone()
    if folder is None:
        return f"genlab {name}{space}{flags}"
    script = os.path.join(folder, "train.py" if name == "train" else os.path.join("scripts", f"{name}.py"))
    return f"python {shlex.quote(script)}{space}{flags}"


def _clone() -> str | None:
    """The folder of the clone whose script was started, as it was typed; None for the ``genlab`` command."""
    script = Path(sys.argv[0])
    folder = script.parent.parent if script.parent.name == "scripts" else script.parent
    if script.suffix != ".py" or not (script.name == "train.py" or script.parent.name == "scripts"):
        return None
    if not (folder / "scripts" / "sample.py").exists():  # a script of the user's own
        return None
    return "" if str(folder) == "." else str(folder)
