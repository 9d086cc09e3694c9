"""Lets ``import torchvision`` work beside a torch build that its compiled operators do not fit.

The torchvision wheel of the registry is built against CUDA. Beside a CPU-only torch its operators do not load, and the
package then dies on import with "operator torchvision::nms does not exist", and with it torchmetrics, torch-fidelity
and Lightning. Only two operator *schemas* are missing at that point, so they are declared here, right after torchvision
has found out that it has no operators. Calling them still fails (``nms`` itself and ``torchvision.io`` decoding stay
unavailable); nothing at all happens beside a matching build.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

_MODULE = "torchvision.extension"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_alive: list[Any] = []  # a torch.library.Library takes its schemas away with it when it is collected


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader):
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        if not module._has_ops():
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in _SCHEMAS:
                library.define(schema)
            _alive.append(library)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install() -> None:
    """Put the finder in front of ``sys.meta_path``, once; no effect if torchvision is imported already."""
    if _MODULE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
