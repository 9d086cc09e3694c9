"""Secrets are nowhere: not in the folder of a run, nor in what it prints, nor in what W&B keeps of it."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger

from genlab import cli, redaction
from genlab.config.overrides import parse
from genlab.errors import ConfigError
from genlab.redaction import check_can_be_kept, one_line, printable, redact, redacted, remember
from tiny_run import BARE, MLP, only_run

HERE = __name__
CANARY = re.compile(rb"canary[0-9]+")


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_seen", set())
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # cli.main sets it: put it back afterwards


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("logger.x.api_key=abc", "logger.x.api_key=***"),
        ("+logger.x={_target_: X, password: abc, b: 1}", "+logger.x={_target_: X, password: ***, b: 1}"),
        ("{'AWS_SECRET_ACCESS_KEY': 'a b'}", "{'AWS_SECRET_ACCESS_KEY': '***'}"),
        ("--token=abc", "--token=***"),
        ("http://h/x?token=abc&n=1", "http://h/x?token=***&n=1"),
        ("http://user:p@ss@host/x", "http://user:***@host/x"),
        ("https://0123456789abcdef0123@host/x", "https://***@host/x"),
        ("Authorization: Bearer abcdef123", "Authorization: Bearer ***"),
        ("hf_abcdefghijklmnopqrstuv AKIAABCDEFGHIJKLMNOP", "*** ***"),
        *((text, text) for text in (
            "logger.x.api_key=${oc.env:KEY}", "data.image_key=images", "data.tokenizer.end_token=<|endoftext|>",
            "spec.start_token: 10", "tokens: 12", "token id 50300 is outside the vocabulary", "data.token: null",
            "unknown option 'token': Digits has no such argument", "ssh://git@github.com/x",
        )),
    ],
)  # fmt: skip
def test_text(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "12345678")
    monkeypatch.setenv("SHORT_TOKEN", "on")
    monkeypatch.setenv("HTTP_PROXY", "http://me:canary1@proxy:80")
    assert redact("token 12345678 is on, canary1") == "token *** is on, ***"


def test_what_stood_under_the_name_of_a_secret_is_hidden_everywhere() -> None:
    config = {"logger": {"x": {"password": "canary1\n'2", "n": [1, None, "a canary1\n'2"], "url": "x://a:canary3@b"}}}
    remember(config)
    assert redacted(config) == {"logger": {"x": {"password": "***", "n": [1, None, "a ***"], "url": "x://a:***@b"}}}
    remember({"token": "???", "secret": "${oc.env:X}", "password": "on"})
    assert redact("??? ${oc.env:X} on") == "??? ${oc.env:X} on"


WORDS = ("diffusion", "genlab", "genlab.model", "digits", "/data/images64", "vae_mnist_small2", "Diffusion", "12345678",
         "model.network.width=8", "outputs", "pytorch_lightning", "examples", "AdamW")  # fmt: skip


@pytest.mark.parametrize("name", ["KEY", "DATA_KEY", "TOKEN", "PROXY_AUTH", "DB_PASSWORD"])
def test_words_in_the_environment_hide_nothing_of_a_config(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets, choices, paths, numbers and names: as a run is continued from them."""
    config = {
        "model": {"_target_": "genlab.model.diffusion.Diffusion", "name": "vae_mnist_small2", "width": 12345678},
        "data": {"_target_": "genlab.data.digits.Digits", "root": "/data/images64", "names": ["digits", "examples"]},
        "trainer": {"_target_": "pytorch_lightning.Trainer"},
        "logger": {"wandb": {"_target_": "genlab.logger.tracking.Wandb", "project": "diffusion"}},
    }
    typed = ["model=diffusion", "data=digits", "budget.value=12345678", "outputs=/data/images64", "optimizer=AdamW"]
    for value in WORDS:
        monkeypatch.setenv(name, value)
        assert redacted(config) == config, value
        assert redacted(typed) == typed, value
        check_can_be_kept(config)
    monkeypatch.setenv(name, "diffusion")
    told = "unknown model 'difusion'. Did you mean 'diffusion'? python train.py run=outputs/diffusion-digits/x"
    assert redact(told) == told, "a remedy works"


def test_what_cannot_be_written_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary1-8f3kk2jd9")
    monkeypatch.setenv("MY_TOKEN", "diffusion")
    written = {"data": {"_target_": "x.Y", "server": "at canary1-8f3kk2jd9", "token": "canary1-8f3kk2jd9"}}
    assert redacted(written) == {"data": {"_target_": "x.Y", "server": "at ***", "token": "***"}}
    with pytest.raises(ConfigError, match=r"data\.server holds the value of the environment variable MY_API_KEY\."):
        check_can_be_kept(written)
    with pytest.raises(ConfigError, match=r"model\.parts holds the value of the environment variable MY_TOKEN\."):
        check_can_be_kept({"model": {"parts": [1, "${oc.env:MY_TOKEN,x}"]}})
    check_can_be_kept(
        {"data": {"token": "${oc.env:MY_TOKEN}", "password": "x"}, "logger": {"x": {"a": "canary1-8f3kk2jd9"}}}
    )
    assert redacted({"logger": {"x": {"a": "by canary1-8f3kk2jd9"}}}) == {"logger": {"x": {"a": "by ***"}}}


def test_services_are_told_what_came_from_a_secret_variable_and_files_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "canary")
    remember({"logger": {"x": {"note": "${oc.env:MY_TOKEN}"}}})
    resolved = {
        "logger": {"x": {"note": "canary", "others": ["a canary"]}},
        "data": {"_target_": "canary", "name": "canary"},
    }
    hidden = {"x": {"note": "***", "others": ["a ***"]}}
    assert redacted(resolved) == {"logger": hidden, "data": resolved["data"]}


