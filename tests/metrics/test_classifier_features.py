"""A classifier of one's own data, in one command; and what it then says of others' samples."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.config.tree import ConfigTree
from genlab.data.digits import Digits
from genlab.data.image import to_float
from genlab.errors import CheckpointError, ConfigError, DataError
from genlab.metrics.extractor.classifier import ClassifierFeatures
from genlab.run import run_folder
from genlab.run.assemble import build_evaluation, build_extractor, check_config
from genlab.run.load import load_run
from genlab.trust.own_runs import seal
from tiny_run import resume, small, train

SPEC = {"modality": "image", "shape": [1, 16, 16]}
FAST = ("model=classifier", "data=digits", "trainer=cpu", "logger=[none]", "model.network.channels=8",
        "model.schedule.warmup=500", "callbacks.evaluation.times=0", "data.batch_size=32")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that has learned, as far as it can in a few seconds."""
    outputs = tmp_path_factory.mktemp("classifier")
    command_line(["train", *FAST, "budget.value=5000", f"outputs={outputs}"])
    (folder,) = outputs.glob("classifier-digits/*")
    return folder


def extractor(run: Path) -> ClassifierFeatures:
    config = ConfigTree().compose(["model=gan", f"metrics.extractor={run}"])
    check_config(config)
    plain: Any = OmegaConf.to_container(config)
    found = build_extractor(plain["metrics"]["extractor"], plain | {"spec": SPEC})
    assert isinstance(found, ClassifierFeatures)
    return found


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(Digits().table("val").images)


# --- training ---------------------------------------------------------------------------------------------------------


def test_it_learns(run: Path) -> None:
    found = json.loads((run / "summary.json").read_text())["metrics"]
    assert found["accuracy_val"] >= 0.9
    assert found["cross_entropy_val"] < 0.7


def test_the_end_of_a_run_says_what_it_is_good_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(*small("model=classifier"), "metrics=[accuracy]", "budget.value=8", outputs=tmp_path)
    said = capsys.readouterr().out
    assert re.search(r"^    accuracy_val +0\.\d{4}  higher$", said, re.M)
    assert f"next:       genlab train model=... data=... metrics.extractor={folder}\n" in said
    assert not (folder / "samples").exists()
    with pytest.raises(ConfigError, match=r"holds a Classifier, which does not draw samples\."):
        command_line(["sample", f"run={folder}"])
    with pytest.raises(ConfigError, match=r"baselines=true: baselines replace samples, and a Classifier draws none"):
        command_line(["evaluate", f"run={folder}", "baselines=true"])
    with pytest.raises(ConfigError, match=r"Classifier has no likelihood"):
        command_line(["evaluate", f"run={folder}", "likelihood=2"])
    command_line(["evaluate", f"run={folder}"])
    (report,) = folder.glob("evaluation-*.json")
    summary = json.loads((folder / "summary.json").read_text())
    assert json.loads(report.read_text())["metrics"] == pytest.approx(summary["metrics"], rel=1e-6)
    resume(folder, "budget.value=16")
    assert json.loads((folder / "summary.json").read_text())["examples"] == 16


