"""Former names of options: accepted on the command line, in a user's files and in saved runs."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from genlab.former_names import current_metrics, current_option

_FAMILIES, _CLASSIFIER = "genlab.model.", "genlab.model.classifier.Classifier"
_WITH_KL = ("genlab.model.vae.VAE", "genlab.model.hierarchical_vae.HierarchicalVAE")
_NETWORKS = "genlab.model.network."  # networks get these values from the family that makes them
_GUIDANCE = {
    "none": "genlab.model.guidance.none.NoGuidance",
    "classifier_free": "genlab.model.guidance.classifier_free.ClassifierFree",
    "interval": "genlab.model.guidance.interval.Interval",
}
_TASKS = ("genlab.task.generate.Generate", "genlab.task.continue_text.ContinueText")
_OF_TASKS = ("balanced_classes", "prompt_length")  # options of one task each, formerly of the evaluation
_CONDITION, _OLD_CLASSES = "${spec.condition}", "${model.num_classes}"
_LABELS = "${spec.condition.label.size}"


def with_new_names(config: DictConfig, before: DictConfig | None = None) -> DictConfig:
    """``config`` in place: its model's ``num_classes``, ``label_dropout``, ``guidance`` (a number) and
    ``guidance_interval`` by their current names. ``before``: the same without typed options, whose interval of
    guidance is kept where only a strength is typed.

    ``num_classes=null`` becomes ``conditions=[]``, a number the size of the label condition; those of networks are
    removed.
    """
    _with_task(config)
    _with_metrics(config)
    model = _model_of(config)
    now = modern({"model": model, "spec": _plain_node(config, "spec")}, {} if before is None else _model_of(before))[
        "model"
    ]
    if now != model:
        with open_dict(config):
            config.model = now
    return config


def modern(config: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A run's plain config in its current form. ``before``: see :func:`with_new_names`; its model."""
    config = _task_of(config)
    if "check" in config:
        config["dry_run"] = config.pop("check")
    if isinstance(config.get("metrics"), dict):
        config["metrics"] = current_metrics(config["metrics"])
    if not isinstance(config.get("model"), dict):
        return dict(config)
    spec = config.get("spec")
    condition = spec.get("condition") if isinstance(spec, Mapping) else None
    was = (before or {}).get("guidance")
    model = deepcopy(config["model"])
    _rename(model, condition if isinstance(condition, Mapping) else None, was if isinstance(was, Mapping) else {})
    return with_places({**config, "model": model})


def with_places(config: dict[str, Any]) -> dict[str, Any]:
    """``pretrained`` by paths, each with a place and a hash. Formerly it had the folders of runs by the names of parts,
    whose weights were in checkpoints, and a classifier used by metrics had its ``run`` beside it."""
    pretrained = config.get("pretrained")
    if not isinstance(pretrained, dict):
        return config
    found = {
        f"model.{name}" if isinstance(entry, str) else name: {"where": entry, "sha256": None}
        if isinstance(entry, str)
        else entry
        for name, entry in pretrained.items()
    }
    metrics = config.get("metrics")
    extractor = metrics.get("extractor") if isinstance(metrics, dict) else None
    if isinstance(metrics, dict) and isinstance(extractor, dict) and "run" in extractor and "model" in extractor:
        found["metrics.extractor.model"] = {"where": extractor["run"], "sha256": "???"}
        kept = {name: value for name, value in extractor.items() if name != "run"}
        config = {**config, "metrics": {**metrics, "extractor": kept}}
    return {**config, "pretrained": found}


