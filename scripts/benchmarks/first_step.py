"""``python train.py ...``, but the process says when its first step begins and is made, and ends with that.

What it looks at is put in place when genlab's own import of Model has run, so that nothing is imported earlier.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from types import ModuleType
from typing import Any

moments: dict[str, dict[str, float]] = {"cpu": {}, "wall": {}}


def note(name: str) -> None:
    moments["cpu"].setdefault(name, time.process_time())
    moments["wall"].setdefault(name, time.time() - float(os.environ["BEGAN"]))


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls :func:`watch` once ``genlab.model.base`` is imported."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if name != "genlab.model.base":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            watch(module.Model)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def watch(model: Any) -> None:
    starts, fits = model.on_train_batch_start, model.on_train_start

    def on_train_start(self: Any) -> None:
        note("fit")
        fits(self)

    def on_train_batch_start(self: Any, *given: Any) -> None:
        note("step")
        starts(self, *given)

    def on_train_batch_end(self: Any, *given: Any) -> None:
        note("stepped")
        sys.__stdout__.write("\n" + json.dumps(moments) + "\n")
        sys.__stdout__.flush()
        os._exit(0)

    model.on_train_start, model.on_train_batch_start = on_train_start, on_train_batch_start
    model.on_train_batch_end = on_train_batch_end


if __name__ == "__main__":
    sys.meta_path.insert(0, AfterImport())
    from genlab.cli import main

    main(["train", *sys.argv[1:]])
