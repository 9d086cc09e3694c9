"""The config of a stranger's run has nothing written outside of run, output root and cache, unless typed."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from genlab.config.tree import ConfigTree, resolved
from genlab.errors import ConfigError
from genlab.run import run_folder
from genlab.run.saved_run import open_run
from genlab.trust import own_runs
from genlab.trust.written_paths import check_written_paths

CSV = "pytorch_lightning.loggers.CSVLogger"
TENSORBOARD = "pytorch_lightning.loggers.TensorBoardLogger"
WANDB = "pytorch_lightning.loggers.WandbLogger"
KEEP = "pytorch_lightning.callbacks.ModelCheckpoint"
PROFILER = "pytorch_lightning.profilers.SimpleProfiler"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "config.yaml").touch()
    (tmp_path / "outputs" / "sweep").mkdir()
    (tmp_path / "outputs" / "sweep" / "ledger.db").touch()


@pytest.fixture(scope="module")
def packaged() -> dict[str, Any]:
    config = ConfigTree().compose(["logger=[tensorboard]"])
    config.run_dir, config.run_id = "outputs/x/run", "run"
    condition = {"label": {"size": 10}}
    config.spec = {
        "condition": condition,
        "modality": "image",
        "shape": [1, 8, 8],
        "vocab_size": None,
        "start_token": None,
    }
    return resolved(config)


@pytest.fixture
def strange(tmp_path: Path, packaged: dict[str, Any]):
    """Writes the packaged config, changed, as a run of somebody else's."""

    def write(path: str = "", value: Any = None, folder: str = "outputs/x/run") -> Path:
        config = OmegaConf.create(packaged)
        if path:
            OmegaConf.update(config, path, value, force_add=True)
        run = tmp_path / folder
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump(OmegaConf.to_container(config)))
        (run / "overrides.yaml").write_text("[]\n")
        return run

    return write


def opened(run: Path, *typed: str, trains: bool = True) -> Any:
    return open_run(ConfigTree(), str(run), typed, trains=trains)[0]


