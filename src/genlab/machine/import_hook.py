"""Has code of ours run a module that is imported: instead of its own loader, which it is given."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

Run = Callable[[ModuleType, importlib.abc.Loader], None]


def install(instead: Mapping[str, Run]) -> None:
    """``instead``: by the full name of a module, what runs it. No effect, a second time or if one is imported."""
    is_there = any(isinstance(finder, _Finder) and finder.instead == instead for finder in sys.meta_path)
    if not is_there and not instead.keys() & sys.modules.keys():
        sys.meta_path.insert(0, _Finder(instead))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, instead: Mapping[str, Run]):
        self.instead = instead

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname not in self.instead:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.instead[fullname])
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader, run: Run):
        self.inner, self.run = inner, run

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.inner  # from here on it is like any other
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        self.run(module, self.inner)
