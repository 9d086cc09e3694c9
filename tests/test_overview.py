"""The first screen of a run, its last one, and a batch that is no larger than the data."""

import logging
import re

import pytest
from omegaconf import DictConfig, OmegaConf

from genlab.command.final_numbers import cost_lines, number_lines
from genlab.command.overview import clip_batch_size, show
from genlab.config.tree import ConfigTree
from genlab.data.digits import Digits
from genlab.evaluation.protocol import Result


def test_ten_lines_and_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["model.optimizer.lr=0.01", "budget.value=2k", "debug=fast"]
    config, data = ConfigTree().compose(typed), Digits()
    config.spec = data.spec.to_config()
    show(config, data, 1234, typed)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines[: lines.index("")] if not line.startswith(" ")]) == 10
    assert "1,234 parameters" in lines[0]
    assert any("1,297 images of 1x16x16, 10 classes" in line for line in lines)
    changed = {line.split()[0]: line.split()[1] for line in lines[lines.index("") + 2 :]}
    assert (changed["model.optimizer.lr"], changed["debug"]) == ("0.01", "fast")
    assert changed["budget.value"] == str(config.budget.value)
    assert "seed" not in changed
    assert all(len(line) <= 100 for line in lines)
    show(_with_spec(data), data, 1, [])
    assert "" not in capsys.readouterr().out.splitlines()  # nothing differs


def test_names_of_others_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    steers = "\x1b]0;owned\x07\x1b[2J\x9b31m"
    config, data = ConfigTree().compose([]), Digits()
    config.spec = data.spec.to_config()
    for path, value in ((f"logger.{steers}", {"_target_": steers, steers: steers}), (f"metrics.{steers}", {}),
                        ("model._target_", f"x.{steers}"), ("data.cache_dir", steers)):  # fmt: skip
        OmegaConf.update(config, path, value, force_add=True)
    show(config, data, 1, [])
    said = capsys.readouterr().out
    assert "owned" in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said)


def _with_spec(data: Digits) -> DictConfig:
    config = ConfigTree().compose([])
    config.spec = data.spec.to_config()
    return config


def test_a_batch_that_nobody_typed_is_no_larger_than_the_data(caplog: pytest.LogCaptureFixture) -> None:
    for devices, fits in ((1, 53), (4, 52)):
        config = OmegaConf.create({"data": {"batch_size": 128}, "trainer": {"devices": devices}})
        data = Digits(batch_size=128, limit=53)
        with caplog.at_level(logging.WARNING):
            clip_batch_size(config, data, ["model=vae"])
        assert (data.batch_size, config.data.batch_size) == (fits, fits)
        assert (
            f"there are 53 training examples, fewer than a batch of 128: data.batch_size={fits} is used." in caplog.text
        )
    typed = Digits(batch_size=128, limit=53)
    clip_batch_size(config, typed, ["data.batch_size=128"])
    assert typed.batch_size == 128  # refused later, with what to set
    enough = Digits(batch_size=32)
    clip_batch_size(config, enough, [])
    assert enough.batch_size == 32


def test_final_numbers_are_in_groups_with_what_is_better_and_the_floor() -> None:
    final = Result(
        {"fid_x_1k": 12.5, "nn_distance_ratio_1k": 0.9, "isc_std_1k": 0.1},
        {"metrics": {}},
        directions={"fid_x_1k": "lower", "nn_distance_ratio_1k": "one", "isc_std_1k": None},
        keys={"fid_x_1k": "fid", "nn_distance_ratio_1k": "nn_distance_ratio", "isc_std_1k": "isc_std"},
        samples_per_second=20.0,
        evaluations_per_sample=18.0,
    )
    lines = number_lines(final, {"fid_x_1k": 0.76})
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(rows) == ["quality", "fid_x_1k", "isc_std_1k", "copying", "nn_distance_ratio_1k", "floor:"]
    assert rows["fid_x_1k"] == ["12.5000", "lower", "0.7600"]
    assert rows["nn_distance_ratio_1k"] == ["0.9000", "near", "1"]
    assert rows["isc_std_1k"] == ["0.1000"]
    assert number_lines(Result({}, {}), {}) == []
    summary = {"examples": 40_000, "flops": 1.5e12, "seconds": 61.0, "wall_seconds": 90.0, "parameters": 12_345,
               "peak_memory_bytes": 2**29}  # fmt: skip
    told = "\n".join(cost_lines(final, summary))
    for words in (
        "40,000 examples, 1.5e+12 FLOPs, 61 s",
        "12,345 parameters, 512 MiB",
        "20.0 samples/s, 18 evaluations",
    ):
        assert words in told
