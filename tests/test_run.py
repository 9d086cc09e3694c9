"""A run from end to end, and what it leaves on disk."""

import csv
import json
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from PIL import Image

from genlab.command import train as train_command
from genlab.config.tree import ConfigTree
from genlab.errors import ConfigError, ResourceError, StorageError
from genlab.run import assemble, run_folder
from genlab.run.processes import RUN_DIR
from genlab.sampling.pictures import save_grid
from tiny_run import MLP, Order, compose, train

METRICS = ("metrics=[kid]", "metrics.kid.subset_size=5", "metrics.kid.num_subsets=2", "evaluation.num_samples=8")


def test_what_a_run_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-1234567890")
    monkeypatch.setenv("DB_PASSWORD", "canary-0987654321")
    monkeypatch.setattr("sys.argv", ["train.py", "model.seed=1", "note=canary-1234567890"])
    run = train(*MLP, *METRICS, "callbacks.samples.times=2", "callbacks.samples.rows=3", "callbacks.samples.columns=10",
                "callbacks.evaluation.times=2", "callbacks.evaluation.num_samples=6", outputs=tmp_path)  # fmt: skip
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "overrides.yaml", "command.txt", "versions.json", "metrics.csv", "summary.json", "samples",
        "checkpoints", ".lock", ".seal",
    }  # fmt: skip
    for file in run.rglob("*"):
        assert file.is_dir() or b"canary" not in file.read_bytes(), file
    assert (run / "command.txt").read_text() == "python train.py model.seed=1 'note=***'\n"

    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["metrics"]) == {"kid_digits64_8", "kid_std_digits64_8", "kid_se_digits64_8"}
    assert summary["protocol"]["weights"] == "ema"
    assert len(summary["protocol_id"]) == 8
    assert (summary["examples"], summary["fraction"]) == (104, 1)
    for name in (
        "seconds",
        "flops",
        "wall_seconds",
        "parameters",
        "peak_memory_bytes",
        "samples_per_second",
        "evaluations_per_sample",
    ):
        assert summary[name] > 0, name

    grids = sorted((run / "samples").iterdir())
    assert [grid.name for grid in grids] == ["examples=000000000056.png", "examples=000000000104.png"]
    with Image.open(grids[-1]) as picture:
        assert picture.size == (3 * (10 * 17 - 1), 3 * (3 * 17 - 1))  # 16 pixels and a line, enlarged to 48

    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(14))
    assert [row["step"] for row in rows if row["val/loss"]] == ["6", "13"]
    assert rows[6]["val/kid_digits64_6"]
    assert rows[13]["val/kid_digits64_8"]
    assert [float(row["progress/examples"]) for row in rows] == [*range(8, 105, 8), 104]  # of every row, also the last
    assert all(float(row["progress/flops"]) > 0 and float(row["progress/seconds"]) > 0 for row in rows)

    out, errors = capsys.readouterr()
    assert f"next:       python scripts/sample.py run={run} n=64 seed=1" in out
    assert all(line.startswith("training") for line in errors.splitlines())


def test_versions(tmp_path: Path) -> None:
    run = train(*MLP, "budget.value=8", outputs=tmp_path)
    versions = json.loads((run / "versions.json").read_text())
    assert versions["packages"]["torch"] == torch.__version__
    assert versions["hardware"]["cores"] == os.cpu_count()
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    assert versions["revision"].removesuffix("+changes") == commit or not commit


def test_config_rebuilds_the_model_without_its_data(tmp_path: Path) -> None:
    run = train(*MLP, "budget.value=8", outputs=tmp_path)
    config = run_folder.read_config(run)
    del config["data"]
    model = assemble.build_model(config)
    model.configure_model()
    assert sum(p.numel() for p in model.parameters()) == json.loads((run / "summary.json").read_text())["parameters"]


def test_names() -> None:
    def name(model: str, data: str) -> str:
        return run_folder.name_of({"model": {"_target_": model}, "data": {"_target_": data}})

    assert name("genlab.model.diffusion.Diffusion", "genlab.data.cifar10.CIFAR10") == "diffusion-cifar10"
    assert name("a.MyGAN", "b.ImageFolder") == "my_gan-image_folder"


