"""What options and tensors were called before is understood."""

from typing import Any

import pytest
import torch

from genlab.config.renamed_options import modern
from genlab.config.tree import ConfigTree
from genlab.model.renamed_weights import renamed

CLASSIFIER_FREE = {"_target_": "genlab.model.guidance.classifier_free.ClassifierFree", "strength": 2.0}
NONE = {"_target_": "genlab.model.guidance.none.NoGuidance"}
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
