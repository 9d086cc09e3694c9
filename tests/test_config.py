"""Composing configs: which of two words wins, the user's own files, and what changes in a saved run."""

from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from genlab import cli
from genlab.config import files as config_files
from genlab.config import tree as tree_module
from genlab.config.tree import ConfigTree, check_complete, resolved
from genlab.errors import ConfigError
from genlab.run.assemble import check_config

SPEC = {"modality": "image", "shape": [1, 16, 16], "vocab_size": None,
        "condition": {"label": {"size": 10, "names": [str(i) for i in range(10)]}}}  # fmt: skip


@pytest.fixture
def tree() -> ConfigTree:
    return ConfigTree()


def saved(tree: ConfigTree, *overrides: str) -> dict[str, Any]:
    """The config of a run as it stands in its folder."""
    config = tree.compose(overrides)
    config.spec, config.run_dir, config.run_id = SPEC, "outputs/x", "x"
    return resolved(config)


def changed(tree: ConfigTree, then: list[str], now: list[str]) -> dict[str, Any]:
    return resolved(tree.change(saved(tree, *then), then, now))


def differences(a: Any, b: Any, path: str = "") -> set[str]:
    """Paths of what differs."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return set() if a == b else {path}
    keys = a.keys() | b.keys()
    return set().union(*(differences(a.get(k), b.get(k), f"{path}.{k}" if path else k) for k in keys))


# --- a command line ---------------------------------------------------------------------------------------------------


def test_groups_are_the_folders(tree: ConfigTree) -> None:
    groups = tree.groups()
    assert "dit" in groups["model/network"]
    assert "karras" in groups["model/sampler/grid"]
    assert "train" not in [option for options in groups.values() for option in options]


def test_a_nested_part_replaces_only_itself(tree: ConfigTree) -> None:
    before, after = (
        tree.compose(["model/sampler=heun"]),
        tree.compose(["model/sampler=heun", "model/sampler/grid=flow"]),
    )
    changes = differences(plain(before), plain(after))
    assert changes
    assert all(path.startswith("model.sampler.grid.") for path in changes)


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config)  # type: ignore[return-value]


def test_an_argument_that_the_yaml_leaves_out_can_be_set(tree: ConfigTree) -> None:
    assert tree.compose(["model/network=mlp", "model.network.patch_size=2"]).model.network.patch_size == 2


def test_a_further_callback_can_be_added_with_and_without_a_plus(tree: ConfigTree) -> None:
    for plus in ("", "+"):
        config = tree.compose([plus + "callbacks.timer={_target_: pytorch_lightning.callbacks.Timer}"])
        assert "timer" in config.callbacks
        assert "ema" in config.callbacks


def test_a_callback_can_be_left_out(tree: ConfigTree) -> None:
    assert "samples" not in tree.compose(["~callbacks.samples"]).callbacks


def test_the_data_choose_metrics_and_the_command_line_has_the_last_word(tree: ConfigTree) -> None:
    assert tree.compose(["data=digits"]).metrics.extractor._target_.endswith("DigitsFeatures")
    assert tree.compose(["data=cifar10"]).metrics.extractor._target_.endswith("Inception")
    chosen = tree.compose(["data=cifar10", "metrics=[kid]", "metrics/extractor=random", "evaluation.num_samples=7"])
    assert set(chosen.metrics) == {"kid", "extractor"}
    assert chosen.metrics.extractor._target_.endswith("RandomConv")
    assert chosen.evaluation.num_samples == 7


def test_no_metrics_and_no_logger(tree: ConfigTree) -> None:
    config = tree.compose(["metrics=[]", "logger=[]"])
    assert set(config.metrics) == {"extractor"}
    assert not config.get("logger")


def test_check_complete_names_the_option(tree: ConfigTree) -> None:
    check_complete(tree.compose([]))
    with pytest.raises(ConfigError, match=r"^data\.root has no value\. Set it: data\.root=/path/to/images$"):
        check_complete(tree.compose(["data=image_folder"]))
    check_complete(tree.compose(["data=image_folder", "data.root=x"]))


def test_cfg_prints_yaml_that_reads_back(capsys: pytest.CaptureFixture[str], tree: ConfigTree) -> None:
    cli.main(["train", "model/network=dit", "--cfg", "job"])
    assert yaml.safe_load(capsys.readouterr().out) == plain(tree.compose(["model/network=dit"]))


# --- the user's own files ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["configs", "it's my (own) configs, all"])
def user_dir(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    files = {
        "model/mine.yaml": "# Mine.\ndefaults:\n  - diffusion\n  - override network: dit\n  - _self_\nguidance: 3.0\n",
        "model/network/tiny.yaml": "# Tiny.\ndefaults:\n  - mlp\n  - _self_\nwidth: 8\n",
        "data/pictures.yaml": "# @package _global_\n# Pictures.\ndefaults:\n  - image_folder\n  - _self_\ndata:\n"
        "  root: /pictures\nevaluation:\n  num_samples: 11\n",
        "trainer/cpu.yaml": "# Not the packaged one.\ndefaults:\n  - auto\n  - _self_\naccelerator: cpu\ndevices: 3\n",
        "experiment/first.yaml": "# @package _global_\n# First.\ndefaults:\n  - override /data: pictures\n"
        "  - override /model/network: tiny\n  - override /metrics: [kid]\nmodel:\n  guidance: 2.0\nseed: 5\n",
    }
    for name, text in files.items():
        path = tmp_path / request.param / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / request.param


def test_own_files_are_options_beside_the_packaged_ones_and_win(user_dir: Path) -> None:
    tree = ConfigTree(str(user_dir))
    assert {"mine", "diffusion"} <= set(tree.groups()["model"])
    config = tree.compose(["model=mine", "data=pictures", "trainer=cpu"])
    assert config.model.guidance.strength == 3.0
    assert config.model.network._target_.endswith("DiT")
    assert (config.data.root, config.evaluation.num_samples, config.trainer.devices) == ("/pictures", 11, 3)
    assert ("tiny", "genlab.model.network.mlp.MLP") in tree.targets("model.network")


def test_a_package_in_an_odd_place_is_found(user_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packaged = tmp_path / "it's, odd (x)"
    packaged.symlink_to(tree_module.PACKAGED)
    monkeypatch.setattr(tree_module, "PACKAGED", packaged)
    assert ConfigTree(str(user_dir)).compose(["model=mine"]).model.guidance.strength == 3.0


def test_command_line_over_experiment_over_data(user_dir: Path) -> None:
    tree = ConfigTree(str(user_dir))
    recipe = tree.compose(["experiment=first"])
    assert set(recipe.metrics) == {"kid", "extractor"}  # data=pictures would have chosen fid too
    assert (recipe.model.network.width, recipe.model.guidance.strength, recipe.seed) == (8, 2.0, 5)
    typed = tree.compose(
        ["experiment=first", "metrics=[precision_recall]", "model.guidance=1.5", "data=digits", "seed=1"]
    )
    assert set(typed.metrics) == {"precision_recall", "extractor"}
    assert (typed.model.guidance.strength, typed.seed) == (1.5, 1)
    assert typed.data._target_.endswith("Digits")


# --- a saved run ------------------------------------------------------------------------------------------------------


def test_nothing_typed_changes_nothing(tree: ConfigTree) -> None:
    then = ["model/network=mlp", "model.network.width=16", "data.flip=true"]
    assert changed(tree, then, []) == saved(tree, *then)


def test_a_value_changes_alone_and_a_new_argument_is_accepted(tree: ConfigTree) -> None:
    before = saved(tree)
    now = ["model.condition_dropout=0.2", "model.network.dropout=0.3", "evaluation.seed=1", "data.limit=5"]
    assert differences(before, changed(tree, [], now)) == {option.split("=")[0] for option in now}


def test_another_sampler_keeps_the_rest_and_forgets_what_was_typed_for_the_old_one(tree: ConfigTree) -> None:
    then = ["model/sampler=ddim", "model.sampler.eta=0.5", "model.sampler.num_steps=7", "model.optimizer.lr=1"]
    after = changed(tree, then, ["model/sampler=heun", "model.sampler.num_steps=3"])
    assert all(path.startswith("model.sampler") for path in differences(saved(tree, *then), after))
    assert after["model"]["sampler"]["num_steps"] == 3
    assert "eta" not in after["model"]["sampler"]
    assert (
        after["model"]["sampler"] == saved(tree, "model/sampler=heun", "model.sampler.num_steps=3")["model"]["sampler"]
    )


def test_another_network_reads_the_saved_spec(tree: ConfigTree) -> None:
    after = changed(tree, ["model/network=mlp", "model.network.width=16"], ["model/network=dit"])
    assert after["model"]["network"]["_target_"].endswith("DiT")
    assert after["model"]["network"]["shape"] == [1, 16, 16]
    assert after["model"]["network"]["width"] != 16


def test_other_metrics_replace_them_and_keep_the_extractor(tree: ConfigTree) -> None:
    for then in ([], ["metrics=[precision_recall]"], ["metrics/extractor=random"]):
        before, after = saved(tree, *then), changed(tree, then, ["metrics=[fid,kid]"])
        assert set(after["metrics"]) == {"fid", "kid", "extractor"}
        assert after["metrics"]["extractor"] == before["metrics"]["extractor"]


def test_other_data_bring_their_metrics_and_evaluation(tree: ConfigTree) -> None:
    then = ["data=digits", "data.batch_size=16", "model.guidance=2.0"]
    after = changed(tree, then, ["data=cifar10"])
    assert after["data"]["_target_"].endswith("Cifar10")
    assert after["data"]["batch_size"] == 128
    assert after["metrics"] == saved(tree, "data=cifar10")["metrics"]
    assert after["evaluation"]["num_samples"] == 10_000
    assert after["model"] == saved(tree, *then)["model"]


def test_another_budget_and_trainer(tree: ConfigTree) -> None:
    after = changed(tree, ["budget.value=100"], ["budget=seconds", "budget.value=9", "trainer=gpu"])
    assert after["budget"] == {"_target_": "genlab.budget.Seconds", "value": 9}
    assert after["trainer"]["accelerator"] == "gpu"


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ("model.optimzer.lr=2", "unknown option 'model.optimzer.lr'. Did you mean 'model.optimizer.lr'?"),
        ("model.compile.x=2", "unknown option 'model.compile.x': model.compile is a single value."),
        ("modle.guidance=2", "unknown option 'modle.guidance'. Did you mean 'model.guidance'?"),
        ("spec.shape=[1,8,8]", "spec.shape cannot be set: the run fills it in."),
        ("~model.guidance", "~model.guidance: nothing can be deleted from a saved run's config."),
        ("seed=3", "seed: a run keeps its seed, which its data order and noise depend on. Start a new run."),
    ],
)
def test_what_a_saved_run_refuses(tree: ConfigTree, now: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        tree.change(saved(tree), [], [now])
    assert str(refused.value) == line


def test_a_misspelt_argument_of_a_saved_run_is_found_by_its_constructor(tree: ConfigTree) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'model\.guidance'\?"):
        check_config(tree.change(saved(tree), [], ["model.guidanse=2"]))


# --- files are read once ----------------------------------------------------------------------------------------------

LINES = [
    ("model.sampler.num_steps=3", "model=diffusion", "data.batch_size=7", "model/network=dit"),
    ("debug=overfit", "logger=[none]", "+callbacks.mine={_target_: genlab.callbacks.Progress}", "~callbacks.samples",
     "trainer.max_time='00:00:01'", "evaluation.num_samples=${data.batch_size}"),
]  # fmt: skip


@pytest.mark.parametrize("lines", LINES)
def test_values_put_into_kept_choices_give_what_hydra_composes(lines: tuple[str, ...], tree: ConfigTree) -> None:
    tree.compose([line for line in lines if "." not in line])  # now they are kept
    ours = tree.compose(lines)
    kept = {line for line in lines if line.partition("=")[0] in tree.groups() or line[0] in "+~"}
    with tree.files.hydra():
        whole = hydra.compose("train", [line if line in kept else f"++{line}" for line in lines])
    for name in list(whole.callbacks):  # a debug preset speaks of callbacks that are not there
        if "_target_" not in whole.callbacks[name]:
            OmegaConf.set_struct(whole, False)
            del whole.callbacks[name]
    assert OmegaConf.to_container(ours) == OmegaConf.to_container(whole)
    assert tree.compose(lines[::-1]) == ours


def test_a_config_is_nobody_elses(tree: ConfigTree) -> None:
    first = tree.compose(["data.batch_size=7"])
    first.data.batch_size, first.callbacks = 9, {}
    assert tree.compose(["data.batch_size=7"]).data.batch_size == 7
    assert tree.compose([]).callbacks


def test_choices_are_composed_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = []
    monkeypatch.setattr(config_files, "compose", lambda *told, **asked: composed.append(told) or OmegaConf.create({}))
    (tmp_path / "data").mkdir()
    for _ in range(20):  # by whoever reads these folders
        files = config_files.config_files((tmp_path, config_files.PACKAGED), "train")
        files.choose(("data=digits",))
    assert len(composed) == 1
    (tmp_path / "data/mine.yaml").write_text("root: x")
    assert "mine" in files.groups()["data"]
    files.choose(("data=digits",))
    files.choose(("data=mine",))
    assert len(composed) == 3