def test_a_run_whose_model_is_the_value_of_a_key_can_be_sampled(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "diffusion")
    monkeypatch.setattr(logging.root, "handlers", [])
    cli.main(["train", *BARE, *MLP, "budget.value=8", "model=diffusion", f"outputs={tmp_path}"])
    run = only_run(tmp_path)
    assert f"run={run} n=64 seed=1" in capfd.readouterr().out
    cli.main(["sample", f"run={run}", "n=1", f"out={tmp_path / 'x.npz'}"])
    assert (tmp_path / "x.npz").exists()


def test_lines_do_not_act_on_a_terminal() -> None:
    assert one_line("a\nb\x1b[31m \u202e") == r"a b\x1b[31m \u202e"
    assert printable("é ✓ \udc80") == r"é ✓ \udc80"


class Gossip(Logger):
    """Repeats all that it is told."""

    name, version, experiment = "gossip", "", None

    def __init__(self, **told: Any):
        super().__init__()
        self.told = told
        warnings.warn(f"warned of {told}", stacklevel=2)
        logging.getLogger("gossip").warning("logged %s", told)

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, *_: Any, **__: Any) -> None:
        raise ConnectionError(f"no answer from {self.told}")


class Fails(Callback):
    """Ends the run with an exception that says too much."""

    def __init__(self, told: str):
        self.told = told

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        header = {"Authorization": "Bearer canary20.token"}
        raise RuntimeError(f"{self.told} {header} password=canary21 http://x:canary22@y/ canary23-of-the-proxy")


ENVIRONMENT = {
    "WANDB_API_KEY": "canary1" + "0" * 33,
    "HF_TOKEN": "hf_canary2abcdefghijklmnop",
    "AWS_SECRET_ACCESS_KEY": "canary3/+abcdefgh",
    "AWS_ACCESS_KEY_ID": "canary4abcdefgh",
    "DB_PASSWORD": "canary5-'\"\\ x",
    "http_proxy": "http://me:canary23-of-the-proxy@127.0.0.1:9",
    "PLAIN": "canary7-by-the-option's-name",
}
NODE = {"gossip": {"_target_": f"{HERE}.Gossip", "token": "${oc.env:PLAIN}", "note": "${oc.env:DB_PASSWORD}",
                   "deep": {"list": [{"secret": "canary8 or so"}], "headers": {"Authorization": "Bearer canary9abc"}},
                   "url": "https://me:canary10@host/x?api_key=canary11", "again": "${.deep.list.0.secret}"},
        }  # fmt: skip


def typed(tmp_path: Path) -> list[str]:
    folder = tmp_path / "token=canary12"
    (folder / "logger").mkdir(parents=True, exist_ok=True)
    (folder / "logger/gossip.yaml").write_text(yaml.safe_dump(NODE))
    return [
        "--config-dir",
        str(folder),
        *BARE,
        *MLP,
        f"outputs={tmp_path / 'outputs'}",
        "logger=[gossip]",
        "+logger.gossip.api_key=canary13",
        "+logger.gossip.key=${oc.env:AWS_ACCESS_KEY_ID}",
    ]


def found(folder: Path) -> dict[str, set[bytes]]:
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    return {str(path): set(CANARY.findall(text)) for path, text in files.items() if CANARY.search(text)}


def test_a_run_keeps_and_prints_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What W&B keeps of a run: tests/test_loggers.py."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["train.py", *typed(tmp_path)])
    monkeypatch.setattr(logging.root, "handlers", [])
    cli.main(["train", *typed(tmp_path)])
    printed = capfd.readouterr()
    warned = [line for line in printed.err.splitlines() if not line.startswith("training ")]
    assert [line.split()[:2] for line in warned] == [["warning:", word] for word in ("warned", "logged", "Gossip")]
    assert "stopped working (no answer from {" in warned[-1]
    assert not CANARY.search((printed.out + printed.err).encode()), printed
    run = only_run(tmp_path / "outputs")
    assert not found(run)
    assert yaml.safe_load((run / "config.yaml").read_text())["logger"]["gossip"]["token"] == "***"
    assert parse(yaml.safe_load((run / "overrides.yaml").read_text())), "to go on, what was typed is parsed once more"


@pytest.mark.parametrize("trace", ["", "1"])
def test_nor_does_one_that_fails(
    trace: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (ENVIRONMENT | {"GENLAB_TRACE": trace}).items():
        monkeypatch.setenv(name, value)
    arguments = [*typed(tmp_path), f"+callbacks.fails={{_target_: {HERE}.Fails, told: '${{oc.env:DB_PASSWORD}}'}}"]
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *arguments])
    printed = capfd.readouterr()
    *before, line = printed.err.splitlines()
    assert ended.value.code == 1
    assert line.startswith("error: RuntimeError: *** {'Authorization': '***'} password=*** http://x:***@y/ *** (")
    assert any(text.startswith("Traceback") for text in before) == bool(trace)
    assert not CANARY.search((printed.out + printed.err).encode()), printed
    assert not found(only_run(tmp_path / "outputs"))


def test_the_config_is_shown_without(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.main(["train", *typed(tmp_path), "--cfg", "job"])
    shown = capsys.readouterr().out
    assert not CANARY.search(shown.encode())
    assert yaml.safe_load(shown)["logger"]["gossip"]["note"] == "${oc.env:DB_PASSWORD}"
