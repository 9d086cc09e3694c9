"""What a training does before its first step, and what it leaves for later."""

import gc
import subprocess
import sys
from pathlib import Path

from genlab.machine.garbage import no_garbage_collection

# Seconds of imports; what needs one imports it where it is used.
LATER = {"torchvision", "torch_fidelity", "torchmetrics.functional", "scipy", "sklearn", "matplotlib", "pandas",
         "transformers", "huggingface_hub", "datasets", "diffusers", "wandb", "tensorboard", "optuna", "lpips",
         "genlab.checkpoint.sharded_strategy", "genlab.metrics.extractor.inception"}  # fmt: skip
FIRST_STEP = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook

def leave(*_):
    print(*sorted(sys.modules), flush=True)
    os._exit(0)

register_optimizer_step_post_hook(leave)
from genlab.cli import main
main(["train", "logger=[none]", "outputs=" + sys.argv[1]])
"""


def test_the_default_run_imports_little_before_its_first_step(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_STEP, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"genlab.metrics.fid", "genlab.metrics.judge", "pytorch_lightning", "torchmetrics"} <= loaded
    assert not LATER & loaded


def test_no_garbage_is_looked_for_while_imports_go_on() -> None:
    frozen = gc.get_freeze_count()
    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.disable()
    try:
        with no_garbage_collection():
            pass
        assert not gc.isenabled(), "left as it was"
    finally:
        gc.unfreeze()
        gc.enable()
