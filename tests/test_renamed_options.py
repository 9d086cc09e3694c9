"""What options and tensors were called before is understood."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.config.renamed_options import modern
from genlab.config.tree import ConfigTree
from genlab.former_names import OPTIONS, current_metrics, current_number, current_option
from genlab.model.renamed_weights import renamed

CLASSIFIER_FREE = {"_target_": "genlab.model.guidance.classifier_free.ClassifierFree", "strength": 2.0}
NONE = {"_target_": "genlab.model.guidance.none.NoGuidance"}
EACH = {"_target_": "genlab.model.guidance.each.EachCondition", "strength": 2.0}
INTERVAL = {"_target_": "genlab.model.guidance.interval.Interval", "strength": 2.0, "low": 0.1, "high": 3.0}
CONDITION = {"label": {"size": 10, "names": ["a"], "empty": []}, "caption": {"size": None}}


def composed(*typed: str) -> Any:
    return ConfigTree().compose(typed).model


@pytest.mark.parametrize(("typed", "guidance"), [
    (["model.guidance=2.0"], CLASSIFIER_FREE), (["model.guidance=2"], {**CLASSIFIER_FREE, "strength": 2}),
    (["model.guidance=1"], NONE), ([], NONE), (["model.guidance=2.0", "model.guidance_interval=[0.1,3.0]"], INTERVAL),
    (["model/guidance=classifier_free"], CLASSIFIER_FREE),
    (["model/guidance=interval", "model.guidance.low=0.1", "model.guidance.high=3.0"], INTERVAL),
    (["model/guidance=interval", "model.guidance=3.0"], {**INTERVAL, "strength": 3.0, "low": 0.0, "high": 1.0}),
    (["model/guidance=each", "model.guidance=3.0"], {**EACH, "strength": 3.0}),
])  # fmt: skip
def test_guidance_as_a_number(typed: list[str], guidance: Any) -> None:
    assert composed(*typed).guidance == guidance


def test_what_is_typed_by_its_old_name() -> None:
    model = composed("model.num_classes=null", "model.network.num_classes=null", "model.label_dropout=0.2")
    assert (model.conditions, model.condition_dropout) == ([], 0.2)
    assert not {"num_classes", "label_dropout"} & set(model)
    assert "num_classes" not in model.network
    assert composed("model.num_classes=7")._get_node("told") == {"label": {"size": 7, "names": [], "empty": []}}


def test_a_saved_run_of_before() -> None:
    network = {"_target_": "genlab.model.network.unet.UNet", "num_classes": 10, "channels": 8}
    mine = {"_target_": "my.Net", "num_classes": 10}
    before = {"_target_": "genlab.model.diffusion.Diffusion", "num_classes": 10, "label_dropout": 0.1, "guidance": 1.0,
              "guidance_interval": None, "network": network}  # fmt: skip
    now = modern({"model": before, "spec": {"condition": CONDITION}})["model"]
    assert now == {"_target_": before["_target_"], "told": CONDITION, "condition_dropout": 0.1, "guidance": NONE,
                   "network": {"_target_": network["_target_"], "channels": 8}}  # fmt: skip
    assert modern({"model": now, "spec": {"condition": CONDITION}})["model"] == now, "what is new stays"
    kept = modern({"model": {**before, "network": mine}, "spec": {"condition": CONDITION}})["model"]["network"]
    assert kept == mine, "a network of a user's own is told as it was"
    vae = {"_target_": "genlab.model.vae.VAE", "num_classes": 3}
    nested = modern({"model": {**before, "autoencoder": vae}, "spec": {"condition": CONDITION}})["model"]["autoencoder"]
    assert nested["told"]["label"]["size"] == 3, "a part knows what it was trained on"
    judge = {"_target_": "genlab.model.classifier.Classifier", "num_classes": 10}
    assert modern({"model": judge})["model"] == judge


def test_a_strength_that_is_typed_leaves_an_interval_as_it_is() -> None:
    saved = {"model": {"_target_": "genlab.model.diffusion.Diffusion", "guidance": INTERVAL}}
    changed = ConfigTree().change(saved, [], ["model.guidance=4.0"])
    assert changed.model.guidance == {**INTERVAL, "strength": 4.0}
    assert ConfigTree().change(saved, [], ["model.guidance_interval=[1.0,2.0]"]).model.guidance == {
        **INTERVAL, "low": 1.0, "high": 2.0}  # fmt: skip


def test_tensors_by_their_old_names() -> None:
    own = torch.nn.ModuleDict({"told": torch.nn.ModuleDict({"label": torch.nn.Linear(1, 1)}),
                               "mine": torch.nn.ModuleDict({"label": torch.nn.Linear(1, 1)})}).state_dict()  # fmt: skip
    before = {name.replace("told.label", "label"): value for name, value in own.items()}
    assert before.keys() != own.keys()
    assert renamed(before, own).keys() == own.keys(), "and what a user calls a label is left alone"


def test_a_run_of_before_has_a_task() -> None:
    """Its data say which, and its evaluation what the task takes now; values for another task are left out."""
    evaluation = {"_target_": "E", "num_samples": 8, "balanced_classes": False, "prompt_length": 4}
    now = modern({"evaluation": evaluation, "spec": {"modality": "text"}})
    assert now["evaluation"] == {"_target_": "E", "num_samples": 8}
    assert now["task"] == {"_target_": "genlab.task.continue_text.ContinueText", "prompt_length": 4}
    images = modern({"evaluation": evaluation | {"prompt_length": 0, "balanced_classes": True}})
    assert images["task"] == {"_target_": "genlab.task.generate.Generate", "balanced_classes": True}
    assert modern(now) == now
    typed = ConfigTree().compose(["data=digits", "evaluation.balanced_classes=true"])
    assert typed.task.balanced_classes is True
    assert "balanced_classes" not in typed.evaluation


@pytest.mark.parametrize(("typed", "now"), [
    ("metrics=[fid,prc,nearest]", "metrics=[fid,precision_recall,nearest_neighbor]"), ("metrics=isc", None),
    ("metrics.nearest.closest=7", "metrics.nearest_neighbor.closest=7"), ("metrics=[mine,dc]", "metrics=[mine,dc]"),
    ("+metrics.dc.neighborhood=3", "+metrics.dc.neighborhood=3"), ("metrics.ppl_pixels.num_samples=8", None),
    ("metrics/extractor=inception", "metrics/extractor=inception"), ("~metrics.prc", "~metrics.precision_recall"),
    ("metrics.prc_like.x=1", "metrics.prc_like.x=1"), ("data.path=metrics.ppl.x", "data.path=metrics.ppl.x"),
])  # fmt: skip
def test_metrics_are_typed_by_their_old_names(typed: str, now: str | None) -> None:
    """``dc`` is here a metric of the user's own."""
    wanted = {"metrics=isc": "metrics=inception_score"}.get(typed, typed.replace("ppl_pixels", "path_length_pixels"))
    assert current_option(typed, {"fid", "dc", *OPTIONS.values()}) == (now or wanted)


