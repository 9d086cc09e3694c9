"""What is ``auto`` is chosen by timings, once for a machine, and a run keeps what was chosen."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_run
from genlab.checkpoint import read
from genlab.errors import ConfigError
from genlab.machine.quick_cpu import multiplied_by, quick_cpu
from genlab.run import cpu_choice, run_folder
from genlab.run.cpu_choice import chosen_for, of_run, remembered

SLOWER = {"cpu.matmul": "blas", "cpu.attention": "matrices", "trainer.precision": "bf16-mixed"}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def taking(*seconds: float) -> Callable[[Any], list[float]]:
    """A clock by which the first way takes so long, and the second so long."""
    return lambda ways: list(seconds)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize(("blas", "onednn", "chosen"), [(1.0, 2.0, "blas"), (1.0, 1.1, "onednn"), (1.0, 0.5, "onednn")])
def test_onednn_multiplies_unless_it_is_clearly_slower(
    blas: float, onednn: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with multiplied_by("onednn"):
        if torch.get_float32_matmul_precision() == "highest":
            pytest.skip("oneDNN is not exact on this processor")
    monkeypatch.setattr(cpu_choice, "_quickest", taking(blas, onednn))
    assert cpu_choice.faster_matmul() == chosen
    assert torch.get_float32_matmul_precision() == "highest"


def test_onednn_is_not_chosen_where_it_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.machine.quick_cpu._is_exact", lambda: False)
    monkeypatch.setattr(cpu_choice, "_quickest", taking(1.0, 0.1))
    assert cpu_choice.faster_matmul() == "blas"


@pytest.mark.parametrize(("fused", "matrices", "chosen"), [(1.0, 0.5, "matrices"), (1.0, 0.9, "fused")])
def test_attention_is_fused_unless_that_is_clearly_slower(
    fused: float, matrices: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_choice, "_quickest", taking(fused, matrices))
    assert cpu_choice.faster_attention("blas") == chosen
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(("fp32", "bf16", "faster"), [(1.0, 0.5, True), (1.0, 0.9, False)])
def test_bfloat16_is_chosen_where_it_is_clearly_faster(
    fp32: float, bf16: float, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_choice, "_quickest", taking(fp32, bf16))
    assert cpu_choice.bfloat16_is_faster("blas") is faster


def test_both_ways_are_timed_in_turns() -> None:
    order: list[str] = []

    def way(name: str) -> Callable[[], Tensor]:
        return lambda: order.append(name) or torch.ones(())  # type: ignore[func-returns-value]

    seconds = cpu_choice._quickest([way("a"), way("b")])
    assert len(seconds) == 2
    assert min(seconds) > 0
    assert order == ["a", "b"] * (len(order) // 2)


def test_timing_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = cpu_choice.timed()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(found[path] in values for path, values in cpu_choice.VALUES.items())


def test_a_machine_is_timed_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(cpu_choice, "timed", lambda: calls.append(1) or dict(SLOWER))
    assert remembered() == remembered() == SLOWER
    assert len(calls) == 1
    (note,) = own_cache.glob("*.facts")
    note.write_text(json.dumps(SLOWER | {"cpu.matmul": "abacus"}))  # of another version, or damaged
    assert remembered() == SLOWER
    assert len(calls) == 2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert remembered() == SLOWER
    assert len(calls) == 3


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable says what is to be chosen."""
    for variable in cpu_choice.FIXED_BY.values():
        monkeypatch.delenv(variable, raising=False)


def test_the_environment_fixes_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_choice, "remembered", lambda: pytest.fail("timed for nothing"))
    monkeypatch.setenv("GENLAB_MATMUL", "blas")
    asked = {"cpu": {"matmul": "auto", "attention": "matrices"}, "trainer": {}}
    assert of_run(asked) == {"matmul": "blas", "attention": "matrices"}
    monkeypatch.setenv("GENLAB_MATMUL", "abacus")
    with pytest.raises(ConfigError, match="GENLAB_MATMUL=abacus: it must be onednn or blas"):
        of_run(asked)


