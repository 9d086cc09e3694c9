"""The command line: ``genlab train|sample|edit|directions|chat|feedback|evaluate|export|plan|verify|compare``, which
train.py and the files of scripts/ call too.

One grammar everywhere, Hydra's ``name=value``. Every mistake in it is reported in one line, before a folder is made
and, where possible, before torch is imported.

Exit codes: 0 done; 1 unforeseen, 2 config, 3 checkpoint, 4 storage, 5 data, 6 numerics, 7 resources, 8 trials of a
sweep that failed, 9 a recipe outside its bands; 130 Ctrl-C, 138 SIGUSR1, 141 a closed pipe, 143 SIGTERM. With
GENLAB_TRACE=1 an error shows its traceback.
"""

import atexit
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import genlab

if __name__ == "__main__" and not sys.flags.safe_path and Path(genlab.__file__).parents[1] != Path(sys.path[0]):
    del sys.path[0]  # python -m puts the current folder first: a hydra.py there is not Hydra

from genlab import __version__, started_as
from genlab.command import terminal
from genlab.command.help import command_help, sweep_help, usage
from genlab.command.options import OF_IMAGES, OPTIONS, edited, sampled, take_options, with_reference
from genlab.config.pointers import pointer_for
from genlab.errors import ConfigError, GenlabError, ResourceError, StorageError, did_you_mean
from genlab.files.paths import read_path
from genlab.machine.garbage import no_garbage_collection
from genlab.machine.home import ensure_home
from genlab.redaction import one_line, redact, redacted

REFUSED = {
    "--experimental-rerun": "it would run code from a pickle. Continue a run with run=<its folder>.",
}
SHORT = {"-h": "--help", "-c": "--cfg", "-cd": "--config-dir", "-sc": "--shell-completion", "-m": "--multirun"}
_LONGEST = 500  # characters of an unexpected error
FLAGS = ("--help", "--cfg", "--config-dir", "--shell-completion", "--version", "--multirun")
_ALONE = ("--help", "--version", "--multirun")  # take no value


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code; an error is one line on stderr."""
    code = _exit_code(argv)
    if _in_a_process_group():
        _leave(code)
    if code:
        sys.exit(code)


def _exit_code(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    terminal.prepare()
    try:
        terminal.check_current_folder()
        run(arguments)
        terminal.flush()
    except GenlabError as error:
        rank = os.environ.get("LOCAL_RANK", "0")
        _say(f"{'' if rank == '0' else f'rank {rank}: '}{error.prefix}{error}")
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has gone
        terminal.give_up_output()
        return 141
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        print("stopped before the first step; nothing was lost.", file=sys.stderr)
        return 130
    except MemoryError as error:  # where nothing closer to the cause named a remedy
        cause = str(error) or "no memory is left"
        _say(f"error: out of memory ({cause}). Use less data, or a smaller model.")
        return ResourceError.exit_code
    except Exception as error:  # unexpected
        if terminal.is_of_the_disk(error):
            _say(f"error: {terminal.what_was_wrong(error)}")
            with suppress(OSError):
                terminal.flush()  # what cannot be written is dropped
            return StorageError.exit_code
        *_, where = traceback.extract_tb(error.__traceback__)
        cause = one_line(f"{type(error).__name__}: {error}").removesuffix(".")
        _say(
            f"error: {cause[:_LONGEST]} ({Path(where.filename).name}, line {where.lineno}). "
            "genlab did not expect this; GENLAB_TRACE=1 shows the traceback."
        )
        return 1
    return 0


def _say(line: str) -> None:
    """An error, in one line on stderr; with GENLAB_TRACE its traceback before it."""
    if os.environ.get("GENLAB_TRACE"):
        print(redact(traceback.format_exc()), file=sys.stderr, end="")
    print(one_line(line), file=sys.stderr)


def _in_a_process_group() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def _leave(code: int) -> None:
    """Exit at once, when everything is closed: gloo's threads outlive their group, and sometimes abort an interpreter
    that shuts down."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str]) -> None:
    """Run a command. Raises GenlabError."""
    command, *rest = arguments or ["--help"]
    if command == "--version":
        print(__version__)
        return
    if command in ("--help", "-h"):
        print(usage())
        return
    if command in ("--shell-completion", "-sc"):  # the shell asks the program, which then finds the command in the line
        command, rest = "train", arguments
    if command not in OPTIONS:
        raise ConfigError(
            f"unknown command '{command}'.{did_you_mean(command, list(OPTIONS))} Commands: {', '.join(OPTIONS)}."
        )
    flags, overrides = _split(rest)
    _run_command(command, flags, overrides)


