"""What a shell is offered: each command's own options and flags, and nothing that genlab then refuses."""

import pytest

from genlab import cli
from genlab.command.options import OPTIONS
from genlab.errors import ConfigError

OWN = {
    "train": ("run=", "folder=", "allow_changes="),
    "sample": ("run=", "n=", "prompt=", "label=", "seed=", "out="),
    "edit": ("run=", "image=", "method=", "mask=", "strength=", "out="),
    "directions": ("run=", "method=", "count=", "judge=", "strength="),
    "chat": ("run=", "system=", "seed="),
    "feedback": ("run=", "prompts=", "n=", "rate=", "out=", "report="),
    "evaluate": ("run=", "images=", "reference=", "on_bad=", "image_key=", "n="),
    "export": ("run=", "format=", "out="),
    "verify": ("run=",),
    "plan": ("hours=", "flops=", "examples="),
    "compare": ("runs=", "out=", "sort=", "plots="),
}
FLAGS = {
    "train": {"--help", "--cfg", "--config-dir", "--shell-completion", "--version", "--multirun"},
    "compare": {"--help", "--shell-completion", "--version"},
}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def ask(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        cli.run(["-sc", "query=bash"])
        return capsys.readouterr().out.split()

    return ask


@pytest.mark.parametrize("command", OPTIONS)
def test_a_commands_own_options_and_flags_are_offered(command: str, offered) -> None:  # type: ignore[no-untyped-def]
    words = offered(f"genlab {command} ")
    assert words[: len(OPTIONS[command])] == [f"{name}=" for name in OPTIONS[command]]
    assert {*OWN[command]} <= {*words}
    assert len(words) == len({*words})
    assert {*offered(f"genlab {command} -")} == FLAGS.get(command, FLAGS["train"] - {"--multirun"})
    assert offered(f"genlab {command} --") == offered(f"genlab {command} -")


@pytest.mark.parametrize("command", OPTIONS)
def test_a_flag_that_is_not_offered_is_refused(command: str) -> None:
    for flag in FLAGS["train"] - FLAGS.get(command, FLAGS["train"] - {"--multirun"}):
        value = {"--cfg": ["job"], "--config-dir": ["."]}.get(flag, [])
        needed = ["runs=x"] if command == "compare" else ["run=x"] if command in ("sample", "chat") else []
        needed = ["run=x", "image=x", "method=invert"] if command == "edit" else needed
        with pytest.raises(ConfigError, match=r"-m sweeps over trainings|unknown option"):
            cli.run([command, flag, *value, *needed])


def test_a_sweep_is_offered_its_own_parts(offered) -> None:  # type: ignore[no-untyped-def]
    alone, many = offered("genlab train "), offered("genlab train -m ")
    for name in ("sweep", "launcher="):
        assert name in many
        assert name not in alone
    assert not {"run=", "folder="} & {*many}  # of one run
    assert offered("genlab train --cfg ") == ["job"]


# Values that fit, of what is offered without a dot, which opens a part, or is the beginning of several names.
VALUES = {"callbacks": "[default]", "cpu": "{}",
          "data": "digits", "dry_run": "true", "evaluation": "", "experiment": "vae_mnist_small",
          "logger": "[none]", "metrics": "[]", "milestones": "null", "model": "vae", "outputs": "x",
          "portable": "true", "profile": "true", "rank_timeout": "60", "seed": "1", "start": "null", "task": "generate",
          "trainer": "cpu", "budget": "seconds", "debug": "overfit", "preset": "stylegan2_cifar"}  # fmt: skip


def test_what_is_offered_is_accepted(offered, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """All that may follow ``train``, with a value, in one command that shows its config."""
    words = {word.rstrip("=.") for word in offered("genlab train ")} - {*OPTIONS["train"]}
    debugs = [word for word in offered("genlab train debug=") if not word.endswith("=")]
    options = [word for word in offered("genlab train data.") if word.endswith("=")]
    assert words <= {*VALUES}
    assert debugs
    assert "data.limit=" in options
    choices = [f"{word}={VALUES[word]}" for word in sorted(words - {"debug", "experiment", "evaluation", "preset"})]
    data = [f"{word}{'false' if word == 'data.flip=' else 2}" for word in options]
    for typed in (
        choices,
        ["experiment=vae_mnist_small"],
        ["preset=stylegan2_cifar"],
        data,
        *([word] for word in debugs),
    ):
        cli.run(["train", *typed, "--cfg", "job"])


@pytest.mark.parametrize("hidden", ["hydra", "spec", "run_dir", "run_id", "pretrained", "sweep"])
def test_what_is_refused_is_not_offered(hidden: str, offered) -> None:  # type: ignore[no-untyped-def]
    assert not [word for word in offered(f"genlab train {hidden[:9]}") if word.startswith(hidden)]
    with pytest.raises(ConfigError):
        cli.run(["train", f"{hidden}=x", "--cfg", "job"])
