"""A run that somebody else made: what its config may name, and what it may allow."""

import copy
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from genlab.config.tree import ConfigTree, resolved
from genlab.errors import GenlabError
from genlab.run.assemble import check_config
from genlab.run.saved_run import open_run
from genlab.trust import own_runs
from genlab.trust.strangers import grants
from test_hostile import acts  # noqa: F401

SPEC = {"condition": {"label": {"size": 10}}, "modality": "image", "shape": [1, 8, 8], "vocab_size": None,
        "start_token": None}  # fmt: skip
LIGHTNING, TORCHMETRICS = "pytorch_lightning", "torchmetrics.image"
FID = {"_target_": f"{TORCHMETRICS}.fid.FrechetInceptionDistance", "feature": 64, "weights_path": "canary.pth"}
LINEAR = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
NORM, ACTIVATION = "model.network.norm", "model.network.feed_forward.activation"


def make(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


def late(target: str, **arguments: Any) -> dict[str, Any]:
    return make(target, _partial_=True, **arguments)


CORPUS: list[tuple[str, Any]] = [
    # A slot of a library's class takes no subclass for being one: these read pickles, or hold what does.
    (NORM, late("torch.nn.TransformerEncoder", num_layers=1, norm=FID)),
    (NORM, late("torch.nn.TransformerDecoder", num_layers=1, decoder_layer=LINEAR, norm=FID)),
    (NORM, late("torch.nn.Transformer", custom_encoder=FID)),
    (NORM, late(FID["_target_"], weights_path="canary.pth")),
    (NORM, late(f"{TORCHMETRICS}.lpip.LearnedPerceptualImagePatchSimilarity")),
    (NORM, late(f"{TORCHMETRICS}.inception.InceptionScore", feature=LINEAR)),
    (NORM, late("torchmetrics.MetricCollection", metrics=[FID])),
    (NORM, late("torchmetrics.wrappers.BootStrapper", base_metric=FID)),
    (NORM, late("torch.nn.Sequential")),
    (NORM, late("torch.nn.ModuleDict", modules={"x": FID})),
    (NORM, late("torch.nn.DataParallel", module=FID)),
    (NORM, late("torch.nn.parallel.DistributedDataParallel", module=FID)),
    (NORM, late("torch.distributed.nn.RemoteModule", remote_device="cpu", module_cls=LINEAR)),
    (NORM, late("torch.fx.GraphModule", root={}, graph="canary")),
    (NORM, late("torch.jit.ScriptModule")),
    (NORM, late("torch.optim.swa_utils.AveragedModel", model=FID)),
    (NORM, late("torchvision.models.ResNet", norm_layer=late("os.system"))),
    (NORM, late(f"{LIGHTNING}.LightningModule")),
    (NORM, late("torch.nn.LayerNorm", device=LINEAR)),
    (NORM, late("torch.nn.LayerNorm", eps=FID)),
    (NORM, late("torch.nn.RMSNorm", dtype=make("genlab.model.sampler.heun.Heun"))),
    (NORM, make("torch.nn.LayerNorm", normalized_shape=4)),  # made too early
    (ACTIVATION, make("torch.nn.Sequential")),
    (ACTIVATION, LINEAR),
    (ACTIVATION, FID),
    (ACTIVATION, make("torch.nn.MultiheadAttention", embed_dim=4, num_heads=1)),
    (ACTIVATION, make("torch.nn.ReLU", inplace=FID)),
    (ACTIVATION, make("torch.nn.LeakyReLU", negative_slope=[FID])),
    ("model.optimizer", late("torch.distributed.optim.ZeroRedundancyOptimizer", optimizer_class=late("a.SGD"))),
    ("model.optimizer", late(f"{LIGHTNING}.core.optimizer.LightningOptimizer", optimizer="canary")),
    ("model.optimizer", late("torch.optim.swa_utils.SWALR", swa_lr=1.0)),
    ("model.optimizer", late("torch.optim.AdamW", fused=FID)),
    # Parts in the places of others, or around them.
    ("model.network", late("torch.nn.Identity")),
    ("model.network.positions", late("torch.nn.Embedding")),
    ("model.sampler", make("genlab.logger.metrics_file.MetricsFile", run_dir="canary")),
    ("model.schedule", make("torch.optim.lr_scheduler.LambdaLR", lr_lambda=late("os.system"))),
    ("model.schedule", make("genlab.checkpoint.write.AtomicCheckpointIO")),
    ("data", make("torchvision.datasets.ImageFolder", root="canary", loader=late("torch.load"))),
    ("data", make(f"{LIGHTNING}.LightningDataModule")),
    ("data", make("torch.utils.data.DataLoader", dataset=[1])),
    ("budget", make(f"{LIGHTNING}.callbacks.Timer", duration="00:00:01:00")),
    ("evaluation.extractor", FID),
    ("metrics.x", FID),
    ("metrics.x", make("torchmetrics.aggregation.MeanMetric")),
    ("metrics.x", make("torchmetrics.text.bert.BERTScore", model_name_or_path="canary")),
    ("metrics.extractor", make(f"{TORCHMETRICS}.fid.NoTrainInceptionV3", name="x", features_list=["64"])),
    ("metrics.extractor", make("torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3", name="x",
                               features_list=["64"], feature_extractor_weights_path="canary.pth")),
    # What watches a training writes and connects: only what is listed.
    ("callbacks.x", make(f"{LIGHTNING}.callbacks.ModelCheckpoint")),
    ("callbacks.x", make(f"{LIGHTNING}.callbacks.OnExceptionCheckpoint", dirpath="outputs/x/run")),
    ("callbacks.x", make(f"{LIGHTNING}.callbacks.LambdaCallback", on_fit_start=late("torch.nn.Linear"))),
    ("callbacks.x", late(f"{LIGHTNING}.callbacks.EarlyStopping", monitor="x")),
    ("callbacks.x", make("genlab.command.train.LambdaCallback")),
    ("callbacks.ema.half_life", make(f"{LIGHTNING}.callbacks.Timer")),
    ("callbacks.x", make("genlab.callbacks.ema.EMA", half_life=1, more=[make("lightning_fabric.Fabric")])),
    ("callbacks.x", make("outputs.x.run.payload.S")),
    ("logger.x", make(f"{LIGHTNING}.loggers.MLFlowLogger", tracking_uri="http://canary")),
    ("logger.x", make(f"{LIGHTNING}.loggers.WandbLogger", project="canary")),
    ("logger.x", make("genlab.logger.tracking.WandbLogger")),
    ("logger.x", make("genlab.logger.metrics_file.MetricsFile", run_dir="outputs/x/run")),
    ("logger.x", make("genlab.logger.isolated.IsolatedLogger", make=late(f"{LIGHTNING}.loggers.CometLogger"))),
    ("logger.tensorboard.name", make(f"{LIGHTNING}.loggers.CSVLogger", save_dir="outputs/x/run")),
    ("trainer", make("genlab.run.assemble.pl.Trainer")),
    ("trainer.profiler", make(f"{LIGHTNING}.profilers.AdvancedProfiler")),
    ("trainer.profiler", make(f"{LIGHTNING}.profilers.PyTorchProfiler", filename="x")),
    ("trainer.strategy", make(f"{LIGHTNING}.strategies.DeepSpeedStrategy", config="outputs/x/run/c.json")),
    ("trainer.strategy", make(f"{LIGHTNING}.strategies.DDPStrategy", checkpoint_io=make("some.IO"))),
    ("trainer.strategy", make(f"{LIGHTNING}.strategies.DDPStrategy", ddp_comm_hook=late("os.system"))),
    ("trainer.plugins", [make(f"{LIGHTNING}.plugins.io.AsyncCheckpointIO")]),
    ("trainer.accelerator", make(f"{LIGHTNING}.accelerators.CPUAccelerator")),
    ("trainer.callbacks", [make(f"{LIGHTNING}.callbacks.Timer")]),
    ("trainer.logger", make(f"{LIGHTNING}.loggers.CSVLogger", save_dir="outputs/x/run")),
    # Code in the folder of the run.
    ("model.network", late("outputs.x.run.payload.S")),
    ("model.network", late("payload.S")),
    ("model.network", late("run.payload.S")),
    ("metrics.x", make("x.run.payload.S")),
]  # fmt: skip
PAYLOAD = "open('canary', 'w').write('dead')\nclass S: ...\n"


@pytest.fixture(scope="module")
def packaged() -> dict[str, Any]:
    config = ConfigTree().compose(["model=transformer", "model/network/feed_forward=gelu", "logger=[tensorboard]"])
    config.run_dir, config.run_id, config.spec = "outputs/x/run", "run", SPEC
    return resolved(config)


@pytest.fixture(scope="module")
def tree() -> ConfigTree:
    return ConfigTree()


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packaged: dict[str, Any]) -> Iterator[Any]:
    """Writes the packaged config, changed in one place, into a folder that holds code, which Python would find."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs/x/run"
    run.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(run), str(run.parent), *sys.path])
    (run / "payload.py").write_text(PAYLOAD)
    (run / "__init__.py").write_text(PAYLOAD)
    (tmp_path / "canary").write_text("alive")
    (run / "overrides.yaml").write_text("[]\n")

    def write(place: str = "", node: Any = None) -> Path:
        config = copy.deepcopy(packaged)
        *above, last = place.split(".")
        parent: Any = config
        for name in above:
            parent = parent.setdefault(name, {})
        if place:
            parent[last] = node
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        return run

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in ("outputs", "payload", "x", "run")]:
        del sys.modules[name]


def opened(tree: ConfigTree, run: Path, *typed: str, trains: bool = True) -> Any:
    config = open_run(tree, str(run), typed, trains=trains)[0]
    check_config(config)
    return config


def test_the_run_itself_is_taken(strange: Any, tree: ConfigTree) -> None:
    assert "tensorboard" in opened(tree, strange()).logger


def test_no_part_of_a_strangers_config_does_anything(
    strange: Any, tree: ConfigTree, acts: list[tuple[str, str]], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    assert len(CORPUS) >= 60
    before = sorted(os.listdir())
    for place, node in CORPUS:
        run = strange(place, node)
        acts.clear()
        with pytest.raises(GenlabError) as caught:
            opened(tree, run)
        assert caught.value.exit_code == 2, (place, node)
        assert "\n" not in str(caught.value)
        assert not [act for act in acts if "x/run" not in act[1]], (place, node)
    assert sorted(os.listdir()) == before
    assert Path("canary").read_text() == "alive"


@pytest.mark.parametrize(("place", "target", "leave_out"), [
    ("callbacks.x", f"{LIGHTNING}.callbacks.DeviceStatsMonitor", "callbacks.x=null"),
    ("logger.x", f"{LIGHTNING}.loggers.WandbLogger", "logger.x=null"),
    ("trainer.profiler", f"{LIGHTNING}.profilers.SimpleProfiler", "trainer.profiler=null"),
    ("trainer.strategy", f"{LIGHTNING}.strategies.SingleDeviceStrategy", "trainer.strategy=auto"),
])  # fmt: skip
def test_what_watches_is_typed_or_left_out(
    place: str, target: str, leave_out: str, strange: Any, tree: ConfigTree, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    run = strange(place, make(target))
    with pytest.raises(GenlabError) as caught:
        opened(tree, run)
    for remedy in (f"{place}._target_={target}", leave_out):
        assert remedy in str(caught.value)
        opened(tree, run, remedy)
    opened(tree, run, trains=False)  # a sample is drawn without
    with pytest.raises(GenlabError):  # a choice of the group says nothing of what the run had added to it
        opened(tree, run, "logger=[none]")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    own_runs.seal(run)
    opened(tree, run)  # this user's own


def test_a_list_that_is_typed_is_the_users_own(strange: Any, tree: ConfigTree) -> None:
    io = f"{LIGHTNING}.plugins.io.TorchCheckpointIO"
    run = strange("trainer.plugins", [make(io)])
    with pytest.raises(GenlabError, match=r"trainer\.plugins\.0\._target_"):
        opened(tree, run)
    assert open_run(tree, str(run), (f"trainer.plugins=[{{_target_: {io}}}]",), trains=True)


# --- consent ----------------------------------------------------------------------------------------------------------

PROGRAMS = {"_target_": "genlab.metrics.pass_at_k.PassAtK", "problems": "p.jsonl", "allow_code": True}


@pytest.mark.parametrize("own", [False, True])
def test_consent_does_not_travel(
    own: bool, strange: Any, tree: ConfigTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    run = strange("metrics.programs", PROGRAMS)
    (run / "overrides.yaml").write_text(yaml.safe_dump(["metrics=[pass_at_k]", "metrics.pass_at_k.allow_code=true"]))
    if own:
        own_runs.seal(run)
    for trains in (True, False):
        for typed in ((), ("metrics=[pass_at_k,fid]", "metrics.pass_at_k.problems=p"), ("metrics.programs.k=[1]",)):
            metrics = open_run(tree, str(run), typed, trains=trains)[0].metrics
            assert not any(node.get("allow_code") for node in metrics.values())
    config = open_run(tree, str(run), ("metrics.programs.allow_code=true",), trains=True)[0]
    assert config.metrics.programs.allow_code is True


def test_a_further_command_says_again_what_it_is_allowed() -> None:
    assert grants("metrics.pass_at_k.allow_code=true")
    for key in ("allow_code:", "allow_root :", "'allow_code':", '"allow_code" :'):
        assert grants(f"metrics.x={{problems: p, {key} true}}")
    assert not grants("metrics.pass_at_k.k=[1]")
    assert not grants("callbacks.x.notes=allow_code")


@pytest.mark.parametrize("typed", [
    ["model.network.width=${oc.env:SECRET}"],
    ["model.network.width=${ oc.env : SECRET }"],
    ["outputs=oc", "model.network.width=${${outputs}.env:SECRET}"],
    ["model.network.width=1"] * 1001,
    ["model.network.width=" + "1" * 10_001],
])  # fmt: skip
def test_overrides_that_read_the_environment_or_never_end(typed: list[str], strange: Any, tree: ConfigTree) -> None:
    run = strange()
    (run / "overrides.yaml").write_text(yaml.safe_dump(typed))
    with pytest.raises(GenlabError, match=r"overrides\.yaml") as caught:
        opened(tree, run, "data=mnist")
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 400