def _split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """``--flag value`` pairs, and the rest. Raises ConfigError."""
    flags: dict[str, str] = {}
    overrides = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = SHORT.get(flag, flag)
        if flag in REFUSED:
            raise ConfigError(f"{flag} is refused: {REFUSED[flag]}")
        if flag not in FLAGS:
            if pointer := pointer_for(flag):
                raise ConfigError(pointer)
            raise ConfigError(f"unknown flag '{word}'.{did_you_mean(flag, FLAGS)} Options are written name=value.")
        if flag in _ALONE:
            flags[flag] = ""
        elif equals or queue:
            flags[flag] = value if equals else queue.pop(0)
        else:
            raise ConfigError(f"{flag} needs a value.")
    if flags.get("--cfg", "job") != "job":
        raise ConfigError(f"--cfg shows the config of a job: --cfg job, not --cfg {flags['--cfg']}.")
    return flags, overrides


def _run_command(command: str, flags: dict[str, str], overrides: list[str]) -> None:
    from genlab.command.completion import complete
    from genlab.config.tree import ConfigTree, check_complete

    if "--version" in flags:
        print(__version__)
        return
    if "--multirun" in flags and not {"--help", "--shell-completion"} & set(flags):
        if command != "train":
            sweeping = started_as.command("train -m")
            raise ConfigError(f"-m sweeps over trainings: {sweeping} ... Start one command for each.")
        _sweep(flags, overrides)
        return
    tree = ConfigTree(flags.get("--config-dir"))
    if "--help" in flags:
        is_sweep = "--multirun" in flags and command == "train"
        print(sweep_help(ConfigTree(flags.get("--config-dir"), "sweep")) if is_sweep else command_help(command, tree))
        return
    if "--shell-completion" in flags:
        complete(command, flags["--shell-completion"], tree, overrides)
        return
    options, overrides = take_options(command, overrides)
    if command == "compare":
        _compare(options, [*flags, *overrides])
        return
    if command == "feedback":
        _feedback(tree, options, flags, overrides)
        return
    if command == "sample":
        sampled(options)
    if command == "edit":
        edited(options)
    if command == "evaluate":
        overrides = with_reference(options, overrides)
    config, saved_overrides = _config(tree, options.get("run"), overrides, command)
    if options.get("reference") is not None:
        config.data.root = options["reference"]
    if "--cfg" in flags:
        _print_config(config)
        return

    check_complete(config)
    ensure_home(str(config.outputs))
    from genlab.config.build import Misfit

    with no_garbage_collection():  # imports torch and Lightning: seconds, so only now
        from genlab.run.assemble import check_config

    try:
        check_config(config, overrides)
    except Misfit as error:
        fitting = [name for name, target in tree.targets(error.path) if _would_fit(name, target, error)]
        hint = f" Use {error.path.replace('.', '/')}={' or '.join(fitting)}." if fitting else ""
        raise ConfigError(f"{error}{hint}") from error
    if command == "plan":
        from genlab.planning.plan import plan

        plan(config, overrides, **options)
        return
    folder = None if options["run"] is None else read_path(options["run"])
    if command == "train":
        from genlab.command.train import train

        if folder is not None and options["folder"] is not None:
            raise ConfigError(f"folder={options['folder']} is for a new run, and run={folder} continues one.")
        new = None if options["folder"] is None else read_path(options["folder"])
        train(config, saved_overrides + overrides, folder, folder=new, allow_changes=options["allow_changes"])
        return
    if command == "verify":
        from genlab.command.verify import verify

        verify(config, saved_overrides + overrides, folder)
        return
    if command == "sample":
        from genlab.command.sample import sample

        assert folder is not None
        sample(config, folder, **{name: options[name] for name in OPTIONS["sample"] if name != "run"})
        return
    if command == "edit":
        from genlab.command.edit import edit

        assert folder is not None
        edit(config, folder, options)
        return
    if command == "directions":
        from genlab.command.directions import directions

        assert folder is not None
        directions(config, folder, **{name: options[name] for name in OPTIONS["directions"] if name != "run"})
        return
    if command == "export":
        from genlab.command.export import export

        assert folder is not None
        export(config, folder, options["format"], options["out"])
        return
    if command == "chat":
        from genlab.command.chat import chat

        assert folder is not None
        chat(config, folder, options["system"], options["seed"])
        return
    from genlab.command.evaluate import evaluate_images, evaluate_run

    for name, setting in (("seed", "seed"), ("seeds", "num_seeds"), ("bootstrap", "bootstrap")):
        if options[name] is not None:
            config.evaluation[setting] = options[name]
    if folder is None:
        evaluate_images(
            config, **{name: options[name] for name in OF_IMAGES}, reference_key=options.get("reference_key")
        )
    else:
        evaluate_run(
            config, folder, **{name: options[name] for name in ("n", "baselines", "likelihood", "best_of", "judge")}
        )


