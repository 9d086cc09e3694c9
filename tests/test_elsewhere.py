"""Parts that were trained elsewhere: their weights lie beside checkpoints, not in them, whatever a config says."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from genlab.checkpoint import read
from genlab.checkpoint.tensors import as_bytes, description_in, sha256_of, tensors_in
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.errors import CheckpointError, ConfigError, GenlabError, StorageError
from genlab.model.elsewhere import leave_state_dict, own_weights
from genlab.run import run_folder
from genlab.trust.own_runs import seal
from tiny_run import SignalAt, only_run, resume, same, small, train

LATENT = small("model=vae", "model.latent_shape=[2,4,4]")
PART = "model.autoencoder"


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*LATENT, "budget.value=8", outputs=tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def stopped(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("latent")
    with pytest.raises(Interrupted):
        train(*latent(autoencoder), SignalAt.override(8), outputs=outputs)
    return only_run(outputs)


def latent(where: Any) -> tuple[str, ...]:
    return (*small("model=latent_diffusion", f"{PART}=some"), f"{PART}={where}", "budget.value=24")


def part_of(run: Path) -> Path:
    (path,) = (run / run_folder.PARTS).iterdir()
    return path


def copied(run: Path, to: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """A copy, with a changed config if so, that this user has made."""
    folder = shutil.copytree(run, to)
    if change is not None:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        change(config)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    seal(folder)
    return folder


# --- state dicts ------------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part, self.own = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.Linear(2, 1)
        self.elsewhere = {"model.part": self.part}


def test_a_state_dict_holds_the_rest_and_strict_loading_demands_exactly_that() -> None:
    torch.manual_seed(0)
    whole, other = Whole(), Whole()
    before = whole.state_dict()
    leave_state_dict(whole.part)
    rest = whole.state_dict()
    assert set(rest) == {"own.weight", "own.bias"}
    assert set(whole.part.state_dict()) == {name.removeprefix("part.") for name in before if name.startswith("part.")}
    leave_state_dict(other.part)
    kept = {name: value.clone() for name, value in other.part.state_dict().items()}
    other.load_state_dict(before)  # an earlier checkpoint: its part is passed over
    assert torch.equal(other.own.weight, whole.own.weight)
    assert same(dict(other.part.state_dict()), kept)
    other.load_state_dict(rest)
    for odd in ({"own.weight": rest["own.weight"]}, {**rest, "more": torch.zeros(1)}):
        with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
            other.load_state_dict(odd)
    other.part.load_state_dict(whole.part.state_dict())
    assert torch.equal(other.part[0].weight, whole.part[0].weight)
    assert own_weights(whole, before).keys() == rest.keys()


def test_files_are_a_function_of_what_is_in_them(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2).T}
    node = {"_target_": "x.Y", "width": 3}
    content = as_bytes(tensors, node)
    assert content == as_bytes(dict(reversed(tensors.items())), dict(reversed(node.items())))
    assert same(tensors_in(content, tmp_path), tensors)
    assert description_in(content) == node
    for damaged in (b"", content[:4], b"\xff" * 64, content[: len(content) // 2]):
        assert description_in(damaged) in (None, node)
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            tensors_in(damaged, tmp_path)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_no_checkpoint_holds_the_part_and_its_hash_is_in_the_config(autoencoder: Path, stopped: Path) -> None:
    entry = run_folder.read_config(stopped)["pretrained"][PART]
    assert entry == {"where": str(autoencoder), "sha256": part_of(stopped).stem}
    assert sha256_of(part_of(stopped).read_bytes()) == entry["sha256"]
    theirs = read.newest(autoencoder)
    assert same(load_file(part_of(stopped)), {**theirs.state, **theirs.content["ema"]})
    last = read.newest(stopped)
    assert not [name for name in (*last.state, *last.content["ema"]) if name.startswith("autoencoder.")]
    assert part_of(stopped) in run_folder.files(stopped, []).values()


def test_checkpoints_from_before_go_on_to_the_same_end(stopped: Path, tmp_path: Path) -> None:
    """They held the part's weights, and the config where they had come from."""
    now = copied(stopped, tmp_path / "now")

    def as_before(config: dict[str, Any]) -> None:
        config["pretrained"] = {"autoencoder": config["pretrained"][PART]["where"]}
        del config["portable"], config["start"]

    old = copied(stopped, tmp_path / "old", as_before)
    part = load_file(part_of(old))
    shutil.rmtree(old / run_folder.PARTS)
    for path in read.saved(old):
        content = torch.load(path, weights_only=True)
        content["state_dict"] |= {f"autoencoder.{name}": value for name, value in part.items()}
        torch.save(content, path)
    for run in (old, now):
        command_line(["sample", f"run={run}", "n=2", f"out={tmp_path / f'{run.name}.npz'}"])
        resume(run)
    assert (tmp_path / "old.npz").read_bytes() == (tmp_path / "now.npz").read_bytes()
    assert part_of(old).exists()
    assert same(dict(read.newest(old).state), dict(read.newest(now).state))
    assert same(dict(read.newest(old).content["ema"]), dict(read.newest(now).content["ema"]))


