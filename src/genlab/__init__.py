"""genlab: config-driven experiments for generative models.

Importing the package loads no library: it only makes sure that a CPU build of torch can stand beside the registry's
torchvision, whose compiled part needs CUDA (see :mod:`genlab.machine.torchvision_ops`), and that torchmetrics loads no
more than is asked of it (see :mod:`genlab.machine.lazy_torchmetrics`).
"""

from genlab.machine import lazy_torchmetrics, torchvision_ops

__version__ = "0.1.0"

torchvision_ops.install()
lazy_torchmetrics.install()