@pytest.mark.usefixtures("free")
def test_only_what_is_auto_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_choice, "remembered", lambda: SLOWER)
    undecided = {"cpu": {"matmul": "auto", "attention": "fused"}, "trainer": {"precision": "auto"}}
    assert chosen_for(undecided, on_cpu=True) == {"cpu.matmul": "blas", "trainer.precision": "bf16-mixed"}
    assert chosen_for({"trainer": {"precision": "32-true"}}, on_cpu=True) == {}
    of_gpu = chosen_for(undecided, on_cpu=False)
    assert of_gpu["cpu.matmul"] == "onednn"
    assert of_gpu["trainer.precision"] in ("32-true", "bf16-mixed")


def test_older_runs_compute_as_they_did() -> None:
    assert of_run({"trainer": {}}) == {"matmul": "onednn", "attention": "fused"}


@pytest.mark.usefixtures("free")
def test_a_run_keeps_what_was_chosen(outputs: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"cpu.matmul": "blas", "cpu.attention": "fused", "trainer.precision": "bf16-mixed"}
    monkeypatch.setattr(cpu_choice, "timed", lambda: chosen)
    asked = ("model=vae", "cpu.matmul=auto", "cpu.attention=auto", "trainer.precision=auto")
    run = tiny_run.train(*asked, "budget.value=8", outputs=outputs)
    kept = run_folder.read_config(run)
    assert kept["cpu"] == {"matmul": "blas", "attention": "fused"}
    assert kept["trainer"]["precision"] == "bf16-mixed"

    def never() -> dict[str, str]:
        raise AssertionError("a run was timed that has been chosen for")

    monkeypatch.setattr(cpu_choice, "timed", never)
    for note in own_cache.glob("*.facts"):
        note.unlink()
    tiny_run.resume(run, "budget.value=16")
    with pytest.raises(ConfigError, match=r"cpu.matmul blas -> onednn"):
        tiny_run.resume(run, "budget.value=24", "cpu.matmul=onednn")
    assert cpu_choice._CHOSEN not in os.environ


def test_other_processes_are_told(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_choice._CHOSEN, json.dumps({"cpu.matmul": "blas"}))
    run = tiny_run.train("model=vae", "cpu.matmul=auto", "budget.value=8", outputs=outputs)
    assert run_folder.read_config(run)["cpu"]["matmul"] == "blas"
    assert json.loads(os.environ[cpu_choice._CHOSEN]) == {"cpu.matmul": "blas"}  # which the first one takes away


def test_an_unknown_way_is_refused(outputs: Path) -> None:
    with pytest.raises(ConfigError, match=r"cpu.matmul must be onednn or blas or auto, got 'abacus'"):
        tiny_run.compose("model=vae", "cpu.matmul=abacus", outputs=outputs)


def test_attention_by_matrices_is_that_of_the_kernel() -> None:
    from genlab.model.network.attention import attend

    query, key, value = torch.randn(3, 2, 2, 16, 8, generator=torch.Generator().manual_seed(0)).unbind()
    with quick_cpu(True, attention="matrices"):
        by_matrices = attend(query, key, value, causal=True)
        assert not torch.backends.cuda.flash_sdp_enabled()
    with quick_cpu(True, attention="fused"):
        torch.testing.assert_close(attend(query, key, value, causal=True), by_matrices)


def test_fifty_steps_are_those_of_the_other_library(outputs: Path) -> None:
    """To rounding, within 1e-5 of the largest weight."""
    weights = []
    for matmul in ("onednn", "blas"):
        run = tiny_run.train(
            "model=vae", "model/encoder=mlp", "model/decoder=mlp", f"cpu.matmul={matmul}", "budget.value=400",
            "model.optimizer.lr=1e-4", outputs=outputs,
        )  # fmt: skip
        weights.append(read.newest(run).state)
    for name, found in weights[0].items():
        error = (found - weights[1][name]).abs().max() / found.abs().max().clamp(min=1e-3)
        assert error < 1e-5, name
