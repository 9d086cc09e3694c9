"""Imports run one way, and some things do not exist. Read from the sources; nothing is run."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
MODULES = {".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
           for path in sorted((SOURCE / "genlab").rglob("*.py"))}  # fmt: skip
SCRIPTS = [REPOSITORY / "train.py", *sorted((REPOSITORY / "scripts").glob("*.py"))]
BASE = "genlab.model.base"
FAMILIES = {name for name, path in MODULES.items()
            if name != BASE and re.search(r"^class \w+\((Generative)?Model\):", path.read_text(), re.M)}  # fmt: skip
ROOMS = {  # a folder of src/genlab, or a module beside them: what of the others it may import
    "errors": "",
    "progress": "",
    "seeding": "",
    "former_names": "",
    "started_as": "",
    "redaction": "errors",
    "files": "errors",
    "machine": "errors files",
    "config": "errors former_names files redaction started_as trust",
    "trust": "errors files redaction config",
    "milestones": "errors former_names files",
    "data": "errors files progress seeding",
    "model": "errors seeding",
    "rewards": "errors data model metrics",
    "budget": "errors model",
    "metrics": "errors files progress seeding machine data model",
    "sampling": "errors files seeding data model",
    "editing": "errors files seeding data model sampling",
    "directions": "errors files seeding data model metrics",
    "task": "errors progress seeding machine data model sampling",
    "evaluation": "errors former_names files progress seeding machine data model metrics sampling task",
    "logger": "errors former_names files redaction config metrics",
    "checkpoint": "errors files redaction data model",
    "callbacks": "errors files redaction progress seeding machine milestones data model metrics sampling evaluation "
    "logger checkpoint",
    "interop": "errors files data model checkpoint",
    "launcher": "errors redaction",
    "sweep": "errors former_names files redaction started_as config trust launcher",
    "report": "errors former_names files redaction progress started_as config logger",
    "feedback": "errors files redaction",
}
_BELOW = {*ROOMS} - {"launcher", "sweep", "report", "feedback"}
ROOMS |= {
    "run": " ".join(_BELOW),
    "command": " ".join({*_BELOW, "run", "feedback"}),
    "planning": " ".join({*_BELOW, "run", "command"}),
    "cli": " ".join({*ROOMS, "run", "command", "planning"}),
}
LIGHT = (
    "errors",
    "former_names",
    "files",
    "redaction",
    "config",
    "trust",
    "started_as",
    "progress",
    "launcher",
    "sweep",
    "report",
    "feedback",
)
LOADERS = {  # what each may call; all look before they load
    MODULES["genlab.checkpoint.read"]: {"torch.load"},
    MODULES["genlab.metrics.extractor.weights"]: {"torch.load", "torch.jit.load"},
}
# A family inside another, on other data; and those that train another further.
MADE_OF = {
    "genlab.model.latent_diffusion": {"genlab.model.diffusion"},
    "genlab.model.control": {"genlab.model.diffusion"},
    "genlab.model.concept": {"genlab.model.diffusion"},
    "genlab.model.diffusion_preference": {"genlab.model.diffusion"},
    "genlab.model.diffusion_policy": {"genlab.model.diffusion"},
    "genlab.model.progan": {"genlab.model.gan"},
    "genlab.model.factor_vae": {"genlab.model.vae"},
    "genlab.model.reference": {"genlab.model.transformer"},
    "genlab.model.reward": {"genlab.model.reward_model"},
    "genlab.model.image_reward": {"genlab.model.reward_model"},
}
KNOWN_TO_NETWORKS = {f"genlab.model.{name}" for name in ("condition_kind", "elsewhere", "frozen_features", "gathered")}
KNOWN_TO_ALIGNMENT = {f"genlab.model.{name}" for name in ("blocks", "elsewhere", "frozen_features")}
PARTS = ("network", "objective", "sampler", "guidance", "likelihood", "quantizer", "hint", "alignment")


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Modules that a file imports, wherever it does; or at its top alone, which happens whenever it is imported."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in inner)


def imported(name: str) -> set[str]:
    return set(imports(MODULES[name]))


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room(name: str) -> str:
    return [*name.split("."), ""][1]


def test_the_page_names_every_room() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text()
    table = page[page.index("## Where things are") : page.index("## How a run starts")]
    named = {name if (SOURCE / "genlab" / f"{name}.py").exists() else f"{name}/" for name in ROOMS}
    assert sorted(name for name in named if f"`{name}" not in table) == []


def test_the_reader_sees_what_is_there() -> None:
    assert {"genlab.model.diffusion", "genlab.model.classifier"} <= FAMILIES
    assert "genlab.model.base" in imported("genlab.model.diffusion")
    assert "genlab.run.run_folder" in imported("genlab.command.train")  # from genlab.run import run_folder
    assert "genlab.command.train" in imported("genlab.cli")  # inside a function


@pytest.mark.parametrize("name", sorted(MODULES))
def test_rooms_import_one_way(name: str) -> None:
    if name != "genlab":
        others = {room(other) for other in imported(name) if inside(other, "genlab")}
        assert others - {"", "configs", room(name)} <= set(ROOMS[room(name)].split())


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) in LIGHT))
def test_what_starts_at_once_imports_no_torch(name: str) -> None:
    assert not {other.split(".")[0] for other in imported(name)} & {"torch", "pytorch_lightning"}


def test_the_command_line_starts_without_torch() -> None:
    """Whatever is imported with it: the tops of modules alone, for the rest is imported when it is needed."""
    found, new = set(), {"genlab", "genlab.cli"}
    while new:
        found |= new
        new = {other for name in new & set(MODULES) for other in imports(MODULES[name], everywhere=False)} - found
    assert {"genlab.command.help", "genlab.machine.torchvision_ops"} <= found
    assert not {name.split(".")[0] for name in found} & {"torch", "pytorch_lightning", "torchvision", "numpy"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_programs_call_the_command_line(path: Path) -> None:
    own = {name for name in imports(path) if inside(name, "genlab")}
    # train_* makes a file that comes with genlab, benchmark* figures of its documentation
    assert own == {"genlab.cli"} or path.name.startswith(("train_", "benchmark", "docs_", "record_", "run_")), own


def test_commands_do_not_call_each_other() -> None:
    for name in ("train", "sample", "evaluate"):
        commands = {f"genlab.command.{other}" for other in ("train", "sample", "evaluate", "verify")}
        assert not imported(f"genlab.command.{name}") & commands


@pytest.mark.parametrize("name", sorted(set(MODULES)))
def test_families_are_chosen_by_a_config_alone(name: str) -> None:
    assert imported(name) & FAMILIES <= MADE_OF.get(name, set())


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if any(inside(name, f"genlab.model.{p}") for p in PARTS))
)
def test_parts_of_a_model_never_meet(name: str) -> None:
    own = next(f"genlab.model.{part}" for part in PARTS if inside(name, f"genlab.model.{part}"))
    for other in imported(name):
        top = other.split(".")[0]
        allowed = (
            top in {"torch", "numpy", "scipy", *sys.stdlib_module_names}
            or inside(other, own)
            or other == "genlab.seeding"
            or (other in KNOWN_TO_NETWORKS and own == "genlab.model.network")
            or (other == "genlab.model.elsewhere" and own == "genlab.model.guidance")
            or (other in KNOWN_TO_ALIGNMENT and own == "genlab.model.alignment")
        )
        assert allowed, f"{name} imports {other}"


@pytest.mark.parametrize(
    "name", sorted(n for n in MODULES if inside(n, "genlab.metrics") or inside(n, "genlab.callbacks"))
)
def test_metrics_and_callbacks_know_the_contract_of_models_and_no_model(name: str) -> None:
    models = {other for other in imported(name) if inside(other, "genlab.model")}
    contract = {
        "genlab.model.answering",
        "genlab.model.base",
        "genlab.model.classes",
        "genlab.model.condition",
        "genlab.model.elsewhere",
        "genlab.model.likelihood_settings",
        "genlab.model.representation",
    }
    arithmetic = {f"genlab.model.{name}" for name in ("averages", "bits_per_dim", "float32", "spectral_norm")}
    assert models <= {*contract, *arithmetic}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if inside(name, "genlab.report")))
def test_reports_read_files_and_build_nothing(name: str) -> None:
    own = {other for other in imported(name) if inside(other, "genlab")}
    builders = {f"genlab.config.{part}" for part in ("build", "annotation", "slots")}
    services = {other for other in own if inside(other, "genlab.logger")} - {"genlab.logger.wandb_mode"}
    assert not (own & builders) | services
    arithmetic = {"numpy", "scipy", "matplotlib", "optuna"}
    allowed = {"PIL", "yaml", "jinja2", "markupsafe", "wandb", *arithmetic, *sys.stdlib_module_names}
    assert {other.split(".")[0] for other in imported(name) - own} <= allowed


# Who may name a key of conditions: what they are, what embeds and classifies them, data that have them, and metrics
# that are about labels; and the option of the command line.
OF_LABELS = ("batches", "bootstrap", "class_balance", "class_variety", "classes", "classification_accuracy_score",
             "clip_score", "intra_class_fid", "label_accuracy", "lpips_diversity", "ms_ssim")  # fmt: skip
NAMES_LABELS = (
    *(f"genlab.model.{name}" for name in ("condition", "condition_kind", "network", "classifier")),
    "genlab.data",
    "genlab.config.renamed_options",
    "genlab.command.directions",
    "genlab.command.edit",
    "genlab.command.options",
    "genlab.command.sample",
    "genlab.command.edit",
    "genlab.rewards.label",
    *(f"genlab.metrics.{name}" for name in OF_LABELS),
)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_condition_is_more_than_a_label(name: str) -> None:
    if not any(inside(name, other) for other in NAMES_LABELS):
        found = [
            node.value for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Constant)
        ]
        assert "label" not in found


@pytest.mark.parametrize("name", sorted(name for name in MODULES if not inside(name, "genlab.data")))
def test_what_data_are_is_not_asked_of_their_class(name: str) -> None:
    """Their spec says it, and a task knows what it is of."""
    asked = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
    ]
    assert not [call for call in asked if "TextDataModule" in call]


def test_samples_are_written_in_one_room() -> None:
    """PNG files, arrays and texts of samples, and grids of them."""
    writers = {"save_grid", "save_png", "write_texts", "write_images", "np.savez"}
    found = {name for name, path in MODULES.items() if calls(path) & writers}
    others = {
        "genlab.callbacks.samples",
        "genlab.callbacks.text_samples",
        "genlab.callbacks.answer_samples",
        "genlab.callbacks.reconstructions",
    }  # which hand theirs to the room
    assert {room(name) for name in found - others} == {"sampling"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_names_say_what_is_inside(name: str) -> None:
    forbidden = {"utils", "util", "common", "helpers", "helper", "components", "misc", "registry"}
    assert not forbidden & set(name.split("."))


def test_files_of_tests_have_names_of_their_own() -> None:
    """Or pytest, which imports them by these, collects none of the second one's folder."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted({*names})


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS], ids=lambda path: path.name)
def test_files_are_loaded_as_plain_weights_in_one_place(path: Path) -> None:
    loads = {"torch.load", "torch.hub.load", "torch.jit.load", "pickle.load", "pickle.loads", "pickle.Unpickler",
             "instantiate", "hydra.utils.instantiate", "eval", "exec", "yaml.load", "yaml.unsafe_load"}  # fmt: skip
    # Inception's weights are read by torch-fidelity, after a look at them that refuses code. CLIP's are TorchScript.
    assert not calls(path) & (loads - LOADERS.get(path, set()))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
    assert "hydra.utils" not in set(imports(path))
