"""What a user gets for a command line: the answer, or one line that says what to do; and never half a run folder."""

import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from genlab import cli
from genlab.command import train

REPOSITORY = Path(__file__).parents[1]
GROUPS = "model", "model/network", "model/sampler", "data", "trainer"


class Trained(BaseException):
    """Training would have begun."""


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object) -> None:
        raise Trained

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # cli.main sets it: put it back afterwards


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, exit_code: int = 2) -> str:
    """The one line on stderr of a command that must be refused, with nothing printed before."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == exit_code
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err.removesuffix("\n")


TRAINING = [
    ("model=difusion", "error: unknown model 'difusion'. Did you mean 'diffusion'? Available: {model}."),
    ("modle=diffusion", "error: unknown option 'modle'. Did you mean 'model'?"),
    ("+modle=diffusion", "error: unknown option 'modle'. Did you mean 'model'?"),
    ("++modle=diffusion", "error: unknown option 'modle'. Did you mean 'model'?"),
    ("data=image_folder", "error: data.root has no value. Set it: data.root=/path/to/images"),
    ("trainer.max_epochs=ten", "error: trainer.max_epochs must be a whole number >= 1 or null, got 'ten'."),
    ("trainer.max_epochs=0", "error: trainer.max_epochs must be a whole number >= 1 or null, got 0."),
    ("model.optimizer.lr=abc", "error: model.optimizer.lr must be a number, got 'abc'."),
    (
        "model.optimzer.lr=1e-3",
        "error: unknown option 'model.optimzer.lr'. Did you mean 'model.optimizer.lr'?",
    ),
    (
        "data.batchsize=3",
        "error: unknown option 'data.batchsize': Digits has no such argument. Did you mean 'data.batch_size'?",
    ),
    (
        "model.network._target_=genlab.model.sampler.heun.Heun",
        "error: model.network: genlab.model.sampler.heun.Heun does not fit here. This place needs a "
        "DenoisingNetwork, which has forward(x, noise_level, condition). "
        "Use model/network=dit or dit_small or mlp or mmdit or unet or unet2d_condition or unet_large.",
    ),
    (
        "model.sampler._target_=genlab.model.network.dit.DiT",
        "error: model.sampler: genlab.model.network.dit.DiT does not fit here. This place needs a Sampler, which has "
        "__call__(denoise, noise, generator). "
        "Use model/sampler=ancestral or consistency or ddim or dpm_solver or euler or heun.",
    ),
    ("model.sampler=euler", "error: model.sampler is a part of the model, chosen with slashes: model/sampler=euler"),
    (
        "model/objective/noise_schedule=cosine",
        "error: model/objective/noise_schedule cannot be chosen: the model/objective has no noise_schedule. "
        "Choose one that has: model/objective=ddpm or ddpm_v or ddpm_x0.",
    ),
    ("data=[digits]", "error: data takes one option, got data=[digits]. Available: {data}."),
    ("data=null", "error: unknown data 'null'. Available: {data}."),
    ("~data", "error: ~data: a run needs its data. Available: {data}."),
    ("~evaluation", "error: ~evaluation: a run needs its evaluation; only parts of it can be deleted."),
    ("trainer=gpus", "error: unknown trainer 'gpus'. Did you mean 'gpu'? Available: {trainer}."),
    ("data.limit=-5", "error: data.limit must be a whole number >= 1 or null, got -5."),
    ("data.limit=0", "error: data.limit must be a whole number >= 1 or null, got 0."),
    ("data.num_workers=-1", "error: data.num_workers must be a whole number >= 0, got -1."),
    ("budget.value=nan", "error: budget.value must be a whole number, got nan."),
    ("seed=12345678901234567890123", "error: seed must be a number of at most 19 digits, got one of 23."),
    ("trainer.devices=0", None),
    ("model.latent_shape=[0,1,1]", None),
    ("lr=1e-3", "error: unknown option 'lr'. The learning rate is model.optimizer.lr=..."),
    ("--resume", "error: unknown option '--resume'. A run is continued with run=<its folder>."),
    ("ckpt_path=x", "error: unknown option 'ckpt_path'. A run is continued with run=<its folder>."),
    (
        "hydra/launcher=submitit",
        "error: unknown option 'hydra/launcher'. Many runs are started with -m, and launcher=local, ray or slurm.",
    ),
    (
        "max_epochs=3",
        "error: unknown option 'max_epochs'. Give the run a budget: budget=examples "
        "budget.value=1000000. Or limit the epochs too: trainer.max_epochs=...",
    ),
    ("logger=csv", "error: unknown logger 'csv'. Every run writes metrics.csv: use logger=[none] for nothing else."),
    ("model = vae", "error: cannot read 'model = vae'. Write it without spaces: model=vae"),
    (
        "-m",
        "error: -m makes a trial for each combination of values, and none are given. Name some: "
        "seed=0,1,2 or model=gan,vae; or leave -m out for one run.",
    ),
    ("budget.value=-1", "error: budget.value must be finite and above 0, got -1."),
    ("seed=abc", None),
    ("trainer.devices=two", None),
    ("trainer.accelerator=tpuu", None),
    ("run_dir=x", "error: run_dir cannot be set: the run fills it in."),
    ("spec.shape=[1,8,8]", "error: spec.shape cannot be set: the run fills it in."),
    ("hydra.run.dir=x", "error: unknown option 'hydra.run.dir'. Run folders are made in outputs=<folder>."),
    ("trainer.callbacks=[]", "error: trainer.callbacks cannot be set: genlab sets it for Trainer."),
    (
        "model=a,b",
        "error: model=a,b names several values, and a run takes one. Choose one of them, or train them all with -m.",
    ),
    (
        "model.guidance=range(1,3)",
        "error: model.guidance=range(1,3) names several values, and a run takes one. Choose one of them, "
        "or train them all with -m.",
    ),
    ("digits", "error: 'digits' is not an option. Options look like name=value."),
    ("=3", "error: '=3' is not an option. Options look like name=value."),
    (
        "model=/a(b",
        "error: cannot read model=/a(b. Put text with special characters into quotes: 'model=\"/a(b\"'.",
    ),
    ("--frobnicate", "error: unknown flag '--frobnicate'. Options are written name=value."),
    ("--hepl", "error: unknown flag '--hepl'. Did you mean '--help'? Options are written name=value."),
    ("--config-dir=/no/such", "error: --config-dir /no/such: there is no such folder."),
    ("--cfg", "error: --cfg needs a value."),
    ("--cfg=hydra", "error: --cfg shows the config of a job: --cfg job, not --cfg hydra."),
    ("sweep=optuna", "error: unknown option 'sweep'. It goes with -m: genlab train -m sweep=optuna ..."),
    (
        "--experimental-rerun=x.pickle",
        "error: --experimental-rerun is refused: it would run code from a pickle. "
        "Continue a run with run=<its folder>.",
    ),
    (
        "run=/no/such",
        "error: run=/no/such: there is no run here (no config.yaml). Runs are in outputs/<model>-<data>/.",
    ),
]


@pytest.mark.parametrize(("typed", "line"), TRAINING, ids=[typed for typed, _ in TRAINING])
def test_a_mistake_is_one_line_and_no_folder(
    typed: str, line: str | None, capsys: pytest.CaptureFixture[str], outputs: Path, config_groups: dict[str, list[str]]
) -> None:
    said = refusal(capsys, "train", f"outputs={outputs}", typed)
    if line is None:
        assert typed.split("=")[0].split(".")[-1] in said
    else:
        for group in GROUPS:
            separator = ", " if "." not in group and "/" not in group else " or "
            line = line.replace("{" + group + "}", separator.join(config_groups[group]))
        assert said == line
    assert not outputs.exists()


def test_an_impossible_network_names_a_way_out(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    said = refusal(
        capsys, "train", f"outputs={outputs}", "model/network=unet", "model.network.channel_mult=[1,1,1,1,1,1]"
    )
    assert "multiples of 32" in said
    assert "Use fewer entries in model.network.channel_mult" in said
    assert not outputs.exists()


def test_the_config_is_shown_and_training_begins_once_all_is_checked(
    capsys: pytest.CaptureFixture[str], outputs: Path
) -> None:
    with pytest.raises(Trained):
        cli.main(["train", f"outputs={outputs}", "logger=[none]", "trainer=cpu", "model/network=mlp"])
    assert capsys.readouterr().out.startswith("model       Diffusion, ")
    assert outputs.exists()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "trian",
            "error: unknown command 'trian'. Did you mean 'train'? "
            "Commands: train, sample, directions, edit, chat, feedback, evaluate, export, verify, plan, compare.",
        ),
        ("sample", "error: run has no value. Set it: run=outputs/<model>-<data>/<run>"),
        ("sample run=null", "error: run has no value. Set it: run=outputs/<model>-<data>/<run>"),
        ("sample run=3", "error: run=3: there is no run here (no config.yaml). Runs are in outputs/<model>-<data>/."),
        ("sample run=x n=abc", "error: n must be a whole number >= 1, got 'abc'."),
        ("sample run=x n=1.5", "error: n must be a whole number >= 1, got 1.5."),
        ("sample run=x n=0", "error: n must be a whole number >= 1, got 0."),
        ("sample run=x n=true", "error: n must be a whole number >= 1, got True."),
        ("sample run=x batch_size=null", "error: batch_size must be a whole number >= 1, got None."),
        ("sample run=x batch_size=-1", "error: batch_size must be a whole number >= 1, got -1."),
        (
            "sample run=x label=1.5",
            "error: label must be a class, by its number or name, or several: label=[1,2], got 1.5.",
        ),
        ("sample run=x seed=x", "error: seed must be a whole number, got 'x'."),
        ("sample run=x ~n", "error: ~n: nothing to delete, n is not a part of the config."),
        ("sample -m run=a,b", "error: -m sweeps over trainings: genlab train -m ... Start one command for each."),
        (
            "train run=x folder=y",
            "error: run=x: there is no run here (no config.yaml). Runs are in outputs/<model>-<data>/.",
        ),
        ("evaluate run=x baselines=1", "error: baselines must be true or false, got 1."),
    ],
)
def test_mistakes_in_commands_and_their_options(command: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, *shlex.split(command)) == line


def test_trace_adds_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GENLAB_TRACE", "1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "modle=x"])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: unknown option 'modle'. Did you mean 'model'?"


def test_secrets_are_not_repeated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-5e7a1b")
    assert "canary-5e7a1b" not in refusal(capsys, "train", "model=canary-5e7a1b")
    cli.main(
        ["train", "logger.wandb.project=canary-5e7a1b", "logger.wandb.name=${oc.env:WANDB_API_KEY}", "--cfg", "job"]
    )
    shown = capsys.readouterr().out
    assert "canary-5e7a1b" not in shown
    assert "${oc.env:WANDB_API_KEY}" in shown


def run(*command: str, **env: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, cwd=REPOSITORY, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_help_lists_every_part_without_torch(config_groups: dict[str, list[str]]) -> None:
    code = "import sys; from genlab.cli import main; main(['train', '--help']); print('torch' in sys.modules)"
    *shown, torch_was_imported = run(sys.executable, "-c", code).splitlines()
    assert torch_was_imported == "False"
    assert any(line.startswith("  run=") for line in shown)
    for group, options in config_groups.items():
        assert any(line.startswith(f"  {group}=") and line.endswith(" | ".join(options)) for line in shown)


@pytest.mark.parametrize("script", ["train.py", "scripts/sample.py", "scripts/evaluate.py", "scripts/compare.py"])
def test_scripts_are_the_commands(script: str) -> None:
    shown = run(sys.executable, script, "--help")
    assert shown.startswith(f"usage: python {script} [name=value ...]\n")
    asked = run(sys.executable, "-m", "genlab.cli", Path(script).stem, "--help")
    assert shown.replace(f"python {script}", f"genlab {Path(script).stem}") == asked


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_usage_names_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(arguments)
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in cli.OPTIONS)


@pytest.mark.parametrize(
    ("line", "arguments", "offered"),
    [
        ("python train.py model/enc", ["train", "-sc", "query=bash"], "model/encoder="),
        ("python train.py model/network=d", ["train", "-sc", "query=bash"], "model/network=dit"),
        ("genlab train model/network=d", ["-sc", "query=bash"], "model/network=dit"),
        ("genlab tr", ["-sc", "query=bash"], "train"),
        ("genlab com", ["-sc", "query=bash"], "compare"),
        ("genlab sample model/sampler=he", ["-sc", "query=bash"], "model/sampler=heun"),
        ("genlab train model.optimizer.l", ["-sc", "query=bash"], "model.optimizer.lr="),
    ],
)
def test_the_shell_completes(
    line: str, arguments: list[str], offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    cli.main(arguments)
    assert offered in capsys.readouterr().out.split()


def test_completion_prints_a_script_for_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "-sc", "install=bash"])
    assert "complete -o nospace" in capsys.readouterr().out
