"""TensorFloat-32 on a GPU: in training where the run says so, and never in what is measured or shown."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.tf32 import TF32
from genlab.metrics.extractor.precision import full_precision
from genlab.model.float32 import exact_float32
from genlab.sampling.draw import draws

GPU = torch.device("cuda")


def settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


EXACT, QUICK = ("highest", False), ("high", True)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = settings()
    yield
    assert settings() == before, "what the process is set to is put back"


@pytest.mark.parametrize(("tf32", "expected"), [(True, QUICK), (False, EXACT)])
def test_training_and_what_is_drawn_in_between(tf32: bool, expected: tuple[str, bool]) -> None:
    trainer: Any = SimpleNamespace(callbacks=[])
    model: Any = SimpleNamespace(device=GPU, modules=list)
    callback = TF32(tf32)
    callback.on_train_start(trainer, model)
    assert settings() == expected
    with averaged_weights(trainer, model):
        assert settings() == EXACT
    assert settings() == expected
    callback.on_train_end(trainer, model)


def test_an_error_ends_it_too() -> None:
    callback, nothing = TF32(True), SimpleNamespace(device=GPU)
    callback.on_train_start(nothing, nothing)  # type: ignore[arg-type]
    callback.on_exception(nothing, nothing, ValueError())  # type: ignore[arg-type]


def test_a_cpu_multiplies_as_before() -> None:
    """There "medium" means a library, which stays."""
    torch.set_float32_matmul_precision("medium")
    try:
        with exact_float32("cpu"):
            assert settings()[0] == "medium"
        TF32(True).on_train_start(None, SimpleNamespace(device=torch.device("cpu")))  # type: ignore[arg-type]
        assert settings()[0] == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_samples_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)

    class Model:
        device, evaluations, drawn_by = GPU, 0, None

        def sample(self, count: int, condition: Any, stream: Any) -> torch.Tensor:
            assert settings() == EXACT
            return torch.zeros(count)

    for samples in draws(Model(), range(5), None, 0, 2):  # type: ignore[arg-type]
        assert len(samples) <= 2
        assert settings() == ("highest", True), "not between batches: there the caller goes on"


def test_features_are_exact() -> None:
    with full_precision(GPU):
        assert settings() == EXACT
