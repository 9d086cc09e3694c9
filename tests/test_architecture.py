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
TOP = {
    f"genlab.{name}"
    for name in ("cli", "experiment", "dry_run", "resuming", "inference", "evaluate", "verify", "assemble", "adoption",
                 "planning.plan", "planning.table", "planning.probe", "planning.upkeep", "planning.clock",
                 "planning.knobs")
}  # they may know everything below them  # fmt: skip
LOADERS = {  # what each may call; all look before they load
    MODULES["genlab.checkpoint"]: {"torch.load"},
    MODULES["genlab.metrics.extractor.weights"]: {"torch.load", "torch.jit.load"},
}
MADE_OF = {"genlab.model.latent_diffusion": {"genlab.model.diffusion"}}  # a family inside another, on other data
PARTS = ("network", "objective", "sampler", "guidance", "likelihood", "quantizer")


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_the_page_names_every_module_at_the_top() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text()
    table = page[page.index("## Where things are") : page.index("## How a run comes about")]
    modules = {path.name for path in (SOURCE / "genlab").glob("[a-z]*.py")}
    assert sorted(name for name in modules if f"{name}`" not in table) == []


def test_the_reader_sees_what_is_there() -> None:
    assert {"genlab.model.diffusion", "genlab.model.classifier"} <= FAMILIES
    assert "genlab.model.base" in imported("genlab.model.diffusion")
    assert "genlab.run_folder" in imported("genlab.experiment")  # from genlab import run_folder
    assert "genlab.experiment" in imported("genlab.cli")  # inside a function


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_programs_call_the_command_line(path: Path) -> None:
    own = {name for name in imports(path) if inside(name, "genlab")}
    # train_* makes a file that comes with genlab, benchmark_* figures of its documentation
    assert own == {"genlab.cli"} or path.name.startswith(("train_", "benchmark_", "docs_", "record_", "run_")), own


@pytest.mark.parametrize("name", sorted(set(MODULES) - TOP))
def test_nothing_below_imports_the_top(name: str) -> None:
    assert not imported(name) & TOP


def test_the_top_runs_one_way_too() -> None:
    assert not imported("genlab.experiment") & {"genlab.cli", "genlab.inference"}
    assert not imported("genlab.evaluate") & {"genlab.cli", "genlab.experiment"}
    assert not imported("genlab.inference") & {"genlab.cli", "genlab.evaluate"}
    assert not imported("genlab.assemble") & {"genlab.cli", "genlab.experiment", "genlab.inference"}


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
            or (other == "genlab.model.condition_kind" and own == "genlab.model.network")
        )
        assert allowed, f"{name} imports {other}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if inside(name, "genlab.data")))
def test_data_know_no_model(name: str) -> None:
    assert not [other for other in imported(name) if inside(other, "genlab.model") or inside(other, "genlab.metrics")]


@pytest.mark.parametrize(
    "name", sorted(n for n in MODULES if inside(n, "genlab.metrics") or inside(n, "genlab.callbacks"))
)
def test_metrics_and_callbacks_know_the_contract_of_models_and_no_model(name: str) -> None:
    models = {other for other in imported(name) if inside(other, "genlab.model")}
    contract = {
        "genlab.model.base",
        "genlab.model.classes",
        "genlab.model.condition",
        "genlab.model.likelihood_settings",
    }
    assert models <= {*contract, "genlab.model.bits_per_dim", "genlab.model.spectral_norm"}  # these are arithmetic
    if inside(name, "genlab.metrics"):
        assert not [other for other in imported(name) if inside(other, "genlab.callbacks")]


@pytest.mark.parametrize("name", sorted(name for name in MODULES if inside(name, "genlab.report")))
def test_reports_read_files_and_build_nothing(name: str) -> None:
    for other in imported(name):
        top = other.split(".")[0]
        light = {"genlab.errors", "genlab.config", "genlab.paths", "genlab.redaction", "genlab.wandb_mode",
                 "genlab.progress", "genlab.regular_file", "genlab.renamed_options",
                 "genlab.spreadsheet", "genlab.started_as"}  # fmt: skip
        own = inside(other, "genlab.report") or other in light
        arithmetic = {"numpy", "scipy", "matplotlib", "optuna"}
        allowed = {"PIL", "yaml", "jinja2", "markupsafe", "wandb", *arithmetic, *sys.stdlib_module_names}
        assert own or top in allowed, f"{name} imports {other}"


@pytest.mark.parametrize(
    "name", sorted(n for n in MODULES if inside(n, "genlab.sweep") or inside(n, "genlab.launcher"))
)
def test_sweeps_know_trials_by_their_commands_and_files(name: str) -> None:
    allowed = {"errors", "config", "overrides", "paths", "places", "build", "redaction", "occupied", "storage",
               "regular_file", "started_as", "strangers", "launcher", "sweep"}  # fmt: skip
    for other in imported(name):
        if other.split(".")[0] == "genlab":
            assert other.split(".")[1] in allowed, f"{name} imports {other}"
        assert other.split(".")[0] not in ("torch", "pytorch_lightning")
    if inside(name, "genlab.launcher"):
        assert not [other for other in imported(name) if inside(other, "genlab.sweep")]


# Who may name a key of conditions: what they are, what embeds and classifies them, data that have them, and metrics
# that are about labels; and the option of the command line.
NAMES_LABELS = ("genlab.model.condition", "genlab.model.condition_kind", "genlab.model.network",
                "genlab.model.classifier", "genlab.data",
                "genlab.renamed_options", "genlab.options", "genlab.inference",
                *(f"genlab.metrics.{name}" for name in (
                    "batches", "bootstrap", "class_balance", "class_variety", "classes",
                    "classification_accuracy_score", "clip_score", "intra_class_fid", "label_agreement",
                    "lpips_diversity")))  # fmt: skip


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_condition_is_more_than_a_label(name: str) -> None:
    if not any(inside(name, other) for other in NAMES_LABELS):
        found = [
            node.value for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Constant)
        ]
        assert "label" not in found


def test_config_and_command_line_start_without_torch() -> None:
    def at_the_top(name: str) -> set[str]:
        tree = ast.parse(MODULES[name].read_text())
        nodes = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        module = ast.Module(body=list(nodes), type_ignores=[])
        return {alias.name for n in ast.walk(module) if isinstance(n, ast.Import) for alias in n.names} | {
            str(n.module) for n in ast.walk(module) if isinstance(n, ast.ImportFrom)}  # fmt: skip

    light = {"genlab.cli", "genlab.config", "genlab.config_files", "genlab.errors", "genlab.home", "genlab.options",
             "genlab.overrides", "genlab.paths", "genlab.places", "genlab.pointers", "genlab.quantities",
             "genlab.redaction", "genlab.renamed_options", "genlab.started_as", "genlab.strangers",
             "genlab.usage"}  # fmt: skip
    for name in ("genlab", *sorted(light)):
        heavy = {other for other in at_the_top(name) if other.split(".")[0] in ("torch", "pytorch_lightning")}
        own = {other for other in at_the_top(name) if inside(other, "genlab")}
        assert not heavy
        assert own <= light | {"genlab", "genlab.configs", "genlab.torchvision_ops"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_names_say_what_is_inside(name: str) -> None:
    forbidden = {"utils", "util", "common", "helpers", "helper", "components", "misc", "registry"}
    assert not forbidden & set(name.split("."))


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


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda path: path.name)
def test_a_file_fits_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
