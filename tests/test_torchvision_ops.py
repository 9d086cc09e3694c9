"""A stand-in for torchvision, with and without its compiled operators, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

EXTENSION = "def _has_ops():\n    return {has_ops}\n"
USE = """
import sys
import genlab
assert "torch" not in sys.modules, "importing genlab imports torch"
import torchvision
print(sum("torchvision.extension" in getattr(finder, "instead", ()) for finder in sys.meta_path))
print("torch" in sys.modules)
import torch
try:
    print(torch.ops.torchvision.nms.default._schema)
    print(torch.ops.torchvision.qnms.default._schema)
except AttributeError:
    print("no schema")
import importlib
importlib.reload(genlab)
print(sum("torchvision.extension" in getattr(finder, "instead", ()) for finder in sys.meta_path))
"""


def printed(folder: Path, has_ops: bool) -> list[str]:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import extension\n")
    (package / "extension.py").write_text(EXTENSION.format(has_ops=has_ops))
    (folder / "use.py").write_text(USE)
    done = subprocess.run([sys.executable, folder / "use.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_missing_operators_are_declared(tmp_path: Path) -> None:
    finders, torch_imported, nms, qnms, finders_after = printed(tmp_path, has_ops=False)
    assert (finders, torch_imported, finders_after) == ("1", "True", "1")
    arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    assert (nms, qnms) == (f"torchvision::nms{arguments}", f"torchvision::qnms{arguments}")


def test_nothing_happens_beside_a_build_that_fits(tmp_path: Path) -> None:
    assert printed(tmp_path, has_ops=True) == ["1", "False", "no schema", "1"]


@pytest.mark.matrix  # processes that start anew, as does the one that the tests run in, by the same two imports
@pytest.mark.parametrize("module", ["torchvision", "pytorch_lightning"])
def test_the_installed_packages_import(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import genlab, {module}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