def test_fifty_starts_at_once_make_fifty_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(50) as threads:
        folders = list(threads.map(lambda _: run_folder.create(str(tmp_path), "a-b"), range(50)))
    assert len(set(folders)) == 50
    assert all(folder.is_dir() for folder in folders)
    with ProcessPoolExecutor(5, mp_context=get_context("fork")) as processes:
        folders += processes.map(run_folder.create, [str(tmp_path)] * 50, ["a-b"] * 50)
    assert len(set(folders)) == 100


def test_an_existing_folder_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(tokens))
    first, second = (run_folder.create(str(tmp_path), "a-b") for _ in range(2))
    assert first != second


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write to"):
        run_folder.create(str(tmp_path / "file"), "a-b")


def test_two_runs_in_one_process_have_two_folders(tmp_path: Path) -> None:
    assert train(*MLP, "budget.value=8", outputs=tmp_path) != train(*MLP, "budget.value=8", outputs=tmp_path)
    assert RUN_DIR not in os.environ


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("data.batch_size=41", ConfigError),
        ("trainer.accelerator=gpu", ResourceError),
        ("data.batch_size=0", ConfigError),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_folder(
    override: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(error):
        train(*MLP, override, outputs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_check_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(*MLP, *METRICS, "dry_run=true", outputs=tmp_path)
    train_command.train(config, [])
    out, errors = capsys.readouterr()
    (said,) = [line for line in out.splitlines() if line.startswith("dry run passed")]
    assert "one step (train/loss " in said
    assert "one sample (1, 16, 16)" in said
    assert errors == ""
    assert not list(tmp_path.iterdir())


def debug(option: str, *overrides: str, outputs: Path) -> Path:
    config = ConfigTree().compose([f"debug={option}", "trainer=cpu", *MLP, f"outputs={outputs}", *overrides])
    assemble.check_config(config)
    train_command.train(config, [])
    return Path(config.run_dir)


def test_debug_fast(tmp_path: Path) -> None:
    run = debug("fast", outputs=tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["examples"] == 32
    assert summary["metrics"]


def test_debug_overfit_sees_16_images_again_and_again(tmp_path: Path) -> None:
    run = debug("overfit", "metrics=[]", "model.network.width=64", "trainer.log_every_n_steps=1", "budget.value=4000",
                "callbacks.samples.times=0", "callbacks.evaluation.times=0", Order.OVERRIDE,
                outputs=tmp_path)  # fmt: skip
    assert set((run / "order.0.txt").read_text().split()) == {str(index) for index in range(16)}
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 250
    assert sum(losses[-50:]) / 50 < 0.5 * losses[0]


def test_half_precision_on_a_cpu_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.precision=16-mixed needs a GPU. Use trainer.precision=bf16-mixed"):
        train(*MLP, "trainer.precision=16-mixed", outputs=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_grid_of_images(channels: int, mode: str, tmp_path: Path) -> None:
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, channels, 64, 64) * 50
    save_grid(images, 3, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        assert picture.mode == mode
        assert picture.size == (3 * 65 - 1, 2 * 65 - 1)
        at = [picture.getpixel((65 * (i % 3) + 1, 65 * (i // 3) + 1)) for i in range(6)]
    assert [p if channels == 1 else p[0] for p in at] == [0, 50, 100, 150, 200, 255]


def test_a_model_without_labels_on_labelled_data(tmp_path: Path) -> None:
    run = train(*MLP, "model.num_classes=null", "model.network.num_classes=null", "callbacks.samples.times=1",
                "metrics=[fid]", outputs=tmp_path)  # fmt: skip
    assert list((run / "samples").glob("*.png"))
    with pytest.raises(ConfigError, match="metrics=label_accuracy needs a model that takes labels"):
        train(*MLP, "model.num_classes=null", "model.network.num_classes=null", "metrics=[label_accuracy]",
              outputs=tmp_path / "other")  # fmt: skip
    assert not (tmp_path / "other").exists()


def test_a_compiled_network_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting the first step's operations must not keep the later ones from being compiled."""
    in_place = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: in_place(self, backend="eager"))  # quick to make
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    train(*MLP, "model.compile=true", "budget.value=24", outputs=tmp_path)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