def test_old_names_of_options_are_composed_and_read() -> None:
    typed = ["model=vae", "data=digits", "metrics=[dc,nearest]", "metrics.nearest.closest=7", "check=true"]
    config = ConfigTree().compose([*typed, "model.warmup=0.3", "model.schedule.warmup=64"])
    assert sorted(config.metrics) == ["density_coverage", "extractor", "nearest_neighbor"]
    assert (config.metrics.nearest_neighbor.closest, config.dry_run, config.model.kl_warmup) == (7, True, 0.3)
    assert config.model.schedule.warmup == 64, "which has always been the learning rate's"
    assert "check" not in config
    assert "warmup" not in config.model
    saved = {"check": False, "metrics": {"prc": {"_target_": "genlab.metrics.precision_recall.PrecisionRecall"}},
             "model": {"_target_": "genlab.model.vae.VAE", "warmup": 0.1}}  # fmt: skip
    now = modern(saved)
    assert (now["dry_run"], list(now["metrics"]), now["model"]["kl_warmup"]) == (False, ["precision_recall"], 0.1)
    assert "check" not in now
    assert saved["metrics"].keys() == {"prc"}, "what was given is left as it was"
    assert current_metrics({"dc": {"_target_": "my.DC"}}) == {"dc": {"_target_": "my.DC"}}, "a user's own"
    changed = ConfigTree().change(now, ["metrics=[prc]"], ["metrics=[prc,nearest]"])
    assert sorted(changed.metrics) == ["nearest_neighbor", "precision_recall"]


def test_a_users_file_may_choose_metrics_by_their_old_names(tmp_path: Path) -> None:
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: vae\n  - override /data: digits\n"
        "  - override /metrics: [fid, nearest]\nmetrics:\n  nearest:\n    closest: 3\nmodel:\n  warmup: 0.7\n"
    )
    config = ConfigTree(str(tmp_path / "configs")).compose(["experiment=mine"])
    assert sorted(config.metrics) == ["extractor", "fid", "nearest_neighbor"]
    assert config.metrics.nearest_neighbor.closest == 3
    assert config.metrics.nearest_neighbor._target_.endswith("NearestNeighbor")
    assert config.model.kl_warmup == 0.7


@pytest.mark.parametrize(("then", "now"), [
    ("as_asked_1k", "label_accuracy_1k"), ("val/as_asked_500", "val/label_accuracy_500"), ("isc", "inception_score"),
    ("isc_std_inception_1k", "inception_score_std_inception_1k"), ("best/val", "best/val"), ("fid_x_1k", "fid_x_1k"),
    ("ppl_lpips_1k", "path_length_lpips_1k"), ("iscariot", "iscariot"), ("pplx", "pplx"),
])  # fmt: skip
def test_numbers_by_their_old_names(then: str, now: str) -> None:
    assert current_number(then) == now
    assert current_number(now) == now
