"""Files from strangers: configs that travel with a checkpoint, and checkpoints. Nothing in them is ever run."""

import copy
import itertools
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from genlab import cli
from genlab.checkpoint.read import newest, saved
from genlab.config.tree import ConfigTree
from genlab.errors import CheckpointError, ConfigError
from genlab.run import run_folder
from genlab.run.assemble import check_config
from tiny_run import MLP, train

# What nothing in a config may do, as Python tells of it; and to which files: those of the folder that a test is in.
ACTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "subprocess.Popen",
        "socket.connect", "socket.bind", "webbrowser.open", "urllib.Request", "pickle.find_class", "code.__new__",
        "sqlite3.connect", "ctypes.dlopen", "pty.spawn", "smtplib.connect", "ftplib.connect")  # fmt: skip
_watched: list[tuple[str, str]] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and (event in ACTS or "canary" in repr(arguments[:1])) and arguments[:1] != ("git",):
        _watched.append((event, repr(arguments)[:200]))


sys.addaudithook(_hook)  # for good: there is no way to take it back


@pytest.fixture
def acts() -> Iterator[list[tuple[str, str]]]:
    """What has been done meanwhile."""
    global _watched
    _watched = []
    yield _watched
    _watched = None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*MLP, outputs=tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # cli.main sets it: put it back afterwards
    shutil.copytree(trained, "run")
    Path("canary").write_text("alive")
    return Path("run")