def _task_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The task of an older run, which had none: it follows from the data, and its options from the evaluation."""
    config = dict(config)
    evaluation = config.get("evaluation")
    if not isinstance(evaluation, dict) or ("task" in config and not any(name in evaluation for name in _OF_TASKS)):
        return config
    evaluation = dict(evaluation)
    options = {name: evaluation.pop(name) for name in _OF_TASKS if name in evaluation}
    spec = config.get("spec")
    is_text = isinstance(spec, Mapping) and spec.get("modality") == "text"
    task = dict(config["task"]) if isinstance(config.get("task"), dict) else {"_target_": _TASKS[is_text]}
    own = _OF_TASKS[task.get("_target_") == _TASKS[True]]
    task |= {name: value for name, value in options.items() if value or name == own}
    return config | {"evaluation": evaluation, "task": task}


def _with_task(config: DictConfig) -> None:
    plain = {name: _plain_node(config, name) for name in ("evaluation", "task", "spec")}
    now = _task_of({name: node for name, node in plain.items() if node is not None})
    with open_dict(config):
        for name in ("evaluation", "task"):
            if now.get(name) != plain[name]:
                config[name] = now[name]


def by_current_names(override: str, metrics: Collection[str]) -> str:
    """What is typed, with options that have no node of their own by their names of today. ``metrics``: those that can
    be chosen."""
    name, equals, value = override.partition("=")
    return f"dry_run={value}" if name == "check" and equals else current_option(override, metrics)


def _with_metrics(config: DictConfig) -> None:
    """What a user's files say by former names."""
    with open_dict(config):
        if "check" in config:
            config.dry_run = config.pop("check")
        if (metrics := _plain_node(config, "metrics")) is not None and (now := current_metrics(metrics)) != metrics:
            config.metrics = now


def _plain_node(config: DictConfig, name: str) -> Any:
    node = config._get_node(name) if name in config else None
    return OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else None


def _model_of(config: DictConfig) -> dict[str, Any]:
    node = config._get_node("model") if "model" in config else None
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return {}
    return OmegaConf.to_container(node, resolve=False)  # type: ignore[return-value]


def _rename(node: dict[str, Any], condition: Mapping[str, Any] | None, was: Mapping[str, Any]) -> None:
    for child in node.values():
        if isinstance(child, dict):
            _rename(child, condition, {})
    target = str(node.get("_target_", ""))
    if target.startswith(_NETWORKS):
        node.pop("num_classes", None)
    elif target.startswith(_FAMILIES) and target.count(".") == _CLASSIFIER.count(".") and target != _CLASSIFIER:
        _rename_classes(node, condition)
        if target in _WITH_KL and "warmup" in node:
            node["kl_warmup"] = node.pop("warmup")
        if "label_dropout" in node:
            node["condition_dropout"] = node.pop("label_dropout")
        _rename_guidance(node, was)
    elif node.get("num_classes") == _OLD_CLASSES:
        node["num_classes"] = _LABELS  # the user's own network


def _rename_classes(node: dict[str, Any], condition: Mapping[str, Any] | None) -> None:
    if "num_classes" not in node:
        return
    classes = node.pop("num_classes")
    if classes is None:
        node["conditions"] = []
    label = (condition or {}).get("label")
    if type(classes) is int and not (isinstance(label, Mapping) and label.get("size") == classes):
        node["told"] = {"label": {"size": classes, "names": [], "empty": []}}
    elif "told" not in node:
        node["told"] = _CONDITION if condition is None else deepcopy(dict(condition))


def _rename_guidance(node: dict[str, Any], was: Mapping[str, Any]) -> None:
    value, ends = node.get("guidance"), node.pop("guidance_interval", None)
    is_number = type(value) in (int, float)
    if not is_number and ends is None:
        return
    now = value if isinstance(value, Mapping) else was
    strength = value if is_number else now.get("strength", 1.0)
    if isinstance(ends, list) and len(ends) == 2:
        node["guidance"] = {"_target_": _GUIDANCE["interval"], "strength": strength, "low": ends[0], "high": ends[1]}
    elif "strength" in now and now["_target_"] != _GUIDANCE["classifier_free"]:
        node["guidance"] = {**now, "strength": strength}
    elif strength == 1:
        node["guidance"] = {"_target_": _GUIDANCE["none"]}
    else:
        node["guidance"] = {"_target_": _GUIDANCE["classifier_free"], "strength": strength}
