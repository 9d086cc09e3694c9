"""Imports genlab before a test imports Lightning: see genlab.machine.torchvision_ops."""

import pytest
import torch

import genlab  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
