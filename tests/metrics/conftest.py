"""Test modules import torchvision through torch-fidelity: genlab comes first, as in every program of ours."""

import genlab  # noqa: F401
