"""Lets ``import torchmetrics`` wait for what is asked of it.

Lightning imports torchmetrics for two of its classes. Its ``__init__`` imports all of its metrics, and with them
torchvision, transformers and scipy.signal where they are installed, and its plots import matplotlib: seconds, in every
process. Here the package begins as those two names, and its own ``__init__`` runs when another one is asked for; a
submodule, such as ``torchmetrics.image``, is imported as ever. What plots imports matplotlib when it is called. Nothing
is replaced: each name is the library's own, or calls it.
"""

import importlib
import importlib.abc
import logging
import sys
import threading
from collections.abc import Callable
from functools import wraps
from types import FunctionType, ModuleType
from typing import Any

from genlab.machine import import_hook

_PACKAGE = "torchmetrics"
_PLOTS = "torchmetrics.utilities.plot"
_NAMES = {"Metric": "metric", "MetricCollection": "collections", "__version__": "__about__"}  # and where they are
_HAS_MATPLOTLIB = "_MATPLOTLIB_AVAILABLE"
_lock = threading.RLock()


class _Lazy(ModuleType):
    """A package whose ``__init__`` has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name in _NAMES:
            found = getattr(importlib.import_module(f"{_PACKAGE}.{_NAMES[name]}"), name)
            setattr(self, name, found)
            return found
        if name == "_logger":
            return logging.getLogger(_PACKAGE)  # as in its __init__, which gives it a handler
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
        _run(self)
        return getattr(self, name)


def _run(module: ModuleType) -> None:
    """Its own ``__init__``, once."""
    with _lock:
        if type(module) is _Lazy:
            module.__class__ = ModuleType  # type: ignore[assignment]
            assert isinstance(module.__loader__, importlib.abc.Loader)
            module.__loader__.exec_module(module)


def _begin(module: ModuleType, loader: importlib.abc.Loader) -> None:
    """The package, without its ``__init__``."""
    module.__class__ = _Lazy
    try:
        # What everything else in it builds upon: in another order its modules would find each other half-made.
        importlib.import_module(f"{_PACKAGE}.utilities")
    except ImportError:  # of another version
        _run(module)


def _without_matplotlib(module: ModuleType, loader: importlib.abc.Loader) -> None:
    """The module that plots, as it is where there is no matplotlib; its functions make it what it is with it."""
    imports = importlib.import_module(f"{_PACKAGE}.utilities.imports")
    has_matplotlib = getattr(imports, _HAS_MATPLOTLIB, None)
    if not has_matplotlib or "matplotlib" in sys.modules:
        loader.exec_module(module)
        return
    setattr(imports, _HAS_MATPLOTLIB, False)
    try:
        loader.exec_module(module)
    finally:
        setattr(imports, _HAS_MATPLOTLIB, has_matplotlib)
    for name, found in list(vars(module).items()):
        if isinstance(found, FunctionType) and not name.startswith("_"):
            setattr(module, name, _plotting(module, name, found, loader))


def _plotting(
    module: ModuleType, name: str, without: Callable[..., Any], loader: importlib.abc.Loader
) -> Callable[..., Any]:
    @wraps(without)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            if getattr(module, name) is call:
                loader.exec_module(module)
        return getattr(module, name)(*args, **kwargs)

    return call


def install() -> None:
    """No effect if torchmetrics is imported already."""
    import_hook.install({_PACKAGE: _begin, _PLOTS: _without_matplotlib})
