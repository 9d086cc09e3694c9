"""``genlab evaluate``: measure a run again, or a set of images without a model, and print the numbers."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from genlab.checkpoint import read
from genlab.config.differences import differences
from genlab.config.tree import resolved
from genlab.data.base import DataModule
from genlab.data.given import GivenImages
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import ConfigError, DataError
from genlab.evaluation.evaluation import Evaluation
from genlab.evaluation.failures import raise_first
from genlab.evaluation.protocol import Result
from genlab.files.atomic import prepare_file
from genlab.files.paths import read_path
from genlab.machine.quick_cpu import quick_cpu
from genlab.model.base import GenerativeModel, Model
from genlab.redaction import for_terminal
from genlab.run import run_folder
from genlab.run.assemble import build_data, build_evaluation, load_tokenizer
from genlab.run.cpu_choice import of_run
from genlab.run.judge import load_judge
from genlab.run.load import load_run
from genlab.sampling.best_of import BestOf
from genlab.sampling.examples import Examples
from genlab.sampling.pictures import save_pictures


def evaluate_run(
    config: DictConfig, run: Path, n: int | None, baselines: bool, likelihood: int, best_of: int | None = None,
    judge: str | None = None,
) -> None:  # fmt: skip
    """Measure a run, print a table and keep it as ``evaluation-<protocol>.json`` in the run folder.

    With ``best_of`` and ``judge``, samples are the best of so many candidates. If sampling settings differ from the
    run's own, the file lists them, and its name ends with a hash of them.
    """
    prepare_file(run / "evaluation.json")
    before = {"model": run_folder.read_config(run)["model"]}
    changed = {path: now for path, (_, now) in differences(before, {"model": resolved(config)["model"]}).items()}
    if likelihood:
        node = {"_target_": "genlab.metrics.bits_per_dim.BitsPerDim", "num_images": likelihood}
        with open_dict(config):
            config.metrics.bits_per_dim = OmegaConf.merge(config.metrics.get("bits_per_dim") or {}, node)
    if n is not None:
        config.evaluation.num_samples = n
    data = build_data(config, run)
    evaluation = build_evaluation(resolved(config), run)
    model, weights = load_run(config, run)
    if data.tokenizer is not None:
        last = read.newest(run)
        read.check_same_tokenizer(last, data.tokenizer, run)
        load_tokenizer(resolved(config), last, run)
    if best_of is not None:
        assert judge is not None
        changed |= _choose(model, resolved(config)["spec"], run, best_of, judge)
    if baselines and not evaluation.metrics:
        _raise_no_baselines(model, evaluation, data)
    with quick_cpu(model.device.type == "cpu", **of_run(config)):
        result = evaluation.run(model, data, weights=weights)
    others: dict[str, Result] = {}
    if baselines:
        assert isinstance(model, GenerativeModel), "the evaluation measured samples"
        task = evaluation.on(data).sized(evaluation.num_samples, model)
        for name, examples in task.baselines(evaluation.num_samples, evaluation.seed).items():
            others[name] = evaluation.score(examples, data, evaluation.device_of(model))
    print(for_terminal(table({**rows("this run", result), **{name: other.values for name, other in others.items()}})))
    suffix = f"-{hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]}" if changed else ""
    path = run / f"evaluation-{result.protocol_id}{suffix}.json"
    report = {
        **result.report(),
        "examples": model.progress.examples,
        "changed": changed,
        "baselines": {name: other.values for name, other in others.items()},
    }
    run_folder.write_text(path, json.dumps(report, indent=2))
    print(for_terminal(f"protocol {result.protocol_id}: {path}"))
    for picture in save_pictures(result.pictures, run, f"{result.protocol_id}{suffix}"):
        print(for_terminal(f"picture: {picture}"))
    raise_first(result.failures, path)


def _choose(model: Model, spec: Mapping[str, Any], run: Path, count: int, judge: str) -> dict[str, str]:
    """Have the model draw the best of ``count`` candidates. -> what to note of it. Raises ConfigError: it draws no
    pictures for what the judge looks at."""
    found = load_judge(judge, spec, run)
    known = model.conditions.kinds if isinstance(model, GenerativeModel) and spec["modality"] == "image" else {}
    if missing := [key for key in found.reads if key not in known]:
        raise ConfigError(
            f"judge={judge} looks at the {missing[0]} that a picture is asked for, and {run} is asked for none. Leave "
            "best_of= and judge= out."
        )
    assert isinstance(model, GenerativeModel)
    model.drawn_by = BestOf(model, count, found)
    return model.drawn_by.facts()


def _raise_no_baselines(model: Model, evaluation: Evaluation, data: DataModule) -> NoReturn:
    if not isinstance(model, GenerativeModel):
        raise ConfigError(
            f"baselines=true: baselines replace samples, and a {type(model).__name__} draws none. Leave it out."
        )
    remedy = f"Choose {evaluation.on(data).of_samples}."
    raise ConfigError(f"baselines=true: baselines are scored like samples, and no metric here measures any. {remedy}")


def evaluate_images(
    config: DictConfig,
    images: str,
    reference: str | None,
    out: str | None,
    image_key: str | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
    reference_key: str | None = None,
) -> None:
    """Measure a folder of images, or a .npy or .npz file, against another or against a split of the config's data.
    ``image_key`` and ``on_bad``: as of :class:`genlab.data.given.GivenImages`; ``reference_key``: the same of
    ``reference``.

    Raises:
        ConfigError: a metric needs a model, or data that are not there; ``out`` is not a .json file.
        DataError: there are no images, or the two are not of one shape.
        StorageError: ``out`` cannot be written.
    """
    if out is not None:
        if read_path(out).suffix.lower() != ".json":
            raise ConfigError(f"out={out}: the numbers go into a .json file. Use out={out.rstrip('/')}.json")
        prepare_file(read_path(out))
    if on_bad == "stop":
        on_bad = config.data.get("on_bad", "stop")  # files compared with data of files are treated alike
    data = _reference(config, reference, reference_key, on_bad)
    if reference is not None:
        config.evaluation.reference = "train"
    channels: Any = data.spec.shape[0]
    given = GivenImages(
        images, _size(config), channels, config.data.get("cache_dir"), image_key, on_bad, config.data.get("bits", 8)
    )
    config.spec, config.run_dir, config.run_id = data.spec.to_config(), "", ""
    evaluation = build_evaluation(resolved(config))
    if evaluation.of_models:
        raise ConfigError(
            f"metrics={next(iter(evaluation.of_models))} needs a model, and images={images} have none. "
            "Leave it out of metrics=[...]."
        )
    table_, theirs = _read(given, config), data.table(evaluation.reference)
    labels = None
    if table_.labels is not None and table_.names == theirs.names:
        labels = torch.from_numpy(table_.labels)
    given_examples = Examples.of(image=torch.from_numpy(table_.images), label=labels)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with quick_cpu(device == "cpu", **of_run(config)):
        result = evaluation.score(given_examples, data, device, full=True)
    print(for_terminal(table(rows(read_path(images).name, result))))
    if out is not None:
        where = reference or OmegaConf.to_container(config.data)
        report = {**result.report(), "images": images, "reference": where}
        run_folder.write_text(read_path(out), json.dumps(report, indent=2))
    print(for_terminal(f"protocol {result.protocol_id}" + (f": {out}" if out else "")))


def _read(given: GivenImages, config: DictConfig) -> ImageTable:
    """All given images. Raises DataError, whose remedy uses this command's options: data of another kind do not take
    options for files."""
    try:
        return given.table("train")
    except DataError as error:
        message = re.sub(r"data\.(image_key|on_bad)\b", r"\1", str(error))
        option = re.search(r" Set data\.(image_size|bits)=.*", message)
        if option is not None and option[1] not in config.data:
            message = message.removesuffix(option[0]) + " Make them like the data, or name files: reference=<folder>."
        raise DataError(message) from error


def _size(config: DictConfig) -> Any:
    size = config.data.get("image_size")
    return tuple(size) if OmegaConf.is_list(size) else size


def _reference(
    config: DictConfig, reference: str | None, image_key: str | None, on_bad: Literal["stop", "skip"]
) -> ImageDataModule:
    if reference is not None:
        node = config.data
        return GivenImages(reference, _size(config), node.channels, node.cache_dir, image_key, on_bad, node.bits)
    data = build_data(config)
    if not isinstance(data, ImageDataModule):
        raise ConfigError(f"images can only be compared with images; the data are {data.spec.modality}.")
    return data


def rows(name: str, result: Result) -> dict[str, dict[str, float]]:
    """The numbers, and below them their uncertainties."""
    found = {name: result.values}
    if result.deviations:
        found[f"± over {len(result.protocol['seed'])} seeds"] = result.deviations
    if result.errors:
        found["± by resampling"] = result.errors
    return found


def table(rows: dict[str, dict[str, float]]) -> str:
    """A table with one line per name and one column per metric."""
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    if not columns:
        return "Nothing was measured: no metric is chosen. Choose one or more, such as metrics=[fid]."
    left = max(len(name) for name in rows)
    lines = [" " * left + "".join(f"  {name:>{max(10, len(name))}}" for name in columns)]
    for name, values in rows.items():
        cells = (f"{values[c]:.4f}" if c in values else "" for c in columns)
        widths = (max(10, len(c)) for c in columns)
        lines.append(
            name.ljust(left) + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        )
    return "\n".join(lines)
