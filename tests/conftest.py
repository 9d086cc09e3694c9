"""genlab comes before whatever imports torchvision (see genlab.machine.torchvision_ops), and nothing goes online."""

import os

import genlab  # noqa: F401  isort: skip
import pytest
import torch

import ours
from genlab.config.tree import ConfigTree

ours.confirm()
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ |= {"GENLAB_MATMUL": "onednn", "GENLAB_ATTENTION": "fused"}  # runs are compared: none may choose for itself
torch.set_num_threads(1)


@pytest.fixture
def outputs(tmp_path):
    """Where run folders would be made. It does not exist yet."""
    return tmp_path / "outputs"


@pytest.fixture(scope="session")
def config_groups():
    """Options by group, as they lie in configs/."""
    return ConfigTree().groups()
