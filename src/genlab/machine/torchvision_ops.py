"""Lets ``import torchvision`` work beside a torch build that its compiled operators do not fit.

The torchvision wheel of the registry is built against CUDA. Beside a CPU-only torch its operators do not load, and the
package then dies on import with "operator torchvision::nms does not exist", and with it torchmetrics, torch-fidelity
and Lightning. Only two operator *schemas* are missing at that point, so they are declared here, right after torchvision
has found out that it has no operators. Calling them still fails (``nms`` itself and ``torchvision.io`` decoding stay
unavailable); nothing at all happens beside a matching build.
"""

import importlib.abc
from types import ModuleType
from typing import Any

from genlab.machine import import_hook

_MODULE = "torchvision.extension"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_alive: list[Any] = []  # a torch.library.Library takes its schemas away with it when it is collected


def install() -> None:
    """No effect if torchvision is imported already."""
    import_hook.install({_MODULE: _run})


def _run(module: ModuleType, loader: importlib.abc.Loader) -> None:
    loader.exec_module(module)
    if not module._has_ops():
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _alive.append(library)