def test_a_part_that_was_changed_or_is_gone_ends_with_exit_code_3(stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path / "run")
    content = part_of(run).read_bytes()
    commands = (["train", f"run={run}"], ["sample", f"run={run}", "n=1"])
    part_of(run).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for command in commands:
        with pytest.raises(CheckpointError, match=r"is damaged or was changed: its SHA-256 is not its name"):
            command_line(command)
    part_of(run).unlink()
    for command in commands:
        with pytest.raises(CheckpointError, match=r"is missing; it holds model\.autoencoder as trained by"):
            command_line(command)
    assert CheckpointError.exit_code == 3


@pytest.mark.matrix
def test_another_part_cannot_be_typed_for_a_run(autoencoder: Path, stopped: Path, tmp_path: Path) -> None:
    other = train(*LATENT, "budget.value=16", outputs=tmp_path)
    with pytest.raises(CheckpointError, match=r"is not the part that this run was trained with"):
        command_line(["sample", f"run={stopped}", f"{PART}={other}", "n=1"])
    command_line(["sample", f"run={stopped}", f"{PART}={autoencoder}", "n=1", f"out={tmp_path / 'a.png'}"])


@pytest.mark.matrix
def test_a_file_of_a_part_is_a_part(stopped: Path, tmp_path: Path) -> None:
    """What another run keeps says of what model it is; it stays where it is, and its hash is the same."""
    file = part_of(stopped)
    run = train(*latent(file), "budget.value=8", outputs=tmp_path)
    assert run_folder.read_config(run)["pretrained"][PART] == {"where": str(file), "sha256": file.stem}
    assert not (run / run_folder.PARTS).exists()
    save_file({"x": torch.zeros(1)}, tmp_path / "nameless.safetensors")
    with pytest.raises(ConfigError, match=r"the file does not describe the model of its weights"):
        train(*latent(tmp_path / "nameless.safetensors"), outputs=tmp_path)
    evil = as_bytes({}, {"_target_": "genlab.model.vae.VAE", "seed": "${oc.env:HOME}"})
    (tmp_path / "evil.safetensors").write_bytes(evil)
    with pytest.raises(CheckpointError, match=r"holds the interpolation '\$\{oc\.env:HOME\}'"):
        train(*latent(tmp_path / "evil.safetensors"), outputs=tmp_path)


# --- runs of others ---------------------------------------------------------------------------------------------------


def entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["pretrained"][PART].update(changes)


def renamed(config: dict[str, Any]) -> None:
    config["pretrained"]["model.diffusion"] = config["pretrained"].pop(PART)
    config["pretrained"]["model.network"] = config["pretrained"]["model.diffusion"]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (entry(sha256="../../outside"), CheckpointError, r"pretrained\.model\.autoencoder is not a place and a hash"),
        (entry(sha256="A" * 64), CheckpointError, "is not a place and a hash"),
        (entry(where=["hf:a/b"]), CheckpointError, "is not a place and a hash"),
        (
            entry(where="hf:somebody/model", sha256="0" * 64),
            CheckpointError,
            "so it needs your consent. To allow it",
        ),
        (entry(where="/etc/x.safetensors", sha256="0" * 64), CheckpointError, "so it needs your consent"),
        (entry(sha256="???"), CheckpointError, "so it needs your consent"),
        (entry(sha256=None), CheckpointError, r"made by another model \(autoencoder\.\S+ is missing there"),
        (renamed, ConfigError, r"pretrained: model\.network cannot be a pretrained part"),
    ],
)
def test_a_config_of_somebody_else_reaches_nothing(
    change: Callable[[dict[str, Any]], None],
    kind: type[GenlabError],
    message: str,
    stopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("genlab.interop.origin._from_the_hub", None)  # is never asked
    run = copied(stopped, tmp_path / "run", change)
    (run / ".seal").unlink()
    with pytest.raises(kind, match=message):
        command_line(["sample", f"run={run}", "n=1"])


def test_what_a_run_of_somebody_else_brings_along_is_used(stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path / "run", entry(where="hf:somebody/model"))
    (run / ".seal").unlink()
    command_line(["sample", f"run={run}", "n=1"])


def test_no_link_is_followed_to_a_part(stopped: Path, tmp_path: Path) -> None:
    run = copied(stopped, tmp_path / "run")
    path = part_of(run)
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    with pytest.raises(CheckpointError, match="it is a link, not a regular file"):
        command_line(["sample", f"run={run}", "n=1"])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="it is a FIFO"):
        command_line(["sample", f"run={run}", "n=1"])
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="parts is a link"):
        command_line(["sample", f"run={run}", "n=1"])