def test_it_chooses_what_it_is_measured_by_whatever_the_data_choose() -> None:
    for data in ("digits", "cifar10", "image_folder"):
        config = ConfigTree().compose(["model=classifier", f"data={data}"])
        assert list(config.metrics) == ["accuracy"]
        assert "samples" not in config.callbacks
    typed = ConfigTree().compose(["model=classifier", "metrics=[]", "callbacks=[default]"])
    assert not typed.metrics
    assert "samples" in typed.callbacks


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("callbacks=[default]",), r"SampleGrid shows samples, and a Classifier draws none\. Use callbacks=\["),
        (("metrics=[fid]", "metrics/extractor=random"), r"metrics=fid measures samples, and a Classifier draws none"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_before_there_is_a_folder(
    more: tuple[str, ...], message: str, outputs: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        command_line(["train", *FAST, *more, f"outputs={outputs}"])
    assert not outputs.exists()


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_and_logits_are_those_of_the_averaged_model(run: Path, images: torch.Tensor) -> None:
    model, weights = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    assert weights == "ema"
    judge = extractor(run)
    found = judge.extract(images, frozenset({"features", "logits"}))
    x = to_float(images)
    with torch.no_grad():
        torch.testing.assert_close(found["features"], model.features(x))  # type: ignore[operator]
        torch.testing.assert_close(found["logits"], model.logits(x))  # type: ignore[operator]
    assert judge.name == "classifier56"
    assert found["features"].shape == (500, 56)
    assert set(judge.extract(images[:2], frozenset({"logits"}))) == {"logits"}


def test_features_are_of_about_unit_variance(run: Path) -> None:
    images = torch.from_numpy(Digits().table("train").images)
    features = extractor(run).extract(images, frozenset({"features"}))["features"]
    spread = features.var(dim=0)
    assert 0.4 < spread.median() < 2.5
    assert features.mean(dim=0).abs().median() < 0.7


def test_features_tell_more_than_the_class(run: Path) -> None:
    """Of a classifier's last layer alone hardly anything would be left of how images of a class differ."""
    table = Digits().table("val")
    features = extractor(run).extract(torch.from_numpy(table.images), frozenset({"features"}))["features"].numpy()
    within = np.concatenate([features[table.labels == c] - features[table.labels == c].mean(0) for c in range(10)])
    assert np.mean(within.var(0) / (features.var(0) + 1e-6)) > 0.1


def test_the_fingerprint_follows_the_weights(run: Path, tmp_path: Path) -> None:
    first = extractor(run).fingerprint()
    assert extractor(run).fingerprint() == first
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    assert extractor(copy).fingerprint() == first
    path = read.saved(copy)[0]
    content = torch.load(path, weights_only=True)
    content["ema"]["head.bias"][0] += 1e-3
    torch.save(content, path)
    assert extractor(copy).fingerprint() != first


# --- a judge of other runs --------------------------------------------------------------------------------------------


def test_it_judges_a_run_from_the_command_line(run: Path, tmp_path: Path) -> None:
    classifier = Path(shutil.copytree(run, tmp_path / "judge"))
    gan = train(*small("model=gan"), "metrics=[fid,cas]", f"metrics.extractor={classifier}", "budget.value=16",
                "evaluation.num_samples=40", outputs=tmp_path)  # fmt: skip
    summary = json.loads((gan / "summary.json").read_text())
    assert set(summary["metrics"]) == {"fid_classifier56_40", "cas_classifier56_40"}
    assert summary["protocol"]["extractor_fingerprint"] == extractor(classifier).fingerprint()
    saved = run_folder.read_config(gan)
    assert saved["pretrained"]["metrics.extractor.model"]["where"] == str(classifier)
    assert saved["metrics"]["extractor"]["model"] == run_folder.read_config(run)["model"]
    shutil.rmtree(classifier)  # the judge is kept with the run
    command_line(["evaluate", f"run={gan}"])
    (report,) = gan.glob("evaluation-*.json")
    assert json.loads(report.read_text())["metrics"] == pytest.approx(summary["metrics"], rel=1e-6)
    resume(gan, "budget.value=32")
    shutil.rmtree(gan / "parts")
    for command in (["evaluate", f"run={gan}"], ["train", f"run={gan}", "budget.value=48"]):
        with pytest.raises(CheckpointError, match=rf"holds metrics.extractor.model as trained by {classifier}"):
            command_line(command)
    command_line(["evaluate", f"run={gan}", "metrics/extractor=random"])  # and one can do without
    command_line(["evaluate", f"run={gan}", f"metrics.extractor={run}"])  # or name one


def test_a_judge_of_a_run_from_before_is_read_where_it_was(run: Path, gan: Path, tmp_path: Path) -> None:
    """Its node had the folder beside the model, and its weights were read there."""
    old = Path(shutil.copytree(gan, tmp_path / "old"))
    config = yaml.safe_load((old / "config.yaml").read_text())
    target = f"{ClassifierFeatures.__module__}.{ClassifierFeatures.__qualname__}"
    judge = {"_target_": target, "model": run_folder.read_config(run)["model"], "run": str(run)}
    config["metrics"] = {"fid": {"_target_": "genlab.metrics.fid.FID"}, "extractor": judge}
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match=rf"so it needs your consent. To allow it, type metrics.extractor={run}"):
        command_line(["evaluate", f"run={old}", "n=8"])
    seal(old)
    command_line(["evaluate", f"run={old}", "n=8"])
    (report,) = old.glob("evaluation-*.json")
    assert json.loads(report.read_text())["protocol"]["extractor_fingerprint"] == extractor(run).fingerprint()


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=gan"), "budget.value=8", outputs=tmp_path_factory.mktemp("gan"))


def test_what_is_no_run_of_a_classifier_is_refused(gan: Path) -> None:
    for named, message in (
        ("/nowhere", r"metrics\.extractor=/nowhere: there is no run here"),
        (
            str(gan),
            r"a GAN has no features of images\. Name a run of model=classifier, contrastive, self_distillation, "
            r"masked_autoencoder or jepa\.$",
        ),
        ("random", r"metrics\.extractor is a part of the metrics, chosen with slashes: metrics/extractor=random"),
    ):
        with pytest.raises(ConfigError, match=message):
            command_line(["train", "model=gan", f"metrics.extractor={named}"])


def test_images_of_another_size_are_refused_before_training_and_by_the_extractor(run: Path, outputs: Path) -> None:
    with pytest.raises(ConfigError, match=r"trained on images of shape \(1, 16, 16\), the data have \(3, 32, 32\)"):
        command_line(["train", "model=gan", "data=shapes", "data.num_train=40", "data.num_val=8", "logger=[none]",
                      "trainer=cpu", f"metrics.extractor={run}", f"outputs={outputs}"])  # fmt: skip
    assert not outputs.exists()
    with pytest.raises(DataError, match=r"was trained on images of shape \(1, 16, 16\), got \(1, 8, 8\)"):
        extractor(run).extract(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), frozenset({"features"}))