def _sweep(flags: dict[str, str], overrides: list[str]) -> None:
    """Trials are processes of their own: this one never imports torch."""
    from genlab.sweep.plan import compose_sweep, read_plan

    if "--cfg" in flags:
        _print_config(compose_sweep(overrides, flags.get("--config-dir")))
        return
    from genlab.sweep.loop import sweep

    sweep(read_plan(overrides, flags.get("--config-dir")))


def _print_config(config: Any) -> None:
    from omegaconf import OmegaConf

    print(OmegaConf.to_yaml(OmegaConf.create(redacted(OmegaConf.to_container(config)))))


def _feedback(tree: Any, options: dict[str, Any], flags: dict[str, str], overrides: list[str]) -> None:
    """Of no run, one or two. Without a run only files are read, and torch is not imported."""
    runs = options["run"] or []
    if not runs and overrides:
        name = overrides[0].lstrip("+").partition("=")[0]
        raise ConfigError(
            f"unknown option '{name}'.{did_you_mean(name, list(options))} Without run=, feedback takes: "
            f"{', '.join(options)}."
        )
    from genlab.feedback.asked import check_options

    check_options(options)
    configs = [_config(tree, run, overrides, "feedback")[0] for run in runs]
    if "--cfg" in flags:
        for config in configs:
            _print_config(config)
        return
    if not runs:
        from genlab.feedback.show import go_on, report

        if options["samples"]:
            from genlab.feedback.stored import prepare_stored

            prepare_stored(options)
        if options["import"] is not None:
            from genlab.feedback.imported import import_judgments

            import_judgments(read_path(options["import"]), read_path(options["out"]))
            report(read_path(options["out"]), None)
        elif options["report"] is not None:
            report(read_path(options["report"]), options["export"])
        else:
            go_on(read_path(options["out"]), options["port"])
        return
    ensure_home(str(configs[0].outputs))
    with no_garbage_collection():
        from genlab.run.assemble import check_config
    for config in configs:
        check_config(config, overrides)
    from genlab.command.feedback import feedback

    feedback(configs, [read_path(run) for run in runs], overrides, options)


def _compare(options: dict[str, Any], others: list[str]) -> None:
    """Reads files only: there is no config to change."""
    if others:
        name = others[0].lstrip("+").partition("=")[0]
        raise ConfigError(
            f"unknown option '{name}'.{did_you_mean(name, list(options))} compare takes: {', '.join(options)}."
        )
    from genlab.report.comparison import compare

    compare(options.pop("runs"), **options)


def _would_fit(name: str, target: str, error: Any) -> bool:
    from genlab.config.build import fits, resolve

    try:
        found = resolve(target, name)
    except ConfigError:  # a file of the user's that names nothing
        return False
    return fits(found, error.slot, partial=False) or fits(found, error.slot, partial=True)


def _config(tree: Any, run: str | None, overrides: list[str], command: str) -> tuple[Any, list[str]]:
    """The config of a command line, on top of a saved run's if there is one, and what had been typed for that."""
    if run is None:
        return tree.compose(overrides), []
    from genlab.run.saved_run import open_run

    return open_run(tree, run, overrides, trains=command in ("train", "verify"))


if __name__ == "__main__":
    main()
