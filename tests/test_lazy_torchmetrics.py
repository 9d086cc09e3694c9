"""A stand-in for torchmetrics, laid out as it is, in a process of its own: what is imported when."""

import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "matplotlib.py": "",
    "torchmetrics/__init__.py": "from torchmetrics.__about__ import *\n_logger = 'its own'\n"
    "from torchmetrics import functional\nfrom torchmetrics.metric import Metric\nclass Mean(Metric): ...\n"
    "print('init')",
    "torchmetrics/__about__.py": "__version__ = '1.2'",
    "torchmetrics/functional.py": "import torchmetrics.utilities",
    "torchmetrics/metric.py": "from torchmetrics.utilities import checks\n"
    "from torchmetrics.utilities.plot import Axes, draw\nclass Metric:\n    def plot(self, ax=None): return draw(ax)\n",
    "torchmetrics/utilities/__init__.py": "from torchmetrics.utilities.checks import check",
    "torchmetrics/utilities/checks.py": "from torchmetrics import _logger\nfrom torchmetrics.metric import Metric\n"
    "check = 1",
    "torchmetrics/utilities/imports.py": "_MATPLOTLIB_AVAILABLE = True",
    "torchmetrics/utilities/plot.py": """
from torchmetrics.utilities.imports import _MATPLOTLIB_AVAILABLE
if _MATPLOTLIB_AVAILABLE:
    import matplotlib
    Axes = matplotlib
else:
    Axes = object
def draw(ax):
    return (_MATPLOTLIB_AVAILABLE, Axes.__name__, ax)
""",
}
USE = """
import sys
import genlab
{first}
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("torchmetrics", "matplotlib")))
import torchmetrics
print(torchmetrics.__version__, torchmetrics.Metric.__module__)
print(torchmetrics.Metric().plot(3), torchmetrics.Metric().plot(4), "matplotlib" in sys.modules)
metric = torchmetrics.Metric
print(torchmetrics.Mean.__bases__ == (metric,), torchmetrics.Metric is metric, torchmetrics._logger)
print(type(torchmetrics).__name__, type(torchmetrics.__loader__).__name__, hasattr(torchmetrics, "__wrapped__"))
try:
    torchmetrics.Nothing
except AttributeError as error:
    print(error)
"""
FEW = "torchmetrics torchmetrics.metric torchmetrics.utilities torchmetrics.utilities.checks " \
      "torchmetrics.utilities.imports torchmetrics.utilities.plot"  # fmt: skip


@pytest.mark.parametrize("first", ["from torchmetrics import Metric", "from torchmetrics.metric import Metric"])
def test_its_init_and_matplotlib_wait_until_they_are_asked_for(first: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "use.py").write_text(USE.format(first=first))
    done = subprocess.run([sys.executable, tmp_path / "use.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        FEW,
        "1.2 torchmetrics.metric",
        "(True, 'matplotlib', 3) (True, 'matplotlib', 4) True",
        "init",
        "True True its own",
        "module SourceFileLoader False",
        "module 'torchmetrics' has no attribute 'Nothing'",
    ]


@pytest.mark.matrix  # the installed one: seconds of imports
def test_the_installed_package_is_whole() -> None:
    use = """
import sys, genlab, torch, torchmetrics
from torchmetrics import Metric
assert not {"matplotlib", "torchvision", "scipy", "torchmetrics.functional"} & set(sys.modules)
class Constant(Metric):
    def update(self, x): ...
    def compute(self): return torch.tensor(1.5)
constant = Constant()
constant.update(1)
figure, axes = constant._plot()
import matplotlib.axes, matplotlib.figure
assert isinstance(figure, matplotlib.figure.Figure) and isinstance(axes, matplotlib.axes.Axes)
assert "torchmetrics.functional" not in sys.modules
mean = torchmetrics.MeanMetric()
mean.update(3.0)
assert isinstance(mean, Metric) and mean.compute() == 3 and torchmetrics.functional.accuracy
from torchmetrics import *
assert issubclass(FrechetInceptionDistance if "FrechetInceptionDistance" in globals() else MeanMetric, Metric)
"""
    done = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