def refusal(capfd: pytest.CaptureFixture[str], *typed: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(typed)
    (line,) = [text for text in capfd.readouterr().err.splitlines() if not text.startswith("training ")]
    assert line.startswith("error: ")
    return int(ended.value.code or 0), line


def test_the_watch_sees_what_is_done(acts: list[tuple[str, str]], tmp_path: Path) -> None:
    os.system("true")
    subprocess.run(["true"], check=True)
    (tmp_path / "canary").write_text("")
    torch.save({}, tmp_path / "x")
    assert {event for event, _ in acts} >= {"os.system", "subprocess.Popen", "open"}


# --- configs ----------------------------------------------------------------------------------------------------------


def calls(target: str, /, *args: Any, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **({"_args_": list(args)} if args else {}), **arguments}


TOUCH = "touch canary-executed"
SYSTEM = calls("os.system", TOUCH)
HEUN = "genlab.model.sampler.heun.Heun"
FOLDERS = "pytorch_lightning.callbacks"
CORPUS: list[tuple[str, Any]] = [
    # the usual suspects, each in another slot
    ("model.network", SYSTEM),
    ("model.network.width", calls("posix.system", command=TOUCH)),
    ("model.objective", calls("subprocess.Popen", args=TOUCH, shell=True)),
    ("model.objective.data_std", calls("subprocess.check_output", TOUCH, shell=True)),
    ("model.sampler", calls("builtins.eval", f"__import__('os').system('{TOUCH}')")),
    ("model.sampler.num_steps", calls("builtins.exec", f"import os; os.system('{TOUCH}')")),
    ("model.optimizer", calls("torch.load", f="canary", weights_only=False, _partial_=True)),
    ("model.optimizer.lr", calls("torch.hub.load", repo_or_dir=".", model="x", source="local")),
    ("model.schedule", calls("numpy.load", file="canary", allow_pickle=True)),
    ("model", calls("sympy.sympify", f"__import__('os').system('{TOUCH}')")),
    ("data", calls("jinja2.Template", "{{ cycler.__init__.__globals__.os.system('touch canary-executed') }}")),
    ("data.limit", calls("pathlib.Path.unlink", calls("pathlib.Path", "canary"))),
    ("data.tokenizer", calls("shutil.rmtree", path="canary")),
    ("data.batch_size", calls("yaml.unsafe_load", "!!python/object/apply:os.system [touch canary-executed]")),
    ("trainer", calls("pickle.loads", "cos\nsystem\n(S'touch canary-executed'\ntR.")),
    ("trainer.plugins", [SYSTEM]),
    ("trainer.strategy", calls("ctypes.CDLL", name="./canary.so")),
    ("trainer.profiler", calls("webbrowser.open", url="file:///canary")),
    ("trainer.devices", calls("importlib.import_module", name="antigravity")),
    ("trainer.callbacks", [calls("runpy.run_path", "canary")]),
    ("callbacks.x", calls("os.remove", path="canary")),
    ("callbacks.samples.rows", calls("os.unlink", "canary")),
    ("callbacks.ema", calls("multiprocessing.Process", target=SYSTEM)),
    ("logger.x", calls("socket.create_connection", address=["127.0.0.1", 9])),
    ("logger.wandb", calls("pytorch_lightning.loggers.WandbLogger", settings={"base_url": "http://canary"})),
    ("logger.wandb.experiment", calls("wandb.init")),
    ("metrics.extractor", calls("torch.jit.load", f="canary")),
    ("metrics.extractor.weights", calls("urllib.request.urlretrieve", "file:canary", "canary-executed")),
    ("metrics.x", calls("joblib.load", filename="canary")),
    ("evaluation", calls("pip.main", ["install", "canary"])),
    ("evaluation.metrics", {"x": SYSTEM}),
    ("evaluation.seed", calls("torch.utils.cpp_extension.load_inline", name="x", cpp_sources="")),
    ("budget", calls("hydra.utils.instantiate", SYSTEM)),
    ("budget.value", calls("hydra.utils.get_method", path="os.system")),
    ("seed", SYSTEM),
    ("outputs", SYSTEM),
    ("dry_run", SYSTEM),
    ("profile", SYSTEM),
    ("cpu", SYSTEM),
    ("cpu.matmul", SYSTEM),
    # ways around
    ("model.network", calls("functools.partial", calls("functools.partial", "os.system"), TOUCH)),
    ("model.optimizer", calls("os.system", TOUCH, _partial_=True)),
    ("model.sampler", calls(HEUN, _recursive_=False, grid=SYSTEM)),
    ("model.sampler", calls(HEUN, _convert_="all", num_steps=SYSTEM)),
    ("model.sampler", calls(HEUN, SYSTEM)),
    ("model.sampler", calls("genlab.cli.os.system", TOUCH)),
    ("model.sampler", calls("genlab.run.run_folder.subprocess.run", TOUCH)),
    ("model.sampler", calls("genlab.checkpoint.read.torch.load", "canary", weights_only=False)),
    ("model.sampler", calls("genlab.config.build.importlib.import_module", "antigravity")),
    ("model.sampler", calls("genlab.data.array.np.load", "canary", allow_pickle=True)),
    ("model.sampler", calls("genlab.cli.Path.unlink", "canary")),
    ("model.sampler", calls("genlab.model.sampler.heun.Heun.__init__.__globals__")),
    ("model.sampler", calls("__main__.os.system", TOUCH)),
    ("callbacks.x", calls(f"{FOLDERS}.LambdaCallback", on_fit_start=SYSTEM)),
    ("callbacks.x", calls(f"{FOLDERS}.LambdaCallback", on_fit_start=calls("os.system", TOUCH, _partial_=True))),
    ("callbacks.x", {"y": SYSTEM}),
    ("callbacks.x", [SYSTEM]),
    ("trainer.profiler", calls("pytorch_lightning.profilers.SimpleProfiler", dirpath=SYSTEM)),
    # classes that act when they are made
    ("logger.x", calls("logging.FileHandler", filename="canary-executed")),
    ("logger.x", calls("torch.utils.tensorboard.SummaryWriter", log_dir="canary-executed")),
    ("metrics.x", calls("numpy.memmap", filename="canary-executed", mode="w+", shape=[1])),
    ("metrics.x", calls("torch.package.PackageImporter", file_or_buffer="canary")),
    ("budget", calls("tempfile.TemporaryDirectory", prefix="canary")),
    ("evaluation", calls("zipfile.ZipFile", file="canary-executed", mode="w")),
    ("data", calls("code.InteractiveConsole")),
    # what only looks like a value
    ("model.sampler.num_steps", "${oc.env:CANARY_SECRET}"),
    ("logger.x.name", "${oc.env:CANARY_SECRET}"),
    ("spec.modality", "${hydra:runtime.cwd}"),
    ("run_id", "${oc.decode:'${oc.env:CANARY_SECRET}'}"),
    ("model.network", "${pretrained}"),
    ("model.network", {"_target_": "${oc.env:CANARY_SECRET}"}),
    ("callbacks.${oc.env:CANARY_SECRET}", {}),
    # values that fit, and of which nothing can be made
    ("model.shape", []),
    ("model.shape", [1, 0, 16]),
]


def doctor(run: Path, place: str, node: Any, clean: dict[str, Any] | None = None) -> None:
    path = run / "config.yaml"
    config = copy.deepcopy(clean) or yaml.safe_load(path.read_text())
    *above, last = place.split(".", 1) if "${" in place else place.split(".")
    parent = config
    for name in above:
        parent = parent.setdefault(name, {})
    parent[last] = node
    path.write_text(yaml.safe_dump(config))


def test_no_config_that_travels_runs_anything(
    run: Path, acts: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_SECRET", "os.system")
    assert len(CORPUS) >= 60
    clean, tree = yaml.safe_load((run / "config.yaml").read_text()), ConfigTree()
    before = sorted(os.listdir())
    for place, node in CORPUS:
        doctor(run, place, node, clean)
        with pytest.raises((ConfigError, CheckpointError)) as caught:
            check_config(tree.change(run_folder.read_config(run), [], []))
        assert "\n" not in str(caught.value), (place, node)
    assert [act for act in acts if "config.yaml" not in act[1]] == []
    assert sorted(os.listdir()) == before
    assert Path("canary").read_text() == "alive"


@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
@pytest.mark.parametrize(("place", "node", "code"), [
    ("model.network", SYSTEM, 2),
    ("model.sampler", calls("genlab.cli.os.system", TOUCH), 2),
    ("model.sampler.num_steps", "${oc.env:HOME}", 3),
])  # fmt: skip
def test_every_command_refuses_them(
    command: str, place: str, node: Any, code: int, run: Path, acts: list[tuple[str, str]],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    doctor(run, place, node)
    assert refusal(capfd, command, "run=run")[0] == code
    assert acts == []


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
CONFIGS = ["", "[]", "x", "model: 3", "model: {}\n", "a: [", "\0", "!!python/object/apply:os.system [touch canary-x]",
           "a: &a [*a]", BOMB, "[" * 1500, "a: &a {b: 1}\nc: {<<: [*a, *a]}", "x: !!set {a}", "x: 2020-01-01",
           "null: 1", "? [a, b]\n: 1", "x: " + "9" * 5000]  # fmt: skip


@pytest.mark.parametrize("text", CONFIGS, ids=range(len(CONFIGS)))
def test_what_is_no_config(
    text: str, run: Path, acts: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_text(text)
    code, line = refusal(capfd, "train", "run=run")
    assert code == 3
    assert "config.yaml" in line
    assert len(line) < 300
    assert acts == []


def test_what_is_no_run(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("loop").symlink_to("loop")
    Path("empty/inner").mkdir(parents=True)
    for place in ("run/config.yaml", "loop", "empty/inner/..", "https://example.com/run"):
        code, line = refusal(capfd, "train", f"run={place}")
        assert code == 2
        assert line.endswith(": there is no run here (no config.yaml). Runs are in outputs/<model>-<data>/.")
    assert refusal(capfd, "train", "run=run/..")[1].endswith("(no config.yaml). Its newest is run=run/../run.")
    code, line = refusal(capfd, "train", f"run={'a' * 5000}")
    assert code == 2
    assert " is not a path: it is longer than 4000 bytes, or a name in it than 255. Write the name of a file" in line
    assert refusal(capfd, "train", "run=''") == (2, "error: '' is not a path. Write the name of a file or folder.")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def put(*path: Any, value: Any = None, gone: bool = False) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> None:
        *above, last = path
        for name in above:
            content = content[name]
        if gone:
            del content[last]
        else:
            content[last] = value

    return change


def first(change: Callable[[Tensor], Any], part: str = "state_dict") -> Callable[[dict[str, Any]], Any]:
    def act(content: dict[str, Any]) -> None:
        name = next(name for name, tensor in content[part].items() if tensor.ndim == 2)
        content[part][name] = change(content[part][name])

    return act


HUGE = torch.zeros(1).expand(1 << 50)  # four bytes on disk
LOOP = ("loops", "fit_loop")
WEIGHTS: dict[str, Callable[[dict[str, Any]], Any]] = {  # refused by every command
    "no progress": put("progress", gone=True),
    "progress is text": put("progress", value="far"),
    "examples are text": put("progress", "examples", value="104"),
    "examples are negative": put("progress", "examples", value=-8),
    "examples are no whole number": put("progress", "examples", value=8.5),
    "seconds are nan": put("progress", "seconds", value=float("nan")),
    "flops are infinite": put("progress", "flops", value=float("inf")),
    "progress has more": put("progress", "x", value=1),
    "no weights": put("state_dict", gone=True),
    "weights are a list": put("state_dict", value=[1, 2]),
    "a weight is text": first(lambda _: "abc"),
    "a weight is gone": lambda content: content["state_dict"].popitem(),
    "a weight is sparse": first(lambda weight: weight.to_sparse()),
    "a weight is quantized": first(lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.quint8)),
    "a weight has no numbers": first(lambda weight: weight.to("meta")),
    "a weight is huge": first(lambda _: HUGE),
    "a name is a path": put("state_dict", "../../canary", value=torch.zeros(1)),
    "a name acts": put("state_dict", "\x1b[31m\n", value=torch.zeros(1)),
    "a name is a number": put("state_dict", 3, value=torch.zeros(1)),
    "metrics are text": put("metrics", value="x"),
    "a metric is text": put("metrics", value=[{"step": 1, "a": "x"}]),
    "a metric is of step inf": put("metrics", value=[{"step": float("inf")}]),
    "a metric is of no step": put("metrics", value=[{"a": 1.0}]),
    "averages are a list": put("ema", value=[1]),
    "an average is huge": first(lambda _: HUGE, "ema"),
    "an average is text": first(lambda _: "x", "ema"),
    "no loops": put("loops", gone=True),
    "loops are text": put("loops", value="x"),
    "epochs are negative": put(*LOOP, "epoch_progress", "current", "completed", value=-1),
    "steps are text": put(*LOOP, "epoch_loop.state_dict", "_batches_that_stepped", value="5"),
    "steps are nan": put(*LOOP, "epoch_loop.state_dict", "_batches_that_stepped", value=float("nan")),
    "the loop has no batches": put(*LOOP, "epoch_loop.batch_progress", gone=True),
}
STATES: dict[str, Callable[[dict[str, Any]], Any]] = {  # of a training
    "no optimizer": put("optimizer_states", gone=True),
    "optimizers are text": put("optimizer_states", value="x"),
    "an optimizer is empty": put("optimizer_states", value=[{}]),
    "the schedule is a number": put("lr_schedulers", value=3),
    "callbacks are a list": put("callbacks", value=[1]),
    "the position is text": lambda content: [
        part.update(epoch="x") for part in content.values() if isinstance(part, dict) and "epoch" in part
    ],
    "the data are a list": put("data", value=[1]),
    "the version is a list": put("pytorch-lightning_version", value=[1]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*WEIGHTS, *STATES])
def test_a_doctored_checkpoint_is_one_line(
    name: str, run: Path, acts: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    (path,) = saved(run)
    content = torch.load(path, weights_only=True)
    (WEIGHTS | STATES)[name](content)
    torch.save(content, path)
    acts.clear()
    # sampling asks for less, and so is quicker
    typed = ("sample", "n=1") if name in WEIGHTS else ("train", "budget.value=112")
    code, line = refusal(capfd, *typed, "run=run")
    assert code == 3, line
    assert len(line) < 600
    assert acts == []


def test_the_checkpoint_before_takes_the_place_of_a_doctored_one(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    last = saved(run)[0]
    shutil.copy(last, last.with_name("examples=000000000096.ckpt"))
    content = torch.load(last, weights_only=True)
    torch.save(content | {"progress": "far"}, last)
    assert newest(run).path.name == "examples=000000000096.ckpt"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: checkpoint run/checkpoints/{last.name} is not what a run saves (")


def test_air_is_no_checkpoint(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A member that is compressed may claim to be of any size."""
    import zipfile

    for path in saved(run):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, size in (("archive/data.pkl", 10), ("archive/data/0", 50 << 20)):
                archive.writestr(name, bytes(size))
    code, line = refusal(capfd, "sample", "run=run")
    assert code == 3
    assert "is damaged (" in line


@pytest.mark.parametrize("text", ["x\n", "step\nabc\n", "a,b\n1,2\n", "step\n\0\n"])
def test_metrics_that_no_run_wrote(text: str, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.csv").write_text(text)
    code, line = refusal(capfd, "train", "run=run", "budget.value=112")
    assert (code, line) == (4, "error: run/metrics.csv is damaged. Move it away to go on without its rows.")


def test_no_two_places_are_alike() -> None:
    for (place, node), (other, same) in itertools.combinations(CORPUS, 2):
        assert (place, node) != (other, same)