def test_a_folder_is_not_trusted(run: Path, tmp_path: Path) -> None:
    """Its config is checked as any other, and its weights are those of its model or none."""
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    config = run_folder.read_config(copy)

    def with_model(**changes: Any) -> str:
        (copy / "config.yaml").write_text(yaml.safe_dump(config | {"model": config["model"] | changes}))
        return f"metrics.extractor={copy}"

    for changes, message in (
        ({"network": {"_target_": "subprocess.Popen", "args": ["true"]}}, "cannot be a part of an experiment"),
        ({"_target_": "os.system"}, "cannot be a part of an experiment"),
        ({"seed": "x"}, r"metrics\.extractor\.model\.seed must be a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            command_line(["train", "model=gan", with_model(**changes)])
    wider = config["model"]["network"] | {"channels": 16}
    with_model(network=wider)
    with pytest.raises(CheckpointError, match=r"the checkpoint of .* is not of the model in its config"):
        extractor(copy)
    with_model()
    shutil.rmtree(copy / read.FOLDER)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        extractor(copy)


def test_an_extractor_of_a_run_stands_beside_any_metric(run: Path) -> None:
    config = ConfigTree().compose(["model=gan", "metrics=[fid,kid,precision_recall,cas]", f"metrics.extractor={run}"])
    check_config(config)
    config.spec, config.run_dir, config.run_id = SPEC, "x", "x"
    nodes = {name: OmegaConf.to_container(config[name], resolve=True) for name in ("metrics", "task", "evaluation")}
    evaluation = build_evaluation({**nodes, "spec": SPEC})
    assert evaluation.extractor is not None
    assert evaluation.extractor.gives == {"features", "logits"}