def _logger(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


HOSTILE = [
    ("logger.x", _logger(CSV, save_dir="/etc", version=""), "logger.x.save_dir"),
    ("logger.x", _logger(CSV, save_dir=".", name="", version=""), "logger.x.save_dir"),
    ("logger.x", _logger(CSV, save_dir="outputs/x/run", name="../../mine"), "logger.x.name"),
    ("logger.x", _logger(CSV, save_dir="outputs/x/run", version="/etc"), "logger.x.version"),
    ("logger.x", _logger(CSV, save_dir="outputs/x/run", name="", version=""), "logger.x"),
    ("logger.x", _logger(CSV, save_dir="outputs/mine"), "logger.x.save_dir"),
    ("logger.x", _logger(TENSORBOARD, save_dir="~/x"), "logger.x.save_dir"),
    ("logger.x", _logger(TENSORBOARD, save_dir="http://attacker/x"), "logger.x.save_dir"),
    ("logger.x", _logger(TENSORBOARD, save_dir="s3://bucket/x"), "logger.x.save_dir"),
    ("logger.x", _logger(WANDB, save_dir="outputs/x/run", dir="/etc"), "logger.x.dir"),
    ("logger.x", _logger(WANDB, config="/etc/passwd"), "logger.x.config"),
    ("logger.tensorboard.sub_dir", "../../../up", "logger.tensorboard.sub_dir"),
    ("callbacks.x", _logger(KEEP, dirpath="outputs/mine/checkpoints"), "callbacks.x.dirpath"),
    ("callbacks.x", _logger(KEEP, dirpath="outputs/sweep/0003"), "callbacks.x.dirpath"),
    ("callbacks.x", _logger(KEEP, dirpath="http://169.254.169.254/"), "callbacks.x.dirpath"),
    ("callbacks.x", _logger(KEEP, dirpath="file:/etc"), "callbacks.x.dirpath"),
    ("callbacks.x", _logger(KEEP, filename="../../../{epoch}"), "callbacks.x.filename"),
    ("callbacks.x", _logger(KEEP, dirpath="link"), "callbacks.x.dirpath"),
    ("callbacks.x", {"_target_": "some.Callback", "nested": [{"deep": {"where": "/root/x"}}]}, "callbacks.x"),
    ("trainer.profiler", _logger(PROFILER, dirpath="/tmp"), "trainer.profiler.dirpath"),
    ("trainer.profiler", _logger(PROFILER, filename="/tmp/x"), "trainer.profiler.filename"),
    ("trainer.default_root_dir", "..", "trainer.default_root_dir"),
    ("trainer.plugins", [{"_target_": "some.Plugin", "checkpoint_dir": "elsewhere"}], "trainer.plugins"),
    ("data.cache_dir", "/etc", "data.cache_dir"),
    ("data.cache_dir", "cache/../..", "data.cache_dir"),
    ("evaluation.cache_dir", "elsewhere", "evaluation.cache_dir"),
    ("metrics.extractor.cache_dir", "/etc", "metrics.extractor.cache_dir"),
    ("data", {"_target_": "genlab.data.mnist.MNISTData", "root": "/etc", "download": True}, "data.root"),
    ("data", {"_target_": "genlab.data.mnist.Mnist", "root": "/etc"}, "data.root"),  # it downloads untold
    ("data", {"_target_": "genlab.data.mnist.Mnist", "root": "/etc", "download": False}, "data.root"),  # and unpacks
    ("metrics.extractor.cache", "/etc", "metrics.extractor.cache"),
    ("metrics.x", {"_target_": "some.Metric", "distances": [{"cache": "/etc"}]}, "metrics.x.distances.0.cache"),
    # folders that several arguments make together
    ("logger.x", _logger(CSV, save_dir="outputs", name="mine", version=""), "logger.x"),
    ("logger.x", _logger(CSV, save_dir="outputs", name=None, version="mine"), "logger.x"),
    ("logger.x", _logger(TENSORBOARD, save_dir="outputs", name="", version="", sub_dir="mine"), "logger.x"),
    ("logger.x", _logger(TENSORBOARD, save_dir="outputs", name="mine", version="checkpoints"), "logger.x"),
]


@pytest.mark.parametrize(("path", "value", "named"), HOSTILE, ids=[f"{i}-{row[2]}" for i, row in enumerate(HOSTILE)])
def test_a_strangers_path_is_refused_by_name(path: str, value: Any, named: str, strange, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    run = strange(path, value)
    with pytest.raises(ConfigError) as caught:
        opened(run)
    assert str(caught.value).startswith(named)
    assert len(str(caught.value).splitlines()) == 1
    is_of_services = path.partition(".")[0] in ("logger", "callbacks", "trainer")
    assert not is_of_services or opened(run, trains=False) is not None  # nothing of these is made for a sample


SOUND = [
    ("", None),
    ("logger.x", _logger(CSV, save_dir="outputs/x/run", version="0")),
    ("logger.x", _logger(CSV, save_dir="outputs/logs")),
    ("logger.x", _logger("genlab.logger.tracking.Wandb", save_dir="outputs/x/run", notes="see https://example.org/a")),
    ("callbacks.x", _logger("genlab.callbacks.x.X", dirpath="outputs/x/run/more", filename="{epoch}/{step}")),
    ("trainer.profiler", "simple"),
    ("data.cache_dir", "cache/of-images"),
    ("data.cache_dir", "outputs/cache"),
    ("data", {"_target_": "genlab.data.mnist.MNISTData", "root": "data", "download": True}),
    ("data.root", "/datasets/pictures"),  # read, and of the user's choosing when it is typed
]


@pytest.mark.parametrize(("path", "value"), SOUND)
def test_what_stays_inside_is_taken(path: str, value: Any, strange) -> None:
    assert opened(strange(path, value)) is not None


def test_a_path_that_is_typed_now_is_the_users_own(strange) -> None:
    run = strange("logger.x", _logger(CSV, save_dir="/etc"))
    assert opened(run, "logger.x.save_dir=/var/log").logger.x.save_dir == "/var/log"
    with pytest.raises(ConfigError, match="save_dir"):
        opened(run, "logger.x.name=a")
    assert opened(run, "outputs=/etc") is not None


def test_a_choice_of_a_group_covers_no_path_of_the_run(strange) -> None:
    run = strange("trainer.profiler", _logger(PROFILER, dirpath="/tmp"))
    with pytest.raises(ConfigError, match=r"trainer\.profiler\.dirpath"):
        opened(run, "trainer=cpu")
    run = strange("logger.x", _logger(CSV, save_dir="/etc"), folder="outputs/y/run")
    for typed in ("logger=[none]", "logger=[tensorboard]"):
        with pytest.raises(ConfigError, match=r"logger\.x\.save_dir"):
            opened(run, typed)
    node = "logger.x={_target_: pytorch_lightning.loggers.CSVLogger, save_dir: /var/log}"
    assert opened(run, node).logger.x.save_dir == "/var/log"  # a part that is typed as a whole


def test_packaged_loggers_write_where_a_run_may(strange, config_groups) -> None:
    services = [option for option in config_groups["logger"] if option != "none"]
    assert "tensorboard" in opened(strange(), f"logger=[{','.join(services)}]").logger


def test_a_run_of_this_user_is_its_seal_that_tells(strange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    run = strange("data.cache_dir", "/scratch")
    assert not own_runs.is_own(run)
    own_runs.seal(run)
    assert own_runs.is_own(run)
    assert opened(run).data.cache_dir == "/scratch"
    assert os.stat(own_runs.key_file()).st_mode & 0o777 == 0o600
    moved = tmp_path / "copy"
    shutil.copytree(run, moved)
    assert own_runs.is_own(moved)
    (moved / "config.yaml").write_text((moved / "config.yaml").read_text().replace("/scratch", "/etc"))
    assert not own_runs.is_own(moved)
    with pytest.raises(ConfigError, match="cache_dir"):
        opened(moved)
    own_runs.key_file().chmod(0o644)  # anybody could have made the seal
    assert not own_runs.is_own(run)
    own_runs.key_file().unlink()
    own_runs.seal(moved)  # another user's key
    shutil.copy(moved / own_runs.SEAL, run / own_runs.SEAL)
    assert not own_runs.is_own(run)


def test_without_a_home_no_run_is_sealed_and_none_is_owned(strange, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    run = strange()
    own_runs.seal(run)
    assert not (run / own_runs.SEAL).exists()
    assert not own_runs.is_own(run)


def test_a_run_that_was_moved_writes_where_it_is_now(strange, tmp_path: Path) -> None:
    run = strange(folder="outputs/elsewhere/copied")
    config = opened(run)
    assert Path(config.logger.tensorboard.save_dir) == run
    assert run_folder.read_config(run)["logger"]["tensorboard"]["save_dir"] == "outputs/x/run"


def test_a_reference_behind_a_name_with_dots_is_refused(tmp_path: Path) -> None:
    harmless = {"y": {"save_dir": "outputs/x/run"}}
    logger = {"x.y": {"_target_": CSV, "save_dir": "${far}"}, "x": harmless}
    config = OmegaConf.create({"far": "/etc", "logger": logger})
    with pytest.raises(ConfigError, match=r"logger\.x\.y\.save_dir.*to an invalid path"):
        check_written_paths(config, Path("outputs/x/run"), [], services=True)


def test_a_reference_is_judged_by_where_it_leads() -> None:
    logger = {"x": {"_target_": CSV, "save_dir": "${far}/x"}}
    config = OmegaConf.create({"far": "/etc", "logger": logger})
    with pytest.raises(ConfigError, match=r"logger\.x\.save_dir.*to /etc/x"):
        check_written_paths(config, Path("outputs/x/run"), [], services=True)
    config.far = "outputs/x/run"
    check_written_paths(config, Path("outputs/x/run"), [], services=True)


def test_what_was_typed_for_a_part_is_forgotten_where_it_is_chosen_anew(strange) -> None:
    run = strange()
    typed = ["logger=[tensorboard]", "outputs=/etc", "logger.tensorboard.save_dir=${outputs}/x"]
    (run / "overrides.yaml").write_text(yaml.safe_dump(typed))
    assert opened(run, "logger=[tensorboard]").logger.tensorboard.save_dir == "outputs/x/run"
