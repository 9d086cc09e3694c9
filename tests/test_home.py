"""Containers whose user has no home, or none that can be written to."""

import io
import os
import pwd
import warnings
from pathlib import Path

import pytest

from genlab.data.array_cache import default_folder
from genlab.logger.wandb_mode import choose_wandb_mode
from genlab.machine.home import ensure_home

NAMES = ("HOME", "GENLAB_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "HF_HOME", "WANDB_MODE", "WANDB_API_KEY", "NETRC")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(name)


def unknown(*_: object) -> None:
    raise KeyError("getpwuid(): uid not found: 1234")


def test_an_unknown_user_without_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.warns(UserWarning, match=r"no home folder: caches are kept in .*/runs/\.home\. Set HOME"):
        ensure_home(str(tmp_path / "runs"))
    assert default_folder() == tmp_path / "runs" / ".home" / ".cache" / "genlab"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensure_home(str(tmp_path / "runs"))  # once
    assert not (tmp_path / "runs").exists(), "nothing is made before it is needed"


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.warns(
        UserWarning, match=r"file/\.cache/genlab cannot be written: caches are kept in .*/runs/\.cache\."
    ):
        ensure_home(str(tmp_path / "runs"))
    assert default_folder() == tmp_path / "runs" / ".cache" / "genlab"
    assert os.environ["HOME"] == str(tmp_path / "file"), "what can be read there is"


def test_caches_are_kept_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="Set GENLAB_CACHE to keep them elsewhere"):
        ensure_home("outputs")
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensure_home("outputs")
    assert default_folder() == tmp_path / "cache"


def test_a_home_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensure_home("outputs")
    assert default_folder() == tmp_path / ".cache" / "genlab"
    assert "XDG_CACHE_HOME" not in os.environ


@pytest.mark.parametrize("kind", ["none", "folder", "binary", "odd", "of another host", "unknown user"])
def test_no_login_in_an_odd_netrc(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it went to the network"))
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc = tmp_path / ".netrc"
    if kind == "folder":
        netrc.mkdir()
    elif kind == "unknown user":
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", unknown)
    elif kind != "none":
        netrc.write_bytes({"binary": b"\xff\xfe\x00wandb", "odd": b"machine api.wandb.ai nonsense wandb",
                           "of another host": b"machine wandb.example.org login user password x"}[kind])  # fmt: skip
    choose_wandb_mode()
    assert os.environ["WANDB_MODE"] == "offline"


def test_a_login_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda url, **_: asked.append(url) or io.BytesIO())
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password " + 40 * "0" + "\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    choose_wandb_mode()
    assert asked == ["https://api.wandb.ai"]
    assert "WANDB_MODE" not in os.environ


def test_a_mode_that_is_typed_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    choose_wandb_mode("disabled")
    assert os.environ["WANDB_MODE"] == "disabled"
