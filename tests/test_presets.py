"""Debug presets go with every model and kind of data, and dry_run=true with every trainer that a machine has."""

import re
import time
from pathlib import Path

import pytest

from genlab.config.tree import ConfigTree, check_complete
from genlab.errors import ConfigError
from genlab.run.assemble import check_config
from test_lost_ranks import running
from text import text_file
from tiny_run import MLP, ON_A_BASE, REPOSITORY, start, train

TREE = ConfigTree()
GROUPS = TREE.groups()
OF_TEXT = ("transformer", "masked", "masked_language")
DRAWS_NOTHING = (
    "classifier", "contrastive", "contrastive_text", "image_reward", "jepa", "masked_language", "reward",
    "self_distillation",
)  # fmt: skip
PAIRS = [(model, data) for model in GROUPS["model"] for data in ("digits", "text_file")]
PRODUCT = [(preset, *pair) for preset in GROUPS["debug"] for pair in PAIRS if pair[1] == "digits" or pair[0] in OF_TEXT]


@pytest.mark.parametrize(("preset", "model", "data"), PRODUCT, ids=map("-".join, PRODUCT))
def test_every_preset_fits_every_model_on_every_kind_of_data(preset: str, model: str, data: str) -> None:
    given = ["data.path=x.txt"] * (data == "text_file")
    config = TREE.compose([f"debug={preset}", f"model={model}", f"data={data}", *given])
    part = {"latent_diffusion": "autoencoder", **dict.fromkeys(ON_A_BASE, "base")}.get(model)
    if part is not None:
        with pytest.raises(ConfigError, match=rf"model\.{part} has no value"):
            check_complete(config)
        return
    check_complete(config)
    check_config(config)
    if preset == "fast":
        shown = config.callbacks.get("samples")
        assert (shown is None) == (model in DRAWS_NOTHING)
        assert shown is None or (shown.times, shown.count) == (1, 4)


def test_what_is_typed_of_a_callback_that_is_not_there_is_still_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'callbacks.samples.times'"):
        TREE.compose(["debug=fast", "model=classifier", "callbacks.samples.times=1"])


def test_the_page_of_stylegan2_has_the_settings_of_its_presets() -> None:
    page = (REPOSITORY / "docs" / "stylegan2.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `stylegan2")]
    named = {name: row for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(named) == set(GROUPS["preset"])
    for name, row in named.items():
        config = TREE.compose([f"preset={name}", "data=cifar10"])
        check_config(config)
        cells = [cell.strip() for cell in row.split("|")]
        assert str(config.model.generator.channel_base) in cells[3]
        assert config.model.discriminator.channel_base == config.model.generator.channel_base
        gamma = config.model.objective.penalty.gamma
        assert ("side² / batch" if gamma is None else f"{gamma:g}") in cells[4]
        assert name == "stylegan2_cifar" or f"mapping of {config.model.generator.mapping_layers} layers" in cells[5]


SMALL = {"transformer": ("model.network.width=8", "model.network.depth=1", "model.network.num_heads=1"),
         "masked": ("model.network.width=8", "model.network.depth=1", "model.network.num_heads=1",
                    "model.sampler.num_steps=2"), "diffusion": MLP}  # fmt: skip


@pytest.mark.matrix
@pytest.mark.parametrize("preset", GROUPS["debug"])
@pytest.mark.parametrize("model", ["transformer", "masked", "classifier", "diffusion"])
def test_a_preset_trains_to_the_end(preset: str, model: str, tmp_path: Path) -> None:
    from genlab.command import train as train_command

    text = model in OF_TEXT
    data = text_file(tmp_path) if text else ("data=digits", "metrics/extractor=random")
    few = ["budget.value=160"] * (preset == "overfit")
    given = [f"debug={preset}", "trainer=cpu", f"model={model}", *data, *SMALL.get(model, ()), *few,
             f"metrics=[{'perplexity' if text else 'accuracy' if model == 'classifier' else 'fid'}]"]  # fmt: skip
    config = TREE.compose([*given, f"outputs={tmp_path / 'runs'}"])
    check_config(config)
    train_command.train(config, given)
    assert (Path(config.run_dir) / "summary.json").exists()


FSDP = ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.precision=32-true",
        "trainer.strategy.process_group_backend=gloo")  # fmt: skip


@pytest.mark.matrix
@pytest.mark.parametrize("trainer", [("trainer=ddp_cpu",), FSDP, ("trainer=auto",)], ids=["ddp", "fsdp", "auto"])
def test_check_passes_on_every_trainer_and_leaves_nothing(trainer: tuple[str, ...], tmp_path: Path) -> None:
    process = start(*MLP, *trainer, "dry_run=true", outputs=tmp_path)
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert out.count("dry run passed") == 1
    assert "one sample (1, 16, 16)" in out
    gone(tmp_path)
    assert not list(tmp_path.iterdir())


def gone(outputs: Path) -> None:
    for _ in range(100):
        if not running(outputs):
            return
        time.sleep(0.2)
    raise AssertionError(running(outputs))


@pytest.mark.matrix
def test_a_rank_whose_first_process_is_gone_before_it_looks_leaves(tmp_path: Path) -> None:
    """As long as torch is being imported nobody watches: it must not take who adopted it for the first process."""
    gone_pid = "999999999"
    process = start(*MLP, "trainer=ddp_cpu", outputs=tmp_path, GENLAB_RUN_DIR=str(tmp_path), LOCAL_RANK="1",
                    NODE_RANK="0", WORLD_SIZE="2", MASTER_PORT="1", MASTER_ADDR="127.0.0.1",
                    GENLAB_FIRST_PROCESS=gone_pid)  # fmt: skip
    process.communicate(timeout=120)
    assert process.returncode == 7
    gone(tmp_path)


def test_a_preset_trains_a_model_of_text(tmp_path: Path) -> None:
    """The cheapest of the product."""
    run = train("model=transformer", *text_file(tmp_path), *SMALL["transformer"], "debug=fast", "metrics=[perplexity]",
                outputs=tmp_path / "runs")  # fmt: skip
    assert list((run / "samples").glob("*.txt")) == []  # the test's own settings switch them off
    assert (run / "summary.json").exists()
